"""Small videos and animations, for tests that need some on the disk: the grey of a frame says which
one it is."""

from pathlib import Path
from typing import Any

import av
from PIL import Image

SIZE = (64, 48)


def grey(index: int) -> Image.Image:
    """The frame of this index."""
    return Image.new("RGB", SIZE, (12 * index,) * 3)


def index_of(frame: Image.Image) -> int:
    """Which frame this is."""
    return round(frame.convert("RGB").getpixel((9, 9))[0] / 12)


def animate(path: Path, kind: str, frames: list[Image.Image], **options: Any) -> Path:
    """Write an animation in one of Pillow's formats."""
    frames[0].save(
        path, kind, save_all=True, append_images=frames[1:], duration=100, loop=0, **options
    )
    return path


def film(
    path: Path,
    codec: str,
    frames: list[Image.Image],
    size: tuple[int, int] = SIZE,
    **options: Any,
) -> Path:
    """Write a video, of the kind that the file's name ends with."""
    with av.open(path, "w", options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        container.start_encoding()
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame.resize(size))))
        if frames:
            container.mux(stream.encode())
    return path
