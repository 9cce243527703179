"""Where records are written: a text file for each image, one table, or WebDataset's shards."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path, PurePath, PurePosixPath
from tarfile import TarFile, TarInfo
from typing import Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from PIL import Image

from git_model.batch.items import Input, OutputRecord, WebAddress, record_identity
from git_model.batch.sink_tables import (
    TABLE_FORMATS,
    UNESCAPED_CSV,
    TableFormat,
    read_jsonl,
    with_whole_records,
)
from git_model.data.manifests import path_within
from git_model.preprocessing.fetch import is_url
from git_model.preprocessing.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from git_model.preprocessing.image import open_file
from git_model.utils.atomic import new_file, require_file
from git_model.utils.errors import GITError

MEDIA_SUFFIXES = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
RECORDS = "batch.jsonl"  # the records of text files or of a TSV, beside them
SAMPLES_PER_SHARD = 1000
SHARD_NUMBERS = re.compile(r"\{(0+)\.\.(9+)\}")

InputRecord = tuple[Input | None, OutputRecord]  # an input, or None if it is gone, and its record
ShardSample = dict[str, bytes]  # files by their suffixes
AnyPath = TypeVar("AnyPath", bound=PurePath)


class Sink(Protocol):
    """Where records are written."""

    @property
    def path(self) -> Path:
        """The file, or the folder of the files."""

    @property
    def extension(self) -> str:
        """The suffix of its files, with a dot."""

    @property
    def writes_at_once(self) -> bool:
        """Whether `write` is called for each record as soon as it is made."""

    @property
    def has_whole_records(self) -> bool:
        """Whether its files have all fields of a record; else they lie beside, see RECORDS."""

    def slot(self, record: OutputRecord) -> bytes:
        """Equal for records of which the sink can hold only one.

        Args:
            record: at least the fields of its input.
        """

    def old_records(self) -> Iterable[OutputRecord]:
        """The records that the sink holds already.

        Raises:
            GITError: they cannot be read; the message names the file.
        """

    def output_path(self, item: Input) -> Path | None:
        """The file of an input's text, if each input has its own file.

        Raises:
            GITError: the input cannot have a file.
        """

    def old_text(self, item: Input) -> str | None:
        """The present text of an input, if each input has its own file."""

    def write(self, item: Input, record: OutputRecord) -> None:
        """Write one record. Writing it twice gives the same result.

        Raises:
            GITError: it cannot be written.
        """

    def finish(self, records: Iterable[InputRecord]) -> list[tuple[Input, str]]:
        """Write all records that are not written yet; they are walked once. The old files are
        replaced only when all records are written.

        Returns:
            inputs whose record could not be written, and why.
        """


def find_sink(
    out: str | None, extension: str | None, sources: str | Sequence[str], *, csv_safe: bool = True
) -> Sink:
    """The sink of a name. No folder is made yet; see `make_sink_folder`.

    Args:
        out: a file that ends in .jsonl, .csv, .parquet, .tsv or .tar; otherwise a folder for text
            files; None: text files beside the images.
        extension: of text files; None: .txt.
        sources: where the inputs come from. With text files beside images, the run's own files lie
            in the folder of the first source.
        csv_safe: in CSV, texts that a spreadsheet would run as formulas begin with an apostrophe.

    Raises:
        GITError: no sink has such a name.
    """
    sources = [sources] if isinstance(sources, str) else sources
    is_folder = out is None or out.endswith("/") or Path(out).is_dir()
    suffix = "" if is_folder else Path(str(out)).suffix.lower()
    if extension is not None and suffix in (".tar", *TABLE_FORMATS):
        raise GITError(f"{out}: an extension is for text files, this is one file for all")
    if not csv_safe and suffix != ".csv":
        raise GITError("--no-csv-safe is for one table of CSV, expected --out NAME.csv")
    if out is None:
        folders = [_folder_of(source) for source in sources]  # of all, for what they refuse
        return TextFileSink(folders[0], _with_dot(extension), is_mirror=False)
    if suffix == ".tar":
        if "{" in out and SHARD_NUMBERS.search(out) is None:
            raise GITError(f"{out}: expected the shards' numbers as {{0000..9999}}, or none")
        return ShardSink(out)
    if suffix in TABLE_FORMATS:
        return TableSink(Path(out), TABLE_FORMATS[suffix] if csv_safe else UNESCAPED_CSV)
    if suffix:
        suffixes = ", ".join([*TABLE_FORMATS, ".tar"])
        raise GITError(f"{out}: expected a folder, or a file that ends in {suffixes}")
    return TextFileSink(Path(out), _with_dot(extension), is_mirror=True)


def make_sink_folder(sink: Sink) -> None:
    """Make the folder of a sink's files, and those that it lies in, if they are not there.

    Raises:
        GITError: it cannot be made.
    """
    make_folder(sink_folder(sink))
    if not isinstance(sink, TextFileSink):
        require_file(sink.path)


def sink_folder(sink: Sink) -> Path:
    """The folder of a sink's files."""
    return sink.path if isinstance(sink, TextFileSink) else sink.path.parent


