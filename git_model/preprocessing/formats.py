"""Image and video formats: which files are read, and what a file may hold besides its pixels."""

import io
import re
import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO

from git_model.utils.errors import GITError

# The only list of what is an image or a video in folders, tars, lists and data sets.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".webp", ".gif", ".avif"),
    *(".avifs", ".heic", ".heif", ".hif", ".jxl", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k"),
    *(".jpc", ".jpf", ".jpx", ".j2c", ".tga", ".icb", ".vda", ".vst", ".pbm", ".pgm", ".ppm"),
    *(".pnm", ".pfm", ".qoi", ".ico", ".icns", ".dds", ".pcx", ".sgi", ".rgb", ".rgba", ".bw"),
    *(".ras", ".psd", ".xbm", ".xpm", ".msp", ".cur", ".dcx", ".fli", ".flc"),
)
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mkv", ".webm", ".avi", ".mpg"),
    *(".mpeg", ".mpe", ".vob", ".ts", ".mts", ".m2ts", ".flv", ".wmv", ".asf", ".ogv"),
)
# Images and videos that are not read: raw files of cameras, drawings, layers, other codecs.
OTHER_MEDIA_SUFFIXES = (
    *(".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".dng", ".orf", ".rw2"),
    *(".raf", ".pef", ".srw", ".x3f", ".3fr", ".iiq", ".svg", ".svgz", ".eps", ".ai", ".emf"),
    *(".wmf", ".xcf", ".kra", ".psb", ".exr", ".hdr", ".fits", ".fit", ".fts", ".dcm", ".jxr"),
    *(".wdp", ".bpg", ".flif", ".pcd", ".pict", ".pct", ".djvu", ".rm", ".rmvb", ".mxf", ".dv"),
    *(".y4m", ".m2v", ".h264", ".h265", ".hevc", ".ivf", ".gifv", ".swf", ".braw", ".r3d"),
)
# Files that lie beside images and are not images; for other files the first bytes decide.
COMPANION_SUFFIXES = (
    *(".txt", ".caption", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".xml", ".xmp"),
    *(".aae", ".md", ".html", ".htm", ".css", ".js", ".py", ".ini", ".yaml", ".yml", ".toml"),
    *(".log", ".srt", ".vtt", ".pdf", ".npy", ".npz", ".pt", ".bin", ".safetensors", ".sqlite"),
    *(".db", ".lst", ".list", ".tar", ".gz", ".zip", ".7z", ".lineidx", ".8b", ".mp3", ".wav"),
    *(".m4a", ".aac", ".flac", ".ogg", ".lock"),
)
MEDIA_STARTS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF....(?:WEBP|AVI )|BM....\0\0\0\0|II\*\0|MM\0\*|8BPS"
    rb"|\0\0\0\x0cjP  |\0\0\0\x0cJXL |\xff\x0a|\x1a\x45\xdf\xa3|FLV\x01|qoif"
    rb"|....ftyp(?!M4[AB] |crx )",
    re.DOTALL,
)

# Formats that Pillow reads through a package of its own: extra, module, what a file begins with.
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
JXL_STARTS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
START_BYTES = 32  # enough to recognise these formats

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_METADATA = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
# Limits of the metadata that Pillow reads; an orientation, in EXIF or XMP, has a few kilobytes.
MAX_METADATA = 2**19  # bytes, unpacked, of one chunk
MAX_ALL_METADATA = 2**23  # bytes of all chunks
JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # no restarts, no 0, which is a scan's byte

MAX_ANIMATION_FRAMES = 10_000  # in a file; even empty frames cost time


def looks_like_media(name: str, read_start: Callable[[], bytes] | None = None) -> bool:
    """Whether a file that is not read as an image or a video seems to be one.

    Args:
        read_start: returns its first START_BYTES bytes, which decide if the suffix does not.
    """
    lower = name.lower()
    if lower.startswith("._") or lower.endswith(COMPANION_SUFFIXES):
        return False
    if lower.endswith(OTHER_MEDIA_SUFFIXES + IMAGE_SUFFIXES + VIDEO_SUFFIXES):
        return True
    if read_start is None:
        return False
    try:
        return MEDIA_STARTS.match(read_start()) is not None
    except OSError:
        return False


