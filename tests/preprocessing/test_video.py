"""Which frames of a file become a clip, and the files we refuse. Every file is made here: the grey
of a frame says which one it is."""

import struct
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features
from videos import SIZE, animate, film, grey, index_of

from git_model.preprocessing.clip import Clip
from git_model.preprocessing.image import ImageError, open_image
from git_model.preprocessing.sampling import ReadOptions, sample_indices
from git_model.preprocessing.video import read_media, with_video_advice
from git_model.utils.errors import ConfigError

N = 20
UNIFORM = [2, 7, 12, 17]  # 4 of 20
ANIMATIONS = [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})]
if features.check("avif"):
    ANIMATIONS.append(("AVIF", {"quality": 100}))
VIDEOS = [
    *[(kind, "mpeg4") for kind in ("mp4", "mov", "mkv", "avi")],
    *[("webm", "libvpx"), ("ts", "mpeg2video"), ("mpg", "mpeg2video"), ("flv", "flv")],
    ("wmv", "wmv2"),
]


def noise(seed):
    values = np.random.default_rng(seed).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    return Image.fromarray(values)


def record(path, cover=None):
    """A little silence, with or without a cover."""
    with av.open(path, "w") as container:
        sound = container.add_stream("aac", rate=44100, layout="mono")
        if cover is not None:
            cover_stream = container.add_stream("mjpeg", rate=1)
            cover_stream.width, cover_stream.height, cover_stream.pix_fmt = *SIZE, "yuvj420p"
            cover_stream.disposition = (
                av.stream.Disposition.attached_pic.value
            )  # a number, for PyAV 14
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux([*sound.encode(frame), *sound.encode()])
        if cover is not None:
            container.mux(
                [*cover_stream.encode(av.VideoFrame.from_image(cover)), *cover_stream.encode()]
            )
    return path


def refusal(path, n_frames=4):
    """The one line in which a file is refused; it begins with the file's name."""
    with pytest.raises(ImageError) as error:
        read_media(path, n_frames)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def cut(path, part):
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    return path


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    return film(
        tmp_path_factory.mktemp("film") / "a.mp4", "mpeg4", list(map(grey, range(N)))
    ).read_bytes()


# Which frames


totals = st.integers(1, 10**12)
sizes = st.integers(1, 64)  # frames of a clip


@given(total=totals | st.integers(1, 80), n=sizes, sampling=st.sampled_from(["uniform", "ends"]))
def test_indices_are_distinct_in_order_and_in_the_file(total, n, sampling):
    indices = sample_indices(total, n, sampling)
    assert len(indices) == min(n, total)
    assert indices == sorted(set(indices))
    assert 0 <= indices[0] <= indices[-1] < total


@given(total=st.integers(1, 64), more=st.integers(0, 9))
def test_a_short_file_gives_every_frame_once(total, more):
    for sampling in ("uniform", "ends"):
        assert sample_indices(total, total + more, sampling) == list(range(total))


@given(part=st.integers(1, 99), n=sizes)
def test_uniform_is_the_middle_of_each_of_equal_parts(part, n):
    assert sample_indices(part * n, n) == [i * part + part // 2 for i in range(n)]


@given(total=st.integers(1, 999), n=sizes)
def test_uniform_leaves_the_same_out_at_both_ends(total, n):
    indices = sample_indices(total, n)
    assert abs(indices[0] - (total - 1 - indices[-1])) <= 1


@given(total=st.integers(2, 9999), n=st.integers(2, 64))
def test_ends_are_the_first_frame_and_the_last_in_even_steps(total, n):
    indices = sample_indices(total, n, "ends")
    assert (indices[0], indices[-1]) == (0, total - 1)
    steps = np.diff(indices)
    assert steps.max() - steps.min() <= 1


def test_an_empty_file_has_no_indices_and_an_unknown_sampling_is_named():
    assert sample_indices(0, 6) == sample_indices(0, 6, "ends") == []
    with pytest.raises(ConfigError, match="sampling is 'random', expected one of uniform, ends"):
        sample_indices(9, 3, "random")


# Animations


@pytest.mark.parametrize(("kind", "options"), ANIMATIONS)
@pytest.mark.parametrize(
    ("n_frames", "sampling", "expected"),
    [(4, "uniform", UNIFORM), (4, "ends", [0, 6, 12, 19]), (99, "uniform", list(range(N)))],
)
def test_an_animation_becomes_the_frames_asked_for(
    tmp_path, kind, options, n_frames, sampling, expected
):
    path = animate(tmp_path / "any name", kind, list(map(grey, range(N))), **options)
    clip = read_media(str(path), n_frames, ReadOptions(sampling=sampling))
    assert isinstance(clip, Clip)
    assert clip.indices == expected
    assert [index_of(frame) for frame in clip.frames] == expected
    path.unlink()
    assert {frame.size for frame in clip.frames} == {SIZE}


@pytest.mark.parametrize(("kind", "options"), ANIMATIONS)
def test_without_temporal_embeddings_an_animation_is_its_first_frame(tmp_path, kind, options):
    path = animate(tmp_path / "a", kind, [noise(0), noise(1)], **options)
    assert read_media(path, 0).tobytes() == open_image(path).tobytes()


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "JPEG", "BMP"])
def test_a_still_image_stays_an_image(tmp_path, kind):
    noise(0).save(tmp_path / "still", kind)
    image = read_media(tmp_path / "still", 6)
    assert isinstance(image, Image.Image)
    assert image.tobytes() == open_image(tmp_path / "still").tobytes()