def companion_path(path: Path, name: str) -> Path:
    """A file or folder that belongs to a sink: in it if it is a folder, else named after it."""
    return path / name if path.is_dir() else path.with_name(f"{path.stem}.{name}")


def make_folder(path: Path) -> None:
    """Make a folder and those that it lies in, if they are not there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GITError(f"{path}: cannot be made: {error.strerror or error}") from None


def _with_dot(extension: str | None) -> str:
    suffix = "." + ("txt" if extension is None else extension.removeprefix("."))
    if suffix == "." or "/" in suffix or "\0" in suffix:
        raise GITError(f"the extension is {extension!r}, expected one such as .txt")
    if suffix.lower() in MEDIA_SUFFIXES:
        raise GITError(
            f"the extension is {extension!r}: the texts would replace the images, expected one "
            "such as .txt"
        )
    return suffix


def _folder_of(source: str) -> Path:
    """The folder of a source, for the files of a run that writes beside images."""
    path = Path(source)
    is_archive = path.suffix.lower() in (".tar", ".tsv") and not path.is_dir()
    if is_archive or is_url(source):
        raise GITError(f"{source}: no text files can lie beside its images, expected --out")
    if source == "-":
        return Path()
    return path if path.is_dir() else next(parent for parent in path.parents if parent.is_dir())


def file_text(record: OutputRecord) -> str:
    """What an input's text file holds: a line for each of its texts."""
    text = record["text" if "text" in record else "answer"]
    return "\n".join(text if isinstance(text, list) else [text]) + "\n"


@dataclass(frozen=True)
class TextFileSink:
    """A text file for each image, with the image's name; several texts are several lines.

    path: the folder of the images; with `is_mirror` another folder, with the same subfolders.
    extension: of the text files, with its dot.
    """

    path: Path
    extension: str
    is_mirror: bool
    writes_at_once: bool = True
    has_whole_records: bool = False

    def slot(self, record: OutputRecord) -> bytes:
        """See `Sink`: a text file, whatever the suffix of its image and the question."""
        name = str(record["file_name"])
        path = PurePosixPath(_path_of_url(name) if is_url(name) else name)
        return str(self._renamed(path) if path.name else path).encode("utf-8", "surrogatepass")

    def old_records(self) -> Iterator[OutputRecord]:
        """See `Sink`: the records of earlier runs. The text files may have changed since then."""
        return _read(self.path / RECORDS, read_jsonl)

    def old_text(self, item: Input) -> str | None:
        """See `Sink`."""
        try:
            # bytes that are not UTF-8 stay as they are when more text is joined to them
            with open_file(self._text_path(item)) as file:
                return file.read().decode("utf-8", "surrogateescape").strip() or None
        except (OSError, GITError):
            return None  # `write` reports it

    def write(self, item: Input, record: OutputRecord) -> None:
        """See `Sink`."""
        path = self._text_path(item)
        make_folder(path.parent)
        with new_file(path) as beside:
            beside.write_text(file_text(record), "utf-8", "surrogateescape")

    def finish(self, records: Iterable[InputRecord]) -> list[tuple[Input, str]]:
        """See `Sink`: all is written, so this only walks the records."""
        for _ in records:
            pass
        return []

    def output_path(self, item: Input) -> Path:
        """See `Sink`. `DistinctInputs` refuses a second image of a run with the same text file."""
        if self.is_mirror:
            return self._mirrored(item)
        if not isinstance(item.location, Path):
            raise GITError(f"{item.name}: no text file can lie beside it, expected --out FOLDER")
        return item.location.with_suffix(self.extension)

    def _text_path(self, item: Input) -> Path:
        """An input's text file.

        Raises:
            GITError: another image in the folder has the same text file, or the image is not a file
                that a text file can lie beside.
        """
        if isinstance(item.location, Path):
            _require_only(item.location, item.name)
        return self.output_path(item)

    def _mirrored(self, item: Input) -> Path:
        path = path_within(self.path, _path_of(item))
        if path == self.path:
            raise GITError(f"{item.name!r} names no file, expected a key that does")
        return self._renamed(path)

    def _renamed(self, image: AnyPath) -> AnyPath:
        """The path of an image's text file."""
        if self.is_mirror and image.suffix.lower() not in MEDIA_SUFFIXES:  # a row's key: v1.5
            return image.with_name(image.name + self.extension)
        return image.with_suffix(self.extension)


