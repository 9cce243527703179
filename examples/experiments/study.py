"""Studies: an experiment with enough seeds to tell arms apart, and rules that are stated before.

Every arm of a study is trained from the same seeds, each with its own learning rate:

- the rate: each arm is trained at every rate of the study from a pilot seed, and takes the rate of
  the least held-out loss, or of the best of another score that the study names. Pilot runs do not
  count as results.
- the results: eight seeds or more. A seed decides the initial weights and the order of the examples
  alike in all arms, so arms are compared seed by seed: the mean of the differences to the study's
  first arm, with its 95 % interval by Student's t.
- the curve: the held-out loss several times in a run, which shows whether a run has converged.

Every run is a line of JSON in the study's file. A run that is in the file is not repeated. Runs of
a process share their training samples, which they use in different orders.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lab import held_out_batches, mean_loss

from git_model import Captioner, GITError
from git_model.config import PreprocessConfig
from git_model.data.collation import Batch, Collator, Sample
from git_model.data.example import Source
from git_model.data.sampler import epoch_indices
from git_model.evaluation.intervals import t_quantile
from git_model.evaluation.run import evaluation_mode
from git_model.training.features import FeatureCache
from git_model.training.initialization import initial_model
from git_model.training.loop import Initializer, Trainer
from git_model.training.recipe import (
    CrossEntropyConfig,
    DataConfig,
    LossConfig,
    Recipe,
    difference,
)
from git_model.utils.atomic import new_file
from git_model.utils.distributed import ProcessGroup
from git_model.utils.serialize import from_dict, to_dict

PILOT_SEED = 1000
N_SEEDS = 8
RATES = (1e-3, 2e-3)
N_CURVE = 8  # points of a run's curve
CURVE_EXAMPLES = 200
MAX_CACHE = 2**31  # bytes of pixels that a process keeps

Scores = dict[str, float]
OpenData = Callable[[Recipe], tuple[Source, Source]]  # of training, and held out


def recipe_data(recipe: Recipe) -> tuple[Source, Source]:
    """The data sets that a recipe names."""
    assert recipe.data is not None
    assert recipe.validation is not None
    return _source(recipe.data), _source(recipe.validation)


@cache
def _source(config: DataConfig) -> Source:
    """The same object for all runs, so that they share its samples."""
    return config.open()  # type: ignore[return-value]


class SampleCache:
    """What the runs of a process share, without augmentation: the samples, which take a third of a
    run to make, and the tokens of frozen encoders. All runs have one vocabulary, and all frozen
    encoders of a model's configuration have the same weights: the built-in model's."""

    def __init__(self) -> None:
        self._samples: dict[tuple[Source, PreprocessConfig, int], Sample] = {}
        self._bytes = 0
        self._tokens: dict[tuple[Source, str | None], FeatureCache] = {}

    @cached_property
    def _folder(self) -> "TemporaryDirectory[str]":
        """Where the tokens are, until the process ends."""
        return TemporaryDirectory()

    def tokens(self, source: Source, recipe: Recipe) -> FeatureCache | None:
        """The tokens of the recipe's encoder, if it says that they are cached."""
        if not recipe.compute.cache_features:
            return None
        key = (source, recipe.model)
        if key not in self._tokens:
            self._tokens[key] = FeatureCache(Path(self._folder.name) / str(len(self._tokens)))
        return self._tokens[key]

    def steps(self, source: Source, collator: Collator, recipe: Recipe) -> Iterator[list[Batch]]:
        """The batches of each step: the same as those of a `StepLoader`."""
        size, seed = recipe.loader.batch_size, recipe.seed
        for step in range(1, recipe.steps + 1):
            positions = epoch_indices(step, len(source), size, seed)
            yield collator.batches([self._sample(source, i, collator) for _, i in positions])

    def _sample(self, source: Source, index: int, collator: Collator) -> Sample:
        key = (source, collator.config.preprocess, index)
        sample = self._samples.get(key)
        if sample is None:
            sample = replace(collator.sample(source[index], Random(index)), index=index)
            if self._bytes < MAX_CACHE:
                self._samples[key] = sample
                self._bytes += sample.pixels.nbytes
        return sample


SAMPLES = SampleCache()


@dataclass(frozen=True)
class Arm:
    """One of the things that a study compares.

    initializer: makes the model before its first step.
    learning: changes to the recipe's table [learning].
    data: opens its data sets.
    loss: its loss.
    """

    name: str
    initializer: Initializer = initial_model
    learning: Mapping[str, Any] = field(default_factory=dict)
    data: OpenData = recipe_data
    loss: LossConfig = field(default_factory=CrossEntropyConfig)


