"""Our pixels against Transformers' and torchvision's, bit for bit, and the files we refuse."""

import dataclasses
import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from git_model.config import CLIP_MEAN, CLIP_STD, PreprocessConfig, style_preprocess
from git_model.preprocessing.image import (
    ImageError,
    decode_image,
    open_image,
    preprocess,
    preprocess_batch,
)

RESAMPLE = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
EVERY_MODE = [
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB"),
    *("HSV", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"),
]
MODES = [mode for mode in EVERY_MODE if mode != "La"]  # those that Transformers can read

sides = st.integers(1, 70)
whole = settings(deadline=None, max_examples=100)
clipped_is_fine = pytest.mark.filterwarnings("ignore:16-bit pixels")
bytes_are_fine = pytest.mark.filterwarnings("ignore:Palette images with Transparency")


def noise_image(mode, size, seed=0):
    """An image of noise."""
    noise = np.random.default_rng(seed)
    if mode == "F":
        return Image.fromarray(noise.uniform(-50, 300, size[::-1]).astype(np.float32))
    if mode == "I":
        return Image.fromarray(noise.integers(-50, 70000, size[::-1], dtype=np.int32))
    image = Image.new(mode, size)
    image.frombytes(noise.bytes(len(image.tobytes())))
    if mode in ("P", "PA"):
        image.putpalette(noise.bytes(768))
    return image


@st.composite
def noise_images(draw, modes=MODES):
    """Any mode and size; where a file could have it, one colour that is transparent."""
    mode = draw(st.sampled_from(modes))
    image = noise_image(mode, (draw(sides), draw(sides)), draw(st.integers(0, 99)))
    if mode in ("1", "L", "I", "I;16", "RGB", "P") and draw(st.booleans()):
        image.info["transparency"] = image.getpixel((0, 0))
    if mode == "P" and draw(st.booleans()):
        image.info["transparency"] = bytes(range(256))
    return image


@st.composite
def configs(draw):
    """Every setting that Transformers has, and each step switched off."""
    resize = draw(st.sampled_from(["short", "exact", "none"]))
    three = st.tuples(*[st.floats(0.01, 1)] * 3)
    normalise = draw(st.booleans())
    return PreprocessConfig(
        short_side=draw(sides) if resize == "short" else None,
        exact=draw(st.tuples(sides, sides)) if resize == "exact" else None,
        crop=draw(st.none() | st.tuples(sides, sides)),
        resample=draw(st.sampled_from(RESAMPLE)),
        rescale=draw(st.sampled_from([1 / 255, 1.0, 1 / 127.5]) | st.floats(1e-4, 2)),
        mean=draw(three) if normalise else (0, 0, 0),
        std=draw(three) if normalise else (1, 1, 1),
        scale_16_bit=False,
    )


def by_transformers(image, config):
    size = {"shortest_edge": config.short_side}
    if config.exact is not None:
        size = dict(zip(("height", "width"), config.exact, strict=True))
    crop = config.crop or (1, 1)
    processor = CLIPImageProcessorPil(
        do_resize=config.exact is not None or config.short_side is not None,
        size=size if size.get("shortest_edge", 1) else None,
        resample=Image.Resampling[config.resample.upper()],
        do_center_crop=config.crop is not None,
        crop_size={"height": crop[0], "width": crop[1]},
        do_rescale=config.rescale != 1,
        rescale_factor=config.rescale,
        do_normalize=(config.mean, config.std) != ((0, 0, 0), (1, 1, 1)),
        image_mean=config.mean,
        image_std=config.std,
    )
    return processor(image, return_tensors="pt")["pixel_values"][0].float()


def by_the_original(image, size, longest=None):
    """`get_image_transform` and `load_image_by_pil` of the original, on torchvision."""
    bicubic = transforms.InterpolationMode.BICUBIC
    image = image.convert("RGB")
    if longest is None:
        image = transforms.Resize(size, interpolation=bicubic)(image)
        image = transforms.CenterCrop(size)(image)
    else:
        image = functional.resize(image, min_max_size(image.size, size, longest), bicubic)
    return transforms.Normalize(CLIP_MEAN, CLIP_STD)(transforms.ToTensor()(image))


def min_max_size(image_size, size, max_size):
    """`MinMaxResizeForTest.get_size`: (height, width)."""
    w, h = image_size
    if max(w, h) / min(w, h) * size > max_size:
        size = int(round(max_size * float(min(w, h)) / max(w, h)))  # noqa: RUF046
    if (w <= h and w == size) or (h <= w and h == size):
        return [h, w]
    return [int(size * h / w), size] if w < h else [size, int(size * w / h)]


def microsoft(size, longest=None):
    config = style_preprocess("microsoft", image_size=224, video=False)
    crop = (size, size) if longest is None else None
    changes = {"short_side": size, "long_side_max": longest, "crop": crop}
    return dataclasses.replace(config, **changes, scale_16_bit=False)


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


# Equality with Transformers


@clipped_is_fine
@bytes_are_fine
@whole
@given(image=noise_images(), config=configs())
def test_any_image_under_any_setting_is_as_in_transformers(image, config):
    assert torch.equal(preprocess(image, config), by_transformers(image, config))


@pytest.mark.parametrize("rescale", [1 / 255, 1 / 127.5, 0.1])
def test_each_of_the_256_values_is_as_in_transformers(rescale):
    image = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2))
    config = PreprocessConfig(short_side=None, crop=None, rescale=rescale)
    assert torch.equal(preprocess(image, config), by_transformers(image, config))


