"""Files as people have them: turned photos, deep pixels, large metadata, many frames; the expected
values are Pillow's and NumPy's."""

import dataclasses
import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from git_model.config import PreprocessConfig, style_preprocess
from git_model.preprocessing import formats
from git_model.preprocessing.bit_depth import from_16_bits, from_ranges
from git_model.preprocessing.clip import Clip
from git_model.preprocessing.formats import count_gif_frames, count_jpeg_scans
from git_model.preprocessing.image import ImageError, decode_image, open_image, preprocess
from git_model.preprocessing.video import read_media
from git_model.utils.errors import GITError

CASES = Path(__file__).parents[1] / "fixtures" / "cases"
RAW = PreprocessConfig(short_side=None, crop=None, rescale=1.0, mean=(0, 0, 0), std=(1, 1, 1))
ORIENTED = sorted(path.name for path in CASES.glob("orient*"))
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    'syntax-ns#"><rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    'tiff:Orientation="{}"/></rdf:RDF></x:xmpmeta>'
)


def arrow():
    """An image that differs from each of its turns."""
    values = np.zeros((24, 40, 3), np.uint8)
    values[:8, :8], values[:8, 32:], values[16:, :8] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    return Image.fromarray(values)


def oriented(kind, orientation, by):
    file, options = io.BytesIO(), {"lossless": True} if kind == "WEBP" else {}
    if by == "exif":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    else:
        options["xmp"] = XMP.format(orientation).encode()
    if kind == "PNG" and by == "xmp":
        from PIL.PngImagePlugin import PngInfo

        options = {"pnginfo": PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.format(orientation))
    arrow().save(file, kind, **options)
    return file.getvalue()


# Orientation


@pytest.mark.parametrize("name", ORIENTED)
def test_a_photo_stored_on_its_side_comes_out_upright(name):
    photo = Image.open(CASES / name)
    expected = np.asarray(ImageOps.exif_transpose(photo).convert("RGB"))
    pixels = preprocess(open_image(CASES / name), RAW).permute(1, 2, 0).numpy()
    assert np.array_equal(pixels, expected)
    stored = name == "orient1.png"
    assert np.array_equal(pixels, np.asarray(photo.convert("RGB"))) == stored


CONTAINERS = [
    *[(kind, "exif") for kind in ("JPEG", "PNG", "WEBP", "TIFF", "MPO")],
    *[(kind, "xmp") for kind in ("JPEG", "PNG", "WEBP")],
]


@pytest.mark.parametrize(("kind", "by"), CONTAINERS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_container_that_states_an_orientation_is_obeyed(kind, by, orientation):
    data = oriented(kind, orientation, by)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)).copy())
    assert expected.size == ((40, 24) if orientation < 5 else (24, 40))
    pixels = preprocess(decode_image(data, "a photo"), RAW)
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(expected.convert("RGB")))


def test_style_microsoft_leaves_a_photo_as_it_is_stored():
    photo = decode_image(oriented("JPEG", 6, "exif"), "a photo")
    config = dataclasses.replace(RAW, upright=style_preprocess(
        "microsoft", image_size=224, video=False).upright)  # fmt: skip
    assert preprocess(photo, config).shape == (3, 24, 40)
    assert style_preprocess("huggingface", image_size=224, video=False).upright


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("data", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"?" * 40])
def test_damaged_exif_data_does_not_refuse_a_photo(data):
    image = arrow()
    image.info["exif"] = data
    assert torch.equal(preprocess(image, RAW), preprocess(arrow(), RAW))


# Numbers


def test_a_grey_image_of_16_bits_is_v_over_257():
    values = np.asarray(Image.open(CASES / "g16.png")).astype(np.float64)
    pixels = preprocess(open_image(CASES / "g16.png"), RAW)[0].numpy()
    assert np.array_equal(pixels, np.round(values / 257))
    assert 0.4 < pixels.mean() / 255 < 0.6


def test_a_float_image_from_0_to_1_has_the_brightness_of_its_values():
    values = np.asarray(Image.open(CASES / "float01.tif")).astype(np.float64)
    pixels = preprocess(open_image(CASES / "float01.tif"), RAW)[0].numpy()
    assert np.abs(pixels / 255 - values).max() <= 0.5 / 255 + 1e-9
    assert abs(pixels.mean() / 255 - 0.5) < 0.01


@pytest.mark.parametrize("colours", [3, 4])
def test_colour_of_16_bits_is_v_over_257_within_a_grey_level(colours):
    values = np.random.default_rng(0).integers(0, 65536, (9, 7, colours)).astype(np.uint16)
    values[..., 3:] = 65535
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 7, 9, 16, 2 if colours == 3 else 6, 0, 0, 0)
    pixels = preprocess(decode_image(png(header, rows), "deep"), RAW).permute(1, 2, 0).numpy()
    assert np.abs(pixels - values[..., :3] / 257).max() <= 1


