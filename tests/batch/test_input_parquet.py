"""Inputs in Parquet files that have the images in the table."""

import os
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_runs import records, run, table, tiny_captioner
from commands import refusal
from photos import colour_of, photo_bytes

from git_model.batch.inputs import InputOptions, find_inputs
from git_model.batch.items import Input, RefusedInput
from git_model.data import parquet as parquet_data
from git_model.utils.errors import GITError

COLOURS = {"red": (1, 0, 0), "lime": (0, 1, 0), "blue": (0, 0, 1)}


def image(colour):
    return {"bytes": photo_bytes(colour), "path": None}


def rows(n=5, **columns):
    """Rows of red, lime, blue, red and so on."""
    return [
        {"image": image(list(COLOURS)[number % 3])}
        | {name: values[number] for name, values in columns.items()}
        for number in range(n)
    ]


def write(path, table_rows, **settings):
    pq.write_table(pa.Table.from_pylist(table_rows), path, **{"row_group_size": 2} | settings)
    return path


def inputs_of(path, **options):
    inputs = find_inputs(str(path), InputOptions(**options))
    items = list(inputs)
    assert list(inputs) == items
    return items


def test_the_images_of_all_row_groups_are_read_in_any_order(tmp_path):
    items = inputs_of(write(tmp_path / "x.parquet", rows(image_id=[9, 8, 7, 6, 5])))
    assert [item.key for item in items] == ["9", "8", "7", "6", "5"]
    expected = [COLOURS["red"], COLOURS["lime"], COLOURS["blue"], COLOURS["red"], COLOURS["lime"]]
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 1, 0, 4, 2]):
        assert [colour_of(items[n].open(0)) for n in order] == [expected[n] for n in order]


def test_without_ids_the_row_is_the_key(tmp_path):
    assert [item.key for item in inputs_of(write(tmp_path / "x.parquet", rows(3)))] == list("123")


def test_keys_of_two_files_stay_apart(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.parquet", rows(1, id=["x"]))
    sources = [str(tmp_path / f"{name}.parquet") for name in ("a", "b")]
    assert [item.key for item in find_inputs(sources, InputOptions())] == ["a/x", "b/x"]


def test_a_file_that_changed_is_read_anew(tmp_path):
    path = write(tmp_path / "x.parquet", rows(1))
    [item] = inputs_of(path)
    assert colour_of(item.open(0)) == COLOURS["red"]
    write(path, [{"image": image("blue")}])
    os.utime(path, (1, 1))
    assert colour_of(item.open(0)) == COLOURS["blue"]


def test_the_second_of_two_rows_with_one_key_is_an_error_that_names_both(tmp_path):
    path = write(tmp_path / "x.parquet", rows(3, id=["a", "b", "a"]))
    out = tmp_path / "out.jsonl"
    summary = run(tiny_captioner(), path, table(out))
    assert (summary["written"], summary["failed"]) == (2, 1)
    assert [record["file_name"] for record in records(out)] == ["a", "b"]
    [error] = records(tmp_path / "out.errors.jsonl")
    assert re.search(r"a: another input has this name.*row 3 of .*x\.parquet", error["error"])


def test_questions_stand_beside_the_images_and_an_image_may_have_several(tmp_path):
    questions = ["what?", "where?", "who?"]
    columns = {"image_id": [1, 1, 2], "question": questions, "question_id": [7, 8, 9]}
    path = write(tmp_path / "x.parquet", rows(3, **columns))
    items = inputs_of(path, question_column="question")
    assert [(item.key, item.question, item.question_key) for item in items] == [
        ("1", "what?", "7"), ("2", "where?", "8"), ("3", "who?", "9"),  # the row, not the image
    ]  # fmt: skip
    with pytest.raises(GITError, match="no column of texts is named query"):
        inputs_of(path, question_column="query")


def test_bytes_count_as_images_where_no_column_has_paths(tmp_path):
    (tmp_path / "a.png").write_bytes(photo_bytes("blue"))
    both = [{"thumbnail": photo_bytes("red"), "path": "a.png"}]
    [item] = inputs_of(write(tmp_path / "x.parquet", both))
    assert colour_of(item.open(0)) == COLOURS["blue"]
    [item] = inputs_of(tmp_path / "x.parquet", path_column="thumbnail")
    assert colour_of(item.open(0)) == COLOURS["red"]
    [item] = inputs_of(write(tmp_path / "y.parquet", [{"jpg": photo_bytes("lime")}]))
    assert colour_of(item.open(0)) == COLOURS["lime"]


def test_a_table_without_images_and_paths_is_one_line(tmp_path):
    path = write(tmp_path / "x.parquet", [{"text": "a dog", "label": 3}])
    with pytest.raises(GITError) as refusal:
        inputs_of(path)
    assert re.fullmatch(
        r".*x\.parquet: no column of texts is named file_name .*, and none holds images, its "
        r"columns are: text, label; --path-column names one", str(refusal.value)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, "image is empty, expected the bytes of an image"),
        ({"bytes": None}, "image is empty"),
        ({"bytes": b"<html>not found</html>"}, "not an image, expected JPEG"),
        ({"bytes": b"x" * 5000}, "image has 5,000 bytes, expected at most 4,000"),
    ],
)
def test_a_cell_without_an_image_is_an_error_and_the_others_are_read(
    tmp_path, monkeypatch, cell, message
):
    monkeypatch.setattr(parquet_data, "MAX_MEMBER_BYTES", 4000)
    path = write(tmp_path / "x.parquet", [*rows(2), {"image": cell}, *rows(2)], row_group_size=9)
    items = inputs_of(path)
    assert [colour_of(items[n].open(0)) for n in (1, 4)] == [COLOURS["lime"]] * 2
    with pytest.raises(GITError, match=rf"x\.parquet: row 3: {message}"):
        items[2].open(0)


