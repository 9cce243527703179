"""A recipe: everything that decides what a training run learns, as a TOML file.

configs/train/ holds recipes, with the source of their numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from git_model.checkpoints.adapters import AdapterConfig
from git_model.config import Style
from git_model.data.loader import LoaderConfig
from git_model.data.sources import DataConfig
from git_model.utils.errors import ConfigError
from git_model.utils.serialize import from_dict, read_mapping, to_dict

ModelPart = Literal["encoder", "temporal_embedding", "projector", "decoder"]
FieldRule = tuple[str, bool, str]  # a field, whether its value is valid, what was expected


def _check(config: Any, *rules: FieldRule) -> None:
    for name, valid, expected in rules:
        if not valid:
            raise ConfigError(f"{name} is {getattr(config, name)}, expected {expected}")


def _at_least_one(config: Any, *names: str) -> list[FieldRule]:
    return [(name, getattr(config, name) >= 1, "at least 1") for name in names]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer: AdamW, linear warm-up, then cosine decay."""

    encoder_lr: float  # peak learning rate of the image encoder
    decoder_lr: float  # peak learning rate of everything else
    warmup_steps: int = 0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0  # gradients are clipped to this norm, all parameters together
    label_smoothing: float = 0.0  # in the model's style; see `token_losses`
    frozen: tuple[ModelPart, ...] = ()  # parts that are not trained
    ema: float | None = None  # decay of an exponential moving average of the weights
    # of matrix products (autocast); weights stay float32
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        _check(
            self,
            *((name, getattr(self, name) > 0, "more than 0")
              for name in ("encoder_lr", "decoder_lr", "max_grad_norm")),
            ("warmup_steps", self.warmup_steps >= 0, "0 or more"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("betas", all(0 <= beta < 1 for beta in self.betas), "each from 0 to below 1"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "0 or more and less than 1"),
            ("ema", self.ema is None or 0 < self.ema < 1, "between 0 and 1"),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """The hardware of a run. A resumed run may use other values: its weights are then the same, up
    to the rounding of sums in another order."""

    device: str = "auto"  # auto: a GPU if there is one; with torchrun, each process has its own
    threads: int | None = None  # of torch on a CPU; None: torch's default
    sharding: Literal["none", "fsdp"] = "none"  # fsdp: each process holds a part of the weights
    activation_checkpointing: bool = False  # recompute activations in the backward pass

    def __post_init__(self) -> None:
        valid = self.threads is None or 1 <= self.threads <= 1024
        _check(self, ("threads", valid, "from 1 to 1024"))


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What a run logs and saves, and when. A resumed run may use other values."""

    log_every: int = 50  # steps
    check_every: int = 1000  # steps between checkpoints, and validations on [validation]
    check_examples: int = 200  # of the validation data, the first ones
    show: int = 3  # validation texts to print
    save_every: int = 1000  # steps between states from which the run can resume
    tensorboard: bool = False  # write event files; needs the extra `tensorboard`

    def __post_init__(self) -> None:
        names = ("log_every", "check_every", "check_examples", "save_every")
        _check(self, *_at_least_one(self, *names), ("show", self.show >= 0, "0 or more"))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run. It starts from random weights of a `model`, or from a `checkpoint`."""

    model: str | None = None  # one of configs/model, or a .toml file like those
    initial: Literal["bert", "by_width"] = "bert"  # see initialization.py
    checkpoint: str | None = None  # anything that `Captioner.from_pretrained` opens
    tokenizer: str | None = None  # a folder with a vocabulary, or "shapes"; None: the checkpoint's
    style: Style | None = None  # None: as the model says
    frames: int | None = None  # temporal embeddings; None: as the model has, 0: images only
    purpose: str = ""  # what the model is for, in a line; it is stored with the checkpoint
    purpose_side: int = 0  # pixels a side of the largest image it is for; 0: of any size
    seed: int = 0  # of all random numbers
    steps: int
    data: DataConfig
    loader: LoaderConfig
    validation: DataConfig | None = None
    learning: OptimConfig
    adapter: AdapterConfig | None = None  # None: train the weights themselves
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    reports: ReportConfig = field(default_factory=ReportConfig)

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
            raise ConfigError("give either model (random weights) or checkpoint, to start from")
        if self.model is not None and self.tokenizer is None:
            raise ConfigError("tokenizer is missing: random weights come without a vocabulary")
        if self.adapter is not None:
            self._require_base()
        if self.learning.warmup_steps >= self.steps:
            raise ConfigError(
                f"learning: warmup_steps is {self.learning.warmup_steps}, expected fewer than "
                f"steps {self.steps}"
            )

    def _require_base(self) -> None:
        """An adapter belongs to a model that others can open, too."""
        if self.checkpoint is None:
            raise ConfigError("adapter: needs a checkpoint, the model that it belongs to")
        for name in ("tokenizer", "frames"):
            if getattr(self, name) is not None:
                raise ConfigError(f"adapter: the checkpoint stays as it is, so leave {name} out")


MUTABLE = ("validation", "compute", "reports")  # tables that may change when a run resumes


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file.

    Raises:
        ConfigError: the file is missing or damaged, or a key or value is wrong; it is named.
    """
    return from_dict(Recipe, read_mapping(path), str(path))


def difference(left: Recipe, right: Recipe, *, ignore: Sequence[str] = ()) -> str | None:
    """Where two recipes first differ, such as "learning.encoder_lr is 0.1 and 0.2"; None: nowhere.

    Args:
        ignore: tables to leave out.
    """
    tables = [
        {name: value for name, value in to_dict(recipe).items() if name not in ignore}
        for recipe in (left, right)
    ]
    return _first_difference(tables[0], tables[1])


def _first_difference(left: Any, right: Any, where: str = "") -> str | None:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for name in {**left, **right}:
            inside = f"{where}.{name}" if where else name
            description = _first_difference(left.get(name), right.get(name), inside)
            if description is not None:
                return description
        return None
    return None if left == right else f"{where} is {left} and {right}"
