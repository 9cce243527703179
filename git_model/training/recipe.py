"""A recipe: all settings of a training run, as a TOML file.

configs/train/ holds recipes that name the source of their numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from git_model.checkpoints.adapters import AdapterConfig
from git_model.config import Style
from git_model.data.example import Source, Stream
from git_model.data.loader import LoaderConfig
from git_model.data.sources import DataConfig
from git_model.utils.errors import ConfigError
from git_model.utils.serialize import from_dict, read_mapping, to_dict

ModelPart = Literal["encoder", "temporal_embedding", "projector", "decoder"]
TrackerName = Literal["tensorboard", "wandb", "trackio"]
# The metrics that can select `best` and stop a run early.
CHECK_METRICS = (
    "validation loss",
    *(f"captions {name}" for name in
      ("exact", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "cider_plain")),
    "questions exact",
    "questions vqa",
)  # fmt: skip
FieldRule = tuple[str, bool, str]  # a field, whether its value is valid, what was expected


def _check(config: Any, *rules: FieldRule) -> None:
    for name, valid, expected in rules:
        if not valid:
            raise ConfigError(f"{name} is {getattr(config, name)}, expected {expected}")


def _require_finite(value: Any, where: str = "") -> None:
    """Refuse inf and nan as a number of any key. Arguments of the user's own objects may be so."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} is {value}, expected a finite number")
    if isinstance(value, dict):
        for name, item in value.items():
            if not name.endswith("arguments"):
                _require_finite(item, f"{where}.{name}" if where else name)
    if isinstance(value, list | tuple):
        for item in value:
            _require_finite(item, where)


