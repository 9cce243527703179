"""Changes of a recipe on the command line: `--set learning.decoder_lr=3e-4`."""

import dataclasses
import difflib
import re
import tomllib
import types
from collections.abc import Iterator, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

from git_model.training.recipe import Recipe
from git_model.utils.errors import ConfigError

BARE = re.compile(r"[A-Za-z_./~][\w./:+~-]*")  # texts that need no quotes for any key
# A key that stands for several.
SHORTHANDS = {"learning.rate": ("learning.encoder_lr", "learning.decoder_lr")}


class SettingError(ConfigError):
    """A key or value of `--set` that cannot be used."""


def with_settings(table: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """A recipe's table with some keys changed.

    Args:
        settings: such as "steps=100" or "learning.rate=3e-4": a dotted key, and a TOML value, in
            which a text needs no quotes if its key takes texts only, such as
            "selection.metric=captions cider_d". A later setting overrides an earlier one.

    Raises:
        SettingError: there is no such key (the message names the nearest one), or the value is not
            TOML.
    """
    for setting in settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not equals or not key:
            raise SettingError(f"--set {setting}: expected key=value, such as --set steps=100")
        _require_key(key)
        for name in SHORTHANDS.get(key, (key,)):
            table = _changed(table, name.split("."), _value(key, text), key)
    return table


def recipe_keys() -> list[str]:
    """All keys of a recipe, dotted, in their order, with those of every kind of data set and
    loss."""
    return list(dict.fromkeys(name for name, _ in _keys(Recipe, "")))


def _text_keys() -> set[str]:
    return {name for name, hint in _keys(Recipe, "") if str in _choices(hint)}


def _keys(cls: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """The dotted keys, and their types."""
    hints = get_type_hints(cls)
    for item in dataclasses.fields(cls):
        name = f"{prefix}{item.name}"
        tables = [table for table in _choices(hints[item.name]) if dataclasses.is_dataclass(table)]
        if not tables:
            yield name, hints[item.name]
        for table in tables:
            yield from _keys(table, f"{name}.")


def _choices(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _require_key(key: str) -> None:
    keys = [*recipe_keys(), *SHORTHANDS]
    is_table = any(name.startswith(f"{key}.") for name in keys)
    inside = any(key.startswith(f"{name}.") for name in keys if name.endswith("arguments"))
    if key in keys or is_table or inside:
        return
    last = {name.rpartition(".")[2]: name for name in reversed(keys)}
    close = difflib.get_close_matches(key, keys, 1) or [
        last[name] for name in difflib.get_close_matches(key.rpartition(".")[2], last, 1)
    ]
    hint = f"did you mean {close[0]}?" if close else "docs/recipe.md lists all"
    raise SettingError(f"--set {key}: a recipe has no such key, {hint}")


def _value(key: str, text: str) -> Any:
    """A TOML value, or a text without quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        starts_as_text = text[:1] not in ("", '"', "'", "[", "{")
        is_text = starts_as_text and text.isprintable() and key in _text_keys()
        if BARE.fullmatch(text) or is_text:
            return text
    raise SettingError(f'--set {key}: {text!r} is no TOML value, such as 3e-4, true, "a" or [1, 2]')


def _changed(table: dict[str, Any], path: Sequence[str], value: Any, key: str) -> dict[str, Any]:
    """The table with the value at a path; tables on the way are made."""
    name, *rest = path
    if not rest:
        return table | {name: value}
    inner = table.get(name, {})
    if not isinstance(inner, dict):
        raise SettingError(f"--set {key}: {name} is no table in this recipe")
    return table | {name: _changed(inner, rest, value, key)}
