"""Inputs that a list names: each path stays in its folder, or is refused in one line."""

import io
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.batch.input_tables import ListInputs, StreamInputs, key_within
from git_model.batch.items import Input, RefusedInput
from git_model.batch.table_readers import MAX_LINE_BYTES, numbered_lines
from git_model.data.manifests import DataError


def listed(tmp_path, content, root=None):
    (tmp_path / "list.txt").write_bytes(content)
    inputs = ListInputs(tmp_path / "list.txt", "list.txt", root or tmp_path)
    items = list(inputs)
    assert list(inputs) == items
    return items


def test_each_line_is_a_path(tmp_path):
    items = listed(tmp_path, b"\xef\xbb\xbfb.jpg\r\n\n./a//c d.jpg\n a.jpg\nz.jpg")
    assert [item.key for item in items] == ["b.jpg", "a/c d.jpg", " a.jpg", "z.jpg"]
    assert [item.location for item in items] == [tmp_path / item.key for item in items]


def test_names_need_not_be_utf8(tmp_path):
    [item] = listed(tmp_path, b"a/\xff.jpg\n")
    assert os.fsencode(item.location) == os.fsencode(tmp_path) + b"/a/\xff.jpg"
    assert item.name == "a/\\xff.jpg"


def test_a_path_that_begins_at_the_root_may_lie_below_the_folder(tmp_path):
    [item] = listed(tmp_path, f"{tmp_path}/a/b.jpg\n".encode())
    assert item == Input("a/b.jpg", tmp_path / "a/b.jpg")


def test_paths_may_be_relative_to_another_folder(tmp_path):
    [item] = listed(tmp_path, b"a.jpg\n", root=Path("photos"))
    assert item == Input("a.jpg", Path("photos/a.jpg"))


@pytest.mark.parametrize(
    "name", ["../a.jpg", "a/../../a.jpg", "/etc/passwd", "..\\a.jpg", "c:\\a.jpg", "//host/a.jpg"]
)
def test_a_path_that_leaves_its_folder_is_refused(tmp_path, name):
    first, bad, last = listed(tmp_path, f"1.jpg\n{name}\n2.jpg\n".encode())
    assert (first.key, last.key) == ("1.jpg", "2.jpg")
    line = f"list.txt: line 2: the file name {name!r} leads out of {tmp_path}; --root says which"
    assert bad == RefusedInput("list.txt: line 2", f"{line} folder it lies in")


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    [bad] = listed(tmp_path, b"a\0.jpg")
    assert bad.reason == r"list.txt: line 1: 'a\x00.jpg' cannot be the name of a file"
    with pytest.raises(DataError, match="cannot be the name of a file"):
        key_within(tmp_path, "\ud800.jpg")


@given(st.text(st.characters(exclude_categories=[])))
def test_no_name_leads_out_of_its_folder(name):
    root, key = Path("/a/root"), ""
    with suppress(DataError):
        key = key_within(root, name)
    path = os.path.normpath(root / key)
    assert path == str(root) or path.startswith(f"{root}/")


def test_a_line_that_is_too_long_is_refused_and_the_next_is_read(tmp_path):
    long = b"a" * (3 * MAX_LINE_BYTES)
    first, bad, last = listed(tmp_path, b"1.jpg\n" + long + b"\n2.jpg")
    assert (first.key, last.key) == ("1.jpg", "2.jpg")
    assert (
        bad.reason
        == f"list.txt: line 2: it is too long, expected fewer than {MAX_LINE_BYTES} bytes"
    )


@pytest.mark.parametrize("over", [-2, -1, 0, 1, 2])
def test_a_line_is_whole_or_refused(tmp_path, over):
    line = b"a" * (MAX_LINE_BYTES + over)
    (tmp_path / "list.txt").write_bytes(b"first\n" + line + b"\nlast")
    _, (_, second), (number, last) = numbered_lines(tmp_path / "list.txt", "")
    assert (number, last) == (3, b"last")
    assert second == line if over < -1 else isinstance(second, DataError)


def test_a_list_that_is_gone_is_one_line(tmp_path):
    inputs = ListInputs(tmp_path / "list.txt", "list.txt", tmp_path)
    with pytest.raises(DataError, match=r"^list\.txt: No such file or directory$"):
        list(inputs)


def test_a_stream_is_kept_so_that_it_can_be_walked_again():
    inputs = StreamInputs.of(io.BytesIO(b"a.jpg\n../b.jpg\n"), Path("photos"))
    first, second = iter(inputs), iter(inputs)
    assert next(first) == next(second) == Input("a.jpg", Path("photos/a.jpg"))
    assert next(first).reason.startswith("standard input: line 2: the file name '../b.jpg' leads")
    path = Path(inputs.file.name)
    assert path.exists()
    del inputs, first, second
    assert not path.exists()
