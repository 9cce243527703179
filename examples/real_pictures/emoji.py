"""Emoji as a data set: train on one vendor's drawings, test on another's, and on new names.

    python examples/real_pictures/emoji.py data/emoji
    git-model data vocab data/emoji/train --out data/emoji/vocabulary --size 2000
    git-model train configs/train/emoji.toml --out runs/emoji

It fetches the npm packages emoji-datasource-google and emoji-datasource-twitter (MIT; Google's Noto
emoji are under the Apache licence 2.0, Twitter's Twemoji under CC BY 4.0) and writes four folders:

- train: Google's drawings of nine tenths of the names, each in several random brightnesses and
  colours, and a little moved, scaled and rotated
- validation: Twitter's drawings of a fifth of these names, for choosing settings
- other_vendor: Twitter's drawings of the rest of these names, the test
- new_names: Google's drawings of the other tenth
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from random import Random

import click
from common import Picture, fetch, npm_files, plain_words, write_splits
from PIL import Image, ImageEnhance

from git_model import GITError
from git_model.shapes.world import uniform

VERSION = "16.0.0"
SIZE = 64  # pixels
TRAIN_VENDOR, TEST_VENDOR = "google", "twitter"
SCALES = (0.82, 0.88)  # of a drawing's side to the picture's
ANGLES = (-2.0, 2.0)  # degrees
POSITIONS = (0.375, 0.625)  # of the free space beside a drawing, from the left and from the top
FACTORS = (0.7, 1.3)  # of brightness, colour and contrast


@dataclass(frozen=True)
class Emoji:
    """A name, and a drawing with a transparent background."""

    name: str
    drawing: Image.Image


def emoji_of(package: Path, vendor: str) -> dict[str, Emoji]:
    """A vendor's emoji by their file names, without those of skin tones."""
    table: list[dict[str, object]] = []
    drawings: dict[str, bytes] = {}
    for path, data in npm_files(package):
        if path == "package/emoji.json":
            table = json.loads(data)
        elif path.startswith(f"package/img/{vendor}/64/"):
            drawings[Path(path).name] = data
    names = {str(row["image"]): " ".join(str(row["name"]).lower().split()) for row in table}
    return {
        file: Emoji(names[file], Image.open(BytesIO(data)).convert("RGBA"))
        for file, data in sorted(drawings.items())
        if file in names
    }


def is_new(name: str) -> bool:
    """Whether a name is one of the tenth that training never shows."""
    return hashlib.sha256(name.encode()).digest()[0] % 10 == 0


def is_validation(name: str) -> bool:
    """Whether a name is one of the fifth whose other drawing is for choosing settings."""
    return hashlib.sha256(name.encode()).digest()[1] % 5 == 0


def plain(drawing: Image.Image) -> Image.Image:
    """A drawing on white."""
    return _place(drawing, 0.85, 0.0, (0.5, 0.5))


def varied(drawing: Image.Image, rng: Random) -> Image.Image:
    """A drawing on white, in a random colour, and almost in its place: two vendors place their
    drawings alike, and strong changes cost a small model many more steps. Never mirrored, for there
    are a left and a right arrow."""
    position = (uniform(rng, *POSITIONS), uniform(rng, *POSITIONS))
    picture = _place(drawing, uniform(rng, *SCALES), uniform(rng, *ANGLES), position)
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Color, ImageEnhance.Contrast):
        picture = enhancer(picture).enhance(uniform(rng, *FACTORS))
    return picture


def _place(
    drawing: Image.Image,
    scale: float,
    angle: float,
    position: tuple[float, float],
) -> Image.Image:
    """A drawing, scaled and rotated, on a white picture of SIZE x SIZE pixels.

    Args:
        position: share of the free space to the left of the drawing, and above it.
    """
    picture = Image.new("RGBA", (SIZE, SIZE), "white")
    side = round(SIZE * scale)
    thing = drawing.rotate(angle, Image.Resampling.BICUBIC).resize((side, side))
    left, top = (round((SIZE - side) * share) for share in position)
    picture.alpha_composite(thing, (left, top))
    return picture.convert("RGB")


def pictures(train: dict[str, Emoji], test: dict[str, Emoji], variants: int) -> Iterator[Picture]:
    """The pictures of all splits, in an order that mixes flags, faces and signs: a run's checks
    caption the first ones."""
    for file in sorted(train, key=lambda file: hashlib.sha256(file.encode()).digest()):
        emoji = train[file]
        stem, caption = Path(file).stem, plain_words(emoji.name)
        if is_new(emoji.name):
            yield Picture("new_names", f"{stem}.png", plain(emoji.drawing), caption)
            continue
        for number in range(variants):
            rng = Random(f"{file} {number}")
            image = varied(emoji.drawing, rng)
            yield Picture("train", f"{stem}_{number:02}.png", image, caption)
        if file in test:
            image = plain(test[file].drawing)
            split = "validation" if is_validation(emoji.name) else "other_vendor"
            yield Picture(split, f"{stem}.png", image, caption)


@click.command(help=__doc__)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--packages", type=click.Path(path_type=Path), default=Path("data/packages"),
              show_default=True, help="Where the packages lie, or are put.")  # fmt: skip
@click.option("--variants", default=12, show_default=True, type=click.IntRange(min=1))
def main(out: Path, packages: Path, variants: int) -> None:
    """Fetch the packages and write the folders."""
    try:
        train, test = (
            emoji_of(
                fetch(
                    ["npm", "pack", f"emoji-datasource-{vendor}@{VERSION}"],
                    f"emoji-datasource-{vendor}-*.tgz",
                    packages,
                ),
                vendor,
            )
            for vendor in (TRAIN_VENDOR, TEST_VENDOR)
        )
        counts = write_splits(out, pictures(train, test, variants))
    except GITError as error:
        raise click.ClickException(str(error)) from None
    click.echo(", ".join(f"{split}: {n:,}" for split, n in counts.items()))


if __name__ == "__main__":
    main()