def test_a_transparent_shade_of_16_bits_is_white():
    rows = b"".join(b"\0" + struct.pack(">HH", 0, 30000) for _ in range(2))
    data = png(struct.pack(">IIBBBBB", 2, 2, 16, 0, 0, 0, 0), rows, (b"tRNS", b"\0\0"))
    pixels = preprocess(decode_image(data, "deep"), RAW)
    assert pixels[0].tolist() == [[255, 117], [255, 117]]  # 30000 / 257 = 116.7


@given(
    share=st.floats(1 / 16, 1),
    limit=st.sampled_from([1, 255, 65535]),
    values=arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)),
)
def test_floats_are_scaled_by_the_range_that_they_fill(share, limit, values):
    values[0, 0] = 1
    floats = values.astype(np.float64) * share * limit
    scaled = from_ranges(floats)
    assert np.abs(scaled / 255 - floats / limit).max() <= 0.5 / 255 + 1e-9


@pytest.mark.parametrize(
    "values",
    [[0, np.nan], [np.inf, 1], [-np.inf, 0.5], [-1, 1], [0, 1.5], [0, 1000], [0, 1e6], [-9, 200]],
)
def test_floats_whose_range_cannot_be_told_are_refused(values):
    image = Image.fromarray(np.array([values], dtype=np.float32))
    with pytest.raises(ImageError, match=r"finite|expected a range of 0 to 1, 0 to 255 or 0 to"):
        preprocess(image, RAW)


def test_a_nan_is_refused_even_where_the_references_clip():
    image = Image.fromarray(np.array([[0, np.nan]], dtype=np.float32))
    with pytest.raises(ImageError, match="are not finite"):
        preprocess(image, dataclasses.replace(RAW, scale_16_bit=False))


def test_integers_of_32_bits_that_are_8_bit_values_stay_as_they_are():
    image = Image.fromarray(np.array([[0, 9, 255]], dtype=np.int32))
    assert preprocess(image, RAW)[0].tolist() == [[0, 9, 255]]


def test_a_dark_ppm_of_16_bits_stays_dark():
    data = b"P5 2 1 65535\n" + struct.pack(">HH", 0, 200)
    assert preprocess(decode_image(data, "dark"), RAW)[0].tolist() == [[0, 1]]


@given(values=arrays(np.uint16, (2, 3)))
def test_16_bits_are_rounded_as_numpy_rounds(values):
    assert np.array_equal(from_16_bits(values), np.round(values / 257))


# Metadata


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(header, rows, *chunks, after=()):
    body = b"".join(chunk(*item) for item in chunks)
    end = b"".join(chunk(*item) for item in after)
    parts = chunk(b"IHDR", header), body, chunk(b"IDAT", zlib.compress(rows)), end
    return formats.PNG_START + b"".join(parts) + chunk(b"IEND", b"")


GREY = struct.pack(">IIBBBBB", 2, 1, 8, 0, 0, 0, 0), b"\0\x11\x22"
LARGE = b"a" * 9_000_000


def test_a_picture_behind_three_megabytes_of_text_is_read():
    image = open_image(CASES / "ztxt3MB.png")
    assert np.asarray(image.convert("RGB")).std() > 0
    for n_frames in (0, 4):
        assert read_media(CASES / "ztxt3MB.png", n_frames).tobytes() == image.tobytes()


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize(
    "large",
    [
        (b"tEXt", b"k\0" + LARGE),
        (b"zTXt", b"k\0\0" + zlib.compress(LARGE)),
        (b"iTXt", b"k\0\1\0\0\0" + zlib.compress(LARGE)),
        (b"iTXt", b"k\0\0\0\0\0" + LARGE),
        (b"iCCP", b"k\0\0" + zlib.compress(LARGE)),
    ],
)
def test_metadata_of_any_size_refuses_no_png_and_hides_no_orientation(large, where):
    exif = Image.Exif()
    exif[0x0112] = 2
    chunks = [(b"eXIf", exif.tobytes()[6:])]
    before, after = ([large, *chunks], []) if where == "before" else (chunks, [large])
    data = png(*GREY, *before, after=after)
    assert preprocess(decode_image(data, "a photo"), RAW)[0].tolist() == [[0x22, 0x11]]


def test_many_pieces_of_metadata_refuse_no_png():
    piece = (b"zTXt", b"k\0\0" + zlib.compress(b"a" * 500_000))
    assert decode_image(png(*GREY, *[piece] * 300), "a photo").size == (2, 1)


def test_small_metadata_reaches_pillow_unchanged():
    data = png(*GREY, (b"tEXt", b"k\0value"))
    assert decode_image(data, "a photo").info == {"k": "value"}
    file = io.BytesIO(data)
    assert formats.without_large_metadata(file) is file


