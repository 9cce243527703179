"""Files that are there whole or not at all."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from git_model.utils.atomic import DiskFullError, new_file, new_folder
from git_model.utils.errors import GITError


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("before")
    with suppress(KeyboardInterrupt), new_file(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]
    assert path.read_text() == "before"
    with new_file(path) as temporary:
        temporary.write_text("after")
    assert path.read_text() == "after"
    with (
        pytest.raises(GITError, match=r"none/out.jsonl: cannot be written"),
        new_file(tmp_path / "none" / "out.jsonl"),
    ):
        pass


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    child = os.fork()
    if child == 0:
        with new_file(path) as temporary:
            temporary.write_text("half")
            os._exit(0)
    os.waitpid(child, 0)
    assert [file.name for file in tmp_path.iterdir()] != []
    with new_file(path) as temporary:
        temporary.write_text("whole")
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


def test_names_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 120 + ".jsonl")
    with new_file(path) as temporary:
        temporary.write_text("x")
    assert path.read_text() == "x"


def test_a_link_that_lies_in_the_way_is_not_followed(tmp_path: Path) -> None:
    path, other = tmp_path / "out.txt", tmp_path / "other"
    other.write_text("mine")
    with suppress(RuntimeError), new_file(path) as temporary:
        name = temporary.name
        raise RuntimeError
    (tmp_path / name).symlink_to(other)
    with new_file(path) as temporary:
        temporary.write_text("x")
    assert other.read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False)]
)
def test_a_full_disk_is_told_from_other_faults(tmp_path: Path, number: int, full: bool) -> None:
    refusal = pytest.raises(GITError, match=r"out\.txt: cannot be written: ")
    with refusal as caught, new_file(tmp_path / "out.txt"):
        raise OSError(number, os.strerror(number))
    assert isinstance(caught.value, DiskFullError) == full
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_not_replaced_because_its_reader_would_wait_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    message = "pipe: a pipe, socket or device, expected a file"
    with pytest.raises(GITError, match=message), new_file(tmp_path / "pipe") as path:
        path.write_text("text")
    assert (tmp_path / "pipe").is_fifo()
    assert list(tmp_path.iterdir()) == [tmp_path / "pipe"]


def test_a_file_that_came_while_a_folder_was_filled_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def fill() -> None:
        with new_folder(folder) as temporary:
            (temporary / "whole").touch()
            folder.mkdir()
            (folder / "mine").write_text("mine")

    with pytest.raises(GITError, match="already exists"):
        fill()
    assert (folder / "mine").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