def _at_least_one(config: Any, *names: str) -> list[FieldRule]:
    return [(name, getattr(config, name) >= 1, "at least 1") for name in names]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer, AdamW by default, and the learning-rate schedule after a linear warm-up."""

    encoder_lr: float  # peak learning rate of the image encoder
    decoder_lr: float  # peak learning rate of everything else
    # after the warm-up: cosine decay to 0; constant; or constant until the last `cooldown_steps`,
    # which decay linearly to 0
    schedule: Literal["cosine", "constant", "cooldown"] = "cosine"
    warmup_steps: int = 0  # steps of the linear warm-up
    cooldown_steps: int = 0  # steps of the linear decay at the end, with schedule cooldown
    weight_decay: float = 0.01  # applied to weight matrices, not to norms, biases, embeddings
    betas: tuple[float, float] = (0.9, 0.999)  # decay of AdamW's two moments
    max_grad_norm: float = 1.0  # gradients are clipped to this norm, all parameters together
    # share of the target distribution that goes to other tokens, in the form of the model's style
    label_smoothing: float = 0.0
    frozen: tuple[ModelPart, ...] = ()  # parts that are not trained
    encoder_last: int | None = None  # number of the encoder's last blocks to train; None: all
    # number of the decoder's last blocks to train, with the layers after them; None: all
    decoder_last: int | None = None
    # the encoder's learning rate is multiplied by this once for each layer above a weight (blocks,
    # and the final norm), so that the first layers change least; None: one rate for all
    layer_decay: float | None = None
    ema: float | None = None  # decay of an exponential moving average of the weights
    # precision of matrix products (autocast); weights stay float32
    precision: Literal["float32", "bfloat16"] = "float32"
    optimizer: str = "adamw"  # adamw, or a dotted name such as torch.optim.SGD
    # keyword arguments of an optimizer by dotted name; its first argument is the parameter groups
    optimizer_arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cooldown = self.schedule == "cooldown"
        share = self.layer_decay
        own = self.optimizer != "adamw"
        _check(
            self,
            *((name, getattr(self, name) > 0, "more than 0")
              for name in ("encoder_lr", "decoder_lr", "max_grad_norm")),
            ("warmup_steps", self.warmup_steps >= 0, "0 or more"),
            ("cooldown_steps", self.cooldown_steps >= 1 or not cooldown,
             "at least 1 with schedule cooldown"),
            ("cooldown_steps", self.cooldown_steps == 0 or cooldown,
             f"0: schedule is {self.schedule}, not cooldown"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("betas", all(0 <= beta < 1 for beta in self.betas), "each from 0 to below 1"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "0 or more and less than 1"),
            *((name, (getattr(self, name) or 0) >= 0, "0 or more")
              for name in ("encoder_last", "decoder_last")),
            ("layer_decay", share is None or 0 < share <= 1, "more than 0 and at most 1"),
            ("ema", self.ema is None or 0 < self.ema < 1, "between 0 and 1"),
            ("betas", not own or self.betas == (0.9, 0.999),
             f"the default: {self.optimizer} takes optimizer_arguments"),
            ("optimizer_arguments", own or not self.optimizer_arguments,
             "none: adamw takes betas and weight_decay"),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CrossEntropyConfig:
    """Cross-entropy of each next token of the reference text (teacher forcing)."""

    kind: Literal["cross_entropy"] = "cross_entropy"


@dataclass(frozen=True, kw_only=True)
class ScstConfig:
    """Self-critical sequence training (Rennie et al. 2017): REINFORCE with the CIDEr-D of sampled
    captions as reward. For data sets of captions, after training with cross-entropy."""

    kind: Literal["scst"] = "scst"
    samples: int = 5  # captions drawn for each image; the image is encoded once for all of them
    # the number that is subtracted from a sample's reward: mean, the mean reward of the image's
    # other samples (Luo 2020); greedy, the reward of the greedy caption (Rennie et al. 2017)
    baseline: Literal["mean", "greedy"] = "mean"
    max_new_tokens: int = 20  # maximum number of tokens of a sample
    # a file of references, as for `evaluate --references`, for counting the n-grams of CIDEr-D;
    # None: the first `counted` training examples
    references: str | None = None
    counted: int = 2000  # training examples whose references are counted

    def __post_init__(self) -> None:
        lone = self.baseline == "mean" and self.samples < 2
        _check(
            self,
            *_at_least_one(self, "samples", "max_new_tokens"),
            ("samples", not lone, "at least 2: baseline mean compares samples with each other"),
            ("counted", self.counted >= 2, "at least 2"),
        )


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Knowledge distillation (Hinton et al. 2015), token by token: cross-entropy, and the
    divergence of the model's distribution from a teacher's."""

    kind: Literal["distillation"] = "distillation"
    teacher: str  # a checkpoint with the same vocabulary and image size
    weight: float = 0.5  # share of the divergence in the loss; the rest is cross-entropy
    temperature: float = 2.0  # temperature that softens both distributions

    def __post_init__(self) -> None:
        _check(
            self,
            ("weight", 0 < self.weight <= 1, "more than 0 and at most 1"),
            ("temperature", self.temperature > 0, "more than 0"),
        )


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """Cross-entropy plus a contrastive loss between images and texts (InfoNCE, as in CLIP and
    CoCa): each image against the other images of its forward pass."""

    kind: Literal["contrastive"] = "contrastive"
    weight: float = 0.1  # factor of the contrastive loss, which is added to cross-entropy
    temperature: float = 0.07  # divides the cosine similarities

    def __post_init__(self) -> None:
        _check(self, *((name, getattr(self, name) > 0, "more than 0")
                       for name in ("weight", "temperature")))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PythonLossConfig:
    """Your own loss."""

    kind: Literal["python"] = "python"
    loss: str  # the dotted name of a function (model, batch) -> summed loss, or of a class
    # keyword arguments of the class, or of the function in addition to model and batch
    arguments: dict[str, Any] = field(default_factory=dict)


