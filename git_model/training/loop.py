"""Training, as one explicit loop.

A run is a function of its recipe and its step number. These two alone determine the learning rates,
the examples of a step, their crops, the answers that are drawn, and the random numbers of dropout.
So the state of a run is its weights, the optimizer's moments, the moving average if the recipe has
one, and the best score so far. A run that was killed and resumed ends with the same bits as one
that was not.

A step's loss is the sum over all its tokens to predict, divided by their number. So it does not
depend on the number of batches or processes among which the step is divided.
"""

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from git_model.checkpoints.adapters import (
    adapter_tensors,
    add_adapter,
    base_of,
    write_adapter,
)
from git_model.checkpoints.native import TOKENIZER, require_digests, write_checkpoint
from git_model.data.collation import Batch
from git_model.data.example import Source, Stream
from git_model.data.loader import StepLoader
from git_model.data.sources import untaken_files
from git_model.data.untaken import untaken_line
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.callbacks import Callback, call_all, require_callbacks, restore, states_of
from git_model.training.features import FEATURES, FeatureCache, require_cachable
from git_model.training.initialization import initial_model
from git_model.training.lock import lock_folder
from git_model.training.loss import CrossEntropy, Loss, LossModule, LossOutput, units_of
from git_model.training.losses import open_loss, require_loss
from git_model.training.optimizer import (
    EMA,
    MakeOptimizer,
    freeze,
    full_tensor,
    make_optimizer,
    schedule,
    update,
)
from git_model.training.own_source import checked
from git_model.training.parallel import (
    checkpoint_activations,
    empty_batch,
    gradient_sync,
    parallelize,
)
from git_model.training.recipe import CrossEntropyConfig, Recipe
from git_model.training.reports import Report, StepStats
from git_model.training.scst import Scst
from git_model.training.selection import Selection, keep_best
from git_model.training.state import (
    CHECKPOINT,
    TrainState,
    load_progress,
    load_state,
    open_run_folder,
    remove_leftovers,
    require_same_recipe,
    save_state,
)
from git_model.training.trackers import require_trackers
from git_model.training.validation import require_validation, validate
from git_model.utils.distributed import ProcessGroup, StopRequest, init, stop_on_signals
from git_model.utils.dotted import dotted_name, name_with_arguments
from git_model.utils.errors import ConfigError, GITError

