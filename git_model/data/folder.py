"""A folder of pictures with their texts beside them: the form for a data set of one's own."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from git_model.data.example import Annotation
from git_model.data.manifests import (
    DataError,
    Entry,
    Files,
    annotation_of,
    clean,
    each,
    inside,
    merged,
    parse,
    read_lines,
    text_of,
)
from git_model.preprocessing.video import Sampling
from git_model.utils.errors import ConfigError
from git_model.utils.serialize import is_folder

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".bmp", ".tif", ".tiff", ".ppm")
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv",
          ".ogv")  # fmt: skip
METADATA = "metadata.jsonl"


@dataclass(frozen=True, kw_only=True)
class FolderData:
    """Pictures in a folder and the folders in it. Their texts stand in files `metadata.jsonl`
    (Hugging Face's imagefolder), or beside each picture in a .txt file, a caption on each line.

    A line of metadata.jsonl is {"file_name": "a.jpg", "text": "a cat"}, or has question and answer
    in place of text; several lines may be about one picture. See `manifests.annotation_of`.
    """

    kind: Literal["folder"] = "folder"
    path: str
    frames: int = 0  # most frames of a clip, for a model with temporal embeddings; 0: no videos
    sampling: Sampling = "uniform"  # which frames, see `video.sample_indices`

    def __post_init__(self) -> None:
        if self.frames < 0:
            raise ConfigError(f"frames is {self.frames}, expected 0 (pictures only) or more")

    def open(self) -> Files:
        """Look through the folder."""
        folder = Path(self.path)
        if not is_folder(folder):
            raise DataError(f"{folder}: no folder is there")
        manifests = sorted(folder.rglob(METADATA))
        entries = list(self._listed(manifests) if manifests else self._beside(folder))
        return Files(entries, self.path, self.frames, self.sampling)

    def _listed(self, manifests: list[Path]) -> Iterator[Entry]:
        for manifest in manifests:
            targets: dict[Path, list[Annotation]] = {}
            listing = partial(_listing, folder=manifest.parent)
            for path, target in each(read_lines(manifest), listing, f"{manifest}: line"):
                targets.setdefault(path, []).append(target)
            for path, found in targets.items():
                yield Entry(path.relative_to(self.path).as_posix(), path, merged(found))

    def _beside(self, folder: Path) -> Iterator[Entry]:
        suffixes = PICTURES + VIDEOS if self.frames else PICTURES
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in suffixes and not path.name.startswith("."):
                key = path.relative_to(folder).as_posix()
                yield Entry(key, path, (Annotation(_captions(path.with_suffix(".txt"))),))


def _listing(line: str, folder: Path) -> tuple[Path, Annotation]:
    record = parse(line)
    return inside(folder, text_of(record, "file_name")), annotation_of(record)


def _captions(path: Path) -> tuple[str, ...]:
    lines = each(read_lines(path), lambda line: clean(line, "the line"), f"{path}: line")
    captions = tuple(line for line in lines if line)
    if not captions:
        raise DataError(f"{path}: there is no text in it, expected a caption on each line")
    return captions