def test_a_small_file_with_a_huge_cell_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_data, "MAX_MEMBER_BYTES", 10**6)
    path = write(tmp_path / "x.parquet", [{"image": {"bytes": b"\0" * 10**8}}], compression="zstd")
    assert path.stat().st_size < 10**5
    [item] = inputs_of(path)
    before = pa.total_allocated_bytes()
    with pytest.raises(GITError, match=r"in 1 rows, expected at most 1,000,000 in each"):
        item.open(0)
    assert pa.total_allocated_bytes() - before < 10**7


def test_damage_is_an_error_of_its_rows_and_the_groups_around_it_are_read(tmp_path):
    path = write(tmp_path / "x.parquet", rows(6), compression="none")
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + 20] = b"\xff" * 20
    path.write_bytes(data)
    items = inputs_of(path)
    for number in (0, 1, 4, 5):
        assert colour_of(items[number].open(0)) == [*COLOURS.values()][number % 3]
    for number in (2, 3, 2):
        with pytest.raises(GITError, match=rf"row {number + 1}: the file is damaged here"):
            items[number].open(0)


def test_a_key_that_is_empty_or_too_long_is_refused(tmp_path):
    items = inputs_of(write(tmp_path / "x.parquet", rows(4, key=["a", "", None, "é" * 2049])))
    assert isinstance(items[0], Input)
    assert all(isinstance(item, RefusedInput) for item in items[1:])
    assert items[1].reason.endswith("row 2: key is empty, expected a key")
    assert items[3].reason.endswith("has more than 4096 bytes, expected fewer")


def test_the_command_asks_for_an_output_because_nothing_lies_beside_a_row(tmp_path):
    path = write(tmp_path / "x.parquet", rows(1))
    line = refusal("batch", path, "--model", "demo", code=2)
    assert line.endswith("x.parquet: no text files can lie beside its images, expected --out")
    assert list(tmp_path.iterdir()) == [path]
