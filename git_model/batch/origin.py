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

ORIGIN = ("model", "revision", "style", "decoding", "options")  # fields of a record
# The filters that change a text; the others decide whether it is written.
TEXT_FILTERS = ("trigger", "prefix", "postfix", "remove", "remove_words")
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


def other_origin(record: OutputRecord, origin: OutputRecord) -> str | None:
    """How a record's origin differs from this run's, such as "model demo". None: it does not, or
    the record has no origin."""
    if "model" not in record:
        return None
    differences = [
        f"{name} {_as_text(record.get(name))}"
        for name in ORIGIN
        if _as_text(record.get(name)) != _as_text(origin.get(name))
    ]
    if not differences:
        return None
    return differences[0] if differences[0].startswith("model ") else ", ".join(differences)


def _as_text(value: Any) -> str:
    """Equal for values that are equal in JSON."""
    return value if isinstance(value, str) else json.dumps(value or {}, sort_keys=True)


def add_counts(counts: Counter[str], others: Counter[str]) -> Counter[str]:
    """The sum of two counts of origins. The origins beyond MAX_ORIGINS share one entry."""
    total = counts + others
    largest = dict(total.most_common(MAX_ORIGINS))
    rest = sum(total.values()) - sum(largest.values())
    return Counter(largest) + Counter({"others": rest} if rest else {})
