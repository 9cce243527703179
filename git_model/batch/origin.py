"""The origin of a text: the model and the options that wrote it. Every record has it, and the next
run over the same inputs compares it."""

import json
from collections import Counter
from dataclasses import fields
from typing import Any

from git_model.batch.caption_filters import CaptionFilters
from git_model.batch.items import OutputRecord
from git_model.config import DecodingOptions
from git_model.preprocessing.sampling import ReadOptions
from git_model.utils.errors import one_line

ORIGIN = ("model", "revision", "style", "decoding", "options")  # fields of a record
# The filters that change a text; the others decide whether it is written.
TEXT_FILTERS = ("trigger", "prefix", "postfix", "remove", "remove_words")
NONE_OF = {"decoding": "plain decoding"}  # a field without content, in words
MAX_ORIGINS = 20  # origins that are counted one by one


def origin_of(
    model: OutputRecord, style: str, decoding: DecodingOptions, filters: CaptionFilters,
    reading: ReadOptions,
) -> OutputRecord:  # fmt: skip
    """The origin of a run's texts.

    Args:
        model: the model's name and revision.

    Returns:
        name and revision, the style, the decoding options that differ from a plain greedy search,
        and in `options` the filters and reading options that differ from their defaults, if any.
    """
    options = _changes(filters, TEXT_FILTERS) | _changes(reading, _names_of(reading))
    origin = model | {"style": style, "decoding": _changes(decoding, _names_of(decoding))}
    return origin | ({"options": options} if options else {})


def _names_of(values: Any) -> tuple[str, ...]:
    return tuple(item.name for item in fields(values))


def _changes(values: Any, names: tuple[str, ...]) -> OutputRecord:
    """The fields of a dataclass that differ from their defaults."""
    plain = type(values)()
    pairs = ((name, getattr(values, name)) for name in names)
    return {name: value for name, value in pairs if value != getattr(plain, name)}


def other_origin(
    record: OutputRecord, origin: OutputRecord, *, is_other_file: bool = False
) -> str | None:
    """The origin of a record, if it differs from that of a text of this run: the model, and what
    else differs, such as "demo with num_beams 4". None: it does not differ, or is unknown.

    Args:
        origin: see `origin_of`, with the `question` if there is one.
        is_other_file: whether the image's file has changed since.
    """
    if "model" not in record:
        return None
    names = [name for name in (*ORIGIN, "question") if _plain(record, name) != _plain(origin, name)]
    if not names and not is_other_file:
        return None
    differences = [_difference(record, name) for name in names if name != "model"]
    if is_other_file:
        differences.append("another image file")
    model = one_line(str(record["model"]))
    return f"{model} with {', '.join(differences)}" if differences else model


def _plain(record: OutputRecord, name: str) -> str:
    """Equal for values that are equal in JSON."""
    return json.dumps(record.get(name) or {}, sort_keys=True)


def _difference(record: OutputRecord, name: str) -> str:
    """A field of an origin in words."""
    value = record.get(name)
    if isinstance(value, dict) and value:
        return ", ".join(f"{key} {_word(value[key])}" for key in sorted(value))
    if name == "question":
        return f"the question {json.dumps(value, ensure_ascii=False)}" if value else "no question"
    return f"{name} {_word(value)}" if value else NONE_OF.get(name, f"no {name}")


def _word(value: Any) -> str:
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def add_counts(counts: Counter[str], others: Counter[str]) -> Counter[str]:
    """The sum of two counts of origins. The origins beyond MAX_ORIGINS share one entry."""
    total = counts + others
    largest = dict(total.most_common(MAX_ORIGINS))
    rest = sum(total.values()) - sum(largest.values())
    return Counter(largest) + Counter({"others": rest} if rest else {})
