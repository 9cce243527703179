"""A folder of images with their texts: the simplest form for your own data set."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from git_model.data.example import Annotation
from git_model.data.manifests import (
    DataError,
    FileEntry,
    FileSource,
    annotation_of,
    clean,
    merge_captions,
    parse,
    parse_each,
    path_within,
    read_lines,
    text_of,
)
from git_model.data.untaken import looks_like_media_file
from git_model.preprocessing.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from git_model.preprocessing.sampling import Sampling
from git_model.utils.errors import ConfigError
from git_model.utils.serialize import is_folder

METADATA = "metadata.jsonl"


@dataclass(frozen=True, kw_only=True)
class FolderData:
    """Images in a folder and its subfolders. Their texts stand in files `metadata.jsonl` (Hugging
    Face's imagefolder), or beside each image in a .txt file with a caption on each line.

    A line of metadata.jsonl is {"file_name": "a.jpg", "text": "a cat"}, or has question and answer
    in place of text; several lines may be about one image. See `manifests.annotation_of`.
    """

    kind: Literal["folder"] = "folder"
    path: str  # the folder
    frames: int = 0  # frames of a clip, for a model with temporal embeddings; 0: no videos
    sampling: Sampling = "uniform"  # the rule that picks the frames: uniform, ends or time

    def __post_init__(self) -> None:
        if self.frames < 0:
            raise ConfigError(f"frames is {self.frames}, expected 0 (images only) or more")

    def open(self) -> "FolderSource":
        """List the folder's images and read their texts.

        Raises:
            DataError: there are none, a text is missing, or two images share one.
        """
        folder = Path(self.path)
        if not is_folder(folder):
            raise DataError(f"{folder}: no such folder, expected a folder of images")
        manifests = sorted(folder.rglob(METADATA))
        entries = list(self._from_metadata(manifests) if manifests else self._with_texts(folder))
        return FolderSource(entries, self.path, self.frames, self.sampling)

    def _from_metadata(self, manifests: list[Path]) -> Iterator[FileEntry]:
        """The images that the files metadata.jsonl name."""
        for manifest in manifests:
            annotations: dict[Path, list[Annotation]] = {}
            parse_line = partial(_parse_line, folder=manifest.parent)
            lines = parse_each(read_lines(manifest), parse_line, f"{manifest}: line")
            for path, annotation in lines:
                annotations.setdefault(path, []).append(annotation)
            for path, items in annotations.items():
                yield FileEntry(path.relative_to(self.path).as_posix(), path, merge_captions(items))

    def _with_texts(self, folder: Path) -> Iterator[FileEntry]:
        """All images, each with the .txt file beside it."""
        suffixes = IMAGE_SUFFIXES + VIDEO_SUFFIXES if self.frames else IMAGE_SUFFIXES
        image_of: dict[Path, Path] = {}  # by its text
        for path in sorted(folder.rglob("*")):
            is_media = path.suffix.lower() in suffixes and not path.name.startswith(".")
            if is_media and not path.is_dir():
                text = path.with_suffix(".txt")
                other = image_of.setdefault(text, path)
                if other != path:
                    raise DataError(
                        f"{path}: {text.name} would be its text and that of {other.name}: rename "
                        f"one of them, or write the texts into {METADATA}"
                    )
                key = path.relative_to(folder).as_posix()
                yield FileEntry(key, path, (Annotation(_captions(text)),))


class FolderSource(FileSource):
    """The images of a folder."""

    def untaken(self) -> Iterator[str]:
        """See `PartOfFolder`. Hidden folders are not searched."""
        folder, taken = Path(self._where), {entry.path for entry in self._entries}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            is_hidden = any(part.startswith(".") for part in name.parent.parts)
            is_other = path not in taken and not is_hidden and path.is_file()
            if is_other and looks_like_media_file(path):
                yield name.as_posix()


def _parse_line(line: str, folder: Path) -> tuple[Path, Annotation]:
    record = parse(line)
    return path_within(folder, text_of(record, "file_name")), annotation_of(record)


def _captions(path: Path) -> tuple[str, ...]:
    lines = parse_each(read_lines(path), lambda line: clean(line, "the line"), f"{path}: line")
    captions = tuple(line for line in lines if line)
    if not captions:
        raise DataError(f"{path}: there is no text in it, expected a caption on each line")
    return captions
