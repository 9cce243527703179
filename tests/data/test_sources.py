"""A recipe names a data set by its kind, or a mixture of several."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from photos import photo
from PIL import Image

from git_model.data.example import Annotation, Example
from git_model.data.folder import FolderData
from git_model.data.inspection import inspect
from git_model.data.sources import Mixed, MixedData, read_data, stored_examples
from git_model.utils.errors import ConfigError
from git_model.utils.serialize import to_dict

RECIPE = """
kind = "mixed"
repeats = [1, 3]
[[parts]]
kind = "karpathy"
annotations = "dataset_coco.json"
images = "coco"
[[parts]]
kind = "folder"
path = "mine"
"""


def test_a_table_is_read_by_its_kind():
    data = read_data({"kind": "folder", "path": "a", "frames": 6}, "recipe.toml")
    assert data == FolderData(path="a", frames=6)
    assert read_data(to_dict(data), "recipe.toml") == data


class OneKey:
    """A source of your own whose examples have the same image and key."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return Example("7", Image.new("RGB", (4, 4)), (Annotation(("a text",)),))


@pytest.mark.parametrize("repeats", [1, 3])
def test_examples_without_files_are_told_apart_by_their_numbers(repeats):
    examples = list(stored_examples(Mixed([OneKey()], [repeats])))
    assert len(examples) == 2 * repeats
    report = inspect(examples)
    assert report["identical_images"]["first"][0] == "example 1, 7 = example 2, 7"
    assert report["identical_images"]["count"] == repeats


def test_several_data_sets_stand_in_one_recipe():
    data = read_data(tomllib.loads(RECIPE), "recipe.toml")
    assert data.repeats == (1, 3)
    assert data.parts[1] == FolderData(path="mine")
    assert data.parts[0].split == "train+restval"
    assert read_data(to_dict(data), "recipe.toml") == data


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "kind is None, expected one of shapes, coco, karpathy, vqav2, folder, tsv"),
        ({"kind": "cocoa"}, "kind is 'cocoa', expected one of shapes, coco"),
        ({"kind": "folder"}, "path is missing"),
        ({"kind": "folder", "path": "a", "frame": 6}, "unknown key 'frame'"),
        ({"kind": "folder", "path": "a", "frames": "6"}, "frames is '6', expected int"),
        ({"kind": "folder", "path": 5}, "path is 5, expected str"),
        ({"kind": "folder", "path": "a", "sampling": "x"}, "sampling is 'x', expected one of"),
        (
            {"kind": "folder", "path": "a", "frames": -1},
            "frames is -1, expected 0 (images only) or more",
        ),
        ({"kind": "coco", "images": "a"}, "annotations is missing"),
        ({"kind": "mixed"}, "parts is missing"),
        ({"kind": "mixed", "parts": []}, "parts is empty"),
        (
            {"kind": "mixed", "parts": [{"kind": "mixed"}]},
            "kind is 'mixed', expected one of shapes, coco",
        ),
        ({"kind": "mixed", "parts": [{"kind": "folder"}]}, "path is missing"),
        (
            {"kind": "mixed", "parts": [{"kind": "folder", "path": "a"}], "repeats": [1, 2]},
            "repeats has 2 numbers, expected one for each of the 1 parts",
        ),
        (
            {"kind": "mixed", "parts": [{"kind": "folder", "path": "a"}], "repeats": [0]},
            "repeats is (0,), expected numbers of at least 1",
        ),
    ],
)
def test_a_wrong_table_is_one_line(table, message):
    with pytest.raises(ConfigError) as error:
        read_data(table, "recipe.toml")
    assert message in str(error.value)
    assert str(error.value).startswith("recipe.toml: data: ")


def test_reading_a_table_opens_no_files():
    read_data({"kind": "folder", "path": "/nowhere"}, "recipe.toml")


def test_mixed_data_sets_follow_each_other(tmp_path):
    for part in ("a", "b"):
        photo(tmp_path / part / "x.png").with_suffix(".txt").write_text(part)
    parts = tuple(FolderData(path=str(tmp_path / part)) for part in ("a", "b"))
    source = MixedData(parts=parts, repeats=(1, 2)).open()
    assert [source[i].annotations for i in range(len(source))] == [
        (Annotation((text,)),) for text in ("a", "b", "b")
    ]
    assert len(MixedData(parts=parts).open()) == 2


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=5))
def test_every_example_comes_as_often_as_its_part_repeats(sizes):
    sources = [{i: (part, i) for i in range(n)} for part, (n, _) in enumerate(sizes)]
    repeats = [times for _, times in sizes]
    mixed = Mixed(sources, repeats)
    expected = [
        item
        for source, n in zip(sources, repeats, strict=True)
        for _ in range(n)
        for item in source.values()
    ]
    assert [mixed[i] for i in range(len(mixed))] == expected