@dataclass(frozen=True)
class Study:
    """A question, and its arms; the first is what the others are compared with.

    score: measures a trained model on held-out examples.
    columns: the scores of the table and their decimals.
    rates, rate_by: the rates that an arm is tried at, and the score that decides between them: the
        least loss, or the greatest of another score.
    """

    name: str
    question: str
    recipe: Recipe
    arms: tuple[Arm, ...]
    score: Callable[[Captioner, Source], Scores]
    columns: Mapping[str, int]
    rates: tuple[float, ...] = RATES
    rate_by: str = "loss"

    def arm(self, name: str) -> Arm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)


@dataclass(frozen=True)
class RunKey:
    """What a run is made of, besides its study."""

    arm: str
    rate: float
    seed: int


@dataclass(frozen=True)
class Run:
    """A finished run.

    curve: (step, held-out loss), the first before the first step.
    parameters: their number.
    """

    key: RunKey
    scores: Scores
    curve: list[tuple[int, float]]
    parameters: int
    seconds: float


def run_study(
    study: Study,
    path: Path,
    *,
    n_seeds: int = N_SEEDS,
    workers: int = 1,
    find: Callable[[str], Study] | None = None,
    report: Callable[[str], None] = print,
) -> dict[RunKey, Run]:
    """The runs of a study: those in its file, and the missing ones, which are added to it.

    Args:
        workers: processes; with more than one, `find` gives each of them the study by its name.

    Raises:
        GITError: the file has runs of another recipe.
    """
    runs = read_runs(path, study.recipe)
    while missing := missing_runs(study, runs, n_seeds):  # the pilots, then the results
        _run_missing(study, path, missing, runs, workers, find, report)
    return runs


def missing_runs(study: Study, runs: Mapping[RunKey, Run], n_seeds: int = N_SEEDS) -> list[RunKey]:
    """The runs to be made next: missing pilots, or else missing results."""
    pilots = [RunKey(arm.name, rate, PILOT_SEED) for arm in study.arms for rate in study.rates]
    missing = [key for key in pilots if key not in runs]
    if missing:
        return missing
    rates = chosen_rates(study, runs)
    keys = [RunKey(name, rate, seed) for seed in range(n_seeds) for name, rate in rates.items()]
    return [key for key in keys if key not in runs]


def _run_missing(
    study: Study,
    path: Path,
    keys: Sequence[RunKey],
    runs: dict[RunKey, Run],
    workers: int,
    find: Callable[[str], Study] | None,
    report: Callable[[str], None],
) -> None:
    for run in _results(study, keys, workers, find):
        runs[run.key] = run
        _write(path, study.recipe, runs)
        scores = ", ".join(f"{name} {value:.3f}" for name, value in run.scores.items())
        key = run.key
        report(f"{study.name}: {key.arm}, rate {key.rate:g}, seed {key.seed}: {scores}")


def _results(
    study: Study, keys: Sequence[RunKey], workers: int, find: Callable[[str], Study] | None
) -> Iterator[Run]:
    if workers == 1 or find is None:
        yield from (train_arm(study, key) for key in keys)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = [pool.submit(_train_named, find, study.name, key) for key in keys]
        yield from (future.result() for future in as_completed(futures))


def _train_named(find: Callable[[str], Study], name: str, key: RunKey) -> Run:
    return train_arm(find(name), key)


