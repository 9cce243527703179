"""The engine that renames tensors by a table of rules, in both directions.

The engine is strict. Each source tensor matches exactly one rule, each target is written once and
from all of its parts, and nothing is left over on either side. It reads the tensors of one target
at a time, so a source that reads from disk is never in memory as a whole.

In a pattern, `*` matches a part of a name without a dot (a layer's number; weight or bias), `**`
matches any part, and `#` matches the numbers 0, 1, 2, … of tensors that become one tensor. A star
in the target stands for the text that the same star in the source matched.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from git_model.utils.errors import GITError

Tensors = Mapping[str, Tensor]


class ConversionError(GITError):
    """A checkpoint of another project that cannot be converted; the message names the tensor."""


class Layout(NamedTuple):
    """How a tensor is joined from its parts, and how it is split into `n` parts again."""

    join: Callable[[list[Tensor]], Tensor]
    split: Callable[[Tensor, int], Sequence[Tensor]]


same = Layout(lambda parts: parts[0], lambda whole, _: [whole])
cat = Layout(torch.cat, torch.chunk)  # (A, …) and (B, …) <-> (A + B, …)
stack = Layout(  # n of (1, 1, D) <-> (n, D)
    lambda parts: torch.cat([part.flatten(0, 1) for part in parts]),
    lambda whole, n: [row[None] for row in whole.chunk(n)],
)


@dataclass(frozen=True)
class Rule:
    """One line of a table: these source tensors make that target tensor.

    Args:
        source: a pattern, or several patterns whose tensors become one.
        target: a pattern with as many stars; None drops the tensors on purpose.
        layout: how several tensors become one.
    """

    source: str | tuple[str, ...]
    target: str | None
    layout: Layout = same

    def __post_init__(self) -> None:
        if self.target is None:
            return
        if len({len(_STAR.findall(pattern)) for pattern in (*self.sources, self.target)}) > 1:
            raise ValueError(f"rule {self}: the stars differ in number")
        if (len(self.sources) > 1 or self.is_numbered) and self.layout is same:
            raise ValueError(f"rule {self}: several tensors need a layout that joins them")

    def __str__(self) -> str:
        return f"{' + '.join(self.sources)} -> {self.target}"

    @property
    def sources(self) -> tuple[str, ...]:
        """The source patterns, as a tuple even if there is one."""
        return (self.source,) if isinstance(self.source, str) else self.source

    @property
    def is_numbered(self) -> bool:
        """Whether tensors 0, 1, 2, … become one."""
        return any("#" in pattern for pattern in self.sources)

    def matches(self, name: str) -> bool:
        """Whether the rule covers this source tensor."""
        return any(_stars(pattern, name) is not None for pattern in self.sources)

    def target_of(self, name: str) -> str | None:
        """The target of this source tensor; None if it is dropped."""
        matches = (_stars(pattern, name) for pattern in self.sources)
        stars = next(stars for stars in matches if stars is not None)
        return None if self.target is None else _fill(self.target, stars)

    def writes(self, target: str) -> bool:
        """Whether the rule can write this tensor."""
        return self.target is not None and _stars(self.target, target) is not None

    def split(self, target: str, whole: Tensor) -> dict[str, Tensor]:
        """The source tensors, by name, that make this target."""
        stars = _stars(self.target or "", target) or ()
        names = [_fill(pattern, stars) for pattern in self.sources]
        if self.is_numbered:
            names = [names[0].replace("#", str(number)) for number in range(len(whole))]
        return dict(zip(names, self.layout.split(whole, len(names)), strict=True))


def nested(source: str, target: str, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The same rules with the prefix `source.` on their patterns and `target.` on their targets."""
    return tuple(
        Rule(
            tuple(f"{source}.{pattern}" for pattern in rule.sources),
            None if rule.target is None else f"{target}.{rule.target}",
            rule.layout,
        )
        for rule in rules
    )


