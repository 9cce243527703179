"""Wrong arguments of the public functions: a TypeError that says what to write instead."""

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from git_model.config import DecodingOptions, option_hint

F = TypeVar("F", bound=Callable[..., Any])

# The names of such arguments in other libraries
OTHER_NAMES = {
    "image": "scene", "images": "scene", "torch_dtype": "dtype", "device_map": "device",
    "use_auth_token": "token", "generation_config": "options",
}  # fmt: skip
QUANTIZED = ("quantize", "quantization_config", "load_in_8bit", "load_in_4bit")  # a command here
PLAIN = {str: (str,), bool: (bool,), int: (int,), NoneType: (NoneType,), Path: (os.PathLike,)}


def with_hints(function: F) -> F:
    """The function with clearer errors: its TypeError about an unknown argument names the right
    argument, and an argument of a wrong type is named if its annotation has only plain types: str,
    bool, int, None, a path or a dataclass."""
    signature = inspect.signature(function)
    names = list(signature.parameters)

    @functools.cache
    def types() -> dict[str, tuple[type, ...]]:
        hints = {name: _plain_types(hint) for name, hint in get_type_hints(function).items()}
        return {name: plain for name, plain in hints.items() if plain and name in names}

    @functools.wraps(function)
    def checked(*args: Any, **values: Any) -> Any:
        for name in values.keys() - names:
            hint = _advice(name, names)
            raise TypeError(f"{function.__name__}() has no argument {name!r}{hint}")
        for name, value in (dict(zip(names, args, strict=False)) | values).items():
            expected = types().get(name)
            if expected is not None and not isinstance(value, expected):
                kinds = " or ".join(
                    "a path" if kind is os.PathLike else kind.__name__.replace("NoneType", "None")
                    for kind in expected
                )
                raise TypeError(f"{name} is of type {type(value).__name__}, expected {kinds}")
        return function(*args, **values)

    return cast(F, checked)


def _plain_types(hint: Any) -> tuple[type, ...] | None:
    """The classes of an annotation; None if one of its types is not plain. The values of a Literal
    have an error of their own."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    classes: list[type] = []
    for part in parts:
        kind = str if get_origin(part) is Literal else part
        if kind not in PLAIN and not (isinstance(kind, type) and is_dataclass(kind)):
            return None
        classes += PLAIN.get(kind, (kind,))
    return tuple(dict.fromkeys(classes))


def _advice(name: str, arguments: list[str]) -> str:
    """What to write instead of an unknown argument."""
    if name in QUANTIZED and "dtype" in arguments:
        return ": `git-model export MODEL FOLDER --dtype int8` quantizes, then open FOLDER"
    other = OTHER_NAMES.get(name)
    close = [other] if other in arguments else get_close_matches(name, arguments, 1, 0.8)
    if close:
        return f", did you mean {close[0]}?"
    is_option = name in {item.name for item in fields(DecodingOptions)}
    if "options" not in arguments:
        names = ", ".join(argument for argument in arguments if argument not in ("self", "cls"))
        return f", expected {names}" + ("; decoding options belong to caption" if is_option else "")
    if is_option:
        return f": decoding options are one object, options=DecodingOptions({name}=…)"
    return f": decoding options go into options=DecodingOptions(…); {option_hint(name)}"
