"""A world like the built-in one whose things are photographs: the stamps of the program Tux Paint.

    python examples/real_pictures/stamps.py data/stamps
    git-model data vocab data/stamps/train --out data/stamps/vocabulary --size 1000
    git-model train configs/train/stamps.toml --out runs/stamps

It fetches the Debian package tuxpaint-stamps-default (GPL-2): pictures with a transparent
background, most of them photographs, and a sentence for each. A picture of this world has one or
two of them, and its caption follows from where they stand: `a cow at the top left`,
`a donkey above and to the left of a lemon`. It writes five folders:

- train
- validation: new pictures of the same things and pairs, for choosing settings
- held_out: likewise, for testing
- new_pairs: two things that training never shows together
- new_things: one of the things, or both, is new, and so is its name
"""

import hashlib
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from random import Random

import click
from common import Picture, debian_files, fetch, plain_words, write_splits
from PIL import Image, ImageEnhance

from git_model import GITError
from git_model.shapes.world import pick, pick_several, uniform

PACKAGE = "tuxpaint-stamps-default"
SIZE, CELL = 96, 48  # pixels of a picture, and of a cell of its 2 x 2 grid
LIKE_TRAINING = ("train", "held_out", "validation")  # in the order in which they are filled
N_TEST = 500  # pictures of each split but training
MAX_SIDE = 128  # pixels that are kept of a stamp
SIDES = (38.0, 47.0)  # pixels of a thing's longer side
FACTORS = (0.85, 1.15)  # of brightness and colour
POSITIONS = ("at the top left", "at the top right", "at the bottom left", "at the bottom right")
# Of the first cell of a pair, in reading order, to the second.
RELATIONS = {
    (0, 1): "to the left of", (2, 3): "to the left of", (0, 2): "above", (1, 3): "above",
    (0, 3): "above and to the left of", (1, 2): "above and to the right of",
}  # fmt: skip
NAME = re.compile(r"(an? [a-z]+(?:[ '-][a-z]+){0,2})[.!]")  # such as "A Silver Gull."

Stamps = dict[str, list[Image.Image]]  # the pictures of each name


def stamps_of(package: Path) -> Stamps:
    """The photographs in the package whose sentence is a short name, cut to what is not
    transparent."""
    files = {}
    for path, data in debian_files(package):
        if "/stamps/" in path and path.endswith((".png", ".txt")):
            files[path.partition("/stamps/")[2]] = data
    stamps: Stamps = {}
    for path, data in sorted(files.items()):
        sentences = files.get(str(PurePosixPath(path).with_suffix(".txt")))
        is_photograph = not {"cartoon", "symbols"} & set(PurePosixPath(path).parts)
        if not path.endswith(".png") or sentences is None or not is_photograph:
            continue
        name = NAME.fullmatch(sentences.decode(errors="replace").partition("\n")[0].strip().lower())
        if name:
            stamps.setdefault(name[1], []).append(_cut_out(data))
    return stamps


def _cut_out(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data)).convert("RGBA")
    image = image.crop(image.getchannel("A").getbbox())
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return image


def _is_tenth(*names: str) -> bool:
    """Whether these names belong to the tenth that is held out."""
    return hashlib.sha256(" + ".join(sorted(names)).encode()).digest()[0] % 10 == 0


def split_of(names: list[str]) -> str:
    """The split of a picture with these things."""
    if any(map(_is_tenth, names)):
        return "new_things"
    return "new_pairs" if len(names) == 2 and _is_tenth(*names) else "train"


def make_picture(stamps: Stamps, rng: Random) -> tuple[list[str], Image.Image, str]:
    """The names in a random picture, the picture and its caption."""
    names = pick_several(rng, stamps, 1 if rng.random() < 1 / 4 else 2)
    cells = sorted(pick_several(rng, range(4), len(names)))
    background = tuple(round(uniform(rng, 150, 255)) for _ in range(3))
    picture = Image.new("RGBA", (SIZE, SIZE), (*background, 255))
    for name, cell in zip(names, cells, strict=True):
        _place(picture, pick(rng, stamps[name]), cell, rng)
    if len(names) == 1:
        caption = f"{names[0]} {POSITIONS[cells[0]]}"
    else:
        caption = f"{names[0]} {RELATIONS[cells[0], cells[1]]} {names[1]}"
    return names, picture.convert("RGB"), plain_words(caption)


def _place(picture: Image.Image, stamp: Image.Image, cell: int, rng: Random) -> None:
    """Draw a thing somewhere in its cell, in a random size, brightness and colour."""
    scale = uniform(rng, *SIDES) / max(stamp.size)
    size = tuple(max(1, round(side * scale)) for side in stamp.size)
    alpha = stamp.getchannel("A").resize(size)
    thing = stamp.resize(size)
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Color):
        thing = enhancer(thing).enhance(uniform(rng, *FACTORS))
    thing.putalpha(alpha)
    row, column = divmod(cell, 2)
    left, top = (
        CELL * index + int(rng.random() * (CELL - side + 1))
        for index, side in zip((column, row), size, strict=True)
    )
    picture.alpha_composite(thing, (left, top))


def pictures(stamps: Stamps, n_train: int, n_test: int) -> Iterator[Picture]:
    """Pictures until every split has its number; `held_out` and `validation` are those after
    training's."""
    tests = ("held_out", "validation", "new_pairs", "new_things")
    missing = {"train": n_train} | dict.fromkeys(tests, n_test)
    number = 0
    while any(missing.values()):
        rng = Random(number)
        names, image, caption = make_picture(stamps, rng)
        split = split_of(names)
        if split == "train":
            split = next((name for name in LIKE_TRAINING if missing[name]), split)
        if missing[split]:
            missing[split] -= 1
            yield Picture(split, f"{number:06}.jpg", image, caption)
        number += 1


@click.command(help=__doc__)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--packages", type=click.Path(path_type=Path), default=Path("data/packages"),
              show_default=True, help="Where the package lies, or is put.")  # fmt: skip
@click.option("--size", default=40000, show_default=True, type=click.IntRange(min=1))
def main(out: Path, packages: Path, size: int) -> None:
    """Fetch the package and write the folders."""
    try:
        path = fetch(["apt-get", "download", PACKAGE], f"{PACKAGE}_*.deb", packages)
        counts = write_splits(out, pictures(stamps_of(path), size, N_TEST))
    except GITError as error:
        raise click.ClickException(str(error)) from None
    click.echo(", ".join(f"{split}: {n:,}" for split, n in counts.items()))


if __name__ == "__main__":
    main()
