"""Pictures on their way to the model."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from git_model.batch import pipeline
from git_model.batch.inputs import Input, Refused
from git_model.batch.pipeline import Asked, Look, Reader, batches, by_picture, looks
from git_model.config import GITConfig, PreprocessConfig

CONFIG = GITConfig(preprocess=PreprocessConfig(short_side=16, crop=None), frames=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        Image.new("RGB", (16, 16 + number % 2), (40 * number, 0, 0)).save(
            tmp_path / f"{number}.png"
        )
    (tmp_path / "2.png").write_bytes(b"no picture")
    return tmp_path


def pictures(folder: Path) -> list[Asked]:
    return [(Input(path.name, path),) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_looks_come_in_the_order_of_the_pictures_however_many_read(
    folder: Path, workers: int
) -> None:
    reader, asked = Reader(CONFIG), pictures(folder)
    found = list(looks(asked, reader, workers=workers, ahead=4))
    assert [look.asked for look in found] == asked
    for look, one in zip(found, asked, strict=True):
        alone = reader[one]
        assert look.failure == alone.failure
        assert (look.pixels is None) == (alone.pixels is None)
        if look.pixels is not None:
            assert torch.equal(look.pixels, alone.pixels)
    assert "2.png" in found[2].failure


def test_a_clip_tells_its_frames(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), (0, 60 * n, 0)) for n in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    look = Reader(CONFIG)[(Input("a.gif", tmp_path / "a.gif"),)]
    assert look.pixels.shape == (3, 3, 16, 16)
    assert look.frames == [0, 2, 3]


def test_what_was_refused_is_a_failure(tmp_path: Path) -> None:
    assert Reader(CONFIG)[(Refused("x", "x: a loop"),)].failure == "x: a loop"


class Deadly(Reader):
    """A reader whose process one picture kills."""

    def __getitem__(self, asked: Asked) -> Look:
        if asked[0].key == "3.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(asked)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_picture_that_kills_its_reader_costs_only_itself(folder: Path, workers: int) -> None:
    found = list(looks(pictures(folder), Deadly(CONFIG), workers=workers, ahead=2))
    assert [look.asked[0].key for look in found] == [f"{n}.png" for n in range(6)]
    assert [look.asked[0].key for look in found if look.failure] == ["2.png", "3.png"]
    assert "the process that read it was ended" in found[3].failure


def test_no_more_is_read_ahead_than_was_said(folder: Path) -> None:
    taken = 0

    def counted():
        nonlocal taken
        for asked in pictures(folder) * 10:
            taken += 1
            yield asked

    stream = looks(counted(), Reader(CONFIG), workers=2, ahead=4)
    next(stream)
    assert taken <= 6
    stream.close()


def test_all_that_is_asked_about_a_picture_stands_together() -> None:
    a, b = Path("a"), Path("b")
    inputs = [Input("a", a, "1"), Input("a", a, "2"), Input("b", b, "1"), Refused("c", "c"),
              Refused("d", "d"), Input("a", a, "3")]  # fmt: skip
    assert [[one.key for one in asked] for asked in by_picture(inputs)] == [
        ["a", "a"], ["b"], ["c"], ["d"], ["a"],
    ]  # fmt: skip


def test_thousands_of_questions_about_a_picture_come_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "ROWS", 3)
    inputs = [Input("a", Path("a"), str(n)) for n in range(7)]
    parts = list(by_picture(inputs))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert [one for part in parts for one in part] == inputs


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 4))
def test_batches_have_one_shape_and_lose_nothing(heights: list[int], size: int) -> None:
    """Height 0 stands for a failure."""
    seen = [
        Look((Refused(str(n), ""),), failure="bad")
        if height == 0
        else Look((Refused(str(n), ""),), torch.zeros(3, height, 1))
        for n, height in enumerate(heights)
    ]
    taken = 0

    def counted():
        nonlocal taken
        for look in seen:
            taken += 1
            yield look

    given_out: list[Look] = []
    for batch in batches(counted(), size):
        good = [look for look in batch if look.pixels is not None]
        assert len({look.pixels.shape for look in good}) <= 1
        assert len(batch) >= 1
        assert len(good) <= size
        given_out += batch
        assert taken - len(given_out) <= (pipeline.HELD + 1) * size
    assert sorted(int(look.asked[0].key) for look in given_out) == list(range(len(seen)))
