"""Damaged files made from whole ones, and what every reader owes to each of them.

It gives a value or a GITError of one line, takes no more memory than is stated, and leaves all
files as they were. A hang is ended by pytest's own limit of time.
"""

import copy
import json
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from git_model.utils.errors import GITError

MB = 2**20
PART = 200  # inputs; hypothesis keeps what it made until it has made the last one


def examples(quick: int, slow: int) -> pytest.MarkDecorator:
    """How many inputs a test tries: by default, and under the slow marker."""
    counts = [pytest.param(quick, id="few"), pytest.param(slow, id="many", marks=pytest.mark.slow)]
    return pytest.mark.parametrize("count", counts)


def fuzz(
    count: int, inputs: st.SearchStrategy[Any], read: Callable[[Any], Any], memory: int = 200 * MB
) -> None:
    """Let `read` have so many inputs, and refuse all that it does not owe them."""

    def try_one(value: Any) -> None:
        with at_most(memory):
            outcome(lambda: read(value))

    for start in range(0, count, PART):
        some = settings(
            max_examples=min(PART, count - start),
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        seed(start)(some(given(inputs)(try_one)))()


def outcome(read: Callable[[], Any]) -> str | None:
    """The message of the GITError that comes out; None where a value does. Other errors fail."""
    try:
        read()
    except GITError as error:
        message = str(error)
        assert message.isprintable(), f"not one line: {message!r}"
        assert message.strip()
        assert "Traceback" not in message
        return message
    return None


@contextmanager
def at_most(memory: int) -> Iterator[None]:
    """Fail if this process at its largest has so many bytes more than at first."""
    before = _peak(anew=True)
    try:
        yield
    finally:
        more = _peak() - before
        assert more <= memory, f"took {more // MB} MB more than before"


def _peak(anew: bool = False) -> int:
    """The most bytes that this process ever had; on Linux, since a peak was begun anew."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) * 1024


@contextmanager
def nothing_else_touched(folder: Path) -> Iterator[None]:
    """Fail if a file in this folder, or in one within it, comes, goes or changes."""
    before = _listing(folder)
    try:
        yield
    finally:
        assert _listing(folder) == before


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")
    }


# Bytes


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, most: int = 3) -> bytes:
    """A file with one to `most` damages: bits flipped, cut off, put in, doubled, moved, or numbers
    made as large as they can be."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        size = draw(st.sampled_from((1, 2, 4, 8, 16, 64, 512)))
        block = bytes(data[place : place + size])
        match draw(st.sampled_from(("flip", "cut", "drop", "insert", "double", "move", "large"))):
            case "flip":
                mask = draw(st.integers(1, 255))
                data[place : place + 1] = bytes(byte ^ mask for byte in block[:1])
            case "cut":
                del data[place:]
            case "drop":
                del data[place : place + size]
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=16))
            case "double":
                data[place:place] = block * draw(st.sampled_from((1, 2, 100)))
            case "move":
                del data[place : place + size]
                at = draw(st.integers(0, len(data)))
                data[at:at] = block
            case "large":
                fill = draw(st.sampled_from((b"\xff", b"\x7f", b"\x80", b"\0", b"9")))
                data[place : place + size] = fill * len(block)
    return bytes(data)


# JSON

STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from((0, -1, 1, 2**31, 2**32 - 1, 2**63, -(2**63), 10**30, 10**400)),
    st.sampled_from((0.0, -0.0, 1e-320, 1e308, float("inf"), float("nan"))),
    st.sampled_from(("", "\0", "\ud800", "a\nb\x1b[31m", "../../x", "/etc/passwd", "a" * 5000)),
    st.sampled_from(([], {}, [[]], [{}], {"": {}}, [None] * 1000)),
    st.integers(1, 600).map(lambda depth: json.loads("[" * depth + "]" * depth)),
    st.text(max_size=20),
    st.integers(),
    st.floats(),
)


@st.composite
def warped(draw: st.DrawFn, whole: Any, most: int = 2) -> Any:
    """A value of JSON with one to `most` of its places changed, dropped or renamed."""
    value = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, most))):
        value = _warp(draw, value)
    return value


def _warp(draw: st.DrawFn, value: Any) -> Any:
    places: dict[type, Callable[[Any], list[Any]]] = {
        dict: list,
        list: lambda items: list(range(len(items))),
    }
    inner = places.get(type(value), lambda _: [])(value)
    if not inner or draw(st.integers(0, 4)) == 0:
        return copy.deepcopy(draw(STRANGE))  # it may be warped in its turn
    key = draw(st.sampled_from(inner))
    match draw(st.sampled_from(("within", "within", "within", "drop", "double"))):
        case "within":
            value[key] = _warp(draw, value[key])
        case "drop":
            del value[key]
        case "double" if isinstance(value, list):
            value.insert(key, value[key])
        case "double":
            value[draw(st.text(max_size=8))] = value[key]
    return value


def as_json(value: Any) -> bytes:
    """Its text, as a hostile file may spell it: NaN, halves of characters and all."""
    return json.dumps(value).encode()
