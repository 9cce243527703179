"""Other ways to read a file: what is there of a truncated one, frames by time, one image of a
video; TIFFs whose values Pillow does not bring to the usual scale."""

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile
from tiny import tiny_model
from videos import SIZE, animate, film, grey, index_of

from git_model.config import PreprocessConfig
from git_model.preprocessing.clip import Clip, contact_sheet
from git_model.preprocessing.image import (
    ImageError,
    decode_image,
    denormalize,
    is_truncated,
    preprocess,
)
from git_model.preprocessing.inputs import frames_to_read, load_media
from git_model.preprocessing.sampling import ReadOptions, sample_times
from git_model.preprocessing.video import read_media
from git_model.utils.errors import ConfigError, GITError

RAW = PreprocessConfig(exact=None, short_side=None, crop=None, mean=(0, 0, 0), std=(1, 1, 1))
TRUNCATED = ReadOptions(truncated=True)


def photo_file(kind: str) -> bytes:
    """A picture of noise, as a file."""
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


# Truncated files


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "GIF"])
def test_what_is_there_of_a_truncated_image_is_taken_if_asked_and_marked(kind: str) -> None:
    data = photo_file(kind)
    whole, part = decode_image(data, "a"), data[: len(data) * 2 // 3]
    if kind == "TIFF":  # Pillow writes its table of contents first
        part = data[: len(data) - 4000]
    with pytest.raises(ImageError, match="expected a whole image"):
        decode_image(part, "a")
    image = decode_image(part, "a", truncated=True)
    assert is_truncated(image)
    n_rows = 1 if kind == "GIF" else 8  # its rows are interlaced
    top, expected = (np.asarray(view.convert("RGB"))[:n_rows] for view in (image, whole))
    if kind == "BMP":  # its last row comes first
        top, expected = np.asarray(image)[-8:], np.asarray(whole)[-8:]
    assert np.array_equal(top, expected)
    assert not is_truncated(decode_image(data, "a", truncated=True))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_nothing_is_taken_of_a_file_that_ends_before_its_pixels() -> None:
    data = photo_file("PNG")
    with pytest.raises(ImageError, match="cut short before any of its pixels"):
        decode_image(data[: data.index(b"IDAT") + 6], "a", truncated=True)
    data = photo_file("JPEG")
    with pytest.raises(ImageError):
        decode_image(data[: data.index(b"\xff\xda")], "a", truncated=True)
    with pytest.raises(ImageError, match="not an image"):
        decode_image(b"no image at all", "a", truncated=True)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_frames_that_are_there_of_a_truncated_animation_are_taken(
    tmp_path: Path, kind: str
) -> None:
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)) for _ in range(9)]
    path = animate(tmp_path / "a", kind, frames)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    with pytest.raises(ImageError):
        read_media(path, 4)
    try:
        clip = read_media(path, 4, TRUNCATED)
    except ImageError:
        assert kind == "WEBP"  # whose decoder wants the whole file
        return
    assert isinstance(clip, Clip)
    assert clip.is_truncated
    assert max(clip.indices) < 8


@pytest.mark.parametrize("n_frames", [0, 4])
def test_the_frames_that_are_there_of_a_truncated_video_are_taken(
    tmp_path: Path, n_frames: int
) -> None:
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)) for _ in range(10)]
    path = film(tmp_path / "a.mp4", "mpeg4", frames, movflags="faststart")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.75)])
    with pytest.raises(ImageError, match="whole video"):
        read_media(path, 4)
    clip = read_media(path, n_frames, ReadOptions(truncated=True, video_as="sheet"))
    assert isinstance(clip, Clip)
    assert clip.is_truncated
    assert len(clip.frames) == 4
    assert max(clip.indices) < 9


# Frames by time


def uneven(path: Path, times: list[int]) -> Path:
    """A video whose frames, greys by their index, appear at these tenths of a second."""
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_image(grey(index))
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_frames_that_last_differently_are_sampled_by_time(tmp_path: Path) -> None:
    """Ten frames in the first second, then one that stays for nine: FFmpeg shows it from 0.9 s."""
    path = uneven(tmp_path / "a.mkv", [*range(10), 99])
    by_index = read_media(path, 4)
    by_time = read_media(path, 4, ReadOptions(sampling="time"))
    assert isinstance(by_index, Clip)
    assert isinstance(by_time, Clip)
    assert by_index.indices == [1, 4, 6, 9]
    assert by_time.indices == [9, 9, 9, 9]
    assert [index_of(frame) for frame in by_time.frames] == [9, 9, 9, 9]
    even = uneven(tmp_path / "b.mkv", list(range(12)))
    assert read_media(even, 4, ReadOptions(sampling="time")).indices == [1, 4, 7, 10]  # type: ignore[union-attr]


def test_an_animation_is_sampled_by_the_times_of_its_frames(tmp_path: Path) -> None:
    frames = [grey(index) for index in range(4)]
    frames[0].save(
        tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[100, 100, 100, 900]
    )
    clip = read_media(tmp_path / "a.gif", 4, ReadOptions(sampling="time"))
    assert isinstance(clip, Clip)
    assert clip.indices == [1, 3, 3, 3]  # at 0.15, 0.45, 0.75 and 1.05 of 1.2 seconds
    assert [index_of(frame) for frame in clip.frames] == [1, 3, 3, 3]


