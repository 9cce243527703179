import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageSequence

from git_model.shapes.source import TASKS, ShapesData
from git_model.shapes.texts import class_names
from git_model.shapes.world import NEW_LOOKS
from git_model.utils.errors import ConfigError

EXAMPLES = Path(__file__).parents[2] / "examples"


def examples(**settings):
    source = ShapesData(**settings).open()
    return [source[index] for index in range(len(source))]


def texts_of(example):
    for target in example.annotations:
        yield from (*target.texts, target.question or "")


def test_the_same_number_gives_the_same_example():
    for split in ("train", "held_out", "recombination"):
        one, other = (ShapesData(split=split, size=20).open() for _ in range(2))
        for index in range(20):
            assert one[index].annotations == other[index].annotations
            assert one[index].view == other[index].view  # Pillow compares pixels


def test_there_are_as_many_examples_as_wanted_and_no_more():
    source = ShapesData(size=3).open()
    assert len(source) == 3
    with pytest.raises(IndexError):
        source[3]
    with pytest.raises(IndexError):
        source[-1]


def test_an_example_is_named_after_its_split_and_number():
    assert ShapesData(size=18).open()[17].key == "shapes/train/17"


def test_a_round_of_examples_holds_the_shares_of_each_kind():
    found = examples(size=20, pictures=6, close_ups=1, clips=3)
    clips = [isinstance(example.media, list) for example in found]
    close_ups = [example.annotations[0].texts[0] in class_names() for example in found]
    assert (sum(clips), sum(close_ups)) == (6, 2)


@pytest.mark.parametrize("things", [1, 2])
def test_pictures_may_be_of_few_things(things):
    found = examples(tasks=("captions",), size=60, things=things)
    said = {example.annotations[0].texts[0] for example in found}
    assert not any(" between " in caption or "," in caption for caption in said)
    two = {caption for caption in said if "above" in caption or "below" in caption}
    assert bool(two) == (things == 2)


def test_caption_and_questions_of_a_picture_share_it():
    for example in examples(size=40, questions=3):
        captions = [target for target in example.annotations if target.question is None]
        assert len(captions) == 1
        assert 2 <= len(example.annotations) <= 4


def test_keys_of_questions_differ_within_a_picture():
    for example in examples(size=40, questions=9):
        keys = [target.key for target in example.annotations]
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("task", TASKS)
def test_one_task_alone_says_one_kind_of_thing(task):
    for example in examples(tasks=(task,), size=30, questions=1):
        [target] = example.annotations
        assert isinstance(example.media, list) == task.startswith("clip")
        assert (target.question is not None) == task.endswith("questions")
        assert (target.texts[0] in class_names()) == (task == "classes") or target.question


def test_training_never_says_or_asks_of_a_new_look():
    new = re.compile("|".join(" ".join(look) for look in NEW_LOOKS))
    for split in ("train", "held_out"):
        for example in examples(split=split, size=1500, questions=9):
            assert not any(new.search(text) for text in texts_of(example))


@pytest.mark.parametrize("task", ["captions", "classes", "clips"])
def test_every_recombined_caption_names_a_new_look(task):
    new = re.compile("|".join(rf"{colour} {shape}" for colour, shape in NEW_LOOKS))
    for example in examples(split="recombination", tasks=(task,), size=200):
        assert new.search(example.annotations[0].texts[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "shapes: size is 0, expected at least 1"),
        ({"things": 0}, "shapes: things is 0, expected at least 1"),
        ({"clips": 0}, "shapes: clips is 0, expected at least 1"),
        ({"tasks": ()}, "shapes: tasks are none, expected some of captions, questions"),
        ({"tasks": ("clips", "clips")}, "each once"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ShapesData(**settings)


def test_the_example_files_are_what_their_script_writes(tmp_path):
    subprocess.run([sys.executable, EXAMPLES / "make_images.py", tmp_path], check=True)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_bytes() for path in (EXAMPLES / "images").iterdir()}
    assert set(written) == set(kept)
    assert written["truth.json"] == kept["truth.json"]
    for name in set(kept) - {"truth.json"}:
        assert frames_of(tmp_path / name) == frames_of(EXAMPLES / "images" / name)


def frames_of(path):
    with Image.open(path) as image:
        return [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(image)]
