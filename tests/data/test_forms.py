"""Data sets written in every form, and read back."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from stored_examples import stored_example

from git_model.data.example import Annotation, StoredExample
from git_model.data.forms import FORMS, form_of, named_examples, table_of, write_form
from git_model.data.sources import read_data, stored_examples
from git_model.utils.errors import GITError

CAPTIONS = [
    stored_example("sub/one.png", 1, Annotation(("a red star", "a star"))),
    stored_example("42", 2, Annotation(("ein großer Hund",))),
    stored_example("sub/ONE.png", 3, Annotation(("a blue\ncross",))),
]
QUESTIONS = [
    stored_example(
        "7",
        4,
        Annotation(("a cat",)),
        Annotation(("one", "1"), "how many?", "q1"),
        Annotation(("grey",), "what colour?", "q2"),
    ),
    stored_example("8", 5, Annotation(("a dog",))),
    stored_example("9", 6, Annotation(("no",), "is there a dog?", "q3")),
]
WITH_QUESTIONS = [name for name, form in FORMS.items() if form.questions]


def read_back(folder: Path) -> list[StoredExample]:
    source = read_data(table_of(form_of(folder), folder), "a test").open()
    return [open_stored() for open_stored in stored_examples(source)]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_keeps_captions_and_the_bytes_of_images(tmp_path, form):
    assert write_form(form, tmp_path, CAPTIONS) == 3
    back = {stored.data: stored for stored in read_back(tmp_path)}
    assert back.keys() == {stored.data for stored in CAPTIONS}
    for stored in CAPTIONS:
        [annotation] = back[stored.data].annotations
        texts = tuple(text.replace("\n", " ") for text in stored.annotations[0].texts)
        assert tuple(" ".join(text.split()) for text in annotation.texts) == texts


@pytest.mark.parametrize("form", WITH_QUESTIONS)
def test_forms_with_questions_keep_all_of_them(tmp_path, form):
    write_form(form, tmp_path, QUESTIONS)
    back = {stored.data: stored.annotations for stored in read_back(tmp_path)}
    assert back == {stored.data: stored.annotations for stored in QUESTIONS}


@pytest.mark.parametrize("form", WITH_QUESTIONS)
@pytest.mark.parametrize("first", [0, 1, 2])
def test_questions_may_come_after_any_number_of_captions(tmp_path, monkeypatch, form, first):
    monkeypatch.setattr("git_model.data.forms.SHARD_EXAMPLES", 2)  # the third is in another file
    examples = [*CAPTIONS[:first], QUESTIONS[2], CAPTIONS[2]]
    write_form(form, tmp_path, examples)
    back = {stored.data: stored.annotations for stored in read_back(tmp_path)}
    assert back.keys() == {stored.data for stored in examples}
    assert back[QUESTIONS[2].data] == QUESTIONS[2].annotations


def test_every_parquet_file_has_the_same_columns_and_takes_an_image_without_a_text(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("git_model.data.forms.SHARD_EXAMPLES", 1)
    empty = stored_example("none", 7, Annotation(()))
    write_form("parquet", tmp_path, [CAPTIONS[0], QUESTIONS[0], empty])
    schemas = [parquet.read_schema(path) for path in sorted(tmp_path.iterdir())]
    assert len(schemas) == 3
    assert all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)
    assert {stored.annotations for stored in read_back(tmp_path)} == {
        CAPTIONS[0].annotations, QUESTIONS[0].annotations, (Annotation(()),)
    }  # fmt: skip


@pytest.mark.parametrize("form", sorted(FORMS.keys() - set(WITH_QUESTIONS)))
def test_other_forms_refuse_a_question(tmp_path, form):
    with pytest.raises(GITError, match=r"7: it has questions, .*expected one of metadata, tsv"):
        write_form(form, tmp_path, QUESTIONS)


def test_coco_keeps_ids_that_are_numbers(tmp_path):
    write_form("coco", tmp_path, CAPTIONS)
    table = json.loads((tmp_path / "annotations.json").read_text())
    assert [image["id"] for image in table["images"]] == ["sub_one", 42, "sub_ONE_2"]
    assert [note["id"] for note in table["annotations"]] == [0, 1, 2, 3]


def test_no_examples_and_a_video_in_a_form_of_images_are_refused(tmp_path):
    with pytest.raises(GITError, match="no examples to write"):
        write_form("coco", tmp_path, [])
    video = StoredExample("a.mp4", "a.mp4", b"...", (Annotation(("x",)),))
    with pytest.raises(GITError, match=r"a\.mp4: a video, .*expected folder or metadata"):
        write_form("tsv", tmp_path, [video])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "annotation",
    [Annotation(("\ud800",)), Annotation((), "\ud800?"), Annotation((), "what?", "\udc80")],
)
def test_half_a_character_of_a_source_of_your_own_is_refused(tmp_path, form, annotation):
    examples = [CAPTIONS[0], stored_example("x", 2, annotation)]
    with pytest.raises(GITError, match=r"x: a text is .*expected whole characters"):
        write_form(form, tmp_path, examples)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_names_are_unique_and_stay_in_their_folder(keys):
    named = list(named_examples(stored_example(key, 1) for key in keys))
    names = [item.name for item in named]
    assert len({name.casefold() for name in names}) == len(keys)
    for item in named:
        assert Path(item.file_name).name == item.file_name
        assert not item.name.startswith(".")
        assert "." not in item.name
        assert len(item.file_name.encode()) < 255
