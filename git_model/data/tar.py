"""The members of a tar: the one reader of WebDataset's shards, for training and for `batch`.

It reads headers only. A tar may come from anyone, so the claims of a header are not trusted with
memory or time, and nothing is written to the disk.
"""

import os
import tarfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from git_model.data.manifests import DataError
from git_model.preprocessing.image import open_file

MAX_HEADER_BYTES = 1 << 20  # of one member
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def tar_members(path: Path) -> Iterator[tarfile.TarInfo]:
    """The members of a tar, in their order; none is held. A member's data begin at its
    `offset_data`, unless it is sparse.

    Raises:
        OSError: the file cannot be opened.
        DataError: the tar is compressed. Unpacking a few KB may fill the memory.
        tarfile.TarError, ValueError, …: the tar is damaged; tarfile raises almost anything.
    """
    with open_file(path) as file:
        start = file.read(6)
        for magic, program in COMPRESSED.items():
            if start.startswith(magic):
                raise DataError(
                    f"it is compressed with {program}, expected a plain tar: unpack it first"
                )
        headers = _HeaderFile(file.fileno(), closefd=False)
        size = headers.seek(0, os.SEEK_END)
        headers.seek(0)
        with tarfile.open(fileobj=headers, mode="r:") as tar:
            while (member := tar.next()) is not None:
                # The next header must lie behind this one: a negative size would lead back.
                if not member.offset < tar.offset <= size:
                    raise tarfile.ReadError(
                        f"{member.name[:200]} claims {member.size:,} bytes, more than are there"
                    )
                tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
                headers.n_bytes_left = MAX_HEADER_BYTES
                yield member
            # tarfile treats any damage as the end of the tar.
            headers.seek(tar.offset)
            if headers.read(512) != bytes(512):
                raise tarfile.ReadError("it is cut short, or a header is missing")


class _HeaderFile(FileIO):
    """A tar of which tarfile can read only as many bytes as headers need, whatever they claim."""

    n_bytes_left = MAX_HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        """As a file's."""
        if size is None or not 0 <= size <= self.n_bytes_left:
            raise tarfile.ReadError(f"a header claims more than {MAX_HEADER_BYTES:,} bytes")
        self.n_bytes_left -= size
        return super().read(size) or b""