@pytest.mark.parametrize("size", [(640, 427), (333, 500), (224, 224), (100, 150)])
def test_the_huggingface_style_is_what_their_processors_do_by_default(size):
    image = noise_image("RGB", size)
    for video, processor in ((False, CLIPImageProcessorPil()), (True, VideoMAEImageProcessorPil())):
        config = style_preprocess("huggingface", image_size=224, video=video)
        expected = processor(image, return_tensors="pt")["pixel_values"].view(3, 224, 224)
        assert torch.equal(preprocess(image, config), expected)


# Equality with the original


@clipped_is_fine
@bytes_are_fine
@whole
@given(image=noise_images(), size=sides)
def test_a_crop_is_as_in_the_original(image, size):
    assert torch.equal(preprocess(image, microsoft(size)), by_the_original(image, size))


@whole
@given(image=noise_images(["RGB"]), size=sides, more=sides)
def test_a_kept_aspect_ratio_is_as_in_the_original(image, size, more):
    ours = microsoft(size, size + more)
    if 0 in min_max_size(image.size, size, size + more):
        with pytest.raises(ImageError, match="would be resized to"):
            preprocess(image, ours)
    else:
        assert torch.equal(preprocess(image, ours), by_the_original(image, size, size + more))


@settings(deadline=None, max_examples=150)
@given(
    image=st.builds(Image.new, st.just("RGB"), st.tuples(sides, sides)),
    crop=st.tuples(sides, sides),
)
def test_a_crop_lies_where_torchvision_puts_it_even_beyond_the_image(image, crop):
    image = noise_image("RGB", image.size)
    config = dataclasses.replace(microsoft(1), short_side=None, crop=crop)
    expected = transforms.Normalize(CLIP_MEAN, CLIP_STD)(
        transforms.ToTensor()(transforms.CenterCrop(crop)(image))
    )
    assert torch.equal(preprocess(image, config), expected)


@pytest.mark.parametrize("size", [(640, 427), (375, 500), (1000, 300), (480, 480), (480, 600)])
def test_the_microsoft_style_is_the_originals_at_each_released_size(size):
    image = noise_image("RGB", size)
    for image_size, longest in ((224, None), (384, None), (480, 640), (420, 560)):
        config = style_preprocess("microsoft", image_size=image_size, video=False)
        expected = by_the_original(image, image_size, longest)
        assert torch.equal(preprocess(image, config), expected)


# Modes, transparency, orientation, 16 bits


@clipped_is_fine
@pytest.mark.parametrize("transparency", ["white", "drop"])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("mode", EVERY_MODE)
def test_every_mode_of_pillow_becomes_pixels(mode, transparency, scale):
    config = PreprocessConfig(transparency=transparency, scale_16_bit=scale)
    image = noise_image(mode, (50, 40))
    if mode in "IF":  # within a range that can be told
        image = Image.fromarray(np.asarray(image).clip(0, 255 if mode == "F" else 65535))
    pixels = preprocess(image, config)
    assert pixels.shape == (3, 224, 224)
    assert pixels.dtype == torch.float32
    assert pixels.isfinite().all()


@pytest.mark.parametrize("mode", ["LA", "La", "RGBA", "PA"])
def test_transparency_is_laid_on_white_or_forgotten(mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert("LA" if mode == "La" else mode)
    image = image.convert(mode)
    raw = PreprocessConfig(short_side=None, crop=None, mean=(0, 0, 0), std=(1, 1, 1))
    assert (preprocess(image, raw) == 1).all()
    assert (preprocess(image, dataclasses.replace(raw, transparency="drop")) == 0).all()


TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNS)
def test_a_photo_is_upright_unless_switched_off(tmp_path, orientation):
    image = noise_image("RGB", (30, 20))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "photo.png", exif=exif)
    photo = open_image(tmp_path / "photo.png")
    upright = PreprocessConfig(short_side=10, crop=None)
    as_stored = dataclasses.replace(upright, upright=False)
    turned = Image.fromarray(np.ascontiguousarray(TURNS[orientation](np.array(image))))
    assert torch.equal(preprocess(photo, upright), preprocess(turned, as_stored))
    assert torch.equal(preprocess(photo, as_stored), preprocess(image, as_stored))


