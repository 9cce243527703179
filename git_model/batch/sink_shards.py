"""Records as WebDataset's shards: tars with each picture's own file, its text, and its record."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path
from tarfile import TarFile, TarInfo

from PIL import Image

from git_model.batch.inputs import Input
from git_model.batch.records import Record
from git_model.data.folder import PICTURES, VIDEOS
from git_model.utils.atomic import new_file
from git_model.utils.errors import GITError

SAMPLES = 1000  # in a shard
NUMBERS = re.compile(r"\{(0+)\.\.(9+)\}")

Sample = dict[str, bytes]  # files by their suffixes


@dataclass(frozen=True)
class Shards:
    """Tars in which a sample has a picture, its texts in a .txt, a line each, and its record in a
    .json; if it was asked several questions, the list of their records.

    Args:
        pattern: such as out-{0000..9999}.tar, for shards of 1,000 samples; out.tar for one.
    """

    pattern: str
    extension: str = ".tar"
    at_once: bool = False

    @property
    def place(self) -> Path:
        """See `Target`: of a pattern its name without the numbers."""
        return Path(re.sub(r"[-_.]?\{.*\}", "", self.pattern))

    def old(self) -> Iterable[Record]:
        """See `Target`: there may be none, for the pictures in old shards would be lost."""
        if self._path(0).exists():
            raise GITError(
                f"{self._path(0)}: is there already, and shards are only written anew: expected "
                "another name, or --overwrite"
            )
        return ()

    def known(self, _: Input) -> None:
        """See `Target`."""

    def write(self, item: Input, record: Record) -> None:
        """See `Target`: nothing, for `finish` writes all."""

    def finish(self, pairs: Iterable[tuple[Input | None, Record]]) -> list[tuple[Input, str]]:
        """See `Target`. Rejected texts are left out, and records of pictures that are gone."""
        lost: list[tuple[Input, str]] = []
        n_shards = 0
        with ExitStack() as shards:  # which take their names in the end
            tar: TarFile | None = None
            for number, sample in enumerate(_samples(pairs, lost)):
                if tar is None or (self._is_many and number % SAMPLES == 0):
                    if tar is not None:
                        tar.close()
                    tar = TarFile.open(shards.enter_context(new_file(self._path(n_shards))), "w")
                    n_shards += 1
                for suffix, data in sample.items():
                    _add(tar, f"{number:09}{suffix}", data)
            if tar is not None:
                tar.close()
        while self._is_many and self._path(n_shards).exists():  # of a run that had more
            self._path(n_shards).unlink()
            n_shards += 1
        return lost

    @property
    def _is_many(self) -> bool:
        return NUMBERS.search(self.pattern) is not None

    def _path(self, number: int) -> Path:
        """The path of a shard; there are numbers enough, if need be longer ones."""
        return Path(NUMBERS.sub(lambda found: f"{number:0{len(found[1])}}", self.pattern))


def _samples(
    pairs: Iterable[tuple[Input | None, Record]], lost: list[tuple[Input, str]]
) -> Iterator[Sample]:
    """The files of each picture; those of pictures that cannot be read any more are `lost`."""
    good = ((item, record) for item, record in pairs if item and "rejected" not in record)
    for _, group in groupby(good, key=lambda pair: pair[0].place):
        about = list(group)
        item = about[0][0]
        try:
            picture = item.read()
        except GITError as error:
            lost += [(one, str(error)) for one, _ in about]
            continue
        records = [record for _, record in about]
        whole = records[0] if len(records) == 1 else records
        sample = {_suffix(item, picture): picture}
        if "text" in records[0]:
            said = records[0]["text"]
            text = "\n".join(said if isinstance(said, list) else [said])
            sample[".txt"] = text.encode("utf-8", "backslashreplace")
        yield sample | {".json": json.dumps(whole).encode()}


def _suffix(item: Input, picture: bytes) -> str:
    """What a picture's file is called by; rows of a TSV have no names."""
    suffix = Path(item.key).suffix.lower()
    if suffix in (*PICTURES, *VIDEOS):
        return suffix
    try:
        with Image.open(BytesIO(picture)) as image:
            return f".{(image.format or 'img').lower()}"
    except OSError:  # not Pillow's: a video
        return ".mp4"


def _add(tar: TarFile, name: str, data: bytes) -> None:
    member = TarInfo(name)
    member.size = len(data)
    tar.addfile(member, BytesIO(data))
    tar.members = []  # type: ignore[attr-defined]  # else it would keep each, for reading