def progressive(n_segments, tail=b""):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        file, "JPEG", progressive=True
    )
    data = file.getvalue()
    segment = b"\xff\xfe" + struct.pack(">H", 65535) + b"\xff\xda" * 32766 + b"."
    return data[:2] + segment * n_segments + data[2:] + tail


def test_the_metadata_of_a_progressive_jpeg_is_not_counted_as_scans():
    plain = progressive(0)
    n_scans = plain.count(b"\xff\xda")
    for data in (plain, progressive(50), progressive(1, b"\xff\xda" * 500)):
        assert count_jpeg_scans(data, 99) == n_scans
        assert decode_image(data, "a photo").size == (64, 64)


# Many frames


def gif(n_frames):
    frame = b",\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    head = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff"
    return head + b"!\xfe\3abc\0" + frame * n_frames + b";"


@settings(deadline=None, max_examples=30)
@given(n_frames=st.integers(1, 40))
def test_the_frames_of_a_gif_are_counted_as_pillow_counts_them(n_frames):
    data = gif(n_frames)
    assert Image.open(io.BytesIO(data)).n_frames == n_frames
    assert count_gif_frames(io.BytesIO(data), 99) == n_frames
    assert count_gif_frames(io.BytesIO(data), 9) == min(n_frames, 9)


def test_the_frames_of_a_gif_with_own_colours_are_counted(tmp_path):
    noise = np.random.default_rng(0)
    frames = [
        Image.fromarray(noise.integers(0, 256, (30, 20, 3), dtype=np.uint8)) for _ in range(5)
    ]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=50)
    with (tmp_path / "a.gif").open("rb") as file:
        assert count_gif_frames(file, 99) == 5


def test_an_animation_of_too_many_frames_is_refused_before_they_are_walked(tmp_path, monkeypatch):
    (tmp_path / "a.gif").write_bytes(gif(formats.MAX_ANIMATION_FRAMES + 1))
    from PIL.GifImagePlugin import GifImageFile

    walked = property(lambda image: pytest.fail("walked"))
    monkeypatch.setattr(GifImageFile, "n_frames", walked)
    with pytest.raises(ImageError, match=r"a\.gif: an animation of more than 10000 frames"):
        read_media(tmp_path / "a.gif", 4)
    assert isinstance(read_media(tmp_path / "a.gif", 0), Image.Image)


def test_an_animation_of_some_frames_is_a_clip(tmp_path):
    (tmp_path / "a.gif").write_bytes(gif(12))
    assert isinstance(read_media(tmp_path / "a.gif", 4), Clip)


def test_a_png_that_states_millions_of_frames_is_refused(tmp_path):
    frames = [Image.new("L", (9, 9), shade) for shade in (0, 90)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"acTL")
    stated = b"acTL" + struct.pack(">II", 3_000_000, 0)
    changed = data[:start] + stated + struct.pack(">I", zlib.crc32(stated)) + data[start + 16 :]
    (tmp_path / "a.png").write_bytes(changed)
    with pytest.raises(ImageError, match="an animation of more than 10000 frames"):
        read_media(tmp_path / "a.png", 4)


# Formats


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".jp2", ".tga", ".pgm", ".ppm", ".qoi"])
def test_rarer_suffixes_are_images_and_pillow_reads_them(tmp_path, suffix):
    assert suffix in formats.IMAGE_SUFFIXES
    image = arrow().convert("L") if suffix == ".pgm" else arrow()
    image.save(tmp_path / f"a{suffix}", "JPEG" if suffix in (".jfif", ".jpe") else None)
    assert open_image(tmp_path / f"a{suffix}").size == (40, 24)


STARTS = [
    ("heif", b"\0\0\0\x18ftypheic", "pillow_heif"),
    ("heif", b"\0\0\0\x18ftypmif1", "pillow_heif"),
    ("jxl", b"\xff\x0a", "pillow_jxl"),
    ("jxl", b"\0\0\0\x0cJXL \r\n\x87\n", "pillow_jxl"),
]


@pytest.mark.parametrize(("extra", "start", "module"), STARTS)
def test_a_format_that_needs_a_package_names_its_extra(monkeypatch, extra, start, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(GITError, match=rf"pip install 'git-model\[{extra}\]'"):
        decode_image(start + bytes(40), "photo")


@pytest.mark.parametrize(("kind", "module"), [("HEIF", "pillow_heif"), ("JXL", "pillow_jxl")])
def test_with_its_package_a_format_opens(tmp_path, kind, module):
    package = pytest.importorskip(module)
    if kind == "HEIF":
        package.register_heif_opener()
    arrow().save(tmp_path / "photo", kind)
    pixels = preprocess(open_image(tmp_path / "photo"), RAW).permute(1, 2, 0).numpy()
    assert np.abs(pixels - np.asarray(arrow(), dtype=float)).mean() < 5