@given(
    lengths=st.lists(st.floats(0.01, 5), min_size=1, max_size=30),
    n=st.integers(1, 12),
    start=st.floats(-3, 3),
)
def test_each_sampled_frame_is_on_the_screen_at_its_time(
    lengths: list[float], n: int, start: float
) -> None:
    starts = [start + sum(lengths[:i]) for i in range(len(lengths))]
    end = start + sum(lengths)
    indices = sample_times(starts, end, n)
    n = min(n, len(lengths))
    assert len(indices) == n
    for position, index in enumerate(indices):
        time = start + (position + 0.5) * (end - start) / n
        assert starts[index] <= time + 1e-9
        assert index == len(starts) - 1 or time < starts[index + 1] + 1e-9


# A video for a model without temporal embeddings


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_an_image_model_gets_the_frame_that_is_asked_for(tmp_path: Path, kind: str) -> None:
    frames = [grey(index) for index in range(20)]
    path = tmp_path / f"a.{kind}"
    film(path, "mpeg4", frames) if kind == "mp4" else animate(path, "GIF", frames)
    for video_as, expected in (("first", [0]), ("middle", [10]), ("sheet", [2, 7, 12, 17])):
        clip = read_media(path, 0, ReadOptions(video_as=video_as))  # type: ignore[arg-type]
        assert isinstance(clip, Clip)
        assert clip.indices == expected
        assert [index_of(frame) for frame in clip.frames] == expected


def test_a_sheet_has_its_frames_in_rows(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 2), colour) for colour in ("red", "lime", "blue", "white")]
    sheet = contact_sheet(frames)
    assert sheet.size == (8, 4)
    corners = [sheet.getpixel(at) for at in ((0, 0), (7, 0), (0, 3), (7, 3))]
    assert corners == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert contact_sheet(frames[:1]) is frames[0]
    assert contact_sheet(frames[:3]).getpixel((7, 3)) == (0, 0, 0)


def test_a_clip_is_one_image_for_an_image_model_and_says_which_frames() -> None:
    config = tiny_model().config
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue", "white")]
    loaded = load_media(Clip(frames, [2, 7, 12, 17]), config)
    assert loaded.pixels.shape == load_media(frames[0], config).pixels.shape
    assert loaded.frames == [2, 7, 12, 17]
    corners = denormalize(loaded.pixels, config.preprocess)[0]
    assert np.asarray(corners)[1, 1].tolist() == [255, 0, 0]
    assert np.asarray(corners)[-2, -2].tolist() == [255, 255, 255]


def test_options_that_do_not_fit_the_model_are_refused() -> None:
    with pytest.raises(GITError, match="frames is for models with temporal embeddings"):
        frames_to_read(tiny_model().config, ReadOptions(frames=4))
    with pytest.raises(GITError, match="video_as is for models without"):
        frames_to_read(tiny_model(frames=3).config, ReadOptions(video_as="first"))
    assert frames_to_read(tiny_model(frames=3).config, ReadOptions(frames=8)) == 8


def test_options_that_do_not_exist_are_named() -> None:
    for options in ({"sampling": "random"}, {"video_as": "last"}, {"frames": 0}):
        with pytest.raises(ConfigError, match=f"{next(iter(options))} is .*, expected"):
            ReadOptions(**options)  # type: ignore[arg-type]


# TIFFs


def tiff(values: np.ndarray, photometric: int, bits: int = 16) -> bytes:
    """A TIFF of one row, written here: little-endian, uncompressed, one strip."""
    data = values.astype("<u2").tobytes() if bits == 16 else packed_12(values)
    tags = [(256, len(values)), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 200),
            (277, 1), (278, 1), (279, len(data))]  # fmt: skip
    table = struct.pack("<H", len(tags))
    table += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags) + bytes(4)
    return (struct.pack("<2sHI", b"II", 42, 8) + table).ljust(200, b"\0") + data


def packed_12(values: np.ndarray) -> bytes:
    digits = "".join(f"{value:012b}" for value in values)
    digits += "0" * (-len(digits) % 8)
    return bytes(int(digits[i : i + 8], 2) for i in range(0, len(digits), 8))


@pytest.mark.parametrize(("photometric", "inverted"), [(1, False), (0, True)])
def test_a_16_bit_tiff_may_say_that_zero_is_white(photometric: int, inverted: bool) -> None:
    values = np.array([0, 257, 32896, 65535])
    image = decode_image(tiff(values, photometric), "scan")
    assert image.mode == "I;16"
    expected = values // 257
    pixels = preprocess(image, RAW)[0, 0].numpy() * 255
    assert np.rint(pixels).tolist() == (255 - expected if inverted else expected).tolist()


def test_12_bits_fill_the_whole_range() -> None:
    values = np.array([0, 1, 2048, 4095])
    image = decode_image(tiff(values, 1, bits=12), "scan")
    pixels = preprocess(image, RAW)[0, 0].numpy() * 255
    assert np.rint(pixels).tolist() == [0, 0, 128, 255]


def test_pixels_become_the_image_again() -> None:
    image = decode_image(photo_file("PNG"), "a")
    config = PreprocessConfig(exact=None, short_side=None, crop=None)
    [again] = denormalize(preprocess(image, config), config)
    assert again.tobytes() == image.tobytes()
