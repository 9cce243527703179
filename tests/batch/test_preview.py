"""The sheet of what the model sees: right colours, names, refusals; and no captions."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config
from videos import animate, grey

from git_model.batch.inputs import InputOptions, find_inputs
from git_model.batch.preview import MARGIN, TILE, draw_preview
from git_model.preprocessing.sampling import ReadOptions
from git_model.utils.errors import GITError


def sheet_of(folder: Path, path: Path, count: int = 100, frames: int = 0) -> tuple[int, list[str]]:
    inputs = find_inputs(str(folder), InputOptions(videos=frames > 0))
    preview = draw_preview(inputs, tiny_config(frames=frames), ReadOptions(), path, count)
    return preview.n_images, preview.refusals


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in (("a", "red"), ("b", "lime"), ("c", "blue")):
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.png")
    return folder


def pixel(sheet: Image.Image, column: int, row: int, x: int = 5, y: int = 5) -> tuple[int, ...]:
    width, height = (sheet.width - MARGIN) // 2, (sheet.height - MARGIN) // 2
    return sheet.getpixel((column * width + MARGIN + x, row * height + MARGIN + y))


def test_each_input_is_drawn_as_the_model_sees_it(folder: Path, tmp_path: Path) -> None:
    photo = Image.new("RGB", (64, 64), "white")
    photo.paste("black", (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down: black comes out below
    photo.save(folder / "d.jpg", exif=exif)
    assert sheet_of(folder, tmp_path / "sheet.png") == (4, [])
    sheet = Image.open(tmp_path / "sheet.png")
    assert [pixel(sheet, 0, 0), pixel(sheet, 1, 0), pixel(sheet, 0, 1)] == [
        (255, 0, 0), (0, 255, 0), (0, 0, 255),
    ]  # fmt: skip
    upper, lower = pixel(sheet, 1, 1), pixel(sheet, 1, 1, y=TILE - 9)
    assert min(upper) > 240
    assert max(lower) < 15
    names = np.asarray(sheet)[MARGIN + TILE : MARGIN + TILE + 20, MARGIN : MARGIN + 60]
    assert (names < 100).any()  # the name below the tile


def test_what_is_refused_is_drawn_as_such_and_named(folder: Path, tmp_path: Path) -> None:
    (folder / "a.png").write_bytes(b"no image")
    n_images, [reason] = sheet_of(folder, tmp_path / "sheet.webp")
    assert n_images == 2
    assert reason.startswith(f"{folder}/a.png: ")


def test_a_second_input_of_a_name_is_refused_as_in_the_run(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "k.tar", "w") as tar:
        for name, source in (("./x.png", "a"), ("x.png", "b"), ("X.png", "c"), ("y//x.png", "a")):
            tar.add(folder / f"{source}.png", name)
        tar.add(folder / "b.png", "y/x.png")
    n_drawn, refusals = sheet_of(tmp_path / "k.tar", tmp_path / "s.png")
    assert n_drawn == 3
    assert [line.partition(":")[0] for line in refusals] == ["x.png", "y/x.png"]
    questions = InputOptions(questions=("what?", "where?"))
    inputs = find_inputs(str(folder), questions)
    preview = draw_preview(inputs, tiny_config(), ReadOptions(), tmp_path / "q.png", 100)
    assert (preview.n_images, preview.refusals) == (3, [])


def test_only_the_first_inputs_are_read(folder: Path, tmp_path: Path) -> None:
    (folder / "c.png").write_bytes(b"no image")
    assert sheet_of(folder, tmp_path / "sheet.jpg", count=2) == (2, [])


def test_a_clip_is_drawn_frame_by_frame(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    animate(folder / "a.gif", "GIF", [grey(index) for index in (0, 20, 0, 20)])
    assert sheet_of(folder, tmp_path / "sheet.png", frames=4) == (1, [])
    sheet = Image.open(tmp_path / "sheet.png").convert("L")
    half = TILE // 2
    corners = [
        sheet.getpixel((MARGIN + x + 3, MARGIN + y + 3)) for y in (0, half) for x in (0, half)
    ]
    assert corners[0] == corners[2] == 0
    assert corners[1] == corners[3] == 240


def test_another_kind_of_file_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(GITError, match=r"expected a name that ends in \.png"):
        sheet_of(folder, tmp_path / "sheet.pdf")
