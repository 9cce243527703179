"""Predictions beside their references, in memory and in files.

Predictions are lines of JSON, a `Prediction` each, or the results form of COCO (captions) or of
EvalAI's VQA challenge (answers). References are the annotations of COCO or VQAv2, or lines of the
first form.
"""

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from git_model.data.manifests import DataError, parse, parse_each, raw_id_of, read_lines, value_of
from git_model.utils.errors import GITError
from git_model.utils.serialize import from_dict, to_dict

Task = Literal["captions", "questions", "labels"]
References = Mapping[str, tuple[str, ...]]  # reference texts by the name of a prediction


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A model's text about one image or clip.

    key: the name of the image, such as an image id.
    question, question_key: a question and its id; captions have neither.
    logprob: log p(text | image).
    top: the most probable labels of a classification, best first.
    answers: the references, if there are any: captions, answers to the question, or labels.
    scores: by metric, times 100; see `text_scores.score_each`.
    """

    key: str
    text: str
    question: str | None = None
    question_key: str = ""
    logprob: float | None = None
    top: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """The task that this is a prediction for."""
        if self.top:
            return "labels"
        return "captions" if self.question is None and not self.question_key else "questions"

    @property
    def name(self) -> str:
        """The name by which a reference is found: the question's id, or the key (and the
        question)."""
        if self.question_key or self.question is None:
            return self.question_key or self.key
        return f"{self.key}: {self.question}"


def with_answers(
    predictions: Sequence[Prediction], references: References, *, subset: bool = False
) -> list[Prediction]:
    """The predictions with their references as `answers`.

    Args:
        subset: allow references without a prediction, and leave them out.

    Raises:
        GITError: a prediction has no reference, or shares its name with another; or, unless
            `subset`, a reference has no prediction.
    """
    names = Counter(prediction.name for prediction in predictions)
    for name, count in names.items():
        if name not in references:
            raise GITError(f"there is a prediction for {name!r}, but no reference")
        if count > 1:
            raise GITError(f"there are {count} predictions for {name!r}, expected one")
    missing = references.keys() - names
    if missing and not subset:
        raise GITError(
            f"{len(missing)} of {len(references)} references have no prediction, such as "
            f"{min(missing)!r}: predict them, too, or score the subset"
        )
    return [
        dataclasses.replace(prediction, answers=references[prediction.name])
        for prediction in predictions
    ]


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions in a file of any of the forms.

    Raises:
        GITError: the file cannot be read, is not UTF-8 or not JSON, is empty, has two predictions
            with one name, or an entry of none of the forms. The message names the entry.
    """
    value, entry = _load(path)
    if isinstance(value, dict):
        raise DataError(f"{path}: these are annotations, expected a list of predictions")
    predictions: dict[tuple[str, str, str | None], Prediction] = {}
    for prediction in parse_each(value, _prediction, entry):
        identity = (prediction.key, prediction.question_key, prediction.question)
        if identity in predictions:
            raise DataError(f"{path}: two predictions for {prediction.name!r}, expected one")
        predictions[identity] = prediction
    return list(predictions.values())


def read_references(path: Path) -> dict[str, tuple[str, ...]]:
    """Reference texts by a prediction's name: from annotations of COCO (captions of an image) or
    VQAv2 (answers to a question), or from JSON lines with `key` and `answers`.

    Raises:
        GITError: as in `read_predictions`.
    """
    value, entry = _load(path)
    references: dict[str, list[str]] = {}
    if isinstance(value, dict):
        records = value["annotations"]
        if not isinstance(records, list) or not records:
            raise DataError(f"{path}: annotations is empty, expected a list of them")
        for name, texts in parse_each(records, _annotation, f"{path}: annotation"):
            references.setdefault(name, []).extend(texts)
    else:
        for line in parse_each(value, _reference, entry):
            if line.name in references:
                raise DataError(f"{path}: two references for {line.name!r}, expected one")
            references[line.name] = list(line.answers)
    return {name: tuple(texts) for name, texts in references.items()}


