"""Images as callers hold them: each type gives the right pixels, or one clear refusal."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_config
from torch import Tensor

from git_model.preprocessing.inputs import Frames, load
from git_model.utils.errors import GITError

CONFIG = tiny_config()
COLOURS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def pixels_of(image: object) -> Tensor:
    return load(image, CONFIG).pixels  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "same",
    [
        COLOURS[::-1][::-1],
        COLOURS.astype(">u2") * 257,
        COLOURS.astype("<u2") * 257,
        COLOURS.astype(">f4"),
        (COLOURS / 255).astype(np.longdouble),
        np.asfortranarray(COLOURS),
        np.ma.masked_array(COLOURS, mask=False),
        torch.from_numpy(COLOURS).permute(2, 0, 1),
        (torch.from_numpy(COLOURS).permute(2, 0, 1) / 255).requires_grad_(),
    ],
    ids=[
        "strides",
        "big-endian",
        "16 bits",
        "floats",
        "long",
        "columns",
        "masked",
        "tensor",
        "grad",
    ],
)
def test_the_same_values_in_another_layout_are_the_same_image(same: object) -> None:
    if isinstance(same, np.ndarray):
        same.flags.writeable = False
    assert torch.equal(pixels_of(same), pixels_of(COLOURS))


def test_an_array_whose_rows_run_backwards_is_mirrored() -> None:
    assert torch.equal(pixels_of(COLOURS[:, ::-1]), pixels_of(COLOURS[:, ::-1].copy()))
    assert not torch.equal(pixels_of(COLOURS[:, ::-1]), pixels_of(COLOURS))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.ma.masked_array(COLOURS, mask=COLOURS > 200), "masked pixels, .* fill them first"),
        (torch.zeros(3, 8, 8).to_sparse(), "a sparse tensor or one without values, expected"),
        (torch.zeros(3, 8, 8, device="meta"), "a sparse tensor or one without values, expected"),
        (COLOURS > 100, r"ndarray \(16, 16, 3\) in bool, expected"),
        ("", "the path is empty, expected the name"),
        (io.BytesIO(), "nothing to read: the file is empty, or was read to its end"),
    ],
    ids=["masked", "sparse", "meta", "bool", "empty path", "empty file"],
)
def test_what_is_no_image_is_refused_by_name(image: object, message: str) -> None:
    with pytest.raises((GITError, TypeError), match=message):
        pixels_of(image)


def test_a_file_that_was_read_to_its_end_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"anything")
    with (tmp_path / "a.png").open("rb") as file:
        file.read()
        with pytest.raises(GITError, match=r"a\.png: nothing to read: .*; seek\(0\) first"):
            pixels_of(file)


def test_frames_of_a_single_image_are_refused_letters_of_a_path_are_no_frames() -> None:
    array = np.zeros((16, 16, 3), np.uint8)
    for single in ("a.png", b"bytes", Path("a.png"), array, torch.zeros(3, 8, 8), None):
        with pytest.raises(TypeError, match=f"Frames of a single {type(single).__name__}, expect"):
            Frames(single)  # type: ignore[arg-type]


def test_the_error_for_a_very_long_name_still_has_its_reason() -> None:
    with pytest.raises(
        GITError, match=r"^iVBOR.*…iVBOR.*, expected a whole image file$"
    ) as refusal:
        pixels_of("iVBOR" * 4000)
    assert len(str(refusal.value)) < 1200


def test_a_path_may_be_of_any_type_that_python_opens(tmp_path: Path) -> None:
    class BytesPath:
        def __fspath__(self) -> bytes:
            return bytes(tmp_path / "a.png")

    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    assert torch.equal(pixels_of(BytesPath()), pixels_of(COLOURS))


def test_frames_may_be_an_array_of_them() -> None:
    clip = np.stack([COLOURS, COLOURS[::-1]])
    expected = load(Frames([COLOURS, COLOURS[::-1]]), CONFIG).pixels
    assert torch.equal(pixels_of(Frames(clip)), expected)  # type: ignore[arg-type]
