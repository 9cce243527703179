"""Runs on a real file system that is full: one line, no process left, nothing lost."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from photos import photo

HERE = Path(__file__).parent
SEARCHED = [str(HERE), str(HERE.parent), str(HERE.parents[1])]
N_IMAGES = 60
RUN = """
import multiprocessing, sys
from pathlib import Path
from batch_runs import run, tiny_captioner
from git_model.batch.sinks import Sink, TextFileSink, find_sink
from git_model.utils.errors import GITError

captioner = tiny_captioner()
images, out = sys.argv[1:3]
sink = find_sink(out, None, images)
if sys.argv[3:]:
    def refuse(*_): raise RuntimeError("not a full disk, but a mistake")
    type(sink).write = type(sink).finish = refuse
try:
    print(run(captioner, Path(images), sink, workers=2, batch_size=4)["written"])
except (GITError, RuntimeError) as error:
    print(type(error).__name__, error)
print(len(multiprocessing.active_children()), "processes")
"""


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


def start(*arguments: object) -> list[str]:
    """The lines that a run in a process of its own prints; it must end by itself."""
    result = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)],
        capture_output=True, text=True, timeout=200, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(SEARCHED)},
    )  # fmt: skip
    return result.stdout.splitlines()


def images_in(folder: Path) -> Path:
    for number in range(N_IMAGES):
        photo(folder / f"{number:03}.png", f"rgb({number * 4}, 0, 0)")
    return folder


@pytest.mark.parametrize("name", ["texts", "out.jsonl", "out-{0000..9999}.tar"])
def test_a_full_disk_ends_a_run_and_its_workers(
    tmp_path: Path, small_disk: Path, name: str
) -> None:
    images, out = images_in(tmp_path / "images"), small_disk / name
    ballast = small_disk / "ballast"
    free = 160 if name == "texts" else 60  # kB, enough to begin, not to end
    ballast.write_bytes(bytes((1200 - free) << 10))
    for _ in range(2):
        line, processes = start(images, out)
        assert line.split()[0] in ("DiskFullError", "JournalError")
        assert "full" in line or "No space left" in line
        assert processes == "0 processes"
    ballast.unlink()
    line, processes = start(images, out)
    assert int(line) > 0
    assert processes == "0 processes"
    counts = json.loads(next(small_disk.rglob("*batch.json")).read_text())
    assert counts["written"] + counts["done_before"] == N_IMAGES
    if name == "texts":
        assert len(list(out.glob("*.txt"))) == N_IMAGES
        assert all(path.read_text().strip() for path in out.glob("*.txt"))
    if name == "out.jsonl":
        names = [json.loads(line)["file_name"] for line in out.read_text().splitlines()]
        assert names == [f"{number:03}.png" for number in range(N_IMAGES)]


@pytest.mark.parametrize("name", ["texts", "out.jsonl", "out.tar"])
def test_a_mistake_in_a_sink_leaves_no_process_either(tmp_path: Path, name: str) -> None:
    line, processes = start(images_in(tmp_path / "images"), tmp_path / name, "broken")
    assert line == "RuntimeError not a full disk, but a mistake"
    assert processes == "0 processes"
