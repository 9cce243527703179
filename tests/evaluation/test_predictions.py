"""Predictions and references: in memory and in files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.evaluation.predictions import (
    Prediction,
    read_predictions,
    read_references,
    with_answers,
    write_predictions,
)
from git_model.utils.errors import GITError

CAPTION = Prediction(key="42", text="a dog", logprob=-1.5, answers=("a dog", "the dog"))
ANSWER = Prediction(key="42", text="red", question="what colour?", question_key="7")
LABEL = Prediction(key="a.png", text="cat", logprob=-0.5, top=("cat", "dog"), answers=("dog",))

texts = st.text(st.characters(exclude_categories=["Cs"]))
predictions = st.builds(
    Prediction,
    key=texts,
    text=texts,
    question=st.none() | texts,
    question_key=texts,
    logprob=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    top=st.lists(texts, max_size=2).map(tuple),
    answers=st.lists(texts, max_size=3).map(tuple),
)


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_task_and_name_of_a_prediction_follow_from_its_fields() -> None:
    assert [item.task for item in (CAPTION, ANSWER, LABEL)] == ["captions", "questions", "labels"]
    assert [item.name for item in (CAPTION, ANSWER, LABEL)] == ["42", "7", "a.png"]
    assert Prediction(key="", question_key="7", text="").task == "questions"  # as EvalAI has them
    assert Prediction(key="42", question="why?", text="").name == "42: why?"


@given(st.lists(predictions, min_size=1, unique_by=lambda p: (p.key, p.question_key, p.question)))
def test_written_predictions_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, items: list
) -> None:
    path = tmp_path_factory.mktemp("lines") / "predictions.jsonl"
    write_predictions(path, items, results=False)
    assert read_predictions(path) == items


def test_captions_are_written_in_cocos_form_and_answers_in_evalais(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_predictions(path, [CAPTION, Prediction(key="x1", text="é")], results=True)
    coco = [{"image_id": 42, "caption": "a dog"}, {"image_id": "x1", "caption": "é"}]
    assert json.loads(path.read_text()) == coco
    assert [(item.key, item.text) for item in read_predictions(path)] == [
        ("42", "a dog"),
        ("x1", "é"),
    ]
    name = "\udcff.jpg"  # a file name that is not UTF-8
    write_predictions(path, [Prediction(key=name, text="a")], results=True)
    assert [item.key for item in read_predictions(path)] == [name]
    write_predictions(path, [ANSWER], results=True)
    assert json.loads(path.read_text()) == [{"question_id": 7, "answer": "red"}]
    assert read_predictions(path) == [Prediction(key="", question_key="7", text="red")]


@pytest.mark.parametrize(
    "mixed", [[CAPTION, ANSWER], [LABEL], [Prediction(key="1", question="q", text="")]]
)
def test_predictions_without_a_results_form_are_refused(tmp_path: Path, mixed: list) -> None:
    with pytest.raises(GITError, match=r"a .json file holds only captions, .* name a .jsonl file"):
        write_predictions(tmp_path / "results.json", mixed, results=True)


def test_references_are_read_from_coco_vqa_and_lines(tmp_path: Path) -> None:
    coco = {
        "images": [{"id": 1}],
        "annotations": [
            {"id": 5, "image_id": 1, "caption": "a dog"},
            {"id": 6, "image_id": 2, "caption": "a cat"},
            {"id": 7, "image_id": 1, "caption": "the dog"},
        ],
    }
    references = read_references(write(tmp_path / "coco.json", coco))
    assert references == {"1": ("a dog", "the dog"), "2": ("a cat",)}
    answers = [{"answer": "red", "answer_id": 1}, {"answer": "blue", "answer_id": 2}]
    vqa = {"annotations": [{"question_id": 10, "image_id": 1, "answers": answers}]}
    assert read_references(write(tmp_path / "vqa.json", vqa)) == {"10": ("red", "blue")}
    lines = '{"key": "1", "answers": ["a"]}\n{"key": "1", "question": "q", "answers": ["b"]}\n'
    expected = {"1": ("a",), "1: q": ("b",)}
    assert read_references(write(tmp_path / "lines.jsonl", lines)) == expected
    # a single line, and a list over several lines, as other programs write it
    first_line = lines.split("\n", maxsplit=1)[0]
    assert read_references(write(tmp_path / "first.jsonl", first_line)) == {"1": ("a",)}
    several = json.dumps([json.loads(line) for line in lines.splitlines()], indent=1)
    assert read_references(write(tmp_path / "list.json", several)) == expected


@pytest.mark.parametrize("read", [read_predictions, read_references])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "line 1: not UTF-8"),
        (b"[", "not valid JSON"),
        (b'{"key": "1", "text": "a", "answers": []}\n{', "line 2: not valid JSON"),
        (b"[]", "expected a list of entries, or a table with annotations"),
        (b"7", "expected a list of entries, or a table with annotations"),
        (b"[7]", "entry 1: "),
        (b'[{"image_id": 1}]', "entry 1: "),
        (b'[{"key": 7, "text": "a", "answers": []}]', "entry 1: the prediction: key is 7"),
        (b'{"key": "1", "text": "a", "x": 1, "answers": []}', "the prediction: unknown key"),
        (b'[{"key": "1", "text": "", "answers": []}, {"key": "1", "text": "", "answers": []}]',
         "two (predictions|references) for '1', expected one"),
    ],
)  # fmt: skip
def test_bad_files_give_one_line_with_their_name(
    tmp_path: Path, read: Callable, content: bytes, message: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(GITError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({}, "annotations is empty"),
        ([{"image_id": 1}], "annotation 1: caption is missing"),
        ([{"image_id": True, "caption": "a"}], "annotation 1: image_id is True"),
        ([{"question_id": 1, "answers": "a"}], "annotation 1: answers is 'a'"),
        ([{"question_id": 1, "answers": ["a"]}], "annotation 1: answer 1: found 'a'"),
    ],
)
def test_bad_annotations_are_named(tmp_path: Path, annotations: Any, message: str) -> None:
    path = write(tmp_path / "a.json", {"annotations": annotations})
    with pytest.raises(GITError, match=message):
        read_references(path)


def test_a_missing_file_and_annotations_in_place_of_predictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GITError, match="No such file"):
        read_predictions(tmp_path / "none.json")
    path = write(tmp_path / "a.json", {"annotations": []})
    with pytest.raises(GITError, match="these are annotations"):
        read_predictions(path)


def test_answers_are_joined_by_name() -> None:
    [caption, answer] = with_answers([CAPTION, ANSWER], {"42": ("a",), "7": ("b", "c")})
    assert (caption.answers, answer.answers) == (("a",), ("b", "c"))
    assert caption.text == CAPTION.text


def test_predictions_and_references_must_match() -> None:
    with pytest.raises(GITError, match="there is a prediction for '42', but no reference"):
        with_answers([CAPTION], {"1": ("a",)})
    references = {"42": ("a",), "43": ("b",), "41": ("c",)}
    with pytest.raises(GITError, match="2 of 3 references have no prediction, such as '41'"):
        with_answers([CAPTION], references)
    assert len(with_answers([CAPTION], references, subset=True)) == 1
    with pytest.raises(GITError, match="there are 2 predictions for '42', expected one"):
        with_answers([CAPTION, CAPTION], {"42": ("a",)})
