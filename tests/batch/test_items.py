"""One input: opening it gives an image, a clip or one line, whatever lies there."""

import base64
import os
import pickle
import socket
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from photos import colour_of, photo, photo_bytes
from PIL import Image
from videos import animate, film, grey, index_of

from git_model.batch.items import ArchiveMember, Input, RefusedInput, readable
from git_model.preprocessing.clip import Clip
from git_model.preprocessing.image import ImageError
from git_model.utils.errors import GITError, one_line

N = 20
UNIFORM = [2, 7, 12, 17]  # 4 of 20


def refusal(item, frames=0):
    with pytest.raises(GITError) as error:
        item.open(frames)
    [line] = str(error.value).splitlines()
    line.encode()  # it can be printed
    return line


def at(path):
    return Input(path.name, path)


def packed(tmp_path, data, **options):
    """The data between other bytes of a file."""
    archive = tmp_path / "archive"
    archive.write_bytes(b"before" + data + b"after")
    return Input("a/x.jpg", ArchiveMember(archive, 6, len(data), **options))


GIANT, BOMB = 14_000, 10_000  # pixels of each side: above twice Pillow's limit, and above it


def black_png(side):
    """A sound PNG of so many black pixels, one bit each, without making them."""
    row = bytes(1 + side // 8)
    squeeze = zlib.compressobj(level=1)
    data = b"".join(squeeze.compress(row * 100) for _ in range(side // 100)) + squeeze.flush()

    def chunk(kind, content):
        code = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + code

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# What can be opened


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "JPEG"), ("L", "PNG"), ("I;16", "PNG")])
def test_an_image_of_any_mode_is_opened(tmp_path, mode, kind):
    Image.new(mode, (12, 8)).save(tmp_path / "x.jpg", kind)
    assert at(tmp_path / "x.jpg").open(0).mode == mode


def test_the_suffix_may_lie(tmp_path):
    (tmp_path / "x.jpg").write_bytes(photo_bytes("blue", "PNG"))
    assert colour_of(at(tmp_path / "x.jpg").open(0)) == (0, 0, 1)


@pytest.mark.parametrize("where", ["file", "bytes", "base64"])
@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_a_clip_is_the_same_from_a_file_and_from_bytes(tmp_path, kind, where):
    path, frames = tmp_path / f"x.{kind}", [grey(index) for index in range(N)]
    animate(path, "GIF", frames) if kind == "gif" else film(path, "mpeg4", frames)
    data = path.read_bytes()
    item = at(path)
    if where == "bytes":
        item = packed(tmp_path, data)
    if where == "base64":
        item = packed(tmp_path, base64.b64encode(data) + b"\r\n", is_base64=True)
    clip = item.open(4)
    assert isinstance(clip, Clip)
    assert clip.indices == [index_of(frame) for frame in clip.frames] == UNIFORM
    assert item.read() == data


def test_of_an_animation_in_a_tar_the_first_frame_is_an_image(tmp_path):
    animate(tmp_path / "x.gif", "GIF", [grey(3), grey(9)])
    item = packed(tmp_path, (tmp_path / "x.gif").read_bytes())
    assert index_of(item.open(0)) == 3


# What cannot


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"a cat", "not an image"),
        (photo_bytes("red", "PNG")[:-30], "expected a whole image file"),
        (photo_bytes("red", "JPEG")[:-300], "expected a whole image file"),
        (black_png(GIANT), "too many pixels"),
        (black_png(BOMB), "too many pixels"),
        (b"P6 1000000 1000000 255 ", "too many pixels"),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "giant", "bomb", "lying header"],
)
@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("frames", [0, 4])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_whole_image_is_one_line(tmp_path, data, message, is_packed, frames):
    (tmp_path / "x.jpg").write_bytes(data)
    item = packed(tmp_path, data) if is_packed else at(tmp_path / "x.jpg")
    if data == b"a cat" and frames:
        message = "neither an image nor a whole video"
    line = refusal(item, frames)
    assert line.startswith(f"{tmp_path}/archive: a/x.jpg: " if is_packed else f"{tmp_path}/x.jpg: ")
    assert message in line


