"""A table of rules turns one naming of tensors into another, and back; the engine that runs it.

The engine is strict. Each source tensor matches exactly one rule, each target is written once and
from all of its parts, and nothing is left over on either side. It pulls the tensors of one target
at a time, so a source that reads from disk is never in memory as a whole.

In a pattern, `*` stands for a piece of a name without a dot (a layer's number; weight or bias),
`**` for a piece of any kind, and `#` for the numbers 0, 1, 2, … of tensors that become one. A star
in the target is what the same star in the source was.
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
    """A checkpoint of another project that cannot be taken over; the message names the tensor."""


class Layout(NamedTuple):
    """How a tensor is put together from its parts, and how it falls into `n` of them again."""

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
    """One line of a table: these tensors there are that tensor here.

    Args:
        source: a pattern, or several whose tensors become one.
        target: a pattern with as many stars; None drops the tensors on purpose.
        layout: what happens to the numbers on the way.
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
        """The source patterns, also where there is but one."""
        return (self.source,) if isinstance(self.source, str) else self.source

    @property
    def is_numbered(self) -> bool:
        """Whether tensors 0, 1, 2, … become one."""
        return any("#" in pattern for pattern in self.sources)

    def matches(self, name: str) -> bool:
        """Whether this source tensor falls under the rule."""
        return any(_stars(pattern, name) is not None for pattern in self.sources)

    def target_of(self, name: str) -> str | None:
        """Where this source tensor goes; None if it is dropped."""
        found = (_stars(pattern, name) for pattern in self.sources)
        stars = next(stars for stars in found if stars is not None)
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
    """The same rules for names that begin with `source.` there and with `target.` here."""
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
        source: tensors by name; each is asked for once, when its target's turn comes.
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
    expected = {name for _, parts in plan.values() for name in parts}
    found = {name for _, names in claims.values() for name in names}
    _refuse(expected - found, "is missing")
    _refuse(found - expected, "is not part of a model of this configuration")
    for target, (rule, parts) in plan.items():
        pulled = [_pull(source, name, like.shape) for name, like in parts.items()]
        yield target, rule.layout.join(pulled).to(dtype)


def undo(rules: Sequence[Rule], state: Tensors) -> Iterator[tuple[str, Tensor]]:
    """The way back: this project's tensors under the source's names.

    Where two rules write a tensor (two spellings of a name), the first of them is used.
    """
    for target, whole in state.items():
        yield from _writer(rules, target).split(target, whole).items()


def _claims(rules: Sequence[Rule], source: Tensors) -> dict[str, tuple[Rule, list[str]]]:
    """For each target, the one rule that writes it and the source tensors it has found."""
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
    found = [rule for rule in rules if rule.matches(name)]
    if not found:
        raise ConversionError(f"unexpected tensor {name}")
    if len(found) > 1:
        raise ConversionError(f"tensor {name} matches two rules: {found[0]}; {found[1]}")
    return found[0]


def _writer(rules: Sequence[Rule], target: str) -> Rule:
    found = next((rule for rule in rules if rule.writes(target)), None)
    if found is None:
        raise ConversionError(f"no rule writes tensor {target}")
    return found


def _refuse(names: set[str], what: str) -> None:
    if names:
        others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        raise ConversionError(f"tensor {min(names)} {what}{others}")


def _pull(source: Tensors, name: str, shape: torch.Size) -> Tensor:
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
    """What each star of the pattern stands for in this name; None if it does not match."""
    match = _regex(pattern).fullmatch(name)
    return None if match is None else match.groups()


def _fill(pattern: str, stars: Sequence[str]) -> str:
    rest = iter(stars)
    return _STAR.sub(lambda _: next(rest), pattern)