def _read(path: Path, read: Callable[[Path], Iterator[OutputRecord]]) -> Iterator[OutputRecord]:
    """The records in a file, if it is there."""
    if path.exists():
        try:
            yield from read(path)
        except OSError as error:
            raise GITError(f"{path}: {error.strerror or error}") from None


def _path_of(item: Input) -> str:
    """An input's key as a path; for a web address its host and path."""
    location = item.location
    return _path_of_url(location.url) if isinstance(location, WebAddress) else item.key


def _path_of_url(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.netloc.replace(':', '_')}{unquote(parts.path)}"


def _require_only(image: Path, name: str) -> None:
    """Refuse an image if another image has the same name with an earlier suffix, and so the same
    text file."""
    for suffix in MEDIA_SUFFIXES:
        for other in (image.with_suffix(suffix), image.with_suffix(suffix.upper())):
            # lexists: it is False for a name that is too long, for which `exists` raises
            if other < image and os.path.lexists(other):
                raise GITError(
                    f"{name}: {other.name} would have the same text file: rename one of them, or "
                    "write a table (--out texts.csv)"
                )


@dataclass(frozen=True)
class TableSink:
    """One file, in one of the formats of `sink_tables.py`."""

    path: Path
    format: TableFormat
    writes_at_once: bool = False

    @property
    def extension(self) -> str:
        """See `Sink`."""
        return self.path.suffix

    @property
    def has_whole_records(self) -> bool:
        """See `Sink`."""
        return self.format.is_whole

    def slot(self, record: OutputRecord) -> bytes:
        """See `Sink`."""
        return record_identity(record)

    def old_records(self) -> Iterator[OutputRecord]:
        """See `Sink`."""
        records = _read(self.path, self.format.read)
        if self.has_whole_records:
            return records
        whole = _read(companion_path(self.path, RECORDS), read_jsonl)
        return with_whole_records(records, whole)

    def output_path(self, _: Input) -> None:
        """See `Sink`: there is one file for all."""

    def old_text(self, _: Input) -> None:
        """See `Sink`."""

    def write(self, item: Input, record: OutputRecord) -> None:
        """See `Sink`: nothing, because `finish` writes all."""

    def finish(self, records: Iterable[InputRecord]) -> list[tuple[Input, str]]:
        """See `Sink`."""
        with new_file(self.path) as path:
            self.format.write(path, (record for _, record in records))
        return []


