"""The examples that the page offers: drawn ones for the built-in model, or those of a folder."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image

from git_model.config import GITConfig
from git_model.preprocessing.clip import Clip
from git_model.preprocessing.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from git_model.preprocessing.image import upright_rgb
from git_model.preprocessing.video import read_media
from git_model.shapes.clips import draw_clip, make_story
from git_model.shapes.texts import describe, describe_story
from git_model.shapes.world import draw, make_close_up, make_world
from git_model.utils.errors import GITError

MAX_SHOWN = 6  # examples with a thumbnail
MAX_SAMPLE_BYTES = 20 * 2**20  # as of an upload
THUMBNAIL_SIZE = 128  # pixels, the longest side
SEED = 8  # of the drawn examples, which are the same at every start
CLIP_SHARE = 0.25  # of the random drawings, for a model of clips


@dataclass(frozen=True)
class Sample:
    """An example with a thumbnail.

    name: for people who do not see the thumbnail.
    read: returns the bytes of its file.
    text: its correct caption, if that is known.
    """

    name: str
    thumbnail: Image.Image
    is_clip: bool
    read: Callable[[], bytes]
    text: str = ""


@dataclass(frozen=True)
class Samples:
    """The examples of a page: some that are shown, and a random one."""

    shown: Sequence[Sample]
    random: Callable[[Random], bytes]

    def read(self, index: int) -> bytes:
        """The file of a shown example.

        Raises:
            GITError: there is no such example, or its file cannot be read.
        """
        if not 0 <= index < len(self.shown):
            raise GITError("There is no such example.")
        return self.shown[index].read()


def drawn_samples(*, clips: bool) -> Samples:
    """Images of the built-in model's world, from the split that its training never used.

    Args:
        clips: whether to include a clip.
    """
    rng = Random(SEED)  # noqa: S311 (it draws shapes)
    worlds = [make_close_up(rng, "held_out"), *(make_world(rng, "held_out") for _ in range(3))]
    worlds.append(make_close_up(rng, "held_out"))
    drawings = [([draw(world)], describe(world)) for world in worlds]
    if clips:
        story = make_story(rng, "held_out")
        drawings.append((draw_clip(story), describe_story(story)))
    shown = [_drawn(number, *drawing) for number, drawing in enumerate(drawings, start=1)]
    return Samples(shown, lambda rng: random_drawing(rng, clips=clips))


def random_drawing(rng: Random, *, clips: bool) -> bytes:
    """A file with a random drawing of the built-in model's world, from its held-out split."""
    if clips and rng.random() < CLIP_SHARE:
        return _as_file(draw_clip(make_story(rng, "held_out")))
    return _as_file([draw(make_world(rng, "held_out"))])


def folder_samples(folder: Path, config: GITConfig) -> Samples:
    """The pictures in a folder, without those in its subfolders; links are left out.

    Args:
        config: of the model, which decides whether clips count.

    Raises:
        GITError: it is not a folder, or no picture in it can be shown.
    """
    suffixes = file_suffixes(clips=config.frames > 0)
    try:
        paths = sorted(path for path in folder.iterdir() if _is_sample(path, suffixes))
    except OSError as error:
        raise GITError(f"{folder}: {error.strerror}, expected a folder of pictures") from None
    shown: list[Sample] = []
    for path in paths:
        if len(shown) == MAX_SHOWN:
            break
        try:
            shown.append(_of_file(path, config))
        except (GITError, ValueError, OSError):  # there are others to show
            continue
    if not shown:
        raise GITError(f"{folder}: no picture in it can be shown, expected at least one")
    return Samples(shown, lambda rng: _read(rng.choice(paths)))


def file_suffixes(*, clips: bool) -> tuple[str, ...]:
    """The endings of the files that the page takes."""
    return (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) if clips else IMAGE_SUFFIXES


def _is_sample(path: Path, suffixes: Sequence[str]) -> bool:
    return (
        path.suffix.lower() in suffixes
        and not path.is_symlink()
        and path.is_file()
        and path.stat().st_size <= MAX_SAMPLE_BYTES
    )


def _of_file(path: Path, config: GITConfig) -> Sample:
    media = read_media(path, config.frames)
    first = media.frames[0] if isinstance(media, Clip) else media
    thumbnail = upright_rgb(first, config.preprocess)
    thumbnail.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    return Sample(path.name, thumbnail, isinstance(media, Clip), lambda: _read(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise GITError(f"{path.name}: {error.strerror}: choose another example.") from None


def _drawn(number: int, frames: list[Image.Image], text: str) -> Sample:
    data = _as_file(frames)
    return Sample(f"drawing {number}", frames[0], len(frames) > 1, lambda: data, text)


def _as_file(frames: list[Image.Image]) -> bytes:
    """The frames as a PNG, animated if there are several."""
    file = io.BytesIO()
    first, *others = frames
    first.save(file, "PNG", save_all=bool(others), append_images=others)
    return file.getvalue()