def write_predictions(path: Path, predictions: Sequence[Prediction], *, results: bool) -> None:
    """Write a file.

    Args:
        results: write the results form of COCO or EvalAI, whichever fits, instead of JSON lines.

    Raises:
        GITError: neither results form fits.
    """
    if results:
        require_results_form(predictions)
        records = [_result(prediction) for prediction in predictions]
        text = json.dumps(records, ensure_ascii=False) + "\n"
    else:
        text = "".join(map(_line, predictions))
    # Surrogates, in file names that are not UTF-8, become \udc80, as JSON spells them.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def require_results_form(predictions: Sequence[Prediction]) -> None:
    """Refuse predictions that fit neither results form.

    Raises:
        GITError: the message names the tasks of the predictions.
    """
    tasks = {prediction.task for prediction in predictions}
    with_ids = all(prediction.question_key for prediction in predictions)
    if tasks != {"captions"} and not (tasks == {"questions"} and with_ids):
        raise GITError(
            "a .json file holds only captions, or only answers to questions that have ids, but "
            f"there are {' and '.join(sorted(tasks))}: name a .jsonl file"
        )


def _line(prediction: Prediction) -> str:
    """A prediction as a line of JSON, without the fields that are at their defaults."""
    defaults = to_dict(Prediction(key="", text=""))
    fields = {name: value for name, value in to_dict(prediction).items() if value != defaults[name]}
    line = {"key": prediction.key, "text": prediction.text} | fields
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def _result(prediction: Prediction) -> dict[str, int | str]:
    if prediction.task == "captions":
        return {"image_id": _as_number(prediction.key), "caption": prediction.text}
    return {"question_id": _as_number(prediction.question_key), "answer": prediction.text}


def _as_number(key: str) -> int | str:
    """An id as the data sets write it: a number, if it has only digits."""
    return int(key) if re.fullmatch("[0-9]{1,18}", key) else key


def _prediction(record: Any) -> Prediction:
    """An entry of any of the forms."""
    names = record.keys() if isinstance(record, dict) else set()
    if names >= {"image_id", "caption"}:
        return Prediction(key=raw_id_of(record, "image_id"), text=value_of(record, "caption", str))
    if names >= {"question_id", "answer"}:
        text = value_of(record, "answer", str)
        return Prediction(key="", question_key=raw_id_of(record, "question_id"), text=text)
    if names >= {"key", "text"}:
        return _own_form(record)
    raise DataError(
        "expected an object with key and text, image_id and caption, or question_id and answer"
    )


def _reference(record: Any) -> Prediction:
    """A JSON line as a reference; its text is ignored and may be missing."""
    value_of(record, "answers", list)
    return _own_form({"text": "", **record})


def _own_form(record: dict[str, Any]) -> Prediction:
    try:
        prediction = from_dict(Prediction, record, "the prediction")
    except GITError as error:
        raise DataError(str(error)) from None
    if prediction.logprob is not None and not math.isfinite(prediction.logprob):
        # JSON has no infinity
        raise DataError(f"logprob is {prediction.logprob}, expected a number")
    return prediction


def _annotation(record: Any) -> tuple[str, list[str]]:
    """The name and the reference texts of an annotation of COCO or VQAv2."""
    if isinstance(record, dict) and "question_id" in record:
        answers = value_of(record, "answers", list)
        texts = parse_each(answers, lambda item: value_of(item, "answer", str), "answer")
        return raw_id_of(record, "question_id"), list(texts)
    return raw_id_of(record, "image_id"), [value_of(record, "caption", str)]


def _load(path: Path) -> tuple[Any, str]:
    """A table with annotations, or the entries of a JSON list or of JSON Lines; and the name of an
    entry in errors, without its number."""
    lines = read_lines(path)
    if len(lines) > 1 and _is_object(lines[0]):
        return list(parse_each(lines, parse, f"{path}: line")), f"{path}: line"
    try:
        value = parse("\n".join(lines))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    if isinstance(value, dict) and "annotations" not in value:
        value = [value]
    if not isinstance(value, dict | list) or not value:
        raise DataError(f"{path}: expected a list of entries, or a table with annotations")
    return value, f"{path}: entry"


def _is_object(line: str) -> bool:
    """Whether a line is a JSON object by itself."""
    try:
        return isinstance(parse(line), dict)
    except DataError:
        return False
