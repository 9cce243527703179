"""Dataclasses from plain values, strictly, and back; TOML and JSON files.

Unknown keys and wrong types are errors that name the key. This room and config.py import no torch,
so that the command line can show its help without loading it.
"""

import dataclasses
import json
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints


class GITError(ValueError):
    """Something the user can put right; the message is one line that says what, where and how."""


class ConfigError(GITError):
    """A setting that cannot be used; the message names the field, its value and what to do."""


T = TypeVar("T")


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "config") -> T:
    """Build a dataclass from plain values, strictly.

    Args:
        data: keys are field names; nested dataclasses are nested mappings; lists become tuples.
            Where a field may be one of several dataclasses, the mapping's `kind` says which: each
            has a field `kind` with a Literal of its own.
        where: the name that errors begin with, such as a file's path.

    Raises:
        ConfigError: an unknown key, a missing one without a default, a value of a wrong type.
    """
    hints = get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise ConfigError(f"{where}: unknown key {key!r}, expected one of {', '.join(fields)}")
    for name, item in fields.items():
        required = item.default is item.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ConfigError(f"{where}: {name} is missing")
    values = {key: _coerce(hints[key], value, f"{where}: {key}") for key, value in data.items()}
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _coerce(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type that `hint` asks for, or a ConfigError."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, Mapping):
            return from_dict(hint, value, where)
        raise ConfigError(f"{where} is {value!r}, expected a table")
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        some = [a for a in arguments if a is not type(None)]
        return _coerce(some[0] if len(some) == 1 else _of_kind(some, value, where), value, where)
    if origin is Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{where} is {value!r}, expected one of {', '.join(map(str, arguments))}")
    if origin is tuple:
        return _coerce_tuple(arguments, value, where)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint:
        return value
    raise ConfigError(f"{where} is {value!r}, expected {hint.__name__}")


def _of_kind(choices: list[Any], value: Any, where: str) -> Any:
    """The one of these dataclasses that a table means by its `kind`."""
    kinds = {get_args(get_type_hints(choice)["kind"])[0]: choice for choice in choices}
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind not in kinds:
        raise ConfigError(f"{where}: kind is {kind!r}, expected one of {', '.join(kinds)}")
    return kinds[kind]


def _coerce_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where} is {value!r}, expected a list")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise ConfigError(f"{where} has {len(value)} entries, expected {len(arguments)}")
    return tuple(_coerce(hint, item, where) for hint, item in zip(arguments, value, strict=True))


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain values; `from_dict(type(config), to_dict(config)) == config`."""
    return dataclasses.asdict(config)


def read_mapping(path: Path) -> dict[str, Any]:
    """The table in a .toml or .json file.

    Raises:
        ConfigError: the file is missing, is not UTF-8, does not parse, or is not a table.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise ConfigError(f"{path}: not valid {kind}: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a table, found {type(data).__name__}")
    return data
