import re
from pathlib import Path

import pytest
from forked import program
from forked import run as run_forked
from PIL import Image, ImageSequence

from git_model.shapes.source import TASKS, ShapesData
from git_model.shapes.texts import class_names
from git_model.shapes.world import NEW_APPEARANCES
from git_model.utils.errors import ConfigError

EXAMPLES = Path(__file__).parents[2] / "examples"


def examples(**settings):
    source = ShapesData(**settings).open()
    return [source[index] for index in range(len(source))]


def texts_of(example):
    for annotation in example.annotations:
        yield from (*annotation.texts, annotation.question or "")


def test_the_same_index_gives_the_same_example():
    for split in ("train", "held_out", "recombination"):
        first, second = (ShapesData(split=split, size=20).open() for _ in range(2))
        for index in range(20):
            assert first[index].annotations == second[index].annotations
            assert first[index].media == second[index].media  # Pillow compares pixels


@pytest.mark.parametrize(
    ("index", "texts"),
    [
        (
            0,
            [
                (None, "three yellow squares and two green stars"),
                ("is there a green square?", "no"),
                ("what is in the middle?", "a green star"),
                ("how many things are there?", "five"),
            ],
        ),
        (
            6,
            [
                (None, "a pink circle"),
                ("how many blue things are there?", "none"),
                ("what shape is the pink thing?", "circle"),
                ("is there a pink circle?", "yes"),
            ],
        ),
        (
            9,
            [
                (None, "a red circle fades while a turquoise triangle stays"),
                ("what does the turquoise triangle do?", "stays"),
                ("what colour is the thing that fades?", "red"),
                ("does the turquoise triangle bounce?", "no"),
            ],
        ),
    ],
)
def test_the_held_out_examples_never_change(index, texts):
    # The scores of the shipped model are about these very texts.
    annotations = ShapesData(split="held_out").open()[index].annotations
    assert [(item.question, *item.texts) for item in annotations] == texts


def test_there_are_size_examples():
    source = ShapesData(size=3).open()
    assert len(source) == 3
    with pytest.raises(IndexError):
        source[3]
    with pytest.raises(IndexError):
        source[-1]


def test_an_example_is_named_after_its_split_and_number():
    assert ShapesData(size=18).open()[17].key == "shapes/train/17"


def test_a_round_of_examples_holds_the_shares_of_each_kind():
    mix = examples(size=20, images=6, close_ups=1, clips=3)
    clips = [isinstance(example.media, list) for example in mix]
    close_ups = [example.annotations[0].texts[0] in class_names() for example in mix]
    assert (sum(clips), sum(close_ups)) == (6, 2)


@pytest.mark.parametrize("things", [1, 2])
def test_images_may_have_few_things(things):
    images = examples(tasks=("captions",), size=60, things=things)
    captions = {example.annotations[0].texts[0] for example in images}
    assert not any(" between " in caption or "," in caption for caption in captions)
    two = {caption for caption in captions if "above" in caption or "below" in caption}
    assert bool(two) == (things == 2)


def test_caption_and_questions_share_an_image():
    for example in examples(size=40, questions=3):
        captions = [item for item in example.annotations if item.question is None]
        assert len(captions) == 1
        assert 2 <= len(example.annotations) <= 4


def test_the_questions_of_an_image_have_different_keys():
    for example in examples(size=40, questions=9):
        keys = [annotation.key for annotation in example.annotations]
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_alone_gives_its_kind_of_texts(task):
    for example in examples(tasks=(task,), size=30, questions=1):
        [annotation] = example.annotations
        assert isinstance(example.media, list) == task.startswith("clip")
        assert (annotation.question is not None) == task.endswith("questions")
        is_class = annotation.texts[0] in class_names()
        assert is_class == (task == "classes") or annotation.question


def test_no_text_of_training_names_a_new_appearance():
    new = re.compile("|".join(" ".join(appearance) for appearance in NEW_APPEARANCES))
    for split in ("train", "held_out"):
        for example in examples(split=split, size=700, questions=9):
            assert not any(new.search(text) for text in texts_of(example))


@pytest.mark.parametrize("task", ["captions", "classes", "clips"])
def test_every_caption_of_recombination_names_a_new_appearance(task):
    new = re.compile("|".join(rf"{colour} {shape}" for colour, shape in NEW_APPEARANCES))
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
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ShapesData(**settings)


def test_the_example_files_are_what_their_script_writes(tmp_path):
    code, _, errors = run_forked(program, EXAMPLES / "make_images.py", tmp_path)
    assert code == 0, errors
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_bytes() for path in (EXAMPLES / "images").iterdir()}
    assert set(written) == set(kept)
    assert written["truth.json"] == kept["truth.json"]
    for name in set(kept) - {"truth.json"}:
        assert frames_of(tmp_path / name) == frames_of(EXAMPLES / "images" / name)


def frames_of(path):
    with Image.open(path) as image:
        return [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(image)]
