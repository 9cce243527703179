"""A folder of images: texts beside them, or in metadata.jsonl."""

import json
import shutil

import pytest
from photos import colour_of, photo
from PIL import Image

from git_model.data.example import Annotation
from git_model.data.folder import FolderData
from git_model.data.sources import MixedData, untaken_files
from git_model.data.untaken import untaken_line
from git_model.utils.errors import GITError


def open_folder(path, **options):
    return FolderData(path=str(path), **options).open()


def refusal(path):
    with pytest.raises(GITError) as error:
        open_folder(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def captioned(folder, name, text, colour="red"):
    path = photo(folder / name, colour)
    path.with_suffix(".txt").write_bytes(text.encode())


def metadata(folder, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


# Texts beside the images


def test_every_line_beside_an_image_is_a_caption_of_it(tmp_path):
    captioned(tmp_path, "b.png", "a blue picture\n\n  it is blue \r\n", "blue")
    captioned(tmp_path, "deep/er/a.JPG", "grün")
    (tmp_path / "README.txt").write_text("about this folder")
    (tmp_path / "notes.md").touch()
    (tmp_path / "._b.png").touch()  # as macOS leaves them on other disks
    source = open_folder(tmp_path)
    assert [source[i].key for i in range(len(source))] == ["b.png", "deep/er/a.JPG"]
    assert source[0].annotations == (Annotation(("a blue picture", "it is blue")),)
    assert source[1].annotations == (Annotation(("grün",)),)
    assert [colour_of(source[i].media) for i in (0, 1)] == [(0, 0, 1), (1, 0, 0)]


def test_an_image_without_its_text_is_refused(tmp_path):
    captioned(tmp_path, "a.png", "a")
    photo(tmp_path / "b.png")
    assert f"{tmp_path / 'b.txt'}: No such file" in refusal(tmp_path)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_text_without_words_is_refused(tmp_path, text):
    captioned(tmp_path, "a.png", text)
    assert "a.txt: there is no text in it" in refusal(tmp_path)


def test_a_text_that_is_not_utf8_is_refused(tmp_path):
    photo(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("a\nforêt".encode("latin-1"))
    assert "a.txt: line 2: not UTF-8" in refusal(tmp_path)


def test_an_empty_or_missing_folder_is_refused(tmp_path):
    assert "there are no images in it" in refusal(tmp_path)
    assert "none: no such folder" in refusal(tmp_path / "none")


def test_what_may_be_a_video_is_told_how_videos_are_read(tmp_path):
    (tmp_path / "a.png").write_bytes(b"a film")
    (tmp_path / "a.txt").write_text("a text")
    with pytest.raises(GITError, match=r"not an image, .*; videos need the kind folder, with f"):
        open_folder(tmp_path)[0]


def test_videos_and_animations_are_clips_if_the_model_takes_frames(tmp_path):
    frames = [Image.new("RGB", (12, 8), (40 * n, 0, 0)) for n in range(6)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "a.txt").write_text("it grows brighter")
    (tmp_path / "film.mp4").write_bytes(b"no film")
    (tmp_path / "film.txt").write_text("a film")
    clips = open_folder(tmp_path, frames=3, sampling="ends")
    assert [frame.convert("RGB").getpixel((0, 0))[0] for frame in clips[0].media] == [0, 80, 200]
    assert len(clips) == 2
    with pytest.raises(GITError, match=r"film\.mp4: neither an image nor a whole video"):
        clips[1]
    images = open_folder(tmp_path)
    assert len(images) == 1
    assert images[0].media.size == (12, 8)


# Texts in metadata.jsonl


def test_metadata_lists_images_their_texts_and_questions(tmp_path):
    for name in ("a.png", "b.png", "unlisted.png"):
        photo(tmp_path / name)
    metadata(
        tmp_path,
        {"file_name": "b.png", "text": "a picture", "licence": "none"},
        {"file_name": "a.png", "question": "what?", "answer": "it", "question_id": 4},
        {"file_name": "b.png", "text": "red"},
        {"file_name": "a.png", "question": "how many?", "answers": ["1", "one"]},
    )
    source = open_folder(tmp_path)
    assert [source[i].key for i in range(len(source))] == ["b.png", "a.png"]
    assert source[0].annotations == (Annotation(("a picture", "red")),)
    assert source[1].annotations == (
        Annotation(("it",), "what?", "4"),
        Annotation(("1", "one"), "how many?"),
    )


def test_metadata_is_about_its_own_folder(tmp_path):
    for part in ("train", "more"):
        photo(tmp_path / part / "a.png")
        metadata(tmp_path / part, {"file_name": "a.png", "text": part})
    source = open_folder(tmp_path)
    assert [source[i].key for i in range(len(source))] == ["more/a.png", "train/a.png"]
    assert source[1].annotations == (Annotation(("train",)),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": "a"}, "file_name is missing"),
        ({"file_name": "a.png"}, "there is no text"),
        ({"file_name": "../a.png", "text": "a"}, "leaves its folder"),
        ({"file_name": "/a.png", "text": "a"}, "leaves its folder"),
        ({"file_name": "none.png", "text": "a"}, "none of its 1 image files exists"),
        ({"file_name": 5, "text": "a"}, "file_name is 5, expected a text"),
        ({"file_name": "a.png", "text": " "}, "text is empty"),
        (["a.png", "a"], "expected an object"),
    ],
)
def test_a_fault_in_metadata_is_one_line(tmp_path, line, message):
    photo(tmp_path / "a.png")
    metadata(tmp_path, line)
    assert message in refusal(tmp_path)


def test_a_fault_in_metadata_names_the_line(tmp_path):
    photo(tmp_path / "a.png")
    metadata(tmp_path, {"file_name": "a.png", "text": "a"}, {"file_name": "a.png"})
    assert "metadata.jsonl: line 2: there is no text" in refusal(tmp_path)
    metadata(tmp_path, {"file_name": "a.png", "text": "a"}, {"file_name": "..", "text": "a"})
    assert "metadata.jsonl: line 2: the file name '..' leaves its folder" in refusal(tmp_path)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a"}\n{"file_name"')
    assert "metadata.jsonl: line 2: not valid JSON" in refusal(tmp_path)
    (tmp_path / "metadata.jsonl").write_bytes(b'{"file_name": "a.png", "text": "\xff"}')
    assert "metadata.jsonl: line 1: not UTF-8" in refusal(tmp_path)


# Files that are no examples


def test_two_images_with_one_text_are_refused(tmp_path):
    captioned(tmp_path, "deep/a.png", "a red one")
    photo(tmp_path / "deep" / "a.jpg", "blue")
    line = refusal(tmp_path)
    assert str(tmp_path / "deep" / "a.png") in line
    assert "a.txt would be its text and that of a.jpg: rename one of them" in line
    (tmp_path / "deep" / "a.jpg").unlink()
    photo(tmp_path / "deep" / "A.png"), photo(tmp_path / "a.png")  # other texts
    (tmp_path / "deep" / "A.txt").write_text("b")
    (tmp_path / "a.txt").write_text("c")
    assert len(open_folder(tmp_path)) == 3


def test_files_that_look_like_images_and_are_no_examples_are_named(tmp_path):
    captioned(tmp_path, "a.png", "a")
    captioned(tmp_path, "in/b.png", "b")
    shutil.copy(tmp_path / "a.png", tmp_path / "in" / "noext")
    for name in ("raw.CR2", "v.mp4", ".hidden.png", "notes.md", "README"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".cache").mkdir()
    shutil.copy(tmp_path / "a.png", tmp_path / ".cache" / "thumb")
    names = [".hidden.png", "in/noext", "raw.CR2", "v.mp4"]
    source = open_folder(tmp_path)
    assert list(source.untaken()) == names
    twice = MixedData(parts=(FolderData(path=str(tmp_path)),), repeats=(2,)).open()
    assert list(untaken_files(twice)) == names
    line = untaken_line(iter(names * 2))
    assert (
        "images or videos: 8: .hidden.png, in/noext, raw.CR2, v.mp4, .hidden.png and 3 more" in line
    )
    assert untaken_line(iter([])) is None


def test_images_without_a_line_in_the_metadata_are_named(tmp_path):
    metadata(tmp_path, {"file_name": "./a.png", "text": "a"})
    photo(tmp_path / "a.png"), photo(tmp_path / "b.png")
    assert list(open_folder(tmp_path).untaken()) == ["b.png"]
