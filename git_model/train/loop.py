"""Training, as one explicit loop.

A run is a function of its recipe and its step number. The learning rates, the examples of a step,
their crops, the answers that are drawn and the random numbers of dropout follow from these two, and
from nothing that happened before. So all that a run has learned is in its weights (with the
optimizer's moments, and their running average if there is one), and one that was killed and goes on
ends with the very same bits as one that was not.

Nor does it matter into how many batches a step is cut, or over how many processes it is spread: a
step's loss is the sum over all its tokens to predict, divided by their number.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from git_model.captioner import Captioner
from git_model.checkpoint import TOKENIZER, write_checkpoint
from git_model.data import Batch, Source
from git_model.datasets.feed import Feed
from git_model.datasets.shards import Stream
from git_model.evaluate.predictions import Prediction
from git_model.evaluate.run import BrokenSamples, predict, writes
from git_model.model import GIT
from git_model.ranks import Ranks, joined, sigterm
from git_model.settings import GITError
from git_model.tokenizer import Tokenizer
from git_model.train.learner import (
    Learner,
    nothing_to_learn,
    part_of_step,
    recompute_blocks,
    spread,
)
from git_model.train.optimize import Average, freeze, make_optimizer, schedule, update, whole
from git_model.train.recipe import Recipe
from git_model.train.reports import Report, Taken
from git_model.train.run_state import Learned, agree, load_state, open_folder, save_state
from git_model.train.start import start_of

CHECKPOINT = "checkpoint"

Start = Callable[[Recipe], tuple[GIT, Tokenizer]]


def train(recipe: Recipe, out: Path, *, resume: bool = False) -> None:
    """Train as the recipe says, alone or as one of the processes that torchrun started.

    On SIGTERM the step at hand is finished, the state saved, and the run returns.

    Args:
        out: a new folder. It gets recipe.json, log.jsonl and, replaced from time to time, the
            checkpoint (see checkpoint.py) and the state (see run_state.py).
        resume: go on in the folder of an earlier run of this recipe.

    Raises:
        GITError: a setting does not fit, the data cannot be read, or the loss is no number.
    """
    reports = recipe.reports
    with joined(recipe.compute.device) as ranks, _torch_settings(recipe, ranks), sigterm() as stop:
        agree(recipe, ranks)
        run = Run(recipe, ranks)
        feed = Feed(
            recipe.data.open(), run.tokenizer, run.model.config, recipe.feed, seed=recipe.seed
        )
        open_folder(out, recipe, ranks, resume=resume)
        done = load_state(out, run.learned, ranks) if resume else 0
        steps = feed.steps(done + 1, recipe.steps, ranks.rank, ranks.count)
        told = 0  # of the examples that could not be read
        with Report(out, recipe, done) if ranks.is_first else nullcontext() as report:
            for step, batches in enumerate(steps, done + 1):
                taken = run.step(step, batches)
                new, told = feed.broken[told:], len(feed.broken)
                stopped, n_broken = ranks.gather(stop.asked, len(new)).sum(0).tolist()
                broken = ranks.all_of(new) if n_broken else []
                if report is not None:
                    report.step(step, taken, [one for some in broken for one in some])
                if run.is_time(step, reports.check_every) and not stopped:
                    run.check(out, step, report)
                if run.is_time(step, reports.save_every) or stopped:
                    save_state(out, step, run.learned, ranks)
                if stopped:
                    break


class Run:
    """A model on its way: its weights, and what changes them.

    Args:
        start: makes the model before its first step, and its vocabulary.
    """

    def __init__(self, recipe: Recipe, ranks: Ranks, start: Start = start_of) -> None:
        self.recipe, self.ranks = recipe, ranks
        learning, compute = recipe.learning, recipe.compute
        self.validation = None if recipe.validation is None else recipe.validation.open()
        torch.manual_seed(recipe.seed)
        self.model, self.tokenizer = start(recipe)
        self.model.to(ranks.device).train()
        freeze(self.model, learning.frozen)
        if compute.recompute:
            recompute_blocks(self.model)
        self._learner = spread(Learner(self.model, learning.smoothing), ranks, compute.sharding)
        self.optimizer = make_optimizer(self.model, learning)
        self.average = None if learning.average is None else Average(self.model, learning.average)

    def step(self, step: int, batches: list[Batch]) -> Taken:
        """Learn from this rank's batches of a step.

        Returns:
            what a log wants to know of the step.

        Raises:
            GITError: the loss or its gradient is not finite; the weights are as before.
        """
        learning = self.recipe.learning
        torch.manual_seed(step_seed(self.recipe.seed, step, self.ranks.rank))
        share = schedule(step, self.recipe)
        loss, n_images = self._backward(batches)
        finite = math.isfinite(loss)
        gradient = update(self.optimizer, share, learning.clip_norm) if finite else math.nan
        if not math.isfinite(loss + gradient):
            raise GITError(
                f"step {step}: the loss is {loss} and its gradient has length {gradient}, expected "
                "finite numbers; a lower learning rate or a longer warm-up may help"
            )
        if self.average is not None:
            self.average.update(self.model, step)
        return Taken(loss, n_images, gradient, share)

    def _backward(self, batches: list[Batch]) -> tuple[float, int]:
        """Add up the gradient of the step's loss; the loss and the pictures, of all ranks."""
        ranks = self.ranks
        everyones = ranks.gather(
            sum(batch.n_predicted for batch in batches),
            sum(len(batch.pixels) for batch in batches),
            len(batches),
        )
        n_tokens, n_images, _ = (int(number) for number in everyones.sum(0))
        n_tokens = max(n_tokens, 1)  # not one of the step's examples may be readable
        missing = int(everyones[:, 2].max()) - len(batches)
        batches = batches + [nothing_to_learn(self.model)] * missing
        losses = []
        for number, batch in enumerate(batches, 1):
            with part_of_step(self._learner, last=number == len(batches)):
                part = self._loss(batch.to(ranks.device))
                (part * (ranks.count / n_tokens)).backward()  # whose mean over ranks is taken
            losses.append(part.detach())
        loss = sum(part.item() for part in losses)  # the first time that a GPU is waited for
        return ranks.gather(loss).sum().item() / n_tokens, n_images

    def _loss(self, batch: Batch) -> Tensor:
        half = self.recipe.learning.precision == "bfloat16"
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=half):
            return self._learner(batch)

    def is_time(self, step: int, every: int) -> bool:
        """For what happens every so many steps, and at the end."""
        return step % every == 0 or step == self.recipe.steps

    @property
    def learned(self) -> Learned:
        """All that a step changes."""
        return Learned(self.model, self.optimizer, self.average)

    def check(self, out: Path, step: int, report: Report | None) -> None:
        """Write the checkpoint, and report what it says about the validation data."""
        weights = self.model.state_dict() if self.average is None else self.average.weights
        everything = {name: whole(tensor.detach()).cpu() for name, tensor in weights.items()}
        if report is not None:  # on rank 0
            files = {TOKENIZER: self.tokenizer.to_json()}
            folder = out / CHECKPOINT
            write_checkpoint(folder, self.model.config, everything, files, overwrite=True)
            if self.validation is not None:
                report.check(step, validate(folder, self.validation, self.recipe, self.ranks))
        self.ranks.wait()


def validate(
    folder: Path, source: Source | Stream, recipe: Recipe, ranks: Ranks
) -> list[Prediction]:
    """What a checkpoint says about the first examples of the validation data."""
    git = Captioner.from_pretrained(folder, device=ranks.device)
    broken = BrokenSamples(recipe.feed.broken_limit)
    few = recipe.reports.check_examples
    return predict(git, source, writes(git), limit=few, batch_size=32, broken=broken)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Of the random numbers that a rank draws during a step."""
    return Random(f"{seed} {step} {rank}").getrandbits(63)  # noqa: S311  (dropout, no secrets)


@contextmanager
def _torch_settings(recipe: Recipe, ranks: Ranks) -> Iterator[None]:
    """The recipe's threads while training; threads and random numbers as before, afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.compute.threads or threads)
    gpus = [ranks.device] if ranks.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(gpus), warnings.catch_warnings():
            # FSDP2 warns of what writing into its keys and values would do; nobody does.
            warnings.filterwarnings("ignore", "FSDP2-wrapped module")
            yield
    finally:
        torch.set_num_threads(threads)
