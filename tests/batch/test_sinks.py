"""Where records are written."""

import os
from pathlib import Path

import pytest
from photos import photo

from git_model.batch.items import ArchiveMember, Input
from git_model.batch.sinks import ShardSink, TableSink, TextFileSink, find_sink, make_sink_folder
from git_model.utils.errors import GITError

RECORD = {"file_name": "a/b.jpg", "text": "a cat"}


def beside(folder: Path, extension: str | None = None) -> TextFileSink:
    sink = find_sink(None, extension, str(folder))
    assert isinstance(sink, TextFileSink)
    return sink


@pytest.mark.parametrize("extension", [None, ".txt", "caption"])
def test_a_text_lies_beside_its_image(tmp_path: Path, extension: str | None) -> None:
    item = Input("a/b.jpg", photo(tmp_path / "a" / "b.jpg"))
    sink = beside(tmp_path, extension)
    assert sink.old_text(item) is None
    sink.write(item, RECORD)
    sink.write(item, RECORD)
    path = tmp_path / "a" / f"b.{(extension or 'txt').lstrip('.')}"
    assert path.read_text() == "a cat\n"
    assert sink.old_text(item) == "a cat"
    assert len(list((tmp_path / "a").iterdir())) == 2


def test_several_texts_are_lines(tmp_path: Path) -> None:
    item = Input("b.jpg", photo(tmp_path / "b.jpg"))
    beside(tmp_path).write(item, RECORD | {"text": ["a cat", "an animal"]})
    assert (tmp_path / "b.txt").read_text() == "a cat\nan animal\n"


def test_another_folder_mirrors_that_of_the_images(tmp_path: Path) -> None:
    item = Input("a/b.jpg", photo(tmp_path / "in" / "a" / "b.jpg"))
    sink = find_sink(str(tmp_path / "out"), None, str(tmp_path / "in"))
    sink.write(item, RECORD)
    assert (tmp_path / "out" / "a" / "b.txt").read_text() == "a cat\n"
    assert sink.path == tmp_path / "out"
    assert not (tmp_path / "in" / "a" / "b.txt").exists()


@pytest.mark.parametrize("key", ["../x", "/x", "a/../../x", "C:\\x"])
def test_no_key_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    sink = find_sink(str(tmp_path / "out"), None, "x.tsv")
    with pytest.raises(GITError, match="leaves its folder"):
        sink.write(Input(key, ArchiveMember(tmp_path / "x.tsv", 0, 1)), RECORD)
    assert not (tmp_path / "out").exists()


def test_two_images_cannot_have_one_text_file(tmp_path: Path) -> None:
    first, second = (Input(name, photo(tmp_path / name)) for name in ("a.JPG", "a.png"))
    sink = beside(tmp_path)
    sink.write(first, RECORD)
    with pytest.raises(GITError, match=r"a\.png: a\.JPG would have the same text file"):
        sink.write(second, RECORD | {"text": "a dog"})
    assert sink.old_text(second) is None
    assert (tmp_path / "a.txt").read_text() == "a cat\n"


def test_bytes_that_are_not_utf_8_outlive_what_is_joined_to_them(tmp_path: Path) -> None:
    item = Input("b.jpg", photo(tmp_path / "b.jpg"))
    (tmp_path / "b.txt").write_bytes(b"caf\xe9\n")
    sink = beside(tmp_path)
    sink.write(item, RECORD | {"text": f"{sink.old_text(item)}, a cat"})
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
    sink = find_sink(str(tmp_path / "new" / f"x{suffix}"), None, "")
    assert not (tmp_path / "new").exists()
    make_sink_folder(sink)
    assert isinstance(sink, TableSink)
    assert list(sink.old_records()) == []
    sink.finish([(None, RECORD)])
    assert [record["text"] for record in sink.old_records()] == ["a cat"]

    def failing():
        yield None, RECORD | {"text": "a dog"}
        raise GITError("the journal is gone")

    with pytest.raises(GITError, match="gone"):
        sink.finish(failing())
    assert [record["text"] for record in sink.old_records()] == ["a cat"]
    assert len(list(sink.path.parent.iterdir())) == 1


def test_the_name_says_which_sink(tmp_path: Path) -> None:
    assert isinstance(find_sink(str(tmp_path / "x-{00..99}.tar"), None, ""), ShardSink)
    (tmp_path / "x.d").mkdir()
    assert isinstance(find_sink(str(tmp_path / "x.d"), None, ""), TextFileSink)
    (tmp_path / "list.txt").touch()
    assert find_sink(None, None, str(tmp_path / "list.txt")).path == tmp_path
    assert find_sink(None, None, str(tmp_path / "*.jpg")).path == tmp_path


@pytest.mark.parametrize(
    ("out", "extension", "source", "message"),
    [
        ("x.docx", None, "", "expected a folder, or a file that ends in .jsonl"),
        ("x.csv", "txt", "", "an extension is for text files"),
        (None, "", "photos", "the extension is ''"),
        (None, "a/b", "photos", "the extension is 'a/b'"),
        (None, ".JPG", "photos", "the texts would replace the images"),
        ("x-{0..5}.tar", None, "", "expected the shards' numbers as"),
        (None, None, "x.tar", "expected --out"),
        (None, None, "x.tsv", "expected --out"),
    ],
)
def test_what_cannot_be_a_sink_is_refused(
    out: str | None, extension: str | None, source: str, message: str
) -> None:
    with pytest.raises(GITError, match=message):
        find_sink(out, extension, source)


@pytest.mark.timeout(120)
def test_a_pipe_beside_an_image_or_as_the_output_is_a_refusal_and_no_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    os.mkfifo(tmp_path / "out.jsonl")
    image = Input("a.png", photo(tmp_path / "a.png"))
    sink = find_sink(None, None, str(tmp_path))
    assert sink.old_text(image) is None
    with pytest.raises(GITError, match=r"a\.txt: a pipe, socket or device, expected a file"):
        sink.write(image, {"text": "a cat"})
    with pytest.raises(GITError, match=r"out\.jsonl: a pipe, socket or device, expected a file"):
        make_sink_folder(find_sink(str(tmp_path / "out.jsonl"), None, str(tmp_path)))
