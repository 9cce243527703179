"""Where records go: a text file for each picture, or one file for all of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from git_model.batch.inputs import Input
from git_model.batch.records import Record
from git_model.batch.sink_shards import NUMBERS, Shards
from git_model.batch.sink_tables import FORMS, Form
from git_model.data.folder import PICTURES, VIDEOS
from git_model.data.manifests import inside
from git_model.utils.atomic import new_file
from git_model.utils.errors import GITError

SUFFIXES = [case(suffix) for suffix in (*PICTURES, *VIDEOS) for case in (str.lower, str.upper)]

Pair = tuple[Input | None, Record]  # an input, or None if it is gone, and its record


class Target(Protocol):
    """Where records go."""

    @property
    def place(self) -> Path:
        """The file, or the folder of the files."""

    @property
    def extension(self) -> str:
        """What the names of its files end in, with a dot."""

    @property
    def at_once(self) -> bool:
        """Whether `write` is to be called for each record as it is made."""

    def old(self) -> Iterable[Record]:
        """The records that are there.

        Raises:
            GITError: they cannot be read; the message names the place.
        """

    def known(self, item: Input) -> str | None:
        """The text of an input that is there, where each has a file of its own."""

    def write(self, item: Input, record: Record) -> None:
        """Write one record; to do so twice changes nothing.

        Raises:
            GITError: it cannot be written.
        """

    def finish(self, pairs: Iterable[Pair]) -> list[tuple[Input, str]]:
        """Write all records that are not written yet; they are walked once. What was there stays
        whole until all is written.

        Returns:
            inputs whose record could not be written, and why.
        """


@dataclass(frozen=True)
class Sidecars:
    """A text file for each picture, named as it; several texts are several lines.

    Args:
        place: the folder of the pictures, or if `mirrored` another, in which the text files lie
            as the pictures do in theirs.
        extension: of the text files, with its dot.
    """

    place: Path
    extension: str
    mirrored: bool
    at_once: bool = True

    def old(self) -> Iterable[Record]:
        """See `Target`: none, for they are looked up one by one."""
        return ()

    def known(self, item: Input) -> str | None:
        """See `Target`."""
        try:
            # bytes that are not UTF-8 stay as they are when more text is joined to them
            return self._path(item).read_text("utf-8", "surrogateescape").strip() or None
        except (OSError, GITError):
            return None  # what is wrong is told when it is written

    def write(self, item: Input, record: Record) -> None:
        """See `Target`."""
        said = record["text" if "text" in record else "answer"]
        lines = said if isinstance(said, list) else [said]
        path = self._path(item)
        make_folder(path.parent)
        with new_file(path) as beside:
            beside.write_text("\n".join(lines) + "\n", "utf-8", "surrogateescape")

    def finish(self, pairs: Iterable[Pair]) -> list[tuple[Input, str]]:
        """See `Target`: all is written, so this only walks them."""
        for _ in pairs:
            pass
        return []

    def _path(self, item: Input) -> Path:
        """An input's text file, if it is that of no other picture, too.

        Raises:
            GITError: it is; or there is no picture to stand beside.
        """
        if isinstance(item.place, Path):
            for suffix in SUFFIXES:
                other = item.place.with_suffix(suffix)
                if other < item.place and other.exists():
                    raise GITError(
                        f"{item.name}: {other.name} would have the same text file, expected "
                        "another name"
                    )
        if self.mirrored:
            path = inside(self.place, item.key)
            if path == self.place:
                raise GITError(f"{item.name!r} names no file, expected a key that does")
            if path.suffix.lower() not in (*PICTURES, *VIDEOS):  # a row's key such as v1.5
                return path.with_name(path.name + self.extension)
            return path.with_suffix(self.extension)
        if not isinstance(item.place, Path):
            raise GITError(f"{item.name}: no text file can lie beside it, expected --out FOLDER")
        return item.place.with_suffix(self.extension)


@dataclass(frozen=True)
class Table:
    """One file, in one of the forms of `target_tables.py`."""

    place: Path
    form: Form
    at_once: bool = False

    @property
    def extension(self) -> str:
        """See `Target`."""
        return self.place.suffix

    def old(self) -> Iterator[Record]:
        """See `Target`."""
        if self.place.exists():
            try:
                yield from self.form[0](self.place)
            except OSError as error:
                raise GITError(f"{self.place}: {error.strerror or error}") from None

    def known(self, _: Input) -> None:
        """See `Target`."""

    def write(self, item: Input, record: Record) -> None:
        """See `Target`: nothing, for `finish` writes all."""

    def finish(self, pairs: Iterable[Pair]) -> list[tuple[Input, str]]:
        """See `Target`."""
        with new_file(self.place) as path:
            self.form[1](path, (record for _, record in pairs))
        return []


def find_target(out: str | None, extension: str | None, source: str) -> Target:
    """The target of a name.

    Args:
        out: a file that ends in .jsonl, .csv, .parquet, .tsv or .tar; else a folder, made if need
            be, for text files; None: beside the pictures.
        extension: of text files; None: .txt.
        source: what the inputs come from.

    Raises:
        GITError: it cannot be a target, or the folder cannot be made.
    """
    is_folder = out is None or out.endswith("/") or Path(out).is_dir()
    suffix = "" if is_folder else Path(str(out)).suffix.lower()
    if extension is not None and suffix in (".tar", *FORMS):
        raise GITError(f"{out}: an extension is for text files, this is one file for all")
    if out is None:
        return Sidecars(_folder_of(source), _dotted(extension), mirrored=False)
    if suffix == ".tar":
        if "{" in out and NUMBERS.search(out) is None:
            raise GITError(f"{out}: expected the shards' numbers as {{0000..9999}}, or none")
        make_folder(Path(out).parent)
        return Shards(out)
    if suffix in FORMS:
        make_folder(Path(out).parent)
        return Table(Path(out), FORMS[suffix])
    if suffix:
        known = ", ".join([*FORMS, ".tar"])
        raise GITError(f"{out}: expected a folder, or a file that ends in {known}")
    make_folder(Path(out))
    return Sidecars(Path(out), _dotted(extension), mirrored=True)


def make_folder(path: Path) -> None:
    """Make a folder and those that it lies in, if they are not there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GITError(f"{path}: cannot be made: {error.strerror or error}") from None


def _dotted(extension: str | None) -> str:
    dotted = "." + ("txt" if extension is None else extension.removeprefix("."))
    if dotted == "." or "/" in dotted or "\0" in dotted:
        raise GITError(f"the extension is {extension!r}, expected one such as .txt")
    if dotted.lower() in (*PICTURES, *VIDEOS):
        raise GITError(
            f"the extension is {extension!r}: the texts would take the place of the pictures, "
            "expected one such as .txt"
        )
    return dotted


def _folder_of(source: str) -> Path:
    """The folder of a source, which holds what is known of a run that writes beside pictures."""
    path = Path(source)
    if path.suffix.lower() in (".tar", ".tsv") and not path.is_dir():
        raise GITError(f"{source}: no text files can lie beside its pictures, expected --out")
    if source == "-":
        return Path()
    return path if path.is_dir() else next(one for one in path.parents if one.is_dir())
