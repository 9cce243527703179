"""Several sources at once, of any kinds; what is not taken; what is no list; bounded rows."""

import io
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_runs import records, run_sources, table, texts, tiny_captioner
from photos import colour_of, photo, photo_bytes, write_tar

from git_model.batch import items, table_readers
from git_model.batch.inputs import InputOptions, find_inputs
from git_model.batch.items import Input, RefusedInput
from git_model.batch.sinks import find_sink
from git_model.utils.errors import MAX_ERROR_LENGTH, GITError


def keys(*sources: object, **options: Any) -> list[str]:
    return [item.key for item in find_inputs(list(map(str, sources)), InputOptions(**options))]


def refusal(*sources: object, **options: Any) -> str:
    with pytest.raises(GITError) as error:
        find_inputs(list(map(str, sources)), InputOptions(**options))
    return str(error.value)


@pytest.fixture
def places(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/in/3.png", "c.png"):
        photo(tmp_path / name)
    return tmp_path


# Several sources


def test_sources_of_all_kinds_come_in_their_order(places: Path) -> None:
    write_tar(places / "t.tar", {"1.png": photo_bytes()})
    (places / "list.txt").write_text("b/1.png\nhttps://example.org/x.jpg\n")
    names = keys(
        places / "c.png", places / "a", places / "b" / "**", places / "t.tar", places / "list.txt",
        "https://example.org/y.jpg?size=1",
    )  # fmt: skip
    assert names == [
        "c.png", "a/1.png", "a/2.png", "b/1.png", "b/in/3.png", "t/1.png", "b/1.png",
        "https://example.org/x.jpg", "https://example.org/y.jpg?size=1",
    ]  # fmt: skip


def test_keys_begin_below_the_folder_that_all_sources_have_in_common(places: Path) -> None:
    assert keys(places / "a" / "1.png", places / "a" / "2.png") == ["1.png", "2.png"]
    assert keys(places / "a" / "1.png", places / "b" / "1.png") == ["a/1.png", "b/1.png"]
    assert keys(places / "b", places / "b" / "in") == ["1.png", "in/3.png", "in/3.png"]
    assert keys(places / "a") == ["1.png", "2.png"]


def test_files_of_one_name_in_two_folders_get_two_texts(places: Path) -> None:
    photo(places / "b" / "1.png", "blue")
    sources = [places / "a", places / "b"]
    captioner = tiny_captioner()
    out = places / "out"
    summary = run_sources(captioner, sources, find_sink(str(out), None, "unused"))
    assert (summary["written"], summary["failed"]) == (4, 0)
    assert set(texts(out)) == {"a/1.txt", "a/2.txt", "b/1.txt", "b/in/3.txt"}
    summary = run_sources(captioner, sources, find_sink(None, None, list(map(str, sources))))
    assert summary["written"] == 4
    assert (places / "a" / "1.txt").exists()
    assert (places / "b" / "in" / "3.txt").exists()
    assert (places / "a" / "batch.json").exists()


def test_a_file_that_two_sources_name_is_one_input(places: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(places)
    (places / "list.txt").write_text("./a/1.png\n")
    sources = ["a", "a/../a/1.png", places / "a" / "2.png", "list.txt"]
    summary = run_sources(tiny_captioner(), sources, table(places / "out.jsonl"))
    assert (summary["written"], summary["repeated"], summary["failed"]) == (2, 3, 0)


def test_a_source_that_is_not_there_or_empty_is_refused_by_name(places: Path) -> None:
    assert "none: there is no such file" in refusal(places / "a", places / "none")
    (places / "empty").mkdir()
    assert "empty: there are no images" in refusal(places / "a", places / "empty")
    assert "the sources: --root is for lists" in refusal(places / "a", places / "b", root=places)


# Web addresses


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    files = {"https://example.org/red.png": photo_bytes("red")}

    def fetched(url: str) -> bytes:
        if url not in files:
            raise GITError(f"{url}: the server answers 404 Not Found")
        return files[url]

    monkeypatch.setattr(items, "fetch", fetched)
    return files


def test_web_addresses_are_inputs_by_themselves_and_in_lists(
    places: Path, web: dict[str, bytes]
) -> None:
    [item] = find_inputs("https://example.org/red.png", InputOptions())
    assert isinstance(item, Input)
    assert colour_of(item.open(0)) == (1, 0, 0)  # type: ignore[arg-type]
    (places / "urls.csv").write_text("url\nhttps://example.org/red.png\nhttps://example.org/no\n")
    sources = [places / "urls.csv", places / "a" / "1.png"]
    summary = run_sources(tiny_captioner(), sources, table(places / "out.jsonl"))
    assert (summary["written"], summary["failed"]) == (2, 1)
    assert records(places / "out.jsonl")[0]["file_name"] == "https://example.org/red.png"
    [error] = records(places / "out.errors.jsonl")
    assert error["error"] == "https://example.org/no: the server answers 404 Not Found"


def test_texts_of_web_addresses_lie_by_host_and_path_and_never_beside(
    places: Path, web: dict[str, bytes]
) -> None:
    web["https://example.org/../../up.png"] = web["https://example.org/red.png?2"] = photo_bytes()
    sources = [*web]
    out = places / "out"
    summary = run_sources(tiny_captioner(), sources, find_sink(str(out), None, "unused"))
    assert set(texts(out)) == {"example.org/red.txt"}
    assert (summary["written"], summary["failed"]) == (1, 2)
    with pytest.raises(GITError, match="no text files can lie beside its images"):
        find_sink(None, None, sources)


# Lists


@pytest.mark.parametrize(
    "value",
    [
        ["a/1.png", "b/1.png"],
        [{"file_name": "a/1.png", "id": 7}, {"file_name": "b/1.png"}],
        {
            "images": [{"file_name": "a/1.png", "id": 7}, {"file_name": "b/1.png"}],
            "annotations": [],
        },
    ],
)
def test_json_lists_names_objects_or_cocos_images(places: Path, value: Any) -> None:
    (places / "x.json").write_text(json.dumps(value))
    assert keys(places / "x.json") == ["a/1.png", "b/1.png"]


def test_an_entry_of_json_that_names_no_file_is_refused_in_its_place(places: Path) -> None:
    (places / "x.json").write_text(json.dumps(["a/1.png", 7, "../up.png"]))
    first, second, third = find_inputs(str(places / "x.json"), InputOptions())
    assert isinstance(first, Input)
    assert isinstance(second, RefusedInput)
    assert "x.json: entry 2: found 7, expected an object" in second.reason
    assert "leads out" in third.reason  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b'{"a": 1}', "expected a list of paths"),
        ("x.json", b'["a/1.png"', "not valid JSON"),
        ("x.txt", b"Dear reader,\nthis is no list.\n", "none of its 2 lines names a file"),
        ("x.lst", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not a list"),
        ("x.csv", b"path\nnowhere.png\n", "none of its 1 lines names a file"),
        ("x.docx", b"PK\3\4", "expected a folder, an image, or a file that ends in"),
    ],
)
def test_a_file_that_is_no_list_is_refused_at_once(
    places: Path, name: str, content: bytes, message: str
) -> None:
    (places / name).write_bytes(content)
    assert message in refusal(places / name)