Initializer = Callable[[Recipe], tuple[GIT, Tokenizer]]


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    source: Source | Stream | None = None,
    loss: Loss | None = None,
    optimizer: MakeOptimizer | None = None,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train by a recipe, in one process or as one of those that torchrun started.

    On SIGTERM the run finishes its current step, saves the state and returns. Ctrl-C does the same,
    and then raises KeyboardInterrupt.

    A resumed run ends with the same bits as one that was not killed. For your own objects this
    holds if they are pure functions of their arguments; docs/trainer.md has the condition for each
    kind. A run that was started with a source, a loss or an optimizer must be resumed with one of
    the same name.

    Args:
        out: a new folder. The run writes recipe.json, log.jsonl, the latest checkpoint (see
            checkpoints/native.py), the best checkpoint, and the last states (see state.py).
        resume: continue in the folder of an earlier run of this recipe.
        source: training data in place of the recipe's table [data].
        loss: a function (model, batch) in place of the recipe's table [loss]; see `Loss`.
        optimizer: makes the optimizer from parameter groups, in place of learning.optimizer; a
            class such as torch.optim.SGD.
        callbacks: called after steps and checks.

    Raises:
        GITError: a setting or an object does not fit, the data cannot be read, the folder exists
            (or, with `resume`, does not), or the loss is not finite.
    """
    objects = _objects(recipe, source=source, loss=loss, optimizer=optimizer)
    require_callbacks(callbacks)
    require_trackers(recipe)
    with (
        init(recipe.compute.device) as group,
        _torch_settings(recipe, group),
        stop_on_signals() as stop,
    ):
        require_same_recipe(recipe, group)
        source = checked(recipe.open_data() if source is None else source)
        trainer = Trainer(recipe, group, source=source, loss=loss, optimizer=optimizer)
        config = trainer.model.config
        loader = StepLoader(source, trainer.tokenizer, config, recipe.loader, seed=recipe.seed)
        run = _Run(trainer, loader, out, stop, callbacks)
        run.check_settings(source)
        open_run_folder(out, recipe, group, objects, resume=resume)
        with lock_folder(out) if group.is_first else nullcontext():
            if group.is_first:
                remove_leftovers(out)
                _name_untaken(source, trainer.validation)
            is_complete = run.finish(resume=resume)
    if stop.interrupted and not is_complete:
        raise KeyboardInterrupt


def _name_untaken(*sources: Source | Stream | None) -> None:
    """Name the files beside the data that look like images or videos, on stderr."""
    names = (name for source in sources if source is not None for name in untaken_files(source))
    line = untaken_line(names)
    if line is not None:
        print(line, file=sys.stderr)


def _objects(recipe: Recipe, **arguments: Any) -> dict[str, str]:
    """The dotted names of the objects that `train` was called with, by argument; of a partial also
    its arguments.

    Raises:
        ConfigError: the recipe sets the same thing as an argument.
    """
    settings = {
        "source": recipe.data is not None and "data",
        "loss": recipe.loss != CrossEntropyConfig() and "loss",
        "optimizer": recipe.learning.optimizer != "adamw" and "learning.optimizer",
    }
    objects = {
        name: name_with_arguments(value) for name, value in arguments.items() if value is not None
    }
    for name in objects:
        if settings[name]:
            raise ConfigError(
                f"the recipe has {settings[name]}, and {name} is given: leave one out"
            )
    return objects


@dataclass
class _Run:
    """A run in progress: the training loop."""

    trainer: "Trainer"
    loader: StepLoader
    out: Path
    stop: StopRequest
    callbacks: Sequence[Callback]

    def __post_init__(self) -> None:
        self.recipe, self.group = self.trainer.recipe, self.trainer.group
        self.selection = Selection(self.recipe)
        self.checked = 0  # the step of the last check

    def check_settings(self, source: Source | Stream) -> None:
        """Refuse settings that would end the run later, before a folder is made."""
        self._require_validation()
        states_of(self.callbacks)
        if self.recipe.compute.cache_features:
            require_cachable(self.trainer.model)
            if isinstance(source, Stream):
                raise ConfigError("cache_features needs examples by index: a stream has none")
            self.trainer.features = FeatureCache(self.out / FEATURES)

    def _require_validation(self) -> None:
        """Check the validation data on rank 0, which alone uses them; every rank ends if they do
        not fit."""
        problem = None
        if self.group.is_first and self.trainer.validation is not None:
            try:
                require_validation(self.recipe, self.trainer.validation)
            except GITError as error:
                problem = str(error)
        problem = self.group.broadcast(problem)
        if problem is not None:
            raise ConfigError(problem)

    def finish(self, *, resume: bool) -> bool:
        """Run the steps that are left. False if a stop request came before the last one."""
        last = self.load() if resume else 0
        is_first = self.group.is_first
        with Report(self.out, self.recipe, last) if is_first else nullcontext() as report:
            if resume and report is not None:
                report.resume()
            last = self.steps(last, report)
        if last < self.recipe.steps and not self.selection.is_over:
            return False
        self.trainer.require_checkpoint(self.out)
        return True

    def load(self) -> int:
        """Load the last state, and return the step after which it was saved, or 0."""
        last = load_state(self.out, self.trainer.state, self.group)
        progress = load_progress(self.out, last)
        self.selection.load_state_dict(progress.get("selection", {}))
        restore(self.callbacks, progress.get("callbacks", {}))
        self.checked = progress.get("checked", 0)
        return last

    def steps(self, last: int, report: Report | None) -> int:
        """Run every step after `last`, until the recipe's last step, a stop request or an early
        end.

        Args:
            report: the log, on rank 0.

        Returns:
            the last step that was run.
        """
        recipe, group, trainer = self.recipe, self.group, self.trainer
        if last and (self._is_over(last, report) or self._catch_up(last, report)):
            return last
        n_reported = 0  # examples that could not be read
        for step, batches in enumerate(
            self.loader.steps(last + 1, recipe.steps, group.rank, group.size), last + 1
        ):
            stats = trainer.step(step, batches)
            broken = self.loader.broken.reasons[n_reported:]
            n_reported += len(broken)
            ended = call_all(self.callbacks, "on_step", trainer, step, stats)
            counts = group.all_gather(self.stop.received, ended, len(broken)).sum(0).tolist()
            stopped, ended, n_broken = bool(counts[0]), bool(counts[1]), counts[2]
            reasons = group.all_gather_object(broken) if n_broken else []
            if report is not None:
                report.step(step, stats, [reason for rank in reasons for reason in rank])
            if (trainer.is_due(step, recipe.reports.check_every) or ended) and not stopped:
                ended = self._check(step, report) or ended
            if trainer.is_due(step, recipe.reports.save_every) or stopped or ended:
                save_state(self.out, step, trainer.state, group, self._progress())
            last = step
            if stopped and report is not None:
                report.stop(step)
            if stopped or ended:
                break
        if last == recipe.steps and report is not None:
            report.complete(last)
        if trainer.features is not None:
            group.barrier()
            trainer.features.close(remove=group.is_first and last == recipe.steps)
        return last

    def _catch_up(self, last: int, report: Report | None) -> bool:
        """Make the check that a stop request left out; the result is that of `_check`."""
        is_due = self.trainer.is_due(last, self.recipe.reports.check_every)
        return is_due and self.checked != last and self._check(last, report)

    def _check(self, step: int, report: Report | None) -> bool:
        """Write the checkpoint, score it, and keep it if it is the best. True if the run is to end.
        All ranks call this together."""
        trainer, recipe, scores = self.trainer, self.recipe, {}
        self.checked = step
        trainer.write_checkpoint(self.out)
        if report is not None and trainer.validation is not None:  # on rank 0
            folder, device = self.out / CHECKPOINT, self.group.device
            validation = validate(folder, trainer.validation, recipe, device)
            scores = validation.scores(recipe.selection.metric)
            report.check(step, validation.predictions, scores)
        scores = self.group.broadcast(scores)
        if self.selection.update(step, scores) and self.group.is_first:
            keep_best(self.out)
        if report is not None and self.selection.best is not None:
            value, best_step = self.selection.best
            report.best(best_step, str(self.selection.metric), value)
        ended = call_all(self.callbacks, "on_check", trainer, step, scores)
        ended = bool(self.group.all_gather(ended).sum())
        return (self._is_over(step, report) and step < recipe.steps) or ended

    def _is_over(self, step: int, report: Report | None) -> bool:
        if not self.selection.is_over:
            return False
        if report is not None and step < self.recipe.steps:
            report.end(step, self.selection.reason)
        return True

    def _progress(self) -> dict[str, Any]:
        return {
            "checked": self.checked,
            "selection": self.selection.state_dict(),
            "callbacks": states_of(self.callbacks),
        }


class Trainer:
    """A model in training, its loss and its optimizer.

    Args:
        initializer: makes the model before its first step, and its vocabulary.
        source: the training data, in which the loss scst counts n-grams; None: the recipe's.
        loss, optimizer: as in `train`.

    Attributes:
        features: the cache of the encoder's tokens; None if each step encodes its images.
    """

    def __init__(
        self,
        recipe: Recipe,
        group: ProcessGroup,
        initializer: Initializer = initial_model,
        *,
        source: Source | Stream | None = None,
        loss: Loss | None = None,
        optimizer: MakeOptimizer | None = None,
    ) -> None:
        self.recipe, self.group = recipe, group
        learning, compute = recipe.learning, recipe.compute
        self.validation = None if recipe.validation is None else recipe.validation.open()
        torch.manual_seed(recipe.seed)
        self.model, self.tokenizer = initializer(recipe)
        self.base = None
        if recipe.adapter is not None:
            self.base = base_of(self.model, str(recipe.checkpoint))
            add_adapter(self.model, recipe.adapter)
        self.model.to(group.device).train()
        self.features: FeatureCache | None = None
        freeze(self.model, learning)
        if compute.activation_checkpointing:
            checkpoint_activations(self.model)
        if loss is None:
            loss = open_loss(recipe, self.model, self.tokenizer, source)
        require_loss(loss)
        if isinstance(loss, Scst):
            self.model.eval()  # no dropout, also where activation checkpointing runs a block again
        self.loss = loss
        self._loss_module = parallelize(LossModule(self.model, loss), group, compute.sharding)
        self.optimizer = make_optimizer(self.model, learning, optimizer)
        self.ema = None if learning.ema is None else EMA(self.model, learning.ema)

    def step(self, step: int, batches: list[Batch]) -> StepStats:
        """One update of the weights, from this rank's batches of a step.

        Raises:
            GITError: the loss or its gradient is not finite; the weights are unchanged.
        """
        learning = self.recipe.learning
        torch.manual_seed(step_seed(self.recipe.seed, step, self.group.rank))
        lr_share = schedule(step, self.recipe)
        loss, n_images, means = self._backward(batches)
        finite = math.isfinite(loss)
        grad_norm = update(self.optimizer, lr_share, learning.max_grad_norm) if finite else math.nan
        if not math.isfinite(loss + grad_norm):
            raise GITError(
                f"step {step}: the loss is {loss} and the gradient norm {grad_norm}, expected "
                f"finite numbers; {_advice(self.loss)}"
            )
        if self.ema is not None:
            self.ema.update(self.model, step)
        return StepStats(loss, n_images, grad_norm, lr_share, means)

    def _backward(self, batches: list[Batch]) -> tuple[float, int, dict[str, float]]:
        """Accumulate the gradient of the step's loss.

        Returns:
            the loss, the number of images, and the means of the loss's other numbers, over all
            ranks.
        """
        group = self.group
        counts = group.all_gather(
            sum(units_of(self.loss, batch) for batch in batches),
            sum(len(batch.pixels) for batch in batches),
            len(batches),
        )
        n_units, n_images, _ = (int(number) for number in counts.sum(0))
        n_units = max(n_units, 1)  # if no example of the step can be read
        n_missing = int(counts[:, 2].max()) - len(batches)
        batches = batches + [empty_batch(self.model)] * n_missing
        outputs = []
        for number, batch in enumerate(batches, 1):
            with gradient_sync(self._loss_module, last=number == len(batches)):
                total, sums = self._loss(batch.to(group.device))
                (total * (group.size / n_units)).backward()  # gradients are averaged over ranks
            outputs.append({"": total.detach(), **sums})
        names = sorted(set().union(*outputs)) if outputs else [""]
        # nothing before waits for a GPU
        values = [sum(float(output.get(name, 0)) for output in outputs) for name in names]
        means = (group.all_gather(*values).sum(0) / n_units).tolist()
        by_name = dict(zip(names, means, strict=True))
        return by_name.pop("", 0.0), n_images, by_name

    def _loss(self, batch: Batch) -> LossOutput:
        autocast = self.recipe.learning.precision == "bfloat16"
        with torch.autocast(self.group.device.type, torch.bfloat16, enabled=autocast):
            if self.features is not None:
                batch = self.features.with_features(self.model, batch)
            return self._loss_module(batch)

    def is_due(self, step: int, every: int) -> bool:
        """Whether a step is a multiple of `every`, or the last."""
        return step % every == 0 or step == self.recipe.steps

    @property
    def state(self) -> TrainState:
        """Everything that a step changes."""
        return TrainState(self.model, self.optimizer, self.ema, self.base)

    def write_checkpoint(self, out: Path) -> None:
        """Write the model or the adapter, or its moving average, as a checkpoint; all ranks call
        together."""
        weights = self.model.tensors() if self.base is None else adapter_tensors(self.model)
        weights |= {} if self.ema is None else self.ema.weights
        tensors = {name: full_tensor(tensor).cpu() for name, tensor in weights.items()}
        if self.group.is_first and self.base is not None:
            write_adapter(out / CHECKPOINT, self.model, self.base, tensors)
        elif self.group.is_first:
            files = {TOKENIZER: self.tokenizer.to_json()}
            write_checkpoint(out / CHECKPOINT, self.model.config, tensors, files, overwrite=True)

    def require_checkpoint(self, out: Path) -> None:
        """Write the checkpoint of a finished run again, if it was deleted or damaged; all ranks
        call together."""
        if self.group.broadcast(not _is_whole(out / CHECKPOINT)):
            self.write_checkpoint(out)


def _is_whole(checkpoint: Path) -> bool:
    try:
        require_digests(checkpoint)
    except GITError:
        return False
    return True


def _advice(loss: Loss) -> str:
    if isinstance(loss, CrossEntropy):
        return "a lower learning rate or a longer warm-up may help"
    return f"check the loss {dotted_name(loss)}, or try a lower learning rate"


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of the random numbers that a rank draws during a step."""
    return Random(f"{seed} {step} {rank}").getrandbits(63)  # noqa: S311  (dropout, no secrets)


@contextmanager
def _torch_settings(recipe: Recipe, group: ProcessGroup) -> Iterator[None]:
    """Set the recipe's number of threads; restore it and the random state afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.compute.threads or threads)
    gpus = [group.device] if group.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(gpus), warnings.catch_warnings():
            # FSDP2 warns against writing into the keys and values of a block; nothing does.
            warnings.filterwarnings("ignore", "FSDP2-wrapped module")
            yield
    finally:
        torch.set_num_threads(threads)