def test_a_giant_image_takes_no_memory(tmp_path):
    (tmp_path / "x.png").write_bytes(black_png(GIANT))
    tracemalloc.start()
    refusal(at(tmp_path / "x.png"), 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_video_needs_a_model_for_clips(tmp_path):
    film(tmp_path / "x.mp4", "mpeg4", [grey(1)])
    line = "videos need a model with temporal embeddings"
    assert line in refusal(at(tmp_path / "x.mp4"))
    assert line in refusal(packed(tmp_path, (tmp_path / "x.mp4").read_bytes()))


def a_folder(path):
    path.mkdir()


def a_pipe(path):
    os.mkfifo(path)


def a_socket(path, keep=[]):  # noqa: B006  (so that it is not closed)
    keep.append(socket.socket(socket.AF_UNIX))
    keep[-1].bind(str(path))


def a_device(path):
    path.symlink_to("/dev/zero")


def a_broken_link(path):
    path.symlink_to("nowhere")


def a_link_to_itself(path):
    path.symlink_to(path.name)


def nothing(path):
    pass


@pytest.mark.timeout(120)  # a pipe would be waited for, a device never end
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (a_folder, "Is a directory"),
        (a_pipe, "a pipe, socket or device"),
        (a_socket, "a pipe, socket or device"),
        (a_device, "a pipe, socket or device"),
        (a_broken_link, "No such file"),
        (a_link_to_itself, "Too many levels of symbolic links"),
        (nothing, "No such file"),
    ],
)
@pytest.mark.parametrize("frames", [0, 4])
def test_what_is_no_file_is_one_line_and_never_waited_for(tmp_path, make, message, frames):
    make(tmp_path / "x.jpg")
    assert refusal(at(tmp_path / "x.jpg"), frames).startswith(f"{tmp_path}/x.jpg: {message}")
    with pytest.raises(ImageError, match=message):
        at(tmp_path / "x.jpg").read()


def test_a_refusal_by_the_system_is_one_line(tmp_path, monkeypatch):
    def deny(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("git_model.preprocessing.image.open_file", deny)
    assert "Permission denied" in refusal(at(photo(tmp_path / "x.png")))


@pytest.mark.parametrize("name", [b"\xff\n.jpg", b"\x1b[31m.jpg", "\u2028.jpg".encode()])
def test_errors_can_be_printed_whatever_the_name_is(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(b"")
    line = refusal(at(path))
    assert line.isprintable()
    assert "the file is empty" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda archive: archive.unlink(), "No such file or directory"),
        (lambda archive: archive.write_bytes(b"before"), "the file is cut short"),
    ],
)
def test_an_archive_that_changed_is_one_line(tmp_path, change, message):
    item = packed(tmp_path, photo_bytes())
    change(item.location.archive)
    assert refusal(item) == f"{tmp_path}/archive: a/x.jpg: {message}"


def test_a_claimed_size_takes_no_memory(tmp_path):
    (tmp_path / "archive").write_bytes(b"short")
    assert "cut short" in refusal(Input("x", ArchiveMember(tmp_path / "archive", 0, 1 << 29)))


@pytest.mark.parametrize("data", [b"a cat", b"AAA", b"AA\nAA"])
def test_what_is_no_base64_is_one_line(tmp_path, data):
    assert "no base64" in refusal(packed(tmp_path, data, is_base64=True))


# Names


def test_a_name_shows_bytes_that_are_not_utf8():
    key = os.fsdecode(b"a\xff/\xc3\xa9.jpg")
    assert Input(key, None).name == RefusedInput(key, "").name == "a\\xff/é.jpg"


@given(st.binary())
def test_any_name_can_be_written_as_text_and_on_one_line(name):
    text = os.fsdecode(name)
    readable(text).encode()
    assert len(one_line(text).splitlines()) <= 1


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_name_of_whole_characters_stays_as_it_is(name):
    assert readable(name) == name


def test_an_input_travels_lightly(tmp_path):
    item = Input(os.fsdecode(b"a/\xff.jpg"), tmp_path / "x.jpg", "what?", "7")
    for sent in (item, packed(tmp_path, b"x")):
        assert pickle.loads(pickle.dumps(sent)) == sent
        assert len(pickle.dumps(sent)) < 500


def test_a_file_within_another_has_a_size_that_memory_can_hold(tmp_path):
    with (tmp_path / "x.tar").open("wb") as file:
        file.truncate(2**40)
    item = Input("a.jpg", ArchiveMember(tmp_path / "x.tar", 0, 2**39))
    assert "a file of 549755813888 bytes, expected at most 1073741824" in refusal(item)
