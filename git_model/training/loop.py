"""Training, as one explicit loop.

A run is a function of its recipe and its step number. The learning rates, the examples of a step,
their crops, the answers that are drawn and the random numbers of dropout follow from these two
alone. So the state of a run is its weights, the optimizer's moments and, where the recipe has one,
the moving average: a run that was killed and resumed ends with the same bits as one that was not.

A step's loss is the sum over all its tokens to predict, divided by their number, so it does not
depend on the number of batches or processes that the step is split over.
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
from git_model.checkpoints.native import TOKENIZER, require_digests, write_checkpoint
from git_model.data.collation import Batch
from git_model.data.example import BrokenExamples, Source, Stream
from git_model.data.loader import StepLoader
from git_model.evaluation.predictions import Prediction
from git_model.evaluation.run import predict, text_predictor
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.initialization import initial_model
from git_model.training.lock import lock_folder
from git_model.training.loss import LossModule
from git_model.training.optimizer import EMA, freeze, full_tensor, make_optimizer, schedule, update
from git_model.training.parallel import (
    checkpoint_activations,
    empty_batch,
    gradient_sync,
    parallelize,
)
from git_model.training.recipe import Recipe
from git_model.training.reports import Report, StepStats
from git_model.training.state import (
    CHECKPOINT,
    TrainState,
    load_state,
    open_run_folder,
    remove_leftovers,
    require_same_recipe,
    save_state,
)
from git_model.utils.distributed import ProcessGroup, StopRequest, init, stop_on_sigterm
from git_model.utils.errors import GITError

Initializer = Callable[[Recipe], tuple[GIT, Tokenizer]]


def train(recipe: Recipe, out: Path, *, resume: bool = False) -> None:
    """Train as the recipe says, in one process or as one of those that torchrun started.

    On SIGTERM the run finishes its current step, saves the state and returns.

    Args:
        out: a new folder. It gets recipe.json, log.jsonl and, each replaced by the next, the
            checkpoint (see checkpoints/native.py) and the state (see state.py).
        resume: continue in the folder of an earlier run of this recipe.

    Raises:
        GITError: a setting does not fit, the data cannot be read, or the loss is not finite.
    """
    with (
        init(recipe.compute.device) as group,
        _torch_settings(recipe, group),
        stop_on_sigterm() as stop,
    ):
        require_same_recipe(recipe, group)
        trainer = Trainer(recipe, group)
        loader = StepLoader(
            recipe.data.open(),
            trainer.tokenizer,
            trainer.model.config,
            recipe.loader,
            seed=recipe.seed,
        )
        open_run_folder(out, recipe, group, resume=resume)
        with lock_folder(out) if group.is_first else nullcontext():
            if group.is_first:
                remove_leftovers(out)
            last = load_state(out, trainer.state, group) if resume else 0
            with Report(out, recipe, last) if group.is_first else nullcontext() as report:
                _run_steps(trainer, loader, out, last, report, stop)
            if last == recipe.steps:
                trainer.require_checkpoint(out)


def _run_steps(
    trainer: "Trainer",
    loader: StepLoader,
    out: Path,
    last: int,
    report: Report | None,
    stop: StopRequest,
) -> None:
    """The training loop: every step after `last`, until the recipe's last or a stop request.

    Args:
        report: on rank 0.
    """
    recipe, group = trainer.recipe, trainer.group
    n_reported = 0  # examples that could not be read
    steps = loader.steps(last + 1, recipe.steps, group.rank, group.size)
    for step, batches in enumerate(steps, last + 1):
        stats = trainer.step(step, batches)
        broken = loader.broken.reasons[n_reported:]
        n_reported += len(broken)
        stopped, n_broken = group.all_gather(stop.received, len(broken)).sum(0).tolist()
        reasons = group.all_gather_object(broken) if n_broken else []
        if report is not None:
            report.step(step, stats, [reason for rank in reasons for reason in rank])
        if trainer.is_due(step, recipe.reports.check_every) and not stopped:
            trainer.check(out, step, report)
        if trainer.is_due(step, recipe.reports.save_every) or stopped:
            save_state(out, step, trainer.state, group)
        if stopped:
            break


class Trainer:
    """A model in training, its loss and its optimizer.

    Args:
        initializer: makes the model before its first step, and its vocabulary.
    """

    def __init__(
        self, recipe: Recipe, group: ProcessGroup, initializer: Initializer = initial_model
    ) -> None:
        self.recipe, self.group = recipe, group
        learning, compute = recipe.learning, recipe.compute
        self.validation = None if recipe.validation is None else recipe.validation.open()
        torch.manual_seed(recipe.seed)
        self.model, self.tokenizer = initializer(recipe)
        self.model.to(group.device).train()
        freeze(self.model, learning.frozen)
        if compute.activation_checkpointing:
            checkpoint_activations(self.model)
        self._loss_module = parallelize(
            LossModule(self.model, learning.label_smoothing), group, compute.sharding
        )
        self.optimizer = make_optimizer(self.model, learning)
        self.ema = None if learning.ema is None else EMA(self.model, learning.ema)

    def step(self, step: int, batches: list[Batch]) -> StepStats:
        """One update of the weights, from this rank's batches of a step.

        Raises:
            GITError: the loss or its gradient is not finite; the weights are unchanged.
        """
        learning = self.recipe.learning
        torch.manual_seed(step_seed(self.recipe.seed, step, self.group.rank))
        lr_share = schedule(step, self.recipe)
        loss, n_images = self._backward(batches)
        finite = math.isfinite(loss)
        grad_norm = update(self.optimizer, lr_share, learning.max_grad_norm) if finite else math.nan
        if not math.isfinite(loss + grad_norm):
            raise GITError(
                f"step {step}: the loss is {loss} and the gradient norm {grad_norm}, expected "
                "finite numbers; a lower learning rate or a longer warm-up may help"
            )
        if self.ema is not None:
            self.ema.update(self.model, step)
        return StepStats(loss, n_images, grad_norm, lr_share)

    def _backward(self, batches: list[Batch]) -> tuple[float, int]:
        """Accumulate the gradient of the step's loss.

        Returns:
            the loss, and the number of images, over all ranks.
        """
        group = self.group
        counts = group.all_gather(
            sum(batch.n_predicted for batch in batches),
            sum(len(batch.pixels) for batch in batches),
            len(batches),
        )
        n_tokens, n_images, _ = (int(number) for number in counts.sum(0))
        n_tokens = max(n_tokens, 1)  # if no example of the step can be read
        n_missing = int(counts[:, 2].max()) - len(batches)
        batches = batches + [empty_batch(self.model)] * n_missing
        losses = []
        for number, batch in enumerate(batches, 1):
            with gradient_sync(self._loss_module, last=number == len(batches)):
                part = self._loss(batch.to(group.device))
                (part * (group.size / n_tokens)).backward()  # gradients are averaged over ranks
            losses.append(part.detach())
        loss = sum(part.item() for part in losses)  # nothing before waits for a GPU
        return group.all_gather(loss).sum().item() / n_tokens, n_images

    def _loss(self, batch: Batch) -> Tensor:
        autocast = self.recipe.learning.precision == "bfloat16"
        with torch.autocast(self.group.device.type, torch.bfloat16, enabled=autocast):
            return self._loss_module(batch)

    def is_due(self, step: int, every: int) -> bool:
        """Whether a step is a multiple of `every`, or the last."""
        return step % every == 0 or step == self.recipe.steps

    @property
    def state(self) -> TrainState:
        """Everything that a step changes."""
        return TrainState(self.model, self.optimizer, self.ema)

    def check(self, out: Path, step: int, report: Report | None) -> None:
        """Write the checkpoint and report its validation scores; all ranks call together."""
        self.write_checkpoint(out)
        if report is not None and self.validation is not None:  # on rank 0
            folder = out / CHECKPOINT
            report.check(step, validate(folder, self.validation, self.recipe, self.group))
        self.group.barrier()

    def write_checkpoint(self, out: Path) -> None:
        """Write the model, or its moving average, as a checkpoint; all ranks call together."""
        weights = self.model.tensors() if self.ema is None else self.ema.weights
        tensors = {name: full_tensor(tensor).cpu() for name, tensor in weights.items()}
        if self.group.is_first:
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


def validate(
    folder: Path, source: Source | Stream, recipe: Recipe, group: ProcessGroup
) -> list[Prediction]:
    """A checkpoint's predictions for the first examples of the validation data."""
    captioner = Captioner.from_pretrained(folder, device=group.device)
    broken = BrokenExamples(recipe.loader.broken_limit)
    limit = recipe.reports.check_examples
    return predict(
        captioner, source, text_predictor(captioner), limit=limit, batch_size=32, broken=broken
    )


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
