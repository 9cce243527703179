"""A recipe: everything that decides what a training run learns, as a TOML file says it.

configs/train/ has recipes, and tells where their numbers come from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from git_model.config import Style
from git_model.datasets.feed import FeedConfig
from git_model.datasets.sources import DataConfig
from git_model.settings import ConfigError, from_dict, read_mapping, to_dict

Part = Literal["encoder", "temporal", "projector", "decoder"]
Rule = tuple[str, bool, str]  # a field, whether its value is good, what was expected


def _check(config: Any, *rules: Rule) -> None:
    for name, good, expected in rules:
        if not good:
            raise ConfigError(f"{name} is {getattr(config, name)}, expected {expected}")


def _at_least_one(config: Any, *names: str) -> list[Rule]:
    return [(name, getattr(config, name) >= 1, "at least 1") for name in names]


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How the weights follow the loss: AdamW, up a line to the highest rates, down a cosine."""

    encoder_lr: float  # the highest learning rate of the image encoder,
    decoder_lr: float  # and of everything else
    warmup_steps: int = 0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0  # longest gradient, all parameters together
    smoothing: float = 0.0  # of the loss, in the model's style; see `token_losses`
    frozen: tuple[Part, ...] = ()  # what does not learn
    average: float | None = None  # keep this share of a running average of weights at each step
    precision: Literal["float32", "bfloat16"] = "float32"  # of products; weights stay float32

    def __post_init__(self) -> None:
        _check(
            self,
            *((name, getattr(self, name) > 0, "more than 0")
              for name in ("encoder_lr", "decoder_lr", "clip_norm")),
            ("warmup_steps", self.warmup_steps >= 0, "0 or more"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("betas", all(0 <= beta < 1 for beta in self.betas), "each from 0 to below 1"),
            ("smoothing", 0 <= self.smoothing < 1, "0 or more and less than 1"),
            ("average", self.average is None or 0 < self.average < 1, "between 0 and 1"),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Compute:
    """On what a run computes. It may go on with other values: it then learns the same, but for
    the rounding of sums that are taken in another order."""

    device: str = "auto"  # auto: a GPU if there is one; with torchrun, each process has its own
    threads: int | None = None  # of torch on a CPU; None: as many as it likes
    sharding: Literal["none", "fsdp"] = "none"  # fsdp: each process holds a part of the weights
    recompute: bool = False  # forget what blocks computed until the way back: less memory, slower

    def __post_init__(self) -> None:
        few = self.threads is None or 1 <= self.threads <= 1024
        _check(self, ("threads", few, "from 1 to 1024"))


@dataclass(frozen=True, kw_only=True)
class Reports:
    """What a run tells and keeps on its way. It may go on with other values."""

    log_every: int = 50  # steps
    check_every: int = 1000  # steps to the next checkpoint, and validation if there is any
    check_examples: int = 200  # of the validation data, the first ones
    show: int = 3  # of the texts that a check writes, to look at
    save_every: int = 1000  # steps to the next state from which the run can go on
    tensorboard: bool = False  # write its files, too; needs the extra of that name

    def __post_init__(self) -> None:
        names = ("log_every", "check_every", "check_examples", "save_every")
        _check(self, *_at_least_one(self, *names), ("show", self.show >= 0, "0 or more"))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run. It starts from random weights of a `model`, or from a `checkpoint`."""

    model: str | None = None  # one of configs/model, or a .toml file like those
    initial: Literal["bert", "by_width"] = "bert"  # which random weights, see start.py
    checkpoint: str | None = None  # anything that `Captioner.from_pretrained` opens
    tokenizer: str | None = None  # a folder with a vocabulary, or "shapes"; None: the checkpoint's
    style: Style | None = None  # None: as the model says
    frames: int | None = None  # most of a clip; None: as the model says, 0: images only
    seed: int = 0  # of all that is random
    steps: int
    data: DataConfig
    feed: FeedConfig
    validation: DataConfig | None = None
    learning: Learning
    compute: Compute = field(default_factory=Compute)
    reports: Reports = field(default_factory=Reports)

    def __post_init__(self) -> None:
        _check(
            self,
            *_at_least_one(self, "steps"),
            ("seed", 0 <= self.seed < 2**63, "0 or more, of at most 63 bits"),
            ("frames", self.frames is None or self.frames >= 0, "0 or more"),
            (
                "initial",
                self.initial == "bert" or self.checkpoint is None,
                "bert: a checkpoint has its weights",
            ),
        )
        if (self.model is None) == (self.checkpoint is None):
            raise ConfigError("give either model (random weights) or checkpoint, where to start")
        if self.model is not None and self.tokenizer is None:
            raise ConfigError("tokenizer is missing: random weights come without a vocabulary")
        if self.learning.warmup_steps >= self.steps:
            raise ConfigError(
                f"learning: warmup_steps is {self.learning.warmup_steps}, expected fewer than "
                f"steps {self.steps}"
            )


FREE = ("validation", "compute", "reports")  # tables that a run may change when it goes on


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file.

    Raises:
        ConfigError: the file is missing or damaged, or a key or value is wrong; it is named.
    """
    return from_dict(Recipe, read_mapping(path), str(path))


def difference(one: Recipe, other: Recipe, *, but: Sequence[str] = ()) -> str | None:
    """Where two recipes first differ, such as "learning.encoder_lr is 0.1 and 0.2"; None: nowhere.

    Args:
        but: tables to leave out.
    """
    left, right = (
        {name: value for name, value in to_dict(recipe).items() if name not in but}
        for recipe in (one, other)
    )
    return _first_difference(left, right)


def _first_difference(one: Any, other: Any, where: str = "") -> str | None:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in {**one, **other}:
            inside = f"{where}.{name}" if where else name
            found = _first_difference(one.get(name), other.get(name), inside)
            if found is not None:
                return found
        return None
    return None if one == other else f"{where} is {one} and {other}"