def test_an_image_under_another_name_is_an_image(places: Path) -> None:
    (places / "photo.jpg_large").write_bytes(photo_bytes())
    assert keys(places / "photo.jpg_large") == ["photo.jpg_large"]


# What is not taken


def test_files_that_look_like_images_and_are_not_taken_are_named(places: Path) -> None:
    photo(places / "a" / "tmp.png").rename(places / "a" / "photo.jpg!d")
    (places / "a" / "raw.CR2").touch()
    (places / "a" / "clip.mp4").touch()
    (places / "a" / ".hidden.jpg").touch()
    for name in ("notes.txt", "._1.png", "data.xyz", "a.json", "README"):
        (places / "a" / name).write_bytes(b"no image")
    inputs = find_inputs(str(places / "a"), InputOptions())
    assert list(inputs.untaken()) == [".hidden.jpg", "clip.mp4", "photo.jpg!d", "raw.CR2"]
    inputs = find_inputs(str(places / "a"), InputOptions(videos=True))
    assert list(inputs.untaken()) == [".hidden.jpg", "photo.jpg!d", "raw.CR2"]


def test_what_is_not_taken_is_named_in_patterns_tars_and_empty_folders(places: Path) -> None:
    (places / "a" / "raw.cr2").touch()
    (places / "a" / "raw.txt").touch()
    inputs = find_inputs([str(places / "a" / "*"), str(places / "b")], InputOptions())
    assert list(inputs.untaken()) == ["a/raw.cr2"]
    write_tar(places / "t.tar", {"1.png": photo_bytes(), "1.txt": b"", "1.mp4": b"", "x.nef": b""})
    assert list(find_inputs(str(places / "t.tar"), InputOptions()).untaken()) == ["1.mp4", "x.nef"]
    write_tar(places / "u.tar", {"1.png": photo_bytes(), "noext": photo_bytes(), "other": b"text",
                                 "in/2.img": photo_bytes(), "a.bin": photo_bytes()})  # fmt: skip
    inputs = find_inputs(str(places / "u.tar"), InputOptions())
    assert list(inputs.untaken()) == ["noext", "in/2.img"]
    (places / "raw").mkdir()
    (places / "raw" / "x.dng").touch()
    assert refusal(places / "raw").endswith(": x.dng")


