"""Writes docs/recipe.md, the page of all keys of a recipe, from the dataclasses that read it.

    python docs/recipe_page.py

A key's line is the comment beside its field in the code, or the comment above it.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
import tokenize
import types
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from git_model.training.recipe import Recipe

PAGE = Path(__file__).with_name("recipe.md")
HEAD = """# The keys of a recipe

<!-- Written by docs/recipe_page.py from the code; do not edit. -->

A recipe is a TOML file for `git-model train`; [training.md](training.md) leads through one. Any key
can be changed on the command line: `--set learning.decoder_lr=3e-4 --set seed=2`. An unknown key is
an error that names the nearest one. A key without a default is `required`; `None` means that the
key is left out.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    parts = [HEAD, _section("The recipe itself", "", Recipe)]
    hints = get_type_hints(Recipe)
    for item in dataclasses.fields(Recipe):
        for table in _tables(hints[item.name]):
            if item.name == "validation":
                continue  # the same kinds as [data]
            parts.append(_table_section(item.name, table))
    return "\n".join(parts)


def _table_section(name: str, table: Any) -> str:
    kinds = get_args(get_type_hints(table).get("kind", type(None)))
    title = f"[{name}]" if not kinds else f'[{name}], kind = "{kinds[0]}"'
    section = _section(title, f"{name}.", table)
    hints = get_type_hints(table)
    nested = [
        _section(f"[{name}.{item.name}]", f"{name}.{item.name}.", inner)
        for item in dataclasses.fields(table)
        for inner in _tables(hints[item.name])
    ]
    return "\n".join([section, *nested])


def _section(title: str, prefix: str, cls: Any) -> str:
    text = "" if cls is Recipe else f"{_summary(cls)}\n\n"
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    comments, hints = _comments(cls), get_type_hints(cls)
    for item in dataclasses.fields(cls):
        if item.name == "kind":
            continue
        meaning = comments.get(item.name, "")
        row = (f"`{prefix}{item.name}`", _type(hints[item.name]), _default(item), meaning)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return f"## {title}\n\n{text}" + "\n".join(rows if len(rows) > 2 else ["No other key."]) + "\n"


def _summary(cls: Any) -> str:
    """The docstring up to its attributes."""
    text = inspect.cleandoc(cls.__doc__ or "").partition("\nAttributes:")[0]
    return " ".join(text.split())


def _tables(hint: Any) -> list[Any]:
    """The dataclasses that a field may hold."""
    return [table for table in _choices(hint) if dataclasses.is_dataclass(table)]


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _type(hint: Any) -> str:
    choices = [choice for choice in _choices(hint) if choice is not type(None)]
    return " or ".join(dict.fromkeys(_name(choice) for choice in choices))


def _name(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return "table"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        inner = " or ".join(dict.fromkeys(_type(item) for item in arguments if item is not ...))
        return f"list of {inner}" if arguments[-1] is ... else f"list of {len(arguments)} {inner}"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(hint, "table" if origin is dict else str(hint))


def _default(item: dataclasses.Field[Any]) -> str:
    if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
        return "required"
    value = item.default if item.default_factory is dataclasses.MISSING else None
    if value is None:
        return "None"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return f"`{value}`" if isinstance(value, str) else str(value)


def _comments(cls: Any) -> dict[str, str]:
    """For each field the comment beside it, or those on the lines directly above."""
    source = textwrap.dedent(inspect.getsource(cls))
    beside = {
        token.start[0]: (token.string.lstrip("# "), token.line.lstrip().startswith("#"))
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    comments = dict(_attributes(cls))
    (definition,) = ast.parse(source).body
    for node in getattr(definition, "body", []):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        lines = [
            beside[n][0] for n in range(node.lineno, (node.end_lineno or 0) + 1) if n in beside
        ]
        above = node.lineno - 1
        while above in beside and beside[above][1]:
            lines.insert(0, beside[above][0])
            above -= 1
        if lines:
            comments[node.target.id] = re.sub(r"^fmt: skip ?", "", " ".join(lines))
    return comments


def _attributes(cls: Any) -> Iterator[tuple[str, str]]:
    """The entries `name, name: text` under Attributes in a docstring."""
    _, _, text = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    for entry in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", text, re.MULTILINE):
        for name in entry[0].split(", "):
            yield name, " ".join(entry[1].split())


if __name__ == "__main__":
    main()