LossConfig = (
    CrossEntropyConfig | ScstConfig | DistillationConfig | ContrastiveConfig | PythonLossConfig
)


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Which checkpoint is kept as `best`, and when a run stops early."""

    # "validation loss", or a task and a metric such as "captions cider_d"; None: CIDEr-D of
    # captions with several references, otherwise exact match
    metric: str | None = None
    patience: int | None = None  # checks without improvement that end the run; None: no early stop
    min_delta: float = 0.0  # a score must be better than the best one by more than this

    def __post_init__(self) -> None:
        _check(
            self,
            ("metric", self.metric in (None, *CHECK_METRICS),
             f"one of {', '.join(CHECK_METRICS)}"),
            ("patience", self.patience is None or self.patience >= 1, "at least 1"),
            ("min_delta", self.min_delta >= 0, "0 or more"),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """The hardware of a run. A resumed run may have other values; its weights are then the same up
    to the rounding of sums in another order."""

    device: str = "auto"  # auto: a GPU if there is one; with torchrun, each process has its own
    threads: int | None = None  # CPU threads of torch; None: torch's default
    sharding: Literal["none", "fsdp"] = "none"  # fsdp: each process holds a part of the weights
    activation_checkpointing: bool = False  # recompute activations in the backward pass
    # compute the tokens of a frozen encoder once for each image, and store them on the disk
    cache_features: bool = False

    def __post_init__(self) -> None:
        valid = self.threads is None or 1 <= self.threads <= 1024
        _check(self, ("threads", valid, "from 1 to 1024"))


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What a run logs and saves, and when. A resumed run may have other values."""

    log_every: int = 50  # steps between lines of the log
    check_every: int = 1000  # steps between checks: a checkpoint, and its scores on [validation]
    check_examples: int = 200  # number of the first validation examples that a check uses
    show: int = 3  # validation texts to print
    save_every: int = 1000  # steps between states from which the run can resume
    trackers: tuple[TrackerName, ...] = ()  # trackers that also get the log; each needs its extra
    project: str = "git-model"  # name of the project in wandb and trackio

    def __post_init__(self) -> None:
        names = ("log_every", "check_every", "check_examples", "save_every")
        _check(
            self,
            *_at_least_one(self, *names),
            ("show", self.show >= 0, "0 or more"),
            ("trackers", len(set(self.trackers)) == len(self.trackers), "each once"),
            ("project", bool(self.project.strip()), "a name"),
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run. It starts from random weights of a `model`, or from a `checkpoint`."""

    # a name in configs/model (demo, emoji, stamps, git_base, git_large, …), or a .toml file of the
    # same form
    model: str | None = None
    # random weights: bert, N(0, 0.02); by_width, a standard deviation of 1 / sqrt(fan in), for
    # narrow models
    initial: Literal["bert", "by_width"] = "bert"
    checkpoint: str | None = None  # anything that `Captioner.from_pretrained` opens
    tokenizer: str | None = None  # a folder with a vocabulary, or "shapes"; None: the checkpoint's
    style: Style | None = None  # which reference to follow; None: the model's style
    frames: int | None = None  # number of temporal embeddings; None: the model's, 0: images only
    purpose: str = ""  # what the model is for, in a line; it is stored with the checkpoint
    purpose_side: int = 0  # pixels a side of the largest image it is for; 0: of any size
    seed: int = 0  # seed of all random numbers
    # number of updates of the weights; the learning rates depend on it, so a run cannot be resumed
    # with another number
    steps: int
    data: DataConfig | None = None  # the training data; None: `train(…, source=)`
    loader: LoaderConfig  # how the data become steps
    # data of the same kinds, for the scores of checks; None: no scores and no `best`
    validation: DataConfig | None = None
    learning: OptimConfig  # optimizer and schedule
    adapter: AdapterConfig | None = None  # the adapter to train; None: train the model's weights
    loss: LossConfig = field(default_factory=CrossEntropyConfig)  # None: cross-entropy
    # which check is `best`, and when to end early; None: the highest CIDEr-D or exact match
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)  # the hardware
    reports: ReportConfig = field(default_factory=ReportConfig)  # logs and checkpoints

    def __post_init__(self) -> None:
        _require_finite(to_dict(self))
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
        self._check_steps()
        self._check_tables()
        if self.adapter is not None:
            self._require_base()
        for part in ("encoder", "decoder"):
            if part in self.learning.frozen and getattr(self.learning, f"{part}_last") is not None:
                raise ConfigError(f"learning: {part}_last has no effect: frozen has {part}")

    def _check_steps(self) -> None:
        learning = self.learning
        if learning.warmup_steps >= self.steps:
            raise ConfigError(
                f"learning: warmup_steps is {learning.warmup_steps}, expected fewer than "
                f"steps {self.steps}"
            )
        if learning.warmup_steps + learning.cooldown_steps > self.steps:
            raise ConfigError(
                f"learning: cooldown_steps is {learning.cooldown_steps}, expected at most the "
                f"{self.steps - learning.warmup_steps} steps after the warm-up"
            )

    def _check_tables(self) -> None:
        """Refuse settings that would have no effect, and combinations that are not possible."""
        selection, smoothing = self.selection, self.learning.label_smoothing
        if self.validation is None and selection != SelectionConfig():
            raise ConfigError("selection needs scores: add a table [validation]")
        if isinstance(self.loss, ScstConfig | PythonLossConfig) and smoothing:
            raise ConfigError(
                f"learning: label_smoothing is {smoothing}, expected 0: loss {self.loss.kind} has "
                "none"
            )
        n_images = min(self.loader.batch_size, self.loader.micro_batch or self.loader.batch_size)
        if isinstance(self.loss, ContrastiveConfig) and n_images < 2:
            raise ConfigError(
                "loader: a forward pass has one image, expected several: loss contrastive "
                "compares them"
            )
        if isinstance(self.loss, ScstConfig) and self.compute.sharding == "fsdp":
            raise ConfigError("compute: sharding is fsdp, expected none with loss scst")
        if self.compute.cache_features and "encoder" not in self.learning.frozen:
            raise ConfigError("compute: cache_features needs a frozen encoder: learning.frozen")
        if self.compute.cache_features and self.compute.sharding == "fsdp":
            raise ConfigError("compute: sharding is fsdp, expected none with cache_features")
        if self.compute.cache_features and self.loader.augment is not None:
            raise ConfigError(
                "compute: cache_features is true, but loader.augment changes every image: leave "
                "one of them out"
            )

    def open_data(self) -> Source | Stream:
        """The training data.

        Raises:
            ConfigError: the recipe has none, or it cannot be read.
        """
        if self.data is None:
            raise ConfigError("data is missing: add a table [data], or give `train` a source")
        return self.data.open()

    def _require_base(self) -> None:
        """An adapter belongs to a model that others can open, too."""
        if self.checkpoint is None:
            raise ConfigError("adapter: needs a checkpoint, the model that it belongs to")
        for name in ("tokenizer", "frames"):
            if getattr(self, name) is not None:
                raise ConfigError(f"adapter: the checkpoint stays as it is, so leave {name} out")
        for name in ("encoder_last", "decoder_last"):
            if getattr(self.learning, name) is not None:
                raise ConfigError(f"adapter: it has its own `last`, so leave learning.{name} out")


# Tables that may change when a run resumes.
MUTABLE = ("validation", "selection", "compute", "reports")


def read_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file.

    Args:
        settings: changes, such as "learning.decoder_lr=3e-4"; see overrides.py.

    Raises:
        SettingError: a key or value of `settings` is wrong; the message names it.
        ConfigError: the file is missing or damaged, or has a wrong key or value.
    """
    from git_model.training.overrides import SettingError, with_settings

    table = read_mapping(path)
    changed = with_settings(table, settings)
    if not settings:
        return from_dict(Recipe, table, str(path))
    try:
        return from_dict(Recipe, changed, f"{path} with --set")
    except ConfigError as error:
        try:
            from_dict(Recipe, table, str(path))
        except ConfigError:
            raise error from None  # the file is wrong by itself
        raise SettingError(str(error)) from None


def difference(left: Recipe, right: Recipe, *, ignore: Sequence[str] = ()) -> str | None:
    """The first difference of two recipes, such as "learning.encoder_lr is 0.1 and 0.2", or None.

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
