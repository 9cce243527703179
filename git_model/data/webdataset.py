"""WebDataset's shards: tar files of pictures and texts that are read from end to end, by many.

Needs the package webdataset, the extra `webdataset`, which is imported when shards are opened.
"""

import glob
import io
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Literal, Protocol, runtime_checkable

from git_model.data import folder as folders
from git_model.data.example import Annotation, Example
from git_model.data.manifests import DataError, annotation_of, clean, decode, each, merged, parse
from git_model.data.sampler import epoch_order
from git_model.preprocessing.image import decode_image, reason_of
from git_model.utils.errors import ConfigError
from git_model.utils.serialize import is_file

PICTURES = [suffix.removeprefix(".") for suffix in folders.PICTURES]

RESERVED = re.compile(r"__[^/]*__($|/)")  # webdataset's own files, of no example
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")  # how gzip, bzip2 and xz begin
MAX_MEMBER_BYTES = 2**28  # bytes of a file in a tar
MAX_NAME_LENGTH = 4096  # letters of its name, as of any path

OpenExample = Callable[[], Example]  # opens an example; raises a GITError if it is broken


@runtime_checkable
class Stream(Protocol):
    """Examples that come one after the other, without numbers."""

    def stream(self, epoch: int, seed: int, reader: int, n_readers: int) -> Iterator[OpenExample]:
        """A reader's part of an epoch: all readers together see each example once."""


@dataclass(frozen=True, kw_only=True)
class WebDatasetData:
    """Shards on this machine's disks: tar files in which the files of an example have one name, and
    end in .jpg, .png or the like, and in .txt (a caption on each line) or .json (an object or a
    list of objects, see `manifests.annotation_of`). Where there are both, .txt counts."""

    kind: Literal["webdataset"] = "webdataset"
    shards: str  # such as train-{0000..0099}.tar or train-*.tar
    shuffle: int = 1000  # examples, undecoded, that a reader holds to draw the next from; 0: none

    def __post_init__(self) -> None:
        if self.shuffle < 0:
            raise ConfigError(f"shuffle is {self.shuffle}, expected 0 or more")

    def open(self) -> "Shards":
        """Find the shards."""
        _require_webdataset(self.shards)
        return Shards(list(shard_paths(self.shards)), self.shuffle)


def shard_paths(pattern: str) -> Iterator[Path]:
    """The files that a pattern such as train-{0000..0099}.tar or train-*.tar names.

    Raises:
        DataError: one of them is not there, or the pattern is none.
    """
    for one in _expanded(pattern):
        for path in _matches(one):
            if not is_file(path):
                raise DataError(f"{path}: there is no such shard")
            yield path


def _expanded(pattern: str) -> Iterator[str]:
    if "{" not in pattern:
        return iter([pattern])
    _require_webdataset(pattern)
    from braceexpand import braceexpand

    try:
        return braceexpand(pattern)
    except ValueError as error:
        raise DataError(f"{pattern}: {reason_of(error)}") from None


def _matches(pattern: str) -> list[Path]:
    if not glob.has_magic(pattern):
        return [Path(pattern)]
    paths = sorted(glob.glob(pattern))  # noqa: PTH207  (Path.glob takes no absolute patterns)
    if not paths:
        raise DataError(f"{pattern}: there are no shards of this name")
    return list(map(Path, paths))


class Shards:
    """Examples from tar files: a `Stream`. Where there are enough files each reader has its own;
    otherwise all readers go through all files, and take every n-th example."""

    def __init__(self, paths: list[Path], shuffle: int) -> None:
        self._paths, self._shuffle = paths, shuffle

    def stream(self, epoch: int, seed: int, reader: int, n_readers: int) -> Iterator[OpenExample]:
        """See `Stream`. A damaged shard gives what is before the damage, and one example that
        cannot be opened."""
        paths = [self._paths[i] for i in epoch_order(len(self._paths), seed, epoch)]
        if len(paths) >= n_readers:
            found = _examples(paths[reader::n_readers])
        else:
            found = islice(_examples(paths), reader, None, n_readers)
        if self._shuffle == 0:
            return found
        from webdataset import shuffle

        rng = Random(f"{seed} {epoch} {reader}")  # noqa: S311  (an order, not a secret)
        return shuffle(self._shuffle, initial=self._shuffle, rng=rng)(found)


def _require_webdataset(where: str) -> None:
    try:
        import webdataset  # noqa: F401
    except ImportError:
        raise DataError(
            f"{where}: reading shards needs webdataset: pip install 'git-model[webdataset]'"
        ) from None


def _examples(paths: Iterable[Path]) -> Iterator[OpenExample]:
    """The examples of some shards, one shard after the other."""
    from webdataset.tariterators import group_by_keys

    for path in paths:
        try:
            for sample in group_by_keys(_files(path)):
                yield partial(_open, f"{path}: {sample['__key__']}", sample)
        except Exception as error:  # webdataset passes on whatever tarfile raises
            yield partial(_refuse, f"{path}: the shard is damaged: {_reason(error)}")


class _Bounded(io.BufferedReader):
    """A file of which no more is read at once than a file in a tar may have."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_MEMBER_BYTES:
            raise DataError(
                f"a file in it claims {size} bytes, expected at most {MAX_MEMBER_BYTES}"
            )
        return super().read(size)


def _files(path: Path) -> Iterator[dict[str, Any]]:
    """The files in a tar, in the form that webdataset groups; none is ever written to the disk.

    webdataset's own reader would unpack compressed tars, and files that say how many zeros they
    are: a few KB that fill the memory. It would also read, in steps, to wherever a member says that
    it ends: a trillion times nothing.
    """
    with path.open("rb") as file:
        if file.read(6).startswith(COMPRESSED):
            raise DataError("it is compressed, expected a plain tar: unpack it")
    size = path.stat().st_size
    with _Bounded(io.FileIO(path)) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in iter(tar.next, None):
            tar.members = []  # type: ignore[attr-defined]  # or else it keeps all of them
            # a size below 0 would lead back to this member, for ever
            if not 0 <= member.size <= size - member.offset_data or member.issparse():
                raise DataError(
                    f"{member.name[:200]} claims {member.size:,} bytes, more than are there"
                )
            if not member.isreg() or RESERVED.match(member.name):
                continue
            packed = tar.extractfile(member)
            data = b"" if packed is None else packed.read()
            yield {"fname": member.name[:MAX_NAME_LENGTH], "data": data, "__url__": str(path)}


def _open(where: str, sample: Mapping[str, Any]) -> Example:
    suffix = next((suffix for suffix in PICTURES if suffix in sample), None)
    if suffix is None:
        raise DataError(f"{where}: there is no picture, expected .jpg, .png or the like")
    try:
        annotations = _annotations(sample)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return Example(sample["__key__"], decode_image(sample[suffix], where), annotations)


def _annotations(sample: Mapping[str, Any]) -> tuple[Annotation, ...]:
    if "txt" in sample:
        lines = (clean(line, "the text") for line in decode(sample["txt"]).splitlines())
        return (Annotation(tuple(line for line in lines if line)),)
    if "json" in sample:
        found = parse(decode(sample["json"]))
        return merged(each(found if isinstance(found, list) else [found], annotation_of, "text"))
    raise DataError("there is no text, expected .txt or .json")


def _refuse(message: str) -> Example:
    raise DataError(message)


def _reason(error: Exception) -> str:
    """What tarfile said, without what webdataset adds to it: ` @ ` and the stream."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = str(error.args[0]) if error.args else type(error).__name__
    return " ".join(said.partition(" @ ")[0].split())