def apply(
    rules: Sequence[Rule], source: Tensors, model: Tensors, dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """The source's tensors under this project's names.

    Args:
        source: tensors by name; each is read once, when its target is made.
        model: tensors with the names and shapes to fill, such as those of a model on meta.
        dtype: of the results; None keeps the source's.

    Raises:
        ConversionError: names a tensor that is unexpected, missing, misshapen or claimed twice.
    """
    claims = _claims(rules, source)
    plan: dict[str, tuple[Rule, dict[str, Tensor]]] = {}
    for target, whole in model.items():
        rule = claims[target][0] if target in claims else _writer(rules, target)
        plan[target] = rule, rule.split(target, whole)
    model_names = {name for _, parts in plan.values() for name in parts}
    source_names = {name for _, names in claims.values() for name in names}
    _refuse(model_names - source_names, "is missing")
    _refuse(source_names - model_names, "is not part of a model of this configuration")
    for target, (rule, parts) in plan.items():
        tensors = [_read(source, name, part.shape) for name, part in parts.items()]
        yield target, rule.layout.join(tensors).to(dtype)


def undo(rules: Sequence[Rule], state: Tensors) -> Iterator[tuple[str, Tensor]]:
    """The inverse of `apply`: this project's tensors under the source's names.

    Where two rules write a tensor (two spellings of a name), the first of them is used.
    """
    for target, whole in state.items():
        yield from _writer(rules, target).split(target, whole).items()


def _claims(rules: Sequence[Rule], source: Tensors) -> dict[str, tuple[Rule, list[str]]]:
    """For each target, the rule that writes it and the source tensors that match."""
    claims: dict[str, tuple[Rule, list[str]]] = {}
    for name in source:
        rule = _only_rule(rules, name)
        target = rule.target_of(name)
        if target is None:
            continue
        first, names = claims.setdefault(target, (rule, []))
        if first is not rule:
            raise ConversionError(f"tensors {names[0]} and {name} are both meant for {target}")
        names.append(name)
    return claims


def _only_rule(rules: Sequence[Rule], name: str) -> Rule:
    matches = [rule for rule in rules if rule.matches(name)]
    if not matches:
        raise ConversionError(f"unexpected tensor {name}")
    if len(matches) > 1:
        raise ConversionError(f"tensor {name} matches two rules: {matches[0]}; {matches[1]}")
    return matches[0]


def _writer(rules: Sequence[Rule], target: str) -> Rule:
    rule = next((rule for rule in rules if rule.writes(target)), None)
    if rule is None:
        raise ConversionError(f"no rule writes tensor {target}")
    return rule


def _refuse(names: set[str], problem: str) -> None:
    if names:
        rest = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        raise ConversionError(f"tensor {min(names)} {problem}{rest}")


def _read(source: Tensors, name: str, shape: torch.Size) -> Tensor:
    tensor = source[name]
    if tensor.shape != shape:
        raise ConversionError(
            f"tensor {name} has shape {tuple(tensor.shape)}, expected {tuple(shape)} from the "
            "configuration"
        )
    if not tensor.is_floating_point():
        raise ConversionError(f"tensor {name} holds {tensor.dtype}, expected floating point")
    return tensor


_STAR = re.compile(r"\*\*?")
_WILD = {"*": "([^.]+)", "**": "(.+)", "#": "(?:0|[1-9][0-9]*)"}


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    pieces = re.split(r"(\*\*|\*|#)", pattern)
    return re.compile("".join(_WILD.get(piece, re.escape(piece)) for piece in pieces))


def _stars(pattern: str, name: str) -> tuple[str, ...] | None:
    """What each star of the pattern matches in this name; None if the pattern does not match."""
    match = _regex(pattern).fullmatch(name)
    return None if match is None else match.groups()


def _fill(pattern: str, stars: Sequence[str]) -> str:
    remaining = iter(stars)
    return _STAR.sub(lambda _: next(remaining), pattern)
