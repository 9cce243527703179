"""TIFFs of all types of values: right, or refused in a line; the files are written here by hand."""

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from git_model.config import PreprocessConfig
from git_model.preprocessing.image import ImageError, decode_image, preprocess

RAW = PreprocessConfig(short_side=None, crop=None, rescale=1.0, mean=(0, 0, 0), std=(1, 1, 1))
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def tiff(sample_format: int, planes: Sequence[NDArray[np.generic]], *, separate: bool) -> bytes:
    """An uncompressed little-endian TIFF of one channel or three, each (H, W)."""
    n, (height, width) = len(planes), planes[0].shape
    strips = [p.tobytes() for p in planes] if separate else [np.stack(planes, -1).tobytes()]
    tags = {
        256: [width], 257: [height], 258: [8 * planes[0].itemsize] * n, 259: [1],
        262: [2 if n == 3 else 1], 273: [0] * len(strips), 277: [n], 278: [height],
        279: [len(strip) for strip in strips], 284: [2 if separate else 1],
        339: [sample_format] * n,
    }  # fmt: skip
    outside = 8 + 2 + 12 * len(tags) + 4  # where the values that fit into no entry begin
    offset = outside + sum(4 * len(v) for v in tags.values() if len(v) > 1)
    tags[273] = [offset + sum(map(len, strips[:i])) for i in range(len(strips))]
    entries, values = b"", b""
    for tag, numbers in tags.items():
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        place = packed if len(numbers) == 1 else struct.pack("<I", outside + len(values))
        values += packed if len(numbers) > 1 else b""
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + place
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + entries + bytes(4) + values + b"".join(strips)


def planes(dtype: str, n: int, high: float) -> list[NDArray[np.generic]]:
    """Channels of random values from 0 to `high`."""
    rng = np.random.default_rng(0)
    return [(rng.random((8, 8)) * high).astype(dtype) for _ in range(n)]


def reason(data: bytes) -> str:
    """Why an image is refused."""
    with pytest.raises(ImageError) as error:
        preprocess(decode_image(data, "a.tif"), RAW)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("separate", [False, True])
def test_colours_of_8_bits_are_exact_stored_by_pixels_or_in_planes(separate: bool) -> None:
    colours = planes("u1", 3, 255)
    pixels = preprocess(decode_image(tiff(UNSIGNED, colours, separate=separate), "a.tif"), RAW)
    assert np.array_equal(pixels.numpy(), np.stack(colours))


def test_colours_of_16_bits_are_v_over_257() -> None:
    colours = planes("<u2", 3, 65535)
    pixels = preprocess(decode_image(tiff(UNSIGNED, colours, separate=False), "a.tif"), RAW)
    assert abs(pixels.numpy() - np.stack(colours) / 257).max() < 1  # Pillow rounds down


def test_colours_of_16_bits_in_planes_are_refused() -> None:
    refusal = reason(tiff(UNSIGNED, planes("<u2", 3, 65535), separate=True))
    assert "colours of 16 bits in separate planes" in refusal


@pytest.mark.parametrize("dtype", ["<i2", "i1"])
def test_signed_values_of_few_bits_are_refused(dtype: str) -> None:
    assert "signed values" in reason(tiff(SIGNED, planes(dtype, 1, 127), separate=False))


@pytest.mark.parametrize(
    ("kind", "dtype", "n"), [(FLOAT, "<f8", 1), (FLOAT, "<f4", 3), (SIGNED, "i1", 3)]
)
def test_values_that_pillow_does_not_read_are_called_that(kind: int, dtype: str, n: int) -> None:
    refusal = reason(tiff(kind, planes(dtype, n, 1), separate=False))
    assert "a TIFF with values that Pillow does not read" in refusal
    assert "not an image" not in refusal


def test_signed_values_of_32_bits_are_scaled_by_their_range() -> None:
    values = planes("<i4", 1, 65535)
    pixels = preprocess(decode_image(tiff(SIGNED, values, separate=False), "a.tif"), RAW)
    assert np.array_equal(pixels[0].numpy(), np.rint(values[0] / 257))
