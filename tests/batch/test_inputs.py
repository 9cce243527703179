"""Inputs by the name of their source: every form, wrong usage at once, memory that stays small."""

import base64
import io
import json
import os
import random
import sys
import tarfile
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photos import photo, photo_bytes, write_tar

from git_model.batch.inputs import InputOptions, find_inputs
from git_model.batch.items import Input, RefusedInput
from git_model.utils.errors import GITError


def find(source, **options):
    inputs = find_inputs(str(source), InputOptions(**options))
    items = list(inputs)
    assert list(inputs) == items
    return items


def keys(source, **options):
    return [item.key for item in find(source, **options)]


def refusal(source, **options):
    with pytest.raises(GITError) as error:
        find_inputs(str(source), InputOptions(**options))
    [line] = str(error.value).splitlines()
    return line


@pytest.fixture
def photos(tmp_path):
    for name in ("1.png", "2.png", "a/3.png"):
        photo(tmp_path / "photos" / name)
    return tmp_path / "photos"


# Forms


def test_every_form_names_the_same_images(photos, monkeypatch):
    names = ["1.png", "2.png", "a/3.png"]
    lines = "".join(f"{name}\n" for name in names)
    for suffix in ("txt", "lst", "LIST"):
        (photos / f"x.{suffix}").write_text(lines)
    (photos / "x.csv").write_text(f"path\n{lines}")
    (photos / "x.jsonl").write_text("".join(json.dumps({"path": name}) + "\n" for name in names))
    pq.write_table(pa.table({"path": names}), photos / "x.parquet")
    for suffix in ("txt", "lst", "LIST", "csv", "jsonl", "parquet"):
        assert keys(photos / f"x.{suffix}") == names
    assert keys(photos) == keys(photos / "**") == names
    assert keys(photos, recursive=False) == keys(photos / "*.png") == names[:2]
    assert keys(photos / "1.png") == names[:1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert keys("-", root=photos) == names


def test_what_lies_in_one_file_is_found(tmp_path):
    write_tar(tmp_path / "x.tar", {"1.png": photo_bytes(), "2.mp4": b"x"})
    (tmp_path / "x.tsv").write_bytes(b"1\t" + base64.b64encode(photo_bytes()))
    for source, key in (("x.tar", "1.png"), ("x.tsv", "1")):
        [item] = find(tmp_path / source)
        assert item.key == key
        assert item.read() == photo_bytes()
    assert keys(tmp_path / "x.tar", videos=True) == ["1.png", "2.mp4"]


@pytest.mark.parametrize("pattern", ["{000..002}.tar", "*.tar", "00?.tar"])
def test_shards_are_named_by_a_pattern(tmp_path, pattern):
    for name in ("000", "001", "002"):
        write_tar(tmp_path / f"{name}.tar", {"1.png": photo_bytes()})
    assert keys(tmp_path / pattern) == ["000/1.png", "001/1.png", "002/1.png"]


def test_videos_count_in_a_folder_for_models_that_read_them(photos):
    (photos / "b.mp4").touch()
    assert "b.mp4" not in keys(photos)
    assert "b.mp4" in keys(photos, videos=True)
    assert keys(photos / "*.mp4") == keys(photos / "b.mp4") == ["b.mp4"]


def test_a_file_may_be_named_like_a_pattern(photos):
    photo(photos / "[1].png")
    assert keys(photos / "[1].png") == ["[1].png"]


def test_paths_lie_in_the_folder_of_their_list_or_in_another(photos, tmp_path):
    (tmp_path / "x.txt").write_text("photos/1.png\n")
    assert find(tmp_path / "x.txt") == [Input("photos/1.png", photos / "1.png")]
    (tmp_path / "x.txt").write_text(f"1.png\n{photos}/a/3.png\n")
    assert keys(tmp_path / "x.txt", root=photos) == ["1.png", "a/3.png"]
    [bad, _] = find(tmp_path / "x.txt", root=photos / "a")[::-1]
    assert bad.key == "3.png"


# Questions


def test_every_question_is_asked_about_every_image(photos):
    (photos / "x.txt").write_text("1.png\n../no.png\n2.png\n")
    items = find(photos / "x.txt", questions=("what?", "who?"))
    assert [(item.key, getattr(item, "question", None)) for item in items] == [
        ("1.png", "what?"),
        ("1.png", "who?"),
        ("x.txt: line 2", None),
        ("2.png", "what?"),
        ("2.png", "who?"),
    ]


def test_questions_come_from_a_column_or_a_list_not_both(photos):
    (photos / "x.csv").write_text("path,q\n1.png,what?\n")
    [item] = find(photos / "x.csv", question_column="q")
    assert item.question == "what?"
    line = refusal(photos / "x.csv", question_column="q", questions=("who?",))
    assert line == "questions come from a column or from a list, expected one of the two"


# Wrong usage


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "a source is empty, expected a folder, an image or a list"),
        ("none", "none: there is no such file or folder"),
        ("none.jpg", "none.jpg: there is no such file or folder"),
        ("none.csv", "none.csv: there is no such file or folder"),
        ("none.tar", "none.tar: no such shard, expected a tar file"),
        ("{0..9}.tar", "0.tar: no such shard, expected a tar file"),
        ("n*.tar", "n*.tar: no shard has such a name, expected at least one"),
        ("none/*.jpg", "none: there is no such folder"),
        ("n*.jpg", "n*.jpg: there are no images in it, expected at least one"),
        ("empty", "empty: there are no images in it, expected at least one"),
        ("empty.txt", "empty.txt: there are no images in it, expected at least one"),
        ("empty.tsv", "empty.tsv: there are no images in it, expected at least one"),
        ("empty.doc", "empty.doc: expected a folder, an image, or a file that ends in .txt, .lst"),
        ("pipe.txt", "pipe.txt: there is no such file or folder"),
        *(
            (name, f"{name}: a compressed file, expected a folder, a plain tar or the like: unpack")
            for name in ("a.tar.gz", "a.TGZ", "a.zip", "a.7z", "list.txt.gz")
        ),
        ("x" * 300, "File name too long"),
        ("x\0", "x\\x00: there is no such file or folder"),
        ("line\nend\udcff", r"line\nend\udcff: there is no such file or folder"),
    ],
)
@pytest.mark.timeout(120)
def test_a_source_that_cannot_be_is_refused_at_once(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    for name in ("empty.txt", "empty.tsv", "empty.doc"):
        Path(name).touch()
    os.mkfifo("pipe.txt")
    assert message in refusal(source)


def test_an_empty_stream_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert refusal("-").startswith("standard input: there are no images in it")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("", {"root": Path()}, "--root is for lists and tables of paths"),
        ("1.png", {"root": Path()}, "--root is for lists and tables of paths"),
        ("*.png", {"root": Path()}, "--root is for lists and tables of paths"),
        ("", {"path_column": "a"}, "--path-column is for tables (.json, .jsonl, .csv, .parquet)"),
        ("x.txt", {"path_column": "a"}, "--path-column is for tables (.json, .jsonl, .csv"),
        ("x.txt", {"question_column": "a"}, "--question-column is for tables (.json, .jsonl, .csv"),
    ],
)
def test_an_option_that_a_form_has_no_use_for_is_refused(photos, source, options, message):
    (photos / "x.txt").write_text("1.png\n")
    assert message in refusal(photos / source, **options)


