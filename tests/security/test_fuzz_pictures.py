"""Damaged pictures, animations and videos are read, or refused in one line."""

import io

import pytest
from fuzzing import damaged, examples, fuzz, nothing_else_touched
from hypothesis import strategies as st
from PIL import Image
from tiny import tiny_config

from git_model.preprocessing.image import decode_image, preprocess
from git_model.preprocessing.video import read_media

av = pytest.importorskip("av")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what is damaged

SIZE = (24, 16)
# A format of Pillow's, how a picture has to be for it, and options of its writer.
WRITTEN = [
    ("AVIF", "RGBA", {}),
    ("BLP", "P", {}),
    ("BMP", "RGB", {}),
    ("DDS", "RGBA", {}),
    ("DIB", "P", {}),
    ("EPS", "RGB", {}),
    ("GIF", "P", {}),
    ("ICNS", "RGBA", {}),
    ("ICO", "RGBA", {"sizes": [(16, 16)], "bitmap_format": "bmp"}),
    ("IM", "RGB", {}),
    ("JPEG", "RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"}),
    ("JPEG", "CMYK", {"progressive": True}),
    ("JPEG2000", "RGB", {}),
    ("MPO", "RGB", {}),
    ("MSP", "1", {}),
    ("PCX", "P", {}),
    ("PNG", "P", {"transparency": b"\0\x80"}),
    ("PNG", "I;16", {}),
    ("PPM", "RGB", {}),
    ("QOI", "RGBA", {}),
    ("SGI", "RGB", {}),
    ("SPIDER", "F", {}),
    ("TGA", "RGBA", {"compression": "tga_rle"}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "LA", {"compression": "jpeg"}),
    ("TIFF", "I", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("XBM", "1", {}),
]
# How the files begin of formats that Pillow reads and does not write.
READ_ONLY = {
    "CUR": b"\0\0\2\0\1\0\x10\x10\0\0\0\0\0\0\x40\0\0\0\x16\0\0\0",
    "DCX": b"\xb1\x68\xde\x3a\x10\0\0\0\0\0\0\0",
    "FITS": b"SIMPLE  =                    T".ljust(80)
    + b"BITPIX  =                    8".ljust(80),
    "FLI": b"\xff\xff\0\0\x12\xaf\2\0\x10\0\x10\0\x08\0\3\0\1\0\0\0".ljust(128, b"\0"),
    "FTEX": b"FTEX\1\0\0\0\x10\0\0\0\x10\0\0\0\1\0\0\0\1\0\0\0\0\0\0\0",
    "GBR": b"\0\0\0\x1c\0\0\0\2\0\0\0\x10\0\0\0\x10\0\0\0\4GIMP\0\0\0\1",
    "GRIB": b"GRIB\0\0\0\1",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "BUFR": b"BUFR\0\0\0\1",
    "IPTC": b"\x1c\3\x14\0\2\0\x10\x1c\3\x1e\0\2\0\x10\x1c\3\x3c\0\2\1\0",
    "MCIDAS": b"\0\0\0\0\0\0\0\4".ljust(256, b"\0"),
    "MPEG": b"\0\0\1\xb3\1\0\x10",
    "PCD": b"\0" * 2048 + b"PCD_",
    "PIXAR": b"\x80\xe8\0\0".ljust(416, b"\0") + b"\x10\0\x10\0",
    "PSD": b"8BPS\0\1\0\0\0\0\0\0\0\3\0\0\0\x10\0\0\0\x10\0\x08\0\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    "SUN": b"\x59\xa6\x6a\x95\0\0\0\x10\0\0\0\x10\0\0\0\x18\0\0\3\0\0\0\0\1\0\0\0\0\0\0\0\0",
    "WMF": b"\xd7\xcd\xc6\x9a\0\0\0\0\0\0\x10\0\x10\0\x48\0",
    "XPM": b'/* XPM */\nstatic char *x[] = {\n"16 16 2 1",\n"  c #000000",\n". c #ffffff",\n',
    "XVTHUMB": b"P7 332\n#XVVERSION\n#END_OF_COMMENTS\n16 16 255\n",
}
VIDEOS = [
    ("mp4", "mpeg4"),
    ("mkv", "libx264"),
    ("webm", "libvpx"),
    ("avi", "mjpeg"),
    ("ts", "mpeg2video"),
    ("mpg", "mpeg1video"),
    ("flv", "flv"),
    ("wmv", "wmv2"),
]


def noise(mode="RGB", number=0):
    grey = Image.effect_noise(SIZE, 60 + number)
    if mode == "I;16":
        return grey.convert("I").convert("I;16")
    return grey.convert("RGB").convert(mode)


def written(kind, mode, options):
    file = io.BytesIO()
    noise(mode).save(file, kind, **options)
    return file.getvalue()


def animated(kind):
    file = io.BytesIO()
    frames = [noise("RGB", number) for number in range(5)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=50)
    return file.getvalue()


def film(path, codec):
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(8):
            frame = av.VideoFrame.from_image(noise("RGB", number).resize((64, 48)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def reader(path, frames=0):
    """Write a file's bytes, read it as a model does, from the disk and from memory."""
    settings = tiny_config().preprocess

    def read(data):
        path.write_bytes(data)
        with nothing_else_touched(path.parent):
            media = read_media(path, frames)
            for picture in getattr(media, "frames", [media]):
                preprocess(picture, settings)

    return read


@examples(12, 3000)
@pytest.mark.parametrize(
    ("kind", "mode", "options"), WRITTEN, ids=[f"{kind}-{mode}" for kind, mode, _ in WRITTEN]
)
def test_a_damaged_picture(tmp_path, kind, mode, options, count):
    whole = written(kind, mode, options)
    fuzz(count, damaged(whole), reader(tmp_path / "picture"), memory=1500 * 2**20)


@examples(8, 3000)
@pytest.mark.parametrize("kind", READ_ONLY)
def test_a_picture_that_only_begins_like_one(tmp_path, kind, count):
    made = st.binary(max_size=2000).map(lambda rest: READ_ONLY[kind] + rest)
    inputs = st.one_of(made, made.flatmap(damaged))
    fuzz(count, inputs, reader(tmp_path / "picture"), memory=1500 * 2**20)


@examples(10, 3000)
@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_a_damaged_animation(tmp_path, kind, count):
    whole = animated(kind)
    fuzz(count, damaged(whole), reader(tmp_path / "clip", 3), memory=1500 * 2**20)


@examples(10, 3000)
@pytest.mark.parametrize(("kind", "codec"), VIDEOS)
def test_a_damaged_video(tmp_path, kind, codec, count):
    whole = film(tmp_path / f"whole.{kind}", codec)
    fuzz(count, damaged(whole), reader(tmp_path / "clip", 3), memory=1500 * 2**20)


@examples(40, 20000)
def test_bytes_that_mean_nothing(tmp_path, count):
    fuzz(count, st.binary(max_size=400), reader(tmp_path / "picture", 3))


@examples(40, 20000)
def test_damaged_bytes_in_memory(count):
    whole = written("PNG", "P", {"transparency": b"\0\x80"})
    fuzz(count, damaged(whole), lambda data: decode_image(data, "a name"))
