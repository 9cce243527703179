"""Training: one explicit loop over the procedural world, every picture of it seen once."""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal, Self

import torch
from torch import nn
from tqdm import tqdm

from git_model.captioner import Captioner
from git_model.checkpoint import TOKENIZER, CheckpointError, write_checkpoint
from git_model.config import DecodingOptions, GITConfig, Style, named_config
from git_model.data import Batch, Example, Target, collate, lesson_of
from git_model.decoding import generate
from git_model.devices import usable_device
from git_model.loss import batch_loss
from git_model.model import GIT
from git_model.settings import ConfigError
from git_model.shapes import describe, draw, make_world, vocabulary
from git_model.tokenizer import Tokenizer

LOG, CHECKPOINT = "log.jsonl", "checkpoint"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A recipe; configs/train/demo.toml says where its numbers come from."""

    model: str  # one of configs/model
    steps: int
    batch_size: int
    encoder_lr: float  # the highest learning rate of the image encoder,
    decoder_lr: float  # and of everything else
    warmup_steps: int = 0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0
    smoothing: float = 0.0
    style: Style = "huggingface"  # which smoothing, see `caption_loss`
    precision: Literal["float32", "bfloat16"] = "float32"  # of products; weights stay float32
    device: str = "cpu"
    threads: int | None = None  # of torch; None: as many as it likes
    seed: int = 0  # of the first weights and of dropout
    log_every: int = 50  # steps
    check_every: int = 1000  # steps from one check to the next
    check_worlds: int = 200  # held-out worlds that a check captions

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "check_every", "check_worlds"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("encoder_lr", "decoder_lr", "clip_norm"):
            self._require(name, getattr(self, name) > 0, "more than 0")
        self._require("warmup_steps", 0 <= self.warmup_steps < self.steps, "fewer than steps")
        self._require("weight_decay", self.weight_decay >= 0, "0 or more")
        self._require("betas", all(0 <= beta < 1 for beta in self.betas), "each from 0 to below 1")
        self._require("smoothing", 0 <= self.smoothing < 1, "0 or more and less than 1")
        threads = self.threads is None or 1 <= self.threads <= 1024
        self._require("threads", threads, "from 1 to 1024")
        self._require("seed", abs(self.seed) < 2**63, "a number of at most 63 bits")

    def _require(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise ConfigError(f"train: {name} is {getattr(self, name)}, expected {expected}")


def train(config: TrainConfig, out: Path) -> Captioner:
    """Train a model from random weights.

    The same recipe gives the same weights again on the same machine and version of torch.

    Args:
        out: a new folder. It gets log.jsonl and, replaced at every check, the checkpoint.

    Raises:
        GITError: a setting does not fit or `out` is in the way; nothing was trained then.
    """
    with _torch_settings(config):
        git = new_captioner(config)
        optimizer = torch.optim.AdamW(parameter_groups(git.model, config), betas=config.betas)
        with _Log(out, config) as log:
            for step in range(1, config.steps + 1):
                share = schedule(step, config)
                numbers = range((step - 1) * config.batch_size, step * config.batch_size)
                batch = world_batch(numbers, git.tokenizer, git.model.config)
                loss = train_step(git.model, optimizer, batch.to(config.device), config, share)
                log.step(step, loss, share)
                if step % config.check_every == 0 or step == config.steps:
                    log.check(step, exact_match(git, config.check_worlds))
                    save(git, out / CHECKPOINT)
    return git


def new_captioner(config: TrainConfig) -> Captioner:
    """An untrained model with the world's vocabulary.

    Raises:
        ConfigError: the model has room for another number of words.
    """
    model = named_config(config.model)
    words = vocabulary()
    if model.decoder.vocab_size != len(words):
        raise ConfigError(
            f"{config.model}: vocab_size is {model.decoder.vocab_size}, expected {len(words)}, "
            "the size of the vocabulary in shapes.py"
        )
    git = Captioner(GIT(model), Tokenizer.from_vocab(words))
    initialize_narrow(git.model)
    git.model.to(usable_device(config.device))
    return git


@torch.no_grad()
def initialize_narrow(model: GIT) -> None:
    """First weights for a model much narrower than BERT, in place of its N(0, 0.02).

    N(0, 1 / inputs) keeps what passes through a layer at its size, as 0.02 does for about 2,500
    inputs; with 128 the model hardly notices its own layers. Positions get the size of what the
    patches bring. Without this the demo's loss is twice as high after 400 steps.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.normal_(std=module.in_features**-0.5)
    model.encoder.position.normal_(std=0.3)