@pytest.mark.parametrize(("kind", "n_frames"), [("PNG", 0), ("JPEG", 0), ("JPEG", 6)])
def test_a_still_image_is_opened_once(tmp_path, monkeypatch, kind, n_frames):
    noise(0).save(tmp_path / "still", kind)
    pillow_open, calls = Image.open, []
    monkeypatch.setattr(Image, "open", lambda file: calls.append(file) or pillow_open(file))
    read_media(tmp_path / "still", n_frames)
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["TIFF", "MPO"])
def test_several_images_in_a_file_are_not_always_an_animation(tmp_path, kind):
    noise(0).save(tmp_path / "two", kind, save_all=True, append_images=[noise(1)])
    assert isinstance(read_media(tmp_path / "two", 6), Image.Image)


def test_the_default_image_of_a_png_is_no_part_of_its_animation(tmp_path):
    path = animate(tmp_path / "a.png", "PNG", [noise(0), grey(1), grey(2)], default_image=True)
    clip = read_media(path, 6)
    assert clip.indices == [1, 2]
    assert [index_of(frame) for frame in clip.frames] == [1, 2]


def test_frames_that_build_on_earlier_ones_are_whole(tmp_path):
    frames = [Image.new("RGB", SIZE, "red") for _ in range(5)]
    for index, frame in enumerate(frames):
        frame.paste("blue", (0, 0, 10 * index + 1, 10))  # the file holds what changed only
    clip = read_media(animate(tmp_path / "a.gif", "GIF", frames), 2)
    assert [frame.convert("RGB").tobytes() for frame in clip.frames] == [
        frames[index].tobytes() for index in clip.indices
    ]


@pytest.mark.parametrize("sampling", ["uniform", "ends"])
@pytest.mark.parametrize(("kind", "options"), ANIMATIONS)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.97])
def test_an_animation_cut_short_is_refused(tmp_path, kind, options, part, sampling):
    path = cut(animate(tmp_path / "a", kind, list(map(noise, range(9))), **options), part)
    assert "expected" in refusal(path)


# Videos


@pytest.mark.parametrize(("kind", "codec"), VIDEOS)
def test_a_video_becomes_the_frames_asked_for(tmp_path, kind, codec):
    path = film(tmp_path / f"a.{kind}", codec, list(map(grey, range(N))))
    clip = read_media(path, 4)
    assert clip.indices == UNIFORM
    assert [index_of(frame) for frame in clip.frames] == UNIFORM
    assert {(frame.mode, frame.size) for frame in clip.frames} == {("RGB", SIZE)}
    assert read_media(path, 2, ReadOptions(sampling="ends")).indices == [0, N - 1]


def test_a_video_is_known_by_its_content(tmp_path, mp4):
    (tmp_path / "not really.gif").write_bytes(mp4)
    assert read_media(tmp_path / "not really.gif", 4).indices == UNIFORM


@pytest.mark.parametrize("stated", [0, 3, N - 1, N + 1, 10**9])
def test_a_wrong_count_of_frames_in_the_container_is_found_out(tmp_path, stated):
    path = film(tmp_path / "a.avi", "mpeg4", list(map(grey, range(N))))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, stated)
    path.write_bytes(data)
    with av.open(path) as container:
        assert container.streams.video[0].frames == stated
    clip = read_media(path, 4)
    assert clip.indices == UNIFORM
    assert [index_of(frame) for frame in clip.frames] == UNIFORM


