"""WebDataset's shards: tar files of images and texts, a stream that several readers share.

Needs the package webdataset, the extra `webdataset`, which is imported when shards are opened.
"""

import glob
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Literal

from git_model.data.example import (
    Annotation,
    Example,
    OpenExample,
    OpenStored,
    StoredExample,
    Stream,
)
from git_model.data.manifests import (
    DataError,
    annotation_of,
    clean,
    decode,
    merge_captions,
    parse,
    parse_each,
)
from git_model.data.sampler import epoch_order, shuffled
from git_model.data.tar import tar_members
from git_model.preprocessing.formats import IMAGE_SUFFIXES, START_BYTES, looks_like_media
from git_model.preprocessing.image import decode_image, reason_of
from git_model.utils.errors import ConfigError
from git_model.utils.serialize import is_file

IMAGE_KEYS = [suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES]  # as webdataset has them
RESERVED = re.compile(r"__[^/]*__($|/)")  # webdataset's own files, of no example
NO_SUFFIX = ".no-suffix"  # makes an image without a suffix an example that cannot be opened
MAX_MEMBER_BYTES = 2**28  # bytes of a file in a tar
MAX_NAME_LENGTH = 4096  # letters of its name, as of any path


@dataclass(frozen=True, kw_only=True)
class WebDatasetData:
    """Shards on a local disk: tar files in which the files of an example share a name and differ in
    their suffix: .jpg, .png or the like, and .txt (a caption on each line) or .json (an object or a
    list of objects, see `manifests.annotation_of`). Of .txt and .json, .txt takes precedence."""

    kind: Literal["webdataset"] = "webdataset"
    shards: str  # a pattern, such as train-{0000..0099}.tar or train-*.tar
    shuffle: int = 1000  # size of a reader's shuffle buffer, in undecoded examples; 0: no shuffling

    def __post_init__(self) -> None:
        if self.shuffle < 0:
            raise ConfigError(f"shuffle is {self.shuffle}, expected 0 or more")

    def open(self) -> "ShardStream":
        """List the shards."""
        _require_webdataset(self.shards)
        return ShardStream(list(shard_paths(self.shards)), self.shuffle)


def shard_paths(pattern: str, kind: str = "a tar file") -> Iterator[Path]:
    """The files that a pattern such as train-{0000..0099}.tar or train-*.tar names.

    Args:
        kind: what errors say was expected.

    Raises:
        DataError: a shard does not exist, or the pattern is not valid.
    """
    for name in _expand_braces(pattern):
        for path in _glob(name):
            if not is_file(path):
                raise DataError(f"{path}: no such shard, expected {kind}")
            yield path


def _expand_braces(pattern: str) -> Iterator[str]:
    if "{" not in pattern:
        return iter([pattern])
    _require_webdataset(pattern)
    from braceexpand import braceexpand

    try:
        return braceexpand(pattern)
    except ValueError as error:
        raise DataError(f"{pattern}: {reason_of(error)}") from None


def _glob(pattern: str) -> list[Path]:
    if not glob.has_magic(pattern):
        return [Path(pattern)]
    paths = sorted(glob.glob(pattern))  # noqa: PTH207  (Path.glob takes no absolute patterns)
    if not paths:
        raise DataError(f"{pattern}: no shard has such a name, expected at least one")
    return list(map(Path, paths))


class ShardStream(Stream):
    """Examples from tar files: a `Stream`. With at least as many files as readers, each reader has
    its own files; otherwise each reads all files, and takes every n-th example."""

    def __init__(self, paths: list[Path], shuffle: int) -> None:
        self._paths, self._shuffle = paths, shuffle

    def stream(self, epoch: int, seed: int, reader: int, n_readers: int) -> Iterator[OpenExample]:
        """See `Stream`. A damaged shard gives the examples before the damage, and one example that
        cannot be opened."""
        paths = [self._paths[i] for i in epoch_order(len(self._paths), seed, epoch)]
        if len(paths) >= n_readers:
            examples = _examples(paths[reader::n_readers])
        else:
            examples = islice(_examples(paths), reader, None, n_readers)
        rng = Random(f"{seed} {epoch} {reader}")  # noqa: S311  (an order, not a secret)
        return (partial(decoded, example) for example in shuffled(examples, self._shuffle, rng))

    def stored(self) -> Iterator[OpenStored]:
        """See `StoredSource`."""
        return _examples(self._paths)