@dataclass(frozen=True)
class ShardSink:
    """Tars of samples. A sample has an image's file, a .txt with its texts, one on each line, and a
    .json with its record, or with a list of records if there were several questions.

    pattern: such as out-{0000..9999}.tar, for shards of 1,000 samples; out.tar for one.
    """

    pattern: str
    extension: str = ".tar"
    writes_at_once: bool = False
    has_whole_records: bool = True

    def slot(self, record: OutputRecord) -> bytes:
        """See `Sink`."""
        return record_identity(record)

    @property
    def path(self) -> Path:
        """See `Sink`: the name; of a pattern the name without the numbers."""
        return Path(re.sub(r"[-_.]?\{.*\}", "", self.pattern))

    def old_records(self) -> Iterable[OutputRecord]:
        """See `Sink`: none. Old shards are an error, because the images in them would be lost."""
        if self._shard_path(0).exists():
            raise GITError(
                f"{self._shard_path(0)}: already exists, and shards are only written anew: "
                "expected another name, or --overwrite"
            )
        return ()

    def output_path(self, _: Input) -> None:
        """See `Sink`: there is one file for all."""

    def old_text(self, _: Input) -> None:
        """See `Sink`."""

    def write(self, item: Input, record: OutputRecord) -> None:
        """See `Sink`: nothing, because `finish` writes all."""

    def finish(self, records: Iterable[InputRecord]) -> list[tuple[Input, str]]:
        """See `Sink`. Rejected texts are left out, and records of images that are gone."""
        failures: list[tuple[Input, str]] = []
        n_shards = 0
        with ExitStack() as shards:  # they take their names in the end
            tar: TarFile | None = None
            for number, sample in enumerate(_samples(records, failures)):
                if tar is None or (self._is_numbered and number % SAMPLES_PER_SHARD == 0):
                    if tar is not None:
                        tar.close()
                    path = shards.enter_context(new_file(self._shard_path(n_shards)))
                    tar = TarFile.open(path, "w")
                    n_shards += 1
                for suffix, data in sample.items():
                    _add_member(tar, f"{number:09}{suffix}", data)
            if tar is not None:
                tar.close()
        while self._is_numbered and self._shard_path(n_shards).exists():  # of a run that had more
            self._shard_path(n_shards).unlink()
            n_shards += 1
        return failures

    @property
    def _is_numbered(self) -> bool:
        return SHARD_NUMBERS.search(self.pattern) is not None

    def _shard_path(self, number: int) -> Path:
        """The path of a shard; its number has more digits than the pattern if it needs them."""
        digits = SHARD_NUMBERS.sub(lambda match: f"{number:0{len(match[1])}}", self.pattern)
        return Path(digits)


def _samples(
    records: Iterable[InputRecord], failures: list[tuple[Input, str]]
) -> Iterator[ShardSample]:
    """The files of each image; an image that cannot be read any more is added to `failures`."""
    good = ((item, record) for item, record in records if item and "rejected" not in record)
    for _, group in groupby(good, key=lambda pair: pair[0].location):
        pairs = list(group)
        item = pairs[0][0]
        try:
            image = item.read()
        except GITError as error:
            failures += [(failed, str(error)) for failed, _ in pairs]
            continue
        of_image = [record for _, record in pairs]
        sample = {_media_suffix(item, image): image}
        if "text" in of_image[0]:
            text = of_image[0]["text"]
            lines = "\n".join(text if isinstance(text, list) else [text])
            sample[".txt"] = lines.encode("utf-8", "backslashreplace")
        content = of_image[0] if len(of_image) == 1 else of_image
        yield sample | {".json": json.dumps(content).encode()}


def _media_suffix(item: Input, data: bytes) -> str:
    """The suffix of an image's file; rows of a TSV have no names."""
    suffix = Path(item.key).suffix.lower()
    if suffix in MEDIA_SUFFIXES:
        return suffix
    try:
        with Image.open(BytesIO(data)) as image:
            return f".{(image.format or 'img').lower()}"
    except OSError:  # not Pillow's: a video
        return ".mp4"


def _add_member(tar: TarFile, name: str, data: bytes) -> None:
    member = TarInfo(name)
    member.size = len(data)
    tar.addfile(member, BytesIO(data))
    tar.members = []  # type: ignore[attr-defined]  # else it would keep each, for reading
