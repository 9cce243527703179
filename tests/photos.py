"""Small picture files, for tests that need some on the disk."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image


def photo(path: Path, colour: str = "red") -> Path:
    """A picture of one colour; the folders above it are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), colour).save(path)
    return path


def photo_bytes(colour: str = "red", kind: str = "PNG") -> bytes:
    """The file of one as bytes."""
    file = io.BytesIO()
    Image.new("RGB", (12, 8), colour).save(file, kind)
    return file.getvalue()


def write_json(path: Path, value: Any) -> str:
    """A JSON file, and its path as a recipe has it."""
    path.write_text(json.dumps(value))
    return str(path)


def colour_of(view: Image.Image) -> tuple[int, ...]:
    """Which colour it has, roughly, for JPEG changes it: 1 for bright."""
    return tuple(round(value / 255) for value in view.convert("RGB").getpixel((6, 4)))


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """A tar of these files by their names."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path