def decoded(open_stored: OpenStored) -> Example:
    """An example with its decoded image."""
    stored = open_stored()
    return Example(stored.key, decode_image(stored.data, stored.where), stored.annotations)


def _require_webdataset(where: str) -> None:
    try:
        import webdataset  # noqa: F401
    except ImportError:
        raise DataError(
            f"{where}: reading shards needs webdataset: pip install 'git-model[webdataset]'"
        ) from None


def _examples(paths: Iterable[Path]) -> Iterator[OpenStored]:
    """The examples of some shards, one shard after the other."""
    from webdataset.tariterators import group_by_keys

    for path in paths:
        try:
            for sample in group_by_keys(_files(path)):
                yield partial(_open, f"{path}: {sample['__key__']}", sample)
        except Exception as error:  # tarfile raises almost any error, and webdataset lets it pass
            yield partial(_raise, f"{path}: the shard is damaged: {_reason(error)}")


def _files(path: Path) -> Iterator[dict[str, Any]]:
    """The files in a tar, in the form that webdataset groups.

    webdataset's own reader would unpack compressed tars and sparse files, in which a few KB can
    claim more zeros than the memory holds.
    """
    with path.open("rb") as file:
        for member in tar_members(path):
            if not member.isreg() or RESERVED.match(member.name):
                continue
            if member.issparse() or member.size > MAX_MEMBER_BYTES:
                raise DataError(
                    f"{member.name[:200]} claims {member.size:,} bytes, expected at most "
                    f"{MAX_MEMBER_BYTES:,} that are all in the tar"
                )
            file.seek(member.offset_data)
            data = file.read(member.size)
            name = _file_name(member.name[:MAX_NAME_LENGTH], data)
            yield {"fname": name, "data": data, "__url__": str(path)}


def _file_name(name: str, data: bytes) -> str:
    """The name of a file in a tar. An image without a suffix gets one: webdataset passes files
    without a suffix over."""
    has_suffix = "." in name.rpartition("/")[2]
    is_image = not has_suffix and looks_like_media(name, lambda: data[:START_BYTES])
    return name + NO_SUFFIX if is_image else name


def _open(where: str, sample: Mapping[str, Any]) -> StoredExample:
    suffixes = [suffix for suffix in IMAGE_KEYS if suffix in sample]
    if not suffixes:
        raise DataError(f"{where}: there is no image, expected .jpg, .png or the like")
    if len(suffixes) > 1:
        raise DataError(f"{where}: there are {' and '.join(suffixes)}, expected one image")
    [suffix] = suffixes
    try:
        annotations = _annotations(sample)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return StoredExample(sample["__key__"], where, sample[suffix], annotations)


def _annotations(sample: Mapping[str, Any]) -> tuple[Annotation, ...]:
    if "txt" in sample:
        lines = (clean(line, "the text") for line in decode(sample["txt"]).splitlines())
        return (Annotation(tuple(line for line in lines if line)),)
    if "json" in sample:
        value = parse(decode(sample["json"]))
        records = value if isinstance(value, list) else [value]
        return merge_captions(parse_each(records, annotation_of, "text"))
    raise DataError("there is no text, expected .txt or .json")


def _raise(message: str) -> StoredExample:
    raise DataError(message)


def _reason(error: Exception) -> str:
    """The reason that tarfile gives, without webdataset's addition: ` @ ` and the stream."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = str(error.args[0]) if error.args else type(error).__name__
    return " ".join(message.partition(" @ ")[0].split())
