"""One file of weights for several graphs. Equal tensors are stored once."""

from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

PAGE = 4096  # bytes: an engine maps a tensor into memory only at the start of a page
MIN_MAPPED = 2**16  # smaller tensors are packed more closely


class SharedWeights:
    """A file that tensors are appended to; used as a context, it is closed at the end."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        self._path = path
        self._offsets: dict[bytes, int] = {}
        self._end = 0

    def __enter__(self) -> Self:
        self._file: BinaryIO = self._path.open("wb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, values: bytes | memoryview) -> int:
        """The offset of these bytes in the file. They are appended unless the file holds them
        already."""
        key = sha256(values).digest()
        if key not in self._offsets:
            padding = -self._end % (PAGE if len(values) >= MIN_MAPPED else 64)
            self._file.write(b"\0" * padding)
            self._offsets[key] = self._end + padding
            self._file.write(values)
            self._end += padding + len(values)
        return self._offsets[key]