# Bounds


def bounded(source: Path, monkeypatch: Any, **options: Any) -> list[Any]:
    found = list(find_inputs(str(source), InputOptions(**options)))
    for item in found:
        assert len(item.key) <= MAX_ERROR_LENGTH
        if isinstance(item, RefusedInput):
            assert len(item.reason) <= MAX_ERROR_LENGTH + 1
    return found


def test_a_small_parquet_file_cannot_fill_memory_or_the_list_of_errors(
    places: Path, monkeypatch: Any
) -> None:
    """The same name of 200,000 letters in 1,000 rows is a file of some KB, and 200 MB unpacked."""
    indices = pa.array([0, *[1] * 1000], pa.int32())
    names = pa.DictionaryArray.from_arrays(indices, ["a/1.png", "x" * 200_000])
    pq.write_table(pa.table({"path": names}), places / "x.parquet", compression="zstd")
    assert (places / "x.parquet").stat().st_size < 10_000
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    peak = n_refused = 0
    for item in find_inputs(str(places / "x.parquet"), InputOptions()):
        peak = max(peak, pa.total_allocated_bytes() - before)
        if isinstance(item, RefusedInput):
            n_refused += 1
            assert len(item.reason) + len(item.key) < 500
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_refused == 1000
    assert peak < 50_000_000
    assert held < 10_000_000


def test_cells_and_groups_of_parquet_are_bounded(places: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(table_readers, "MAX_LINE_BYTES", 1000)
    rows = {"path": ["a/1.png", "x" * 1000, "b/1.png"], "id": [1, 2, 3]}
    pq.write_table(pa.table(rows), places / "x.parquet")
    _, second, third = bounded(places / "x.parquet", monkeypatch)
    assert second.reason.endswith("row 2: a cell of 1000 bytes, expected fewer than 1000")
    assert third.key == "b/1.png"
    monkeypatch.setattr(table_readers, "MAX_GROUP_BYTES", 100)
    assert "expected at most 100" in refusal(places / "x.parquet")


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl", "json", "parquet"])
def test_names_and_questions_are_bounded_in_every_list(
    places: Path, monkeypatch: Any, suffix: str
) -> None:
    path, long = places / f"x.{suffix}", "y" * 20_000
    rows = [{"path": "a/1.png", "q": "what?"}, {"path": long, "q": "what?"},
            {"path": "b/1.png", "q": long}]  # fmt: skip
    if suffix == "txt":
        path.write_text(f"a/1.png\n{long}\n")
        items_of_list = bounded(path, monkeypatch)
    else:
        if suffix == "csv":
            path.write_text("path,q\n" + "".join(f"{row['path']},{row['q']}\n" for row in rows))
        elif suffix == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif suffix == "json":
            path.write_text(json.dumps(rows))
        else:
            pq.write_table(pa.Table.from_pylist(rows), path)
        items_of_list = bounded(path, monkeypatch, question_column="q")
        assert "q has 20000 characters, expected at most" in items_of_list[2].reason
    assert isinstance(items_of_list[0], Input)
    assert "a name of more than 4096 bytes" in items_of_list[1].reason


def test_a_row_of_csv_cannot_go_on_for_ever(places: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(table_readers, "MAX_LINE_BYTES", 1000)
    many = '"a\n' + '","b\n' * 400 + '"\n'
    (places / "x.csv").write_text(f"path\na/1.png\n{many}b/1.png\n")
    found = bounded(places / "x.csv", monkeypatch)
    assert isinstance(found[0], Input)
    assert any("too long" in getattr(item, "reason", "") for item in found)


def test_names_in_tars_and_rows_of_tsv_are_bounded(places: Path, monkeypatch: Any) -> None:
    write_tar(places / "t.tar", {"n" * 5000 + ".png": photo_bytes(), "2.png": photo_bytes()})
    first, second = bounded(places / "t.tar", monkeypatch)
    assert "a name of more than 4096 bytes" in first.reason
    assert second.key == "2.png"
    (places / "x.tsv").write_bytes(b"k" * 5000 + b"\tAAAA\n1\tAAAA\n")
    first, second = bounded(places / "x.tsv", monkeypatch)
    assert "its key has more than 4096 bytes" in first.reason
    assert second.key == "1"


def test_a_list_from_standard_input_stands_beside_other_sources(
    places: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(places)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a/1.png\n")))
    assert keys("-", "b") == ["a/1.png", "b/1.png", "b/in/3.png"]