def test_a_photo_whose_other_exif_data_is_damaged_is_turned_all_the_same(recwarn):
    image = noise_image("RGB", (30, 20))
    width = b"\x01\x00\x00\x01\x00\x00\x00\x01????"  # its width, of the wrong type
    orientation = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06??"
    image.info["exif"] = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + width + orientation + bytes(4)
    config = PreprocessConfig(short_side=10, crop=None)
    turned = image.transpose(Image.Transpose.ROTATE_270)
    turned.info.clear()
    assert torch.equal(preprocess(image, config), preprocess(turned, config))


AS_IS = PreprocessConfig(short_side=None, crop=None, rescale=1.0, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16L", "I;16B", "I;16N"])
def test_16_bits_are_scaled_to_the_nearest_of_8(mode, recwarn):
    values = np.arange(65536).reshape(256, 256)
    kind = {"I": "<i4", "I;16B": ">u2"}.get(mode, "<u2")
    image = Image.frombytes(mode, (256, 256), values.astype(kind).tobytes())
    pixels = preprocess(image, AS_IS)
    assert torch.equal(pixels[0], torch.from_numpy(np.round(values / 257)).float())
    assert not recwarn


@pytest.mark.parametrize("values", [[0, 65536], [0, 2**31 - 1], [-70000, 9]])
def test_integers_beyond_16_bits_are_refused(values):
    with pytest.raises(ImageError, match=r"values from .*, expected a range of 0 to 1, 0 to 255"):
        preprocess(Image.fromarray(np.array([values], dtype=np.int32)), AS_IS)


def test_clipping_16_bits_is_said_in_one_warning_that_names_the_setting(tmp_path):
    Image.fromarray(np.array([[3, 255, 256, 65535]], dtype=np.uint16)).save(tmp_path / "deep.png")
    clipped = dataclasses.replace(AS_IS, scale_16_bit=False)
    with pytest.warns(UserWarning, match="preprocess.scale_16_bit") as caught:
        pixels = preprocess(open_image(tmp_path / "deep.png"), clipped)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert pixels[0].tolist() == [[3, 255, 255, 255]]


def test_a_dark_16_bit_image_is_not_warned_about(recwarn):
    clipped = dataclasses.replace(AS_IS, scale_16_bit=False)
    preprocess(Image.fromarray(np.array([[0, 255]], dtype=np.uint16)), clipped)
    assert not recwarn


# Sizes and batches


def test_frames_and_images_become_one_tensor():
    frames = [noise_image("RGB", (40, 30), seed) for seed in range(3)]
    config = PreprocessConfig(short_side=16, crop=(16, 16))
    batch = preprocess_batch(frames, config)
    assert batch.shape == (3, 3, 16, 16)
    assert torch.equal(batch[1], preprocess(frames[1], config))


def test_images_of_different_shapes_without_a_crop_are_named():
    images = [Image.new("RGB", size) for size in ((40, 40), (40, 40), (80, 40))]
    with pytest.raises(ImageError, match=r"image 2 is resized to 16 x 32 .*0 to 16 x 16"):
        preprocess_batch(images, PreprocessConfig(short_side=16, crop=None))


def test_an_empty_batch_is_refused():
    with pytest.raises(ImageError, match="no images were given"):
        preprocess_batch([], PreprocessConfig())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16"])
@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(size, mode):
    with pytest.raises(ImageError, match=f"of mode {mode}: {size[0]} x {size[1]} pixels"):
        preprocess(Image.new(mode, size), PreprocessConfig())


def test_a_thread_of_an_image_is_refused_before_it_fills_the_memory():
    with pytest.raises(ImageError, match="1 x 60000 pixels would be resized to 224 x 13440000"):
        preprocess(Image.new("RGB", (1, 60000)), PreprocessConfig())


def test_an_image_that_would_shrink_to_nothing_is_refused_by_name(tmp_path):
    Image.new("RGB", (2000, 1)).save(tmp_path / "thread.png")
    config = style_preprocess("microsoft", image_size=480, video=False)
    with pytest.raises(ImageError, match="png: 2000 x 1 pixels would be resized to 0 x 0"):
        preprocess(open_image(tmp_path / "thread.png"), config)


def test_a_pillow_image_that_cannot_be_read_is_refused_in_one_line():
    data = saved(noise_image("RGB", (64, 64)), "PNG")
    with pytest.raises(ImageError) as error:
        preprocess(Image.open(io.BytesIO(data[:5000])), PreprocessConfig())
    assert one_line(error).startswith("an image of mode RGB: ")


# Files


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "TGA"])
def test_an_image_file_opens_whole_and_is_closed(tmp_path, kind):
    image = noise_image("L", (9, 7)).convert("RGB")
    options = {"lossless": True} if kind == "WEBP" else {}
    if kind in ("GIF", "TIFF", "WEBP", "PNG"):
        options |= {"save_all": True, "append_images": [Image.new("RGB", (9, 7))]}
    path = tmp_path / "image"
    path.write_bytes(saved(image, kind, **options))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        opened = open_image(path)
        path.unlink()
        assert torch.equal(preprocess(opened, AS_IS), preprocess(image, AS_IS))
        del opened


