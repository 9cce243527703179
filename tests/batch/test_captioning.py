"""Images on their way to the model."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from photos import photo
from PIL import Image

from git_model.batch import captioning
from git_model.batch.captioning import (
    InputDataset,
    InputGroup,
    LoadedInput,
    group_by_image,
    load_inputs,
    one_shape_batches,
)
from git_model.batch.items import Input, RefusedInput
from git_model.config import GITConfig, PreprocessConfig
from git_model.preprocessing.inputs import LoadedImage
from git_model.utils.errors import GITError

CONFIG = GITConfig(preprocess=PreprocessConfig(short_side=16, crop=None), frames=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        Image.new("RGB", (16, 16 + number % 2), (40 * number, 0, 0)).save(
            tmp_path / f"{number}.png"
        )
    (tmp_path / "2.png").write_bytes(b"no image")
    return tmp_path


def groups_in(folder: Path) -> list[InputGroup]:
    return [(Input(path.name, path),) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_images_come_in_the_order_of_the_inputs_however_many_processes_load(
    folder: Path, workers: int
) -> None:
    dataset, groups = InputDataset(CONFIG), groups_in(folder)
    stream = list(load_inputs(groups, dataset, workers=workers, ahead=4))
    assert [loaded.inputs for loaded in stream] == groups
    for loaded, group in zip(stream, groups, strict=True):
        alone = dataset[group]
        assert loaded.failure == alone.failure
        assert (loaded.image is None) == (alone.image is None)
        if loaded.image is not None:
            assert torch.equal(loaded.image.pixels, alone.image.pixels)
    assert "2.png" in stream[2].failure


def test_a_clip_has_the_indices_of_its_frames(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), (0, 60 * n, 0)) for n in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    loaded = InputDataset(CONFIG)[(Input("a.gif", tmp_path / "a.gif"),)]
    assert loaded.image.pixels.shape == (3, 3, 16, 16)
    assert loaded.image.frames == [0, 2, 3]


def test_a_refused_input_is_a_failure() -> None:
    assert InputDataset(CONFIG)[(RefusedInput("x", "x: a loop"),)].failure == "x: a loop"


class DeadlyDataset(InputDataset):
    """A dataset of which one image kills the process that loads it."""

    def __getitem__(self, inputs: InputGroup) -> LoadedInput:
        if inputs[0].key == "3.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(inputs)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_kills_its_worker_costs_only_itself(folder: Path, workers: int) -> None:
    dataset = DeadlyDataset(CONFIG)
    stream = list(load_inputs(groups_in(folder), dataset, workers=workers, ahead=2))
    assert [loaded.inputs[0].key for loaded in stream] == [f"{n}.png" for n in range(6)]
    failed = [loaded.inputs[0].key for loaded in stream if loaded.failure]
    assert failed == ["2.png", "3.png"]
    assert "the process that loaded it was ended" in stream[3].failure


def test_no_more_is_loaded_ahead_than_asked_for(folder: Path) -> None:
    n_taken = 0

    def counted():
        nonlocal n_taken
        for group in groups_in(folder) * 10:
            n_taken += 1
            yield group

    stream = load_inputs(counted(), InputDataset(CONFIG), workers=2, ahead=4)
    next(stream)
    assert n_taken <= 6
    stream.close()


def test_inputs_about_one_image_stand_together() -> None:
    a, b = Path("a"), Path("b")
    inputs = [Input("a", a, "1"), Input("a", a, "2"), Input("b", b, "1"), RefusedInput("c", "c"),
              RefusedInput("d", "d"), Input("a", a, "3")]  # fmt: skip
    assert [[item.key for item in group] for group in group_by_image(inputs)] == [
        ["a", "a"], ["b"], ["c"], ["d"], ["a"],
    ]  # fmt: skip


def test_thousands_of_questions_about_an_image_come_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(captioning, "MAX_ROWS", 3)
    inputs = [Input("a", Path("a"), str(n)) for n in range(7)]
    groups = list(group_by_image(inputs))
    assert [len(group) for group in groups] == [3, 3, 1]
    assert [item for group in groups for item in group] == inputs


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 4))
def test_batches_have_one_shape_and_lose_nothing(heights: list[int], size: int) -> None:
    """Height 0 stands for a failure."""
    stream = [
        LoadedInput((RefusedInput(str(n), ""),), failure="bad")
        if height == 0
        else LoadedInput((RefusedInput(str(n), ""),), LoadedImage(torch.zeros(3, height, 1)))
        for n, height in enumerate(heights)
    ]
    n_taken = 0

    def counted():
        nonlocal n_taken
        for loaded in stream:
            n_taken += 1
            yield loaded

    returned: list[LoadedInput] = []
    for batch in one_shape_batches(counted(), size):
        images = [loaded.image for loaded in batch if loaded.image is not None]
        assert len({image.pixels.shape for image in images}) <= 1
        assert len(batch) >= 1
        assert len(images) <= size
        returned += batch
        assert n_taken - len(returned) <= (captioning.MAX_WAITING + 1) * size
    assert sorted(int(loaded.inputs[0].key) for loaded in returned) == list(range(len(stream)))


def test_where_no_batch_fills_the_image_that_waited_longest_goes_first() -> None:
    stream = [
        LoadedInput((RefusedInput(str(n), ""),), LoadedImage(torch.zeros(3, n + 1, 1)))
        for n in range(20)
    ]
    batches = one_shape_batches(stream, 3)
    assert [[loaded.inputs[0].key for loaded in batch] for batch in batches] == [
        [str(n)] for n in range(20)
    ]


# How workers end ---------------------------------------------------------------------------------


class Slow(InputDataset):
    """Needs longer than anyone waits for the images of one name."""

    def __getitem__(self, inputs: Any) -> Any:
        if inputs[0].key == "slow.png":
            time.sleep(3600)
        return super().__getitem__(inputs)


def test_workers_end_with_the_walk_in_the_midst_of_an_image_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # for so many seconds torch waits for each of them
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    photo(tmp_path / "a.png"), photo(tmp_path / "slow.png")
    stream = load_inputs(groups_in(tmp_path), Slow(CONFIG), workers=2, ahead=4)
    assert next(stream).image is not None
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    stream.close()
    assert not any(worker.is_alive() for worker in workers)


def test_workers_end_when_the_inputs_raise(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")

    def groups():
        yield from groups_in(tmp_path)
        raise GITError("the disk is full")

    stream = load_inputs(groups(), InputDataset(CONFIG), workers=2, ahead=4)
    assert next(stream).image is not None  # what was loaded before is not lost
    with pytest.raises(GITError, match="the disk is full"):
        next(stream)
    assert multiprocessing.active_children() == []


def test_an_image_whose_worker_was_killed_from_outside_is_tried_again(tmp_path: Path) -> None:
    """The first two workers that load it are killed; the third is left alone."""
    image, marks = photo(tmp_path / "images" / "a.png"), tmp_path / "marks"
    marks.mkdir()

    class Killed(InputDataset):
        def __getitem__(self, inputs: Any) -> Any:
            n = len(list(marks.iterdir()))
            if n < 2:
                (marks / str(n)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(inputs)

    [loaded] = load_inputs(groups_in(image.parent), Killed(CONFIG), workers=1, ahead=1)
    assert loaded.failure is None
    assert loaded.image is not None


def test_a_worker_that_dies_while_the_model_works_does_not_disturb_it(tmp_path: Path) -> None:
    for name in "abcdef":
        photo(tmp_path / f"{name}.png")
    stream = load_inputs(groups_in(tmp_path), InputDataset(CONFIG), workers=1, ahead=2)
    loaded = [next(stream)]
    [worker] = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    for _ in range(1000):  # the signal's handler runs between two steps of this loop
        time.sleep(0.001)
    loaded += stream
    assert [group.inputs[0].key for group in loaded] == [f"{name}.png" for name in "abcdef"]
    assert all(group.image is not None for group in loaded)