def test_a_video_of_one_frame_is_a_clip_of_one_frame(tmp_path):
    assert read_media(film(tmp_path / "a.mp4", "mpeg4", [grey(7)]), 6).indices == [0]


TURNS = {  # the matrix (a, b, c, d) of ISO 14496-12: p' = a p + c q, q' = b p + d q, q downwards
    Image.Transpose.FLIP_LEFT_RIGHT: (-1, 0, 0, 1),
    Image.Transpose.FLIP_TOP_BOTTOM: (1, 0, 0, -1),
    Image.Transpose.TRANSPOSE: (0, 1, 1, 0),
    Image.Transpose.TRANSVERSE: (0, -1, -1, 0),
    Image.Transpose.ROTATE_270: (0, 1, -1, 0),  # what is on the right goes down
    Image.Transpose.ROTATE_180: (-1, 0, 0, -1),
    Image.Transpose.ROTATE_90: (0, -1, 1, 0),
}


@pytest.mark.parametrize("turn", TURNS)
def test_a_video_filmed_on_its_side_is_turned_upright(tmp_path, turn):
    scene = Image.new("RGB", SIZE, "black")
    scene.paste("white", (0, 0, 32, 24))
    path = film(tmp_path / "a.mp4", "mpeg4", [scene])
    a, b, c, d = (65536 * value for value in TURNS[turn])
    upright = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    start = (data := path.read_bytes()).index(b"tkhd")
    path.write_bytes(data[:start] + data[start:].replace(upright, turned, 1))
    (frame,) = read_media(path, 1).frames
    expected = scene.transpose(turn)
    assert frame.size == expected.size
    assert np.abs(np.asarray(frame) - np.asarray(expected, dtype=float)).mean() < 5


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("mirror_horizontally", Image.Transpose.FLIP_LEFT_RIGHT),
        ("rotate_90_cw", Image.Transpose.ROTATE_270),
    ],
)
def test_a_phones_video_is_shown_as_its_display_matrix_says(name, method):
    path = Path(__file__).parents[1] / "fixtures" / "cases" / f"{name}.mp4"
    with av.open(path) as container:
        decoded = [frame.to_image() for frame in container.decode(video=0)]
    clip = read_media(path, 3)
    for frame, index in zip(clip.frames, clip.indices, strict=True):
        assert frame.tobytes() == decoded[index].transpose(method).tobytes()


# Files we refuse


def test_without_temporal_embeddings_a_video_is_refused(tmp_path, mp4):
    (tmp_path / "a.mp4").write_bytes(mp4)
    assert refusal(tmp_path / "a.mp4", n_frames=0).startswith("not an image, expected JPEG")
    with (
        pytest.raises(ImageError, match="videos need a model with temporal embeddings"),
        with_video_advice(),
    ):
        read_media(tmp_path / "a.mp4", 0)


