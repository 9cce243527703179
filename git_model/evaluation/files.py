"""Predictions and references in files.

Predictions are lines of JSON, a `Prediction` each, or the results form of COCO (captions) or of
EvalAI's VQA challenge (answers). References are the annotations of COCO or VQAv2, or our lines.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from git_model.data.manifests import DataError, each, id_of, parse, read_lines, value_of
from git_model.evaluation.predictions import Prediction
from git_model.utils.errors import GITError
from git_model.utils.serialize import from_dict, to_dict


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions in a file of any of the forms.

    Raises:
        GITError: the file cannot be read, is not UTF-8 or not JSON, is empty, has two predictions
            for the same, or one of none of the forms. The message names the entry.
    """
    value, entry = _load(path)
    if isinstance(value, dict):
        raise DataError(f"{path}: these are annotations, expected a list of predictions")
    found: dict[tuple[str, str, str | None], Prediction] = {}
    for one in each(value, _prediction, entry):
        about = (one.key, one.question_key, one.question)
        if about in found:
            raise DataError(f"{path}: two predictions for {one.name!r}, expected one")
        found[about] = one
    return list(found.values())


def read_references(path: Path) -> dict[str, tuple[str, ...]]:
    """What is right, by a prediction's name: from annotations of COCO (captions of an image) or
    VQAv2 (answers to a question), or from our own lines, which need `key` and `answers` here.

    Raises:
        GITError: as in `read_predictions`.
    """
    value, entry = _load(path)
    found: dict[str, list[str]] = {}
    if isinstance(value, dict):
        records = value["annotations"]
        if not isinstance(records, list) or not records:
            raise DataError(f"{path}: annotations is empty, expected a list of them")
        for name, texts in each(records, _annotation, f"{path}: annotation"):
            found.setdefault(name, []).extend(texts)
    else:
        for line in each(value, _reference, entry):
            if line.name in found:
                raise DataError(f"{path}: two references for {line.name!r}, expected one")
            found[line.name] = list(line.answers)
    return {name: tuple(texts) for name, texts in found.items()}


def write_predictions(path: Path, predictions: Sequence[Prediction], *, results: bool) -> None:
    """Write a file.

    Args:
        results: in the results form of COCO or EvalAI, whichever fits, instead of our own lines.

    Raises:
        GITError: neither results form fits.
    """
    if results:
        require_results_form(predictions)
        text = json.dumps([_result(one) for one in predictions], ensure_ascii=False) + "\n"
    else:
        text = "".join(map(_line, predictions))
    # halves of characters, in names that are not UTF-8, become \udc80: JSON's way, too
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def require_results_form(predictions: Sequence[Prediction]) -> None:
    """Refuse predictions that fit neither results form.

    Raises:
        GITError: it says what there is.
    """
    tasks = {one.task for one in predictions}
    with_ids = all(one.question_key for one in predictions)
    if tasks != {"captions"} and not (tasks == {"questions"} and with_ids):
        raise GITError(
            "a .json file holds only captions, or only answers to questions that have ids, but "
            f"there are {' and '.join(sorted(tasks))}: name a .jsonl file"
        )


def _line(prediction: Prediction) -> str:
    """A prediction as a line of JSON, without what is not known."""
    blank = to_dict(Prediction(key="", text=""))
    known = {name: value for name, value in to_dict(prediction).items() if value != blank[name]}
    line = {"key": prediction.key, "text": prediction.text} | known
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def _result(prediction: Prediction) -> dict[str, int | str]:
    if prediction.task == "captions":
        return {"image_id": _as_number(prediction.key), "caption": prediction.text}
    return {"question_id": _as_number(prediction.question_key), "answer": prediction.text}


def _as_number(key: str) -> int | str:
    """An id as the data sets write it: as a number, if it is one."""
    return int(key) if re.fullmatch("[0-9]{1,18}", key) else key


def _prediction(record: Any) -> Prediction:
    """An entry of any of the forms."""
    names = record.keys() if isinstance(record, dict) else set()
    if names >= {"image_id", "caption"}:
        return Prediction(key=id_of(record, "image_id"), text=value_of(record, "caption", str))
    if names >= {"question_id", "answer"}:
        text = value_of(record, "answer", str)
        return Prediction(key="", question_key=id_of(record, "question_id"), text=text)
    if names >= {"key", "text"}:
        return _own(record)
    raise DataError(
        "expected an object with key and text, image_id and caption, or question_id and answer"
    )


def _reference(record: Any) -> Prediction:
    """One of our lines, of which the text does not matter."""
    value_of(record, "answers", list)
    return _own({"text": "", **record})


def _own(record: dict[str, Any]) -> Prediction:
    try:
        found = from_dict(Prediction, record, "the prediction")
    except GITError as error:
        raise DataError(str(error)) from None
    if found.logprob is not None and not math.isfinite(found.logprob):
        raise DataError(f"logprob is {found.logprob}, expected a number")  # JSON has no infinity
    return found


def _annotation(record: Any) -> tuple[str, list[str]]:
    """A name and what is right for it, of COCO's or VQAv2's annotations."""
    if isinstance(record, dict) and "question_id" in record:
        answers = value_of(record, "answers", list)
        texts = each(answers, lambda item: value_of(item, "answer", str), "answer")
        return id_of(record, "question_id"), list(texts)
    return id_of(record, "image_id"), [value_of(record, "caption", str)]


def _load(path: Path) -> tuple[Any, str]:
    """A table with annotations, or the entries of a JSON list or of JSON Lines; and what errors
    call an entry, without its number."""
    lines = read_lines(path)
    if len(lines) > 1 and _is_object(lines[0]):
        return list(each(lines, parse, f"{path}: line")), f"{path}: line"
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
