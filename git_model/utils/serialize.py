"""Dataclasses from plain values, strictly, and back; TOML and JSON files.

Unknown keys and wrong types are errors that name the key. This module and config.py do not import
torch, so the command line shows its help without loading it.
"""

import dataclasses
import json
import stat
import tomllib
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from git_model.utils.errors import ConfigError

MAX_FILE_BYTES = 2**22  # of a settings file; those of released checkpoints have a few KB


T = TypeVar("T")


def short_repr(value: Any) -> str:
    """The repr of a value, cut to 40 characters, for an error line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list within lists
        return f"too large a value of type {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:40]}…"


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "config") -> T:
    """Build a dataclass from plain values, strictly.

    Args:
        data: keys are field names; nested dataclasses are nested mappings; lists become tuples.
            If a field may be one of several dataclasses, the mapping's `kind` decides: each
            dataclass has a field `kind` with its own Literal, or lists its kinds in `KINDS`.
            Without a `kind` it is the field's default.
        where: what errors begin with, such as a file's path.

    Raises:
        ConfigError: an unknown key, a missing key without a default, or a value of a wrong type.
    """
    hints = get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise ConfigError(
                f"{where}: unknown key {short_repr(key)}, expected one of {', '.join(fields)}"
            )
    for name, item in fields.items():
        required = item.default is item.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ConfigError(f"{where}: {name} is missing")
    values = {
        key: coerce(_default_kind(fields[key], value) or hints[key], value, f"{where}: {key}")
        for key, value in data.items()
    }
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _default_kind(item: Any, value: Any) -> Any:
    """The dataclass that a field has by default, unless the table names a `kind`; else None."""
    has_kind = isinstance(value, Mapping) and "kind" in value
    return item.default_factory if isinstance(item.default_factory, type) and not has_kind else None


def coerce(hint: Any, value: Any, where: str) -> Any:
    """A value as the type that `hint` asks for: lists become tuples, integers floats.

    Args:
        where: what the error begins with.

    Raises:
        ConfigError: it is of another type.
    """
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, Mapping):
            return from_dict(hint, value, where)
        raise ConfigError(f"{where} is {short_repr(value)}, expected a table")
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        choices = [argument for argument in arguments if argument is not type(None)]
        target = choices[0] if len(choices) == 1 else _dataclass_of_kind(choices, value, where)
        return coerce(target, value, where)
    if origin is Literal:
        if value in arguments and type(value) in map(type, arguments):  # 1 == True
            return value
        expected = ", ".join(map(str, arguments))
        raise ConfigError(f"{where} is {short_repr(value)}, expected one of {expected}")
    if origin is tuple:
        return _coerce_tuple(arguments, value, where)
    if origin is dict:
        return _coerce_dict(arguments, value, where)
    if type(value) is int and hint in (int, float):
        if abs(value) >= 2**63:
            raise ConfigError(
                f"{where} is {short_repr(value)}, expected a number of at most 63 bits"
            )
        return hint(value)
    if type(value) is hint:
        return value
    raise ConfigError(f"{where} is {short_repr(value)}, expected {hint.__name__}")


def _dataclass_of_kind(choices: list[Any], value: Any, where: str) -> Any:
    """The dataclass whose `kind` a table names."""
    kinds: dict[str, Any] = {}
    others = ""
    for choice in choices:
        names = get_args(get_type_hints(choice)["kind"]) or sorted(choice.KINDS)
        kinds |= dict.fromkeys(names, choice)
        others = f", {choice.OTHER_KINDS}" if hasattr(choice, "OTHER_KINDS") else others
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(
            f"{where}: kind is {short_repr(kind)}, expected one of {', '.join(kinds)}{others}"
        )
    return kinds[kind]


def _coerce_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where} is {short_repr(value)}, expected a list")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise ConfigError(f"{where} has {len(value)} entries, expected {len(arguments)}")
    return tuple(coerce(hint, item, where) for hint, item in zip(arguments, value, strict=True))


def _coerce_dict(arguments: tuple[Any, ...], value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {short_repr(value)}, expected a table")
    _, hint = arguments
    if hint is Any:
        return dict(value)
    return {name: coerce(hint, item, f"{where}.{name}") for name, item in value.items()}


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain values; `from_dict(type(config), to_dict(config)) == config`."""
    return dataclasses.asdict(config)


def read_mapping(path: Path, *, max_bytes: int | None = MAX_FILE_BYTES) -> dict[str, Any]:
    """The table in a .toml or .json file.

    Args:
        max_bytes: maximum size of the file; None: no limit, for lists of data.

    Raises:
        ConfigError: the file is missing, too large, not UTF-8, does not parse, or holds no table.
    """
    text = read_text(path, max_bytes=max_bytes)
    try:
        data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise ConfigError(f"{path}: not valid {kind}: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a table, found {type(data).__name__}")
    return data


def read_text(path: Path, *, max_bytes: int | None = MAX_FILE_BYTES) -> str:
    """The UTF-8 text in a file.

    Raises:
        ConfigError: it is missing, no regular file, larger than `max_bytes` bytes, or not UTF-8.
    """
    try:
        require_file(path, max_bytes)
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None


def require_file(path: Path, max_bytes: int | None = None) -> None:
    """Refuse a path that is not a regular file, or a file that is too large, before it is opened:
    reading a pipe may never end.

    Raises:
        ConfigError: the message says what is wrong.
        OSError: the path does not exist.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path}: a folder, pipe or device, expected a file")
    if max_bytes is not None and status.st_size > max_bytes:
        raise ConfigError(f"{path}: {status.st_size:,} bytes, expected at most {max_bytes:,}")


def is_file(path: Path) -> bool:
    """Whether the path is a regular file; False also if the system refuses the name itself."""
    return _has_mode(path, stat.S_ISREG)


def is_folder(path: Path) -> bool:
    """Whether the path is a folder; False also if the system refuses the name itself."""
    return _has_mode(path, stat.S_ISDIR)


def _has_mode(path: Path, is_type: Callable[[int], bool]) -> bool:
    try:
        return is_type(path.stat().st_mode)
    except (OSError, ValueError):  # Path.is_file lets some of these through, such as long names
        return False
