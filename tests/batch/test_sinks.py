"""Where records go."""

import os
from pathlib import Path

import pytest
from photos import photo

from git_model.batch.inputs import Input, Packed
from git_model.batch.sinks import Shards, Sidecars, Table, find_target
from git_model.utils.errors import GITError

RECORD = {"file_name": "a/b.jpg", "text": "a cat"}


def beside(folder: Path, extension: str | None = None) -> Sidecars:
    target = find_target(None, extension, str(folder))
    assert isinstance(target, Sidecars)
    return target


@pytest.mark.parametrize("extension", [None, ".txt", "caption"])
def test_a_text_lies_beside_its_picture(tmp_path: Path, extension: str | None) -> None:
    item = Input("a/b.jpg", photo(tmp_path / "a" / "b.jpg"))
    target = beside(tmp_path, extension)
    assert target.known(item) is None
    target.write(item, RECORD)
    target.write(item, RECORD)
    path = tmp_path / "a" / f"b.{(extension or 'txt').lstrip('.')}"
    assert path.read_text() == "a cat\n"
    assert target.known(item) == "a cat"
    assert len(list((tmp_path / "a").iterdir())) == 2


def test_several_texts_are_lines(tmp_path: Path) -> None:
    item = Input("b.jpg", photo(tmp_path / "b.jpg"))
    beside(tmp_path).write(item, RECORD | {"text": ["a cat", "an animal"]})
    assert (tmp_path / "b.txt").read_text() == "a cat\nan animal\n"


def test_another_folder_mirrors_that_of_the_pictures(tmp_path: Path) -> None:
    item = Input("a/b.jpg", photo(tmp_path / "in" / "a" / "b.jpg"))
    target = find_target(str(tmp_path / "out"), None, str(tmp_path / "in"))
    target.write(item, RECORD)
    assert (tmp_path / "out" / "a" / "b.txt").read_text() == "a cat\n"
    assert target.place == tmp_path / "out"
    assert not (tmp_path / "in" / "a" / "b.txt").exists()


@pytest.mark.parametrize("key", ["../x", "/x", "a/../../x", "C:\\x"])
def test_no_key_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    target = find_target(str(tmp_path / "out"), None, "x.tsv")
    with pytest.raises(GITError, match="leaves its folder"):
        target.write(Input(key, Packed(tmp_path / "x.tsv", 0, 1)), RECORD)
    assert list((tmp_path / "out").iterdir()) == []


def test_two_pictures_cannot_have_one_text_file(tmp_path: Path) -> None:
    first, second = (Input(name, photo(tmp_path / name)) for name in ("a.JPG", "a.png"))
    target = beside(tmp_path)
    target.write(first, RECORD)
    with pytest.raises(GITError, match=r"a\.png: a\.JPG would have the same text file"):
        target.write(second, RECORD | {"text": "a dog"})
    assert target.known(second) is None
    assert (tmp_path / "a.txt").read_text() == "a cat\n"


def test_bytes_that_are_not_utf_8_outlive_what_is_joined_to_them(tmp_path: Path) -> None:
    item = Input("b.jpg", photo(tmp_path / "b.jpg"))
    (tmp_path / "b.txt").write_bytes(b"caf\xe9\n")
    target = beside(tmp_path)
    target.write(item, RECORD | {"text": f"{target.known(item)}, a cat"})
    assert (tmp_path / "b.txt").read_bytes() == b"caf\xe9, a cat\n"


def test_a_name_that_is_not_utf_8_has_a_text_file_too(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    item = Input(name, photo(tmp_path / name))
    beside(tmp_path).write(item, RECORD)
    assert (tmp_path / os.fsdecode(b"caf\xe9.txt")).read_text() == "a cat\n"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    item = Input("b.jpg", photo(tmp_path / "b.jpg"))
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(GITError, match=r"b\.txt: cannot be written: "):
        beside(tmp_path).write(item, RECORD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.jpg", "b.txt"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".tsv"])
def test_a_table_is_replaced_when_the_new_one_is_whole(tmp_path: Path, suffix: str) -> None:
    target = find_target(str(tmp_path / "new" / f"x{suffix}"), None, "")
    assert isinstance(target, Table)
    assert list(target.old()) == []
    target.finish([(None, RECORD)])
    assert [one["text"] for one in target.old()] == ["a cat"]

    def failing():
        yield None, RECORD | {"text": "a dog"}
        raise GITError("the journal is gone")

    with pytest.raises(GITError, match="gone"):
        target.finish(failing())
    assert [one["text"] for one in target.old()] == ["a cat"]
    assert len(list(target.place.parent.iterdir())) == 1


def test_names_tell_the_form(tmp_path: Path) -> None:
    assert isinstance(find_target(str(tmp_path / "x-{00..99}.tar"), None, ""), Shards)
    (tmp_path / "x.d").mkdir()
    assert isinstance(find_target(str(tmp_path / "x.d"), None, ""), Sidecars)
    (tmp_path / "list.txt").touch()
    assert find_target(None, None, str(tmp_path / "list.txt")).place == tmp_path
    assert find_target(None, None, str(tmp_path / "*.jpg")).place == tmp_path


@pytest.mark.parametrize(
    ("out", "extension", "source", "told"),
    [
        ("x.docx", None, "", "expected a folder, or a file that ends in .jsonl"),
        ("x.csv", "txt", "", "an extension is for text files"),
        (None, "", "photos", "the extension is ''"),
        (None, "a/b", "photos", "the extension is 'a/b'"),
        (None, ".JPG", "photos", "the texts would take the place of the pictures"),
        ("x-{0..5}.tar", None, "", "expected the shards' numbers as"),
        (None, None, "x.tar", "expected --out"),
        (None, None, "x.tsv", "expected --out"),
    ],
)
def test_what_cannot_be_a_target_is_refused(
    out: str | None, extension: str | None, source: str, told: str
) -> None:
    with pytest.raises(GITError, match=told):
        find_target(out, extension, source)
