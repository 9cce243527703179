"""A contact sheet of the model's input: the pixels of each input, converted back to an image, with
its name.

Before a long run it shows which images are rotated, cropped, too dark or refused.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from git_model.batch.captioning import InputDataset
from git_model.batch.distinct_inputs import DistinctInputs
from git_model.batch.items import AnyInput
from git_model.config import GITConfig
from git_model.preprocessing.image import denormalize
from git_model.preprocessing.sampling import ReadOptions
from git_model.utils.atomic import new_file
from git_model.utils.errors import GITError, bounded_line

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
TILE, MARGIN, FONT_SIZE = 224, 8, 13  # pixels
NEAREST = Image.Resampling.NEAREST
LINES = 2  # of text below a tile
PAPER, INK, GREY, RED = "white", "black", (225, 225, 225), (170, 0, 0)


@dataclass(frozen=True)
class Preview:
    """The content of a sheet: the number of inputs, and the reasons for those that are refused."""

    n_images: int
    refusals: list[str]


def draw_preview(
    inputs: Iterable[AnyInput], config: GITConfig, reading: ReadOptions, path: Path, count: int
) -> Preview:
    """Draw the first inputs, each image once, on a sheet, and write it to `path`.

    Raises:
        GITError: the file's suffix is not one of FORMATS, or it cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise GITError(f"{path}: expected a name that ends in {', '.join(FORMATS)}")
    dataset, tiles, refusals = InputDataset(config, reading), list[Image.Image](), list[str]()
    keys = set[str]()
    for item in DistinctInputs(inputs):
        if item.key in keys:  # another question about the same image
            continue
        if len(tiles) == count:
            break
        keys.add(item.key)
        loaded = dataset[(item,)]
        if loaded.image is None:
            refusals.append(bounded_line(loaded.failure or item.name))
            tiles.append(_refused_tile(item.name, refusals[-1]))
        else:
            note = " (cut short)" if loaded.image.is_truncated else ""
            frames = denormalize(loaded.image.pixels, config.preprocess)
            tiles.append(_tile(item.name + note, frames))
    with new_file(path) as temporary:
        _sheet(tiles).save(temporary, FORMATS[path.suffix.lower()])
    return Preview(len(tiles) - len(refusals), refusals)


def _tile(name: str, frames: Sequence[Image.Image]) -> Image.Image:
    """The frames, as large as they fit, above a name. Small frames are scaled by whole factors."""
    tile = _empty_tile()
    columns = ceil(sqrt(len(frames)))
    for number, frame in enumerate(frames):
        row, column = divmod(number, columns)
        factor = (TILE // columns) // max(frame.size)
        shown = (
            frame.resize((frame.width * factor, frame.height * factor), NEAREST)
            if factor
            else frame.copy()
        )
        shown.thumbnail((TILE // columns, TILE // columns))
        tile.paste(shown, (column * (TILE // columns), row * (TILE // columns)))
    _write(tile, [_shortened(name)], TILE + 2, INK)
    return tile


def _refused_tile(name: str, reason: str) -> Image.Image:
    tile = _empty_tile()
    ImageDraw.Draw(tile).rectangle((0, 0, TILE - 1, TILE - 1), fill=GREY)
    width = _letters_per_line()
    lines = [reason[start : start + width] for start in range(0, len(reason), width)]
    _write(tile, lines[: TILE // (FONT_SIZE + 3) - 1], 4, RED)
    _write(tile, [_shortened(name)], TILE + 2, RED)
    return tile


def _empty_tile() -> Image.Image:
    return Image.new("RGB", (TILE, TILE + LINES * (FONT_SIZE + 3)), PAPER)


def _write(
    tile: Image.Image, lines: Sequence[str], top: int, colour: str | tuple[int, int, int]
) -> None:
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(FONT_SIZE)
    for number, line in enumerate(lines):
        draw.text((2, top + number * (FONT_SIZE + 3)), line, fill=colour, font=font)


def _letters_per_line() -> int:
    return TILE // (FONT_SIZE // 2 + 1)


def _shortened(name: str) -> str:
    """The end of a long name, which tells files apart."""
    width = _letters_per_line()
    return name if len(name) <= width else f"…{name[1 - width :]}"


def _sheet(tiles: Sequence[Image.Image]) -> Image.Image:
    """Tiles in rows, in about as many columns as rows."""
    columns = max(1, ceil(sqrt(len(tiles))))
    width, height = TILE + MARGIN, TILE + LINES * (FONT_SIZE + 3) + MARGIN
    rows = ceil(len(tiles) / columns)
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), PAPER)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(tile, (column * width + MARGIN, row * height + MARGIN))
    return sheet