def test_a_missing_file_is_refused_in_one_line(tmp_path):
    with pytest.raises(ImageError) as error:
        open_image(tmp_path / "none.jpg")
    assert one_line(error).startswith(f"{tmp_path / 'none.jpg'}: No such file")


def test_a_folder_is_refused_in_one_line(tmp_path):
    with pytest.raises(ImageError) as error:
        open_image(str(tmp_path))
    assert one_line(error) == (
        f"{tmp_path}: Is a directory, expected an image or a video; `git-model batch` captions a "
        "whole folder"
    )


def test_a_text_file_named_jpg_is_refused_in_one_line(tmp_path):
    (tmp_path / "text.jpg").write_text("a cat\non a mat")
    with pytest.raises(ImageError) as error:
        open_image(tmp_path / "text.jpg")
    assert "text.jpg: not an image, expected JPEG, PNG" in one_line(error)


def test_an_empty_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError) as error:
        open_image(tmp_path / "empty.png")
    assert one_line(error).endswith("empty.png: the file is empty, expected an image")


def test_an_image_in_memory_is_opened_or_refused_as_in_a_file():
    image = noise_image("RGB", (12, 9))
    assert decode_image(saved(image, "PNG"), "row 7").tobytes() == image.tobytes()
    for data, message in (
        (b"", "row 7: the file is empty, expected an image"),
        (b"a cat", "row 7: not an image, expected JPEG, PNG"),
        (saved(image, "PNG")[:50], "row 7: "),
    ):
        with pytest.raises(ImageError) as error:
            decode_image(data, "row 7")
        assert one_line(error).startswith(message)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_an_image_cut_short_is_refused_in_one_line(tmp_path, kind, part):
    data = saved(noise_image("RGB", (64, 64)), kind)
    (tmp_path / "cut").write_bytes(data[: int(part * len(data))])
    with pytest.raises(ImageError) as error:
        open_image(tmp_path / "cut")
    assert one_line(error).startswith(f"{tmp_path / 'cut'}: ")
    assert "expected" in one_line(error)


@pytest.mark.parametrize("limit", [60, 99])  # more than the limit, and more than twice the limit
@pytest.mark.parametrize("action", ["ignore", "error"])
def test_a_decompression_bomb_is_refused_in_one_line(tmp_path, monkeypatch, limit, action):
    Image.new("RGB", (10, 15)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    quiet = warnings.catch_warnings(action=action, category=Image.DecompressionBombWarning)
    with quiet, pytest.raises(ImageError) as error:
        open_image(tmp_path / "bomb.png")
    assert one_line(error).endswith(f"bomb.png: too many pixels, expected at most {limit} in all")


def test_an_image_just_within_the_limit_opens(tmp_path, monkeypatch):
    Image.new("RGB", (10, 15)).save(tmp_path / "large.png")
    for limit in (150, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert open_image(tmp_path / "large.png").size == (10, 15)


SMALL = noise_image("RGB", (12, 9))
FILES = [saved(SMALL, kind) for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "ICO", "PPM")]
EXIF = Image.Exif()
EXIF[0x0112] = 6
EXIF[0x010E] = "an image"
FILES += [saved(SMALL, kind, exif=EXIF) for kind in ("JPEG", "PNG", "TIFF", "WEBP")]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "file"


@pytest.mark.filterwarnings("ignore")  # Pillow's own, about what it found in there
@settings(deadline=None, max_examples=100)
@given(
    data=st.sampled_from(FILES),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
def test_a_damaged_file_gives_pixels_or_one_line(scratch, data, damage):
    content = bytearray(data)
    for position, value in damage:
        content[int(position * len(content))] = value
    scratch.write_bytes(content)
    config = PreprocessConfig(short_side=8, crop=(8, 8))
    try:
        assert preprocess(open_image(scratch), config).shape == (3, 8, 8)
    except ImageError as error:
        assert "\n" not in str(error)  # noqa: PT017
