"""Inputs that a table names: the same whatever its form; each fault of a row is one line."""

import csv
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from git_model.batch.input_tables import table_inputs
from git_model.batch.items import Input, RefusedInput
from git_model.data.manifests import DataError

FORMS = ["jsonl", "csv", "parquet"]


def write(path, rows):
    """Rows of texts and numbers, all with the same columns, as a table of the path's form."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def opened(path, path_column=None, question_column=None):
    return table_inputs(path, path.parent, path_column, question_column)


def read(path, **columns):
    inputs = opened(path, **columns)
    items = list(inputs)
    assert list(inputs) == items
    return items


def reasons(path, **columns):
    """Why rows are refused, without their positions, which are checked."""
    refused = [item for item in read(path, **columns) if isinstance(item, RefusedInput)]
    for item in refused:
        assert item.reason.startswith(f"{path.parent}/{item.key}: ")
        assert len(item.reason.splitlines()) == 1
    return [item.reason.removeprefix(f"{path}: ") for item in refused]


@pytest.mark.parametrize("form", FORMS)
def test_a_table_names_files(tmp_path, form):
    rows = [{"n": n, "file_name": f"a/{n} é.jpg", "text": 'one,\n"two"'} for n in range(3)]
    items = read(write(tmp_path / f"x.{form}", rows))
    assert items == [Input(row["file_name"], tmp_path / row["file_name"]) for row in rows]


@pytest.mark.parametrize("form", FORMS)
def test_questions_may_stand_in_a_column(tmp_path, form):
    rows = [
        {"image": "a.jpg", "ask": " what,\nthen? ", "question_id": 7},
        {"image": "a.jpg", "ask": "who?", "question_id": 8},
    ]
    path = write(tmp_path / f"x.{form}", rows)
    image = tmp_path / "a.jpg"
    assert read(path, question_column="ask") == [
        Input("a.jpg", image, "what,\nthen?", "7"),
        Input("a.jpg", image, "who?", "8"),
    ]
    assert read(path) == [Input("a.jpg", image)] * 2


@pytest.mark.parametrize("form", FORMS)
def test_a_question_needs_no_id(tmp_path, form):
    path = write(tmp_path / f"x.{form}", [{"image": "a.jpg", "question": "who?"}])
    [item] = read(path, question_column="question")
    assert (item.question, item.question_key) == ("who?", "")


@pytest.mark.parametrize("form", FORMS)
def test_the_column_of_paths_is_known_by_its_name_or_named(tmp_path, form):
    path = write(tmp_path / f"x.{form}", [{"image": "1.jpg", "path": "2.jpg", "mine": "3.jpg"}])
    assert read(path)[0].key == "2.jpg"
    assert read(path, path_column="mine")[0].key == "3.jpg"


@pytest.mark.parametrize("form", FORMS)
def test_a_column_that_is_not_there_is_refused_at_once(tmp_path, form):
    path = write(tmp_path / f"x.{form}", [{"a": "1.jpg", "b": 2}])
    images = ", and none holds images" if form == "parquet" else ""
    for columns, message in (
        ({}, f"file_name or path or image or file or url{images}, its columns are: a, b; --path-"),
        ({"path_column": "c"}, "c, its columns are: a, b; --path-column"),
        ({"path_column": "a", "question_column": "d"}, "d, .*: a, b; --question-column"),
    ):
        with pytest.raises(DataError, match=f"no column of texts is named {message}.*names one"):
            opened(path, **columns)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["", "../a.jpg", "/etc/passwd", "a\0b.jpg"])
def test_a_row_that_names_no_file_below_the_folder_is_refused(tmp_path, form, name):
    rows = [{"path": "1.jpg", "more": ""}, {"path": name, "more": ""}, {"path": "2.jpg"}]
    first, bad, last = read(write(tmp_path / f"x.{form}", rows))
    assert (first.key, last.key) == ("1.jpg", "2.jpg")
    position = {"jsonl": "line 2", "csv": "row 3", "parquet": "row 2"}[form]
    assert bad.key == f"x.{form}: {position}"
    assert bad.reason.startswith(f"{tmp_path}/x.{form}: {position}: ")


def test_a_line_of_json_is_refused_for_its_fault(tmp_path):
    path = tmp_path / "x.jsonl"
    lines = [
        b'{"path": "1.jpg", "q": "?"}',
        b"{",
        b"",
        b"[]",
        b'{"q": "?"}',
        b'{"path": 1, "q": "?"}',
        b'{"path": "1.jpg"}',
        b'{"path": "1.jpg", "q": " "}',
        b'{"path": "1.jpg", "q": "?", "question_id": null}',
        b'{"path": "1.jpg", "q": "\\ud800"}',
        b'{"path": "\\ud800", "q": "?"}',
        b'{"path": "\xff"}',
        b"[" * 100_000,
        b"1" * (1 << 20),
        b'{"path": "2.jpg", "q": "?"}',
    ]
    path.write_bytes(b"\n".join(lines))
    lines_refused = reasons(path, question_column="q")
    assert [line.split(": ", 1)[0] for line in lines_refused] == [
        f"line {n}" for n in (2, *range(4, 15))
    ]
    for line, message in zip(
        lines_refused,
        [
            "not valid JSON",
            "found [], expected an object with path",
            "path is missing",
            "path is 1, expected a text",
            "q is missing",
            "q is empty",
            "question_id is None, expected a text",
            "expected whole characters",
            "cannot be the name of a file",
            "not UTF-8",
            "not valid JSON",
            "it is too long",
        ],
        strict=True,
    ):
        assert message in line


def test_a_first_line_that_is_damaged_spoils_no_other(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{\n{"image": "1.jpg"}\n')
    bad, good = read(path)
    assert bad.key == "x.jsonl: line 1"
    assert good.key == "1.jpg"


def test_a_row_of_csv_is_refused_for_its_fault(tmp_path):
    path = tmp_path / "x.csv"
    long = b'1.jpg,"' + b"a" * 200_000 + b'"'
    lines = [b"path,q", b"1.jpg,?", b"1.jpg", b'"1"2,?', long, b"", b"\xff.jpg,?", b"1.jpg,\xff",
             b"1.jpg," + b"a" * (1 << 20), b"2.jpg,?,more", b'"3.jpg,?', b"4.jpg,?"]  # fmt: skip
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    names = [item.name for item in read(path, question_column="q") if isinstance(item, Input)]
    assert names == ["1.jpg", "\\xff.jpg", "2.jpg"]
    for line, message in zip(
        reasons(path, question_column="q"),
        [
            "row 3: q is missing",
            "row 4: not valid CSV",
            "row 5: not valid CSV: field larger than field limit",
            "row 8: q is '\\udcff', expected whole characters",
            "row 9: it is too long",
            "row 11: not valid CSV: unexpected end of data",
        ],
        strict=True,
    ):
        assert line.startswith(message)


def test_a_csv_without_rows_has_none(tmp_path):
    (tmp_path / "x.csv").write_text("path\n")
    assert read(tmp_path / "x.csv") == []
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(DataError, match="its columns are: none at all"):
        opened(tmp_path / "x.csv")


def test_images_within_a_parquet_file_are_no_paths(tmp_path):
    rows = [{"image": {"bytes": b"x", "path": "1.jpg"}, "file": b"y", "text": "a"}]
    with pytest.raises(DataError, match=r"is named .*, its columns are: text; --path-column"):
        opened(write(tmp_path / "x.parquet", rows))


def test_texts_in_parquet_may_be_of_any_kind(tmp_path):
    names = pa.array(["1.jpg", None, "1.jpg"])
    for kind in (names, names.cast(pa.large_string()), names.dictionary_encode()):
        pq.write_table(pa.table({"path": kind}), tmp_path / "x.parquet")
        first, bad, last = read(tmp_path / "x.parquet")
        assert first == last == Input("1.jpg", tmp_path / "1.jpg")
        assert bad.reason.endswith("row 2: path is None, expected a text")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_what_is_no_parquet_file_is_one_line(tmp_path, part):
    path = write(tmp_path / "x.parquet", [{"path": "1.jpg"}])
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(DataError, match="not a Parquet file") as error:
        opened(path)
    assert len(str(error.value).splitlines()) == 1


def test_damage_within_a_parquet_file_is_one_line_after_the_rows_before_it(tmp_path):
    path = tmp_path / "x.parquet"
    rows = [{"path": f"{n}.jpg"} for n in range(4000)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2000, compression="gzip")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    path.write_bytes(data)
    *good, bad = read(path)
    assert [item.key for item in good] == [row["path"] for row in rows[: len(good)]]
    assert len(good) < 4000
    assert bad.key == f"x.parquet: row {len(good) + 1}"
    assert bad.reason.endswith("; the rest is not read")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "x.parquet", [{"path": "1.jpg"}])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"pip install 'git-model\[parquet\]'"):
        opened(path)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5), st.sampled_from(FORMS))
def test_every_row_is_an_input_or_refused_in_every_form(tmp_path, rows, form):
    # in CSV a lone line end within quotes is read as \n
    clean = [{"path": a.replace("\r", ""), "q": b.replace("\r", "")} for a, b in rows]
    path = write(tmp_path / f"x.{form}", clean)
    items = read(path, question_column="q")
    assert len(items) == len(rows)
    for item, row in zip(items, clean, strict=True):
        if isinstance(item, Input):
            assert item.question == row["q"].strip()
            assert Path(item.key) == Path(row["path"])