def prepare_pillow(start: bytes) -> None:
    """Let Pillow read HEIF, AVIF or JPEG XL, if a file begins as such a file does.

    Raises:
        GITError: the package that reads the format is missing; the message names the extra.
    """
    brand = start[8:12] if start[4:8] == b"ftyp" else b""
    if brand in HEIF_BRANDS:
        _require_opener("HEIF", "heif", "pillow-heif")
    elif brand in AVIF_BRANDS:
        _require_opener("AVIF", "avif", "Pillow 11.3 or newer")
    elif start.startswith(JXL_STARTS):
        _require_opener("JPEG XL", "jxl", "pillow-jxl-plugin")


def _require_opener(name: str, extra: str, package: str) -> None:
    try:
        if extra == "heif":
            import pillow_heif

            pillow_heif.register_heif_opener()
        elif extra == "jxl":
            import pillow_jxl  # noqa: F401  (it registers itself)
        else:
            from PIL import features

            if not features.check("avif"):
                raise ImportError
    except ImportError:
        raise GITError(
            f"an image in {name}, which needs {package}: pip install 'git-model[{extra}]'"
        ) from None


def without_large_metadata(file: BinaryIO) -> BinaryIO:
    """A PNG without its large chunks of metadata, which Pillow refuses; other files as they are.

    Pixels and the limits on them stay as they are, and no chunk is unpacked beyond MAX_METADATA.
    """
    start = file.read(len(PNG_START))
    file.seek(0)
    if start != PNG_START:
        return file
    kept, is_whole = [(0, len(PNG_START))], True  # (offset, bytes)
    position, total = len(PNG_START), 0
    while len(header := _read_at(file, position, 8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        size = 0
        if kind in PNG_METADATA:
            size = _unpacked_size(_read_at(file, position + 8, min(length, MAX_METADATA + 1)), kind)
        if size > MAX_METADATA or total + size > MAX_ALL_METADATA:
            is_whole = False
        else:
            total += size
            kept.append((position, length + 12))
        position += length + 12
        if kind == b"IEND":
            break
    file.seek(0)
    if is_whole:
        return file
    return io.BytesIO(b"".join(_read_at(file, offset, size) for offset, size in kept))


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _unpacked_size(data: bytes, kind: bytes) -> int:
    """The bytes of a chunk of metadata when it is unpacked, or more than MAX_METADATA."""
    if len(data) > MAX_METADATA or kind == b"tEXt":
        return len(data)
    keyword, _, rest = data.partition(b"\0")
    if kind == b"iTXt":
        if rest[:1] != b"\1":
            return len(data)
        rest = rest[1:].split(b"\0", 2)[-1]  # language and translated keyword come first
    try:
        return len(zlib.decompressobj().decompress(rest[1:], MAX_METADATA + 1)) + len(keyword)
    except zlib.error:
        return len(data)


def count_jpeg_scans(data: bytes, limit: int) -> int:
    """The number of scans of a JPEG, counted up to `limit`; its metadata are skipped."""
    n_scans, position = 0, 2
    while n_scans < limit and (marker := JPEG_MARKER.search(data, position)):
        code, position = data[marker.end() - 1], marker.end()
        if code == 0xD9:  # the end of the image; phones write more behind it
            break
        if code == 0xDA:
            n_scans += 1
        if code != 0x01:  # the one marker here without a length
            position += int.from_bytes(data[position : position + 2], "big")
    return n_scans


def count_gif_frames(file: BinaryIO, limit: int) -> int:
    """The number of frames of a GIF, counted up to `limit` without decoding."""
    flags = _read_at(file, 0, 13)[10:11]
    _skip_colours(file, flags)
    n_frames = 0
    while n_frames < limit and (block := file.read(1)) in (b"!", b","):
        if block == b",":
            n_frames += 1
            _skip_colours(file, file.read(9)[8:9])
        file.seek(1, io.SEEK_CUR)  # an extension's label, or the size of a code
        while size := file.read(1):
            if size == b"\0":
                break
            file.seek(size[0], io.SEEK_CUR)
    return n_frames


def _skip_colours(file: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        file.seek(3 << ((flags[0] & 7) + 1), io.SEEK_CUR)