# Memory


def lines_of(path, n):
    path.write_text("".join(f"{i // 1000}/{i}.jpg\n" for i in range(n)))


def rows_of_csv(path, n):
    path.write_text("path,q\n" + "".join(f"{i // 1000}/{i}.jpg,what {i}?\n" for i in range(n)))


def rows_of_json(path, n):
    path.write_text("".join(f'{{"path": "{i // 1000}/{i}.jpg"}}\n' for i in range(n)))


def rows_of_tsv(path, n):
    path.write_text("".join(f"{i}\tAAAA\n" for i in range(n)))


def rows_with_index(path, n):
    rows_of_tsv(path, n)
    starts, start = [], 0
    for i in range(n):
        starts.append(f"{start}\n")
        start += len(f"{i}\tAAAA\n")
    path.with_suffix(".lineidx").write_text("".join(starts))


def members(path, n):
    with path.open("wb") as file:
        block = bytearray(tarfile.TarInfo("000000.jpg").tobuf())
        for i in range(n):
            block[:6] = b"%06d" % i
            checked = block[:148] + b" " * 8 + block[156:]
            block[148:156] = b"%06o\0 " % sum(checked)
            file.write(block)
        file.write(bytes(1024))


def files(path, n):
    for folder in range(n // 100):
        (path / str(folder)).mkdir(parents=True)
        for i in range(100):
            (path / str(folder) / f"{i}.jpg").touch()


def peak_of(make, path, n):
    """The most memory that Python held while it walked n inputs, which it counts."""
    make(path, n)
    photo(path.parent / "0" / "0.jpg")  # of a list some file must exist
    inputs = find_inputs(str(path), InputOptions())
    tracemalloc.start()
    n_inputs = sum(isinstance(item, Input) for item in inputs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_inputs == n
    return peak


@pytest.mark.parametrize("n", [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lines_of, "x.txt"),
        (rows_of_csv, "x.csv"),
        (rows_of_json, "x.jsonl"),
        (rows_of_tsv, "x.tsv"),
        (rows_with_index, "x.tsv"),
        (members, "x.tar"),
        (files, "x"),
    ],
)
def test_memory_does_not_grow_with_the_number_of_inputs(tmp_path, make, name, n):
    few = peak_of(make, tmp_path / f"few-{name}", n // 10)
    # Python's own table of names is copied now and then, which takes 80 bytes an input once; inputs
    # that were kept would take 300
    limit = few + 100 * n + 300_000
    many = (peak_of(make, tmp_path / f"many-{turn}-{name}", n) for turn in range(2))
    assert any(peak < limit for peak in many)


def test_memory_for_parquet_does_not_grow_with_the_number_of_rows(tmp_path):
    path, n = tmp_path / "x.parquet", 30_000
    rng = random.Random(0)
    names = [f"{rng.random()}{rng.random()}.jpg" for _ in range(n)]
    photo(tmp_path / names[0])
    pq.write_table(pa.table({"path": names}), path, row_group_size=1_000, use_dictionary=False)
    peak = n_inputs = 0
    before = pa.total_allocated_bytes()
    for item in find_inputs(str(path), InputOptions()):
        n_inputs += isinstance(item, Input)
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert n_inputs == n
    assert peak < path.stat().st_size / 3
    assert not any(
        isinstance(item, RefusedInput) for item in find_inputs(str(path), InputOptions())
    )