def test_without_pyav_a_video_names_the_extra_and_images_still_open(tmp_path, mp4, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(mp4)
    assert "pip install 'git-model[video]'" in refusal(tmp_path / "a.mp4")
    noise(0).save(tmp_path / "a.png")
    assert read_media(tmp_path / "a.png", 4).size == SIZE


@pytest.mark.parametrize("n_frames", [0, 4])
def test_missing_and_empty_files_and_folders_are_refused(tmp_path, n_frames):
    assert "No such file" in refusal(tmp_path / "none.mp4", n_frames)
    assert "Is a directory" in refusal(tmp_path, n_frames)
    (tmp_path / "empty.mp4").touch()
    assert "the file is empty" in refusal(tmp_path / "empty.mp4", n_frames)


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("text", ["a cat on a mat", "ffconcat version 1.0\nfile {}\n", PLAYLIST])
def test_texts_are_no_videos_even_if_they_name_one(tmp_path, text):
    inside = film(tmp_path / "a.ts", "mpeg2video", [grey(0)])
    (tmp_path / "text.txt").write_text(text.format(inside.name))
    assert "neither an image nor a whole video" in refusal(tmp_path / "text.txt")


@pytest.mark.parametrize("cover", [None, noise(0)])
def test_sound_is_no_video_even_with_a_cover(tmp_path, cover):
    path = record(tmp_path / "a.mp4", cover)
    with av.open(path) as container:
        assert len(container.streams.video) == (cover is not None)
    assert refusal(path) == "no video stream in this file, expected one"


def test_sound_in_a_format_for_sound_alone_is_refused(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(2000))
    assert "neither an image nor a whole video" in refusal(tmp_path / "a.wav")


def test_an_image_in_a_container_for_videos_is_not_shown_as_one(tmp_path, mp4, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(mp4.replace(b"ftypisom", b"ftypheic"))
    assert "pip install 'git-model[heif]'" in refusal(tmp_path / "a.heic")


def test_a_video_in_an_unknown_codec_is_refused(tmp_path, mp4):
    (tmp_path / "a.mp4").write_bytes(mp4.replace(b"mp4v", b"what").replace(b"esds", b"free"))
    assert "unknown codec" in refusal(tmp_path / "a.mp4")


def test_a_video_without_its_index_is_refused(tmp_path, mp4):
    (tmp_path / "a.mp4").write_bytes(mp4)
    assert "neither an image nor a whole video" in refusal(cut(tmp_path / "a.mp4", 0.5))


@pytest.mark.parametrize("part", [0.5, 0.7, 0.9])
def test_a_video_cut_within_a_frame_is_refused(tmp_path, part):
    frames = list(map(noise, range(4)))
    path = film(tmp_path / "a.mp4", "mpeg4", frames, movflags="faststart")
    assert "expected a whole video" in refusal(cut(path, part))


def test_a_video_without_frames_is_refused(tmp_path):
    path = film(tmp_path / "a.mp4", "mpeg4", [noise(0)], movflags="faststart")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 4])  # all is promised, nothing follows
    assert "a video without frames" in refusal(path)


def test_frames_that_are_not_what_the_codec_expects_are_refused_in_its_words(tmp_path):
    data = film(tmp_path / "a.mp4", "mpeg4", [noise(0)], movflags="faststart").read_bytes()
    start = data.index(b"mdat") + 4
    (tmp_path / "a.mp4").write_bytes(data[:start] + bytes(len(data) - start))
    expected = "Invalid data found when processing input, expected a whole video"
    assert refusal(tmp_path / "a.mp4") == expected


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_a_video_beyond_pillows_limit_is_refused(tmp_path, monkeypatch, kind):
    path = film(tmp_path / f"a.{kind}", "mpeg4" if kind == "mp4" else "libvpx", [grey(0)])
    for limit in (64 * 48, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert read_media(path, 1).indices == [0]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 - 1)
    assert refusal(path) == "too many pixels, expected at most 3071 in all"


def test_a_video_too_large_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = cut(film(tmp_path / "a.mp4", "mpeg4", [noise(0)], movflags="faststart"), 0.9)
    assert "damaged or cut" in refusal(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 - 1)
    assert "too many pixels" in refusal(path)


def test_a_video_that_grows_too_large_on_its_way_is_refused(tmp_path, monkeypatch):
    small = film(tmp_path / "a.ts", "mpeg2video", list(map(noise, range(9))))
    large = film(tmp_path / "b.ts", "mpeg2video", [noise(0)] * 9, size=(128, 96))
    small.write_bytes(small.read_bytes() + large.read_bytes())
    assert {frame.size for frame in read_media(small, 2).frames} == {SIZE, (128, 96)}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48)
    assert "too many pixels" in refusal(small)


@pytest.fixture(scope="module")
def files(tmp_path_factory, mp4):
    folder = tmp_path_factory.mktemp("whole")
    frames = list(map(noise, range(4)))
    made = [film(folder / f"a.{kind}", codec, frames) for kind, codec in VIDEOS]
    made += [animate(folder / kind, kind, frames, **options) for kind, options in ANIMATIONS]
    return [mp4, *(path.read_bytes() for path in made)]


@pytest.mark.filterwarnings("ignore")  # Pillow's own, about what it found in there
@settings(deadline=None, max_examples=50)
@given(
    which=st.integers(0, 99),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    part=st.just(1.0) | st.floats(0.1, 1),
)
def test_a_damaged_file_gives_frames_or_one_line(files, tmp_path_factory, which, damage, part):
    data = bytearray(files[which % len(files)])
    for position, value in damage:
        data[int(position**3 * len(data))] = value  # rather near the beginning, in the headers
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data[: int(part * len(data))])
    try:
        media = read_media(path, 3)
    except ImageError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert isinstance(media, Image.Image) or 1 <= len(media.frames) <= 3