def train_arm(study: Study, key: RunKey) -> Run:
    """Train an arm at a rate from a seed, and measure it."""
    start, arm = time.perf_counter(), study.arm(key.arm)
    rates: dict[str, Any] = {"encoder_lr": key.rate, "decoder_lr": key.rate}
    learning = replace(study.recipe.learning, **(rates | arm.learning))
    recipe = replace(study.recipe, seed=key.seed, learning=learning, loss=arm.loss)
    torch.set_num_threads(recipe.compute.threads or 1)
    data, held_out = arm.data(recipe)
    trainer = Trainer(recipe, ProcessGroup(torch.device("cpu")), arm.initializer)
    trainer.features = SAMPLES.tokens(data, recipe)
    captioner = Captioner(trainer.model, trainer.tokenizer)
    collator = Collator(
        tokenizer=trainer.tokenizer,
        config=trainer.model.config,
        max_tokens=recipe.loader.max_tokens,
    )
    due = {recipe.steps * point // N_CURVE for point in range(1, N_CURVE + 1)}
    first = held_out_batches(captioner, held_out, CURVE_EXAMPLES)
    curve = [(0, _curve_loss(captioner, first))]
    for step, batches in enumerate(SAMPLES.steps(data, collator, recipe), 1):
        trainer.step(step, batches)
        if step in due:
            curve.append((step, _curve_loss(captioner, first)))
    trainer.model.eval()
    scores = study.score(captioner, held_out)
    parameters = sum(weight.numel() for weight in trainer.model.parameters())
    return Run(key, scores, curve, parameters, time.perf_counter() - start)


def _curve_loss(captioner: Captioner, batches: Sequence[Batch]) -> float:
    """The held-out loss; dropout is off meanwhile."""
    with evaluation_mode(captioner.model):
        return mean_loss(captioner, batches)


def chosen_rates(study: Study, runs: Mapping[RunKey, Run]) -> dict[str, float]:
    """The rate of each arm, of the best score among its pilot runs; of equal ones the lower."""
    sign = 1 if study.rate_by == "loss" else -1

    def cost(arm: str, rate: float) -> float:
        return sign * runs[RunKey(arm, rate, PILOT_SEED)].scores[study.rate_by]

    return {arm.name: min(sorted(study.rates), key=partial(cost, arm.name)) for arm in study.arms}


def paired_interval(values: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """The mean of the differences, value less reference, and half the width of its 95 % interval.

    Raises:
        ValueError: the numbers are not as many, or fewer than two.
    """
    differences = [value - base for value, base in zip(values, reference, strict=True)]
    n = len(differences)
    half = t_quantile(n - 1) * statistics.stdev(differences) / n**0.5
    return statistics.mean(differences), half


def results_of(study: Study, runs: Mapping[RunKey, Run]) -> dict[str, list[Run]]:
    """The runs of each arm at its rate, by seed, without the pilots: the seeds that all have."""
    rates = chosen_rates(study, runs)
    seeds = [
        {key.seed for key in runs if key.arm == name and key.rate == rate} - {PILOT_SEED}
        for name, rate in rates.items()
    ]
    common = sorted(set.intersection(*seeds))
    return {
        name: [runs[RunKey(name, rate, seed)] for seed in common] for name, rate in rates.items()
    }


def table(study: Study, runs: Mapping[RunKey, Run]) -> str:
    """A Markdown table: each arm's means, and its differences to the first arm with 95 %
    intervals."""
    results = results_of(study, runs)
    reference = results[study.arms[0].name]
    heads = ["", "rate", "weights"]
    for column in study.columns:
        heads += [column, "difference [95 %]"]
    rows = [heads, ["---"] * len(heads)]
    for name, arm_runs in results.items():
        row = [name, f"{arm_runs[0].key.rate:g}", f"{arm_runs[0].parameters:,}"]
        for column, decimals in study.columns.items():
            values, base = ([run.scores[column] for run in each] for each in (arm_runs, reference))
            row += [f"{statistics.mean(values):.{decimals}f}", _difference(values, base, decimals)]
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _difference(values: Sequence[float], reference: Sequence[float], decimals: int) -> str:
    if values is reference or list(values) == list(reference):
        return ""
    if len(values) < 2:
        return "one seed"
    mean, half = paired_interval(values, reference)
    return f"{mean:+.{decimals}f} [{mean - half:+.{decimals}f}, {mean + half:+.{decimals}f}]"


def plot(study: Study, runs: Mapping[RunKey, Run], path: Path) -> None:
    """The mean curve of each arm, with the range of its seeds, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="held-out loss, nats a token", yscale="log")
    axes.set_title(study.question, wrap=True)
    for name, arm_runs in results_of(study, runs).items():
        steps = [step for step, _ in arm_runs[0].curve]
        columns = list(zip(*([loss for _, loss in run.curve] for run in arm_runs), strict=True))
        axes.plot(steps, [statistics.mean(column) for column in columns], label=name)
        axes.fill_between(steps, list(map(min, columns)), list(map(max, columns)), alpha=0.2)
    axes.legend()
    with new_file(path) as beside:
        figure.savefig(beside, format="png", dpi=120)


def read_runs(path: Path, recipe: Recipe) -> dict[RunKey, Run]:
    """The runs in a file: a line with the recipe, then a line for each run.

    Raises:
        GITError: they are of another recipe.
    """
    if not path.exists():
        return {}
    header, *lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    change = difference(from_dict(Recipe, header["recipe"]), recipe)
    if change is not None:
        raise GITError(f"{path} has runs of another recipe: {change}; name another folder")
    runs = [
        Run(
            RunKey(**line["key"]),
            line["scores"],
            [(step, loss) for step, loss in line["curve"]],
            line["parameters"],
            line["seconds"],
        )
        for line in lines
    ]
    return {run.key: run for run in runs}


def _write(path: Path, recipe: Recipe, runs: Mapping[RunKey, Run]) -> None:
    lines = [{"recipe": to_dict(recipe)}, *(asdict(run) for run in runs.values())]
    with new_file(path) as beside:
        beside.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