def parameter_groups(model: GIT, config: TrainConfig) -> list[dict[str, Any]]:
    """Every parameter once, by its learning rate and by whether it decays.

    Weights that multiply decay. Norms, biases, embeddings, positions and the class token do not:
    they are added or looked up, and a smaller one is no simpler.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        rate = config.encoder_lr if name.startswith("encoder.") else config.decoder_lr
        added = any(part in name for part in ("token", "position", "temporal"))
        decay = 0.0 if added or parameter.ndim < 2 else config.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "highest_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def schedule(step: int, config: TrainConfig) -> float:
    """The share of the highest learning rates at a step, counted from 1: up a line, down a cosine.

    Source: paper, section 4.1 (a cosine to 0).
    """
    if step <= config.warmup_steps:
        return step / config.warmup_steps
    done = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
    return 0.5 + 0.5 * math.cos(math.pi * done)


def train_step(
    model: GIT, optimizer: torch.optim.Optimizer, batch: Batch, config: TrainConfig, share: float
) -> float:
    """Learn from a batch at this share of the highest learning rates; the loss before that."""
    for group in optimizer.param_groups:
        group["lr"] = share * group["highest_lr"]
    model.train()
    kind, half = torch.device(config.device).type, config.precision == "bfloat16"
    with torch.autocast(kind, torch.bfloat16, enabled=half):
        total = batch_loss(model, batch, smoothing=config.smoothing, style=config.style)
    loss = total / batch.n_predicted
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    optimizer.step()
    return loss.item()


def world_batch(
    numbers: Iterable[int], tokenizer: Tokenizer, config: GITConfig, *, held_out: bool = False
) -> Batch:
    """The worlds of these numbers, drawn and described."""
    lessons = []
    for number in numbers:
        world = make_world(number, held_out=held_out)
        example = Example(str(number), draw(world), (Target((describe(world),)),))
        luck, longest = Random(number), config.decoder.positions  # noqa: S311
        lessons.append(lesson_of(example, tokenizer, config, luck=luck, max_tokens=longest))
    return collate(lessons, config.pad_id)


@torch.inference_mode()
def exact_match(git: Captioner, n_worlds: int, *, batch_size: int = 100) -> float:
    """The share of the first held-out worlds that greedy decoding captions exactly right."""
    model = git.model.eval()
    config = model.config
    options = DecodingOptions(max_new_tokens=config.decoder.positions - 1)  # all after the start
    right = 0
    for first in range(0, n_worlds, batch_size):
        numbers = range(first, min(first + batch_size, n_worlds))
        batch = world_batch(numbers, git.tokenizer, config, held_out=True)
        scene = model.see(batch.pixels.to(model.decoder.output_bias.device))
        found = generate(model, scene, [[config.bos_id]] * len(numbers), options)
        for [best], tokens, mask in zip(found, batch.tokens, batch.mask, strict=True):
            right += best.tokens == tokens[mask].tolist()
    return right / n_worlds


def save(git: Captioner, folder: Path) -> None:
    """Write a checkpoint, vocabulary and all, in place of the one before."""
    files = {TOKENIZER: git.tokenizer.to_json()}
    write_checkpoint(folder, git.model.config, git.model.state_dict(), files, overwrite=True)


@contextmanager
def _torch_settings(config: TrainConfig) -> Iterator[None]:
    """The recipe's threads and seed while training; as they were before, afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads or threads)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            yield
    finally:
        torch.set_num_threads(threads)


class _Log:
    """log.jsonl in a new folder, and a progress bar on stderr.

    Raises:
        CheckpointError: the folder is already there, or cannot be made.
    """

    def __init__(self, out: Path, config: TrainConfig) -> None:
        self._out = out
        self._config = config
        self._losses: list[float] = []
        self._since = 0.0

    def step(self, step: int, loss: float, share: float) -> None:
        """Count a step; every so often write the mean loss since the last line."""
        self._bar.update()
        self._losses.append(loss)
        if step % self._config.log_every:
            return
        mean = sum(self._losses) / len(self._losses)
        now = time.perf_counter()
        speed = len(self._losses) * self._config.batch_size / (now - self._since)
        self._bar.set_postfix(loss=f"{mean:.4f}", images_per_s=f"{speed:.0f}")
        rates = {"encoder_lr": share * self._config.encoder_lr}
        rates["decoder_lr"] = share * self._config.decoder_lr
        self._write(step=step, loss=mean, **rates, images_per_s=speed)
        self._losses, self._since = [], now

    def check(self, step: int, exact: float) -> None:
        """Write the share of captions that are exactly right."""
        self._bar.write(f"step {step}: {exact:.1%} of held-out captions are right", sys.stderr)
        self._write(step=step, exact=exact)
        self._since = time.perf_counter()  # images_per_s speaks of training only

    def _write(self, **values: Any) -> None:
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        try:
            self._out.mkdir(parents=True)
            self._file = (self._out / LOG).open("w", encoding="utf-8")
        except FileExistsError:
            raise CheckpointError(f"{self._out}: already exists; name a new folder") from None
        except OSError as error:
            raise CheckpointError(f"{self._out}: cannot be written: {error}") from None
        self._bar = tqdm(total=self._config.steps, unit="step", dynamic_ncols=True)
        self._since = time.perf_counter()
        self._write(recipe=dataclasses.asdict(self._config))
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._file.close()
