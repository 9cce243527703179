"""Runs whose disk is full: one line, no process left, nothing lost."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from batch_runs import print_run, print_run_with_few_files, print_run_with_short_files
from forked import START_METHOD, Forked
from photos import photo

N_IMAGES = 60


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no file system may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def start(
    *arguments: object, target: Callable[..., None] = print_run, **environment: str
) -> list[str]:
    """The lines that a run in a process of its own prints; it must end by itself."""
    process = Forked(target, *arguments, **environment)
    lines, errors = process.communicate()
    assert process.returncode == 0, errors
    return lines.splitlines()


def images_in(folder: Path, n: int = N_IMAGES) -> Path:
    for number in range(n):
        photo(folder / f"{number:03}.png", f"rgb({number * 4}, 0, 0)")
    return folder


def require_all_texts(out: Path) -> None:
    """No text was lost, and none is there twice."""
    counts = json.loads(next(out.parent.rglob("*batch.json")).read_text())
    assert counts["written"] + counts["done_before"] == N_IMAGES
    if out.name == "texts":
        assert len(list(out.glob("*.txt"))) == N_IMAGES
        assert all(path.read_text().strip() for path in out.glob("*.txt"))
    if out.name == "out.jsonl":
        names = [json.loads(line)["file_name"] for line in out.read_text().splitlines()]
        assert names == [f"{number:03}.png" for number in range(N_IMAGES)]


@pytest.mark.parametrize(
    ("name", "target", "limit", "error"),
    [
        ("out.jsonl", print_run_with_short_files, 24 << 10, "JournalError"),
        ("texts", print_run_with_few_files, 20, "DiskFullError"),
    ],
)
def test_a_write_that_fails_ends_a_run_and_its_workers(
    tmp_path: Path, name: str, target: Callable[..., None], limit: int, error: str
) -> None:
    images, out = images_in(tmp_path / "images"), tmp_path / "out" / name
    line, processes = start(images, out, limit, target=target)
    assert line.split()[0] == error
    assert processes == "0 processes"
    line, processes = start(images, out)
    assert 0 < int(line) < N_IMAGES  # it continued
    assert processes == "0 processes"
    require_all_texts(out)


@pytest.mark.slow  # needs the right to mount; the test above does without
@pytest.mark.parametrize("name", ["out.jsonl", "texts", "out-{0000..9999}.tar"])
def test_a_full_disk_ends_a_run_and_its_workers(
    tmp_path: Path, small_disk: Path, name: str
) -> None:
    images, out = images_in(tmp_path / "images"), small_disk / name
    ballast = small_disk / "ballast"
    free = 160 if name == "texts" else 60  # kB, enough to begin, not to end
    ballast.write_bytes(bytes((1200 - free) << 10))
    line, processes = start(images, out)
    assert line.split()[0] in ("DiskFullError", "JournalError")
    assert "full" in line or "No space left" in line
    assert processes == "0 processes"
    ballast.unlink()
    line, processes = start(images, out)
    assert int(line) > 0
    assert processes == "0 processes"
    require_all_texts(out)


@pytest.mark.parametrize("name", ["texts", "out.jsonl", "out.tar"])
def test_a_mistake_in_a_sink_leaves_no_process_either(tmp_path: Path, name: str) -> None:
    line, processes = start(images_in(tmp_path / "images"), tmp_path / name, "broken")
    assert line == "RuntimeError not a full disk, but a mistake"
    assert processes == "0 processes"


@pytest.mark.parametrize(
    "method", ["fork", "forkserver", pytest.param("spawn", marks=pytest.mark.slow)]
)
def test_workers_may_be_started_in_any_way(tmp_path: Path, method: str) -> None:
    images = images_in(tmp_path / "images", 6)
    written, processes = start(images, tmp_path / "out.jsonl", **{START_METHOD: method})
    assert (written, processes) == ("6", "0 processes")
