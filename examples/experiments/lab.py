"""Shared by the experiments: train each variant from several seeds, and make a table of scores.

An experiment is a recipe, and beside it a script of the same name that lists its variants. Whatever
a variant does not change is the same in every row of the table: examples, steps, learning rates.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import click
import torch

from git_model import GIT, Captioner, GITError
from git_model.config import GITConfig, named_config
from git_model.data.collation import Batch, Collator
from git_model.data.example import Source
from git_model.data.loader import StepLoader
from git_model.evaluation.run import predict, text_predictor
from git_model.evaluation.scores import PYTHON, score
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.initialization import (
    initial_model,
    initialize_by_width,
    named_tokenizer,
)
from git_model.training.loop import Initializer, Trainer
from git_model.training.loss import batch_loss
from git_model.training.recipe import Recipe, difference, read_recipe
from git_model.utils.atomic import new_file
from git_model.utils.distributed import ProcessGroup
from git_model.utils.serialize import from_dict, read_mapping, to_dict

# Measurements by their names in a results file: the head of the column, and its decimals.
COLUMNS = {"loss": ("held-out loss, nats a token", 3), "exact": ("texts exactly right, %", 1)}
Result = dict[str, float]


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    initializer: makes the model before its first step.
    learning: changes to the recipe's table [learning].
    """

    name: str
    initializer: Initializer = initial_model
    learning: Mapping[str, Any] = field(default_factory=dict)


def resized_model(change: Callable[[GITConfig], GITConfig]) -> Initializer:
    """Random weights for the recipe's model with a changed configuration."""

    def initializer(recipe: Recipe) -> tuple[GIT, Tokenizer]:
        model = GIT(change(named_config(str(recipe.model))))
        initialize_by_width(model)
        return model, named_tokenizer("shapes")

    return initializer


def train(recipe: Recipe, initializer: Initializer = initial_model) -> Captioner:
    """The model after the last step; as `git-model train`, but without its files."""
    torch.set_num_threads(recipe.compute.threads or 1)
    trainer = Trainer(recipe, ProcessGroup(torch.device("cpu")), initializer)
    model, tokenizer = trainer.model, trainer.tokenizer
    data = recipe.data.open()
    loader = StepLoader(data, tokenizer, model.config, recipe.loader, seed=recipe.seed)
    for step, batches in enumerate(loader.steps(1, recipe.steps), 1):
        trainer.step(step, batches)
    return Captioner(model.eval(), tokenizer)


def measure(captioner: Captioner, source: Source) -> Result:
    """The scores of a model on held-out examples."""
    return {"loss": held_out_loss(captioner, source), "exact": exact_texts(captioner, source)}


def exact_texts(captioner: Captioner, source: Source) -> float:
    """How many texts are exactly right, in per cent."""
    predictions = predict(captioner, source, text_predictor(captioner), batch_size=100)
    [scores] = score(predictions, ["exact"], PYTHON).values()
    return scores["exact"]


def held_out_loss(captioner: Captioner, source: Source) -> float:
    """The mean cross-entropy of all next tokens, without label smoothing."""
    return mean_loss(captioner, held_out_batches(captioner, source, len(source)))


def held_out_batches(captioner: Captioner, source: Source, n: int) -> list[Batch]:
    """The first n examples, or as many as there are."""
    config = captioner.model.config
    collator = Collator(
        tokenizer=captioner.tokenizer,
        config=config,
        max_tokens=config.decoder.positions,
        micro_batch=100,
    )
    indices = range(min(n, len(source)))
    return collator.batches([collator.sample(source[index], Random(0)) for index in indices])


@torch.inference_mode()
def mean_loss(captioner: Captioner, batches: Sequence[Batch]) -> float:
    """The mean cross-entropy of the batches' next tokens, without label smoothing."""
    total = sum(batch_loss(captioner.model, batch).item() for batch in batches)
    return total / sum(batch.n_predicted for batch in batches)


def experiment(script: str, variants: Sequence[Variant]) -> click.Command:
    """The command line of an experiment.

    Args:
        script: its file; the recipe and the results lie beside it.
    """
    path = Path(script)

    @click.command(help=f"Run the missing measurements of {path.stem}, and print its table.")
    @click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1))
    @click.option("--steps", type=click.IntRange(min=1), help="By default those of the recipe.")
    @click.option(
        "--results",
        type=click.Path(path_type=Path, dir_okay=False),
        default=path.with_suffix(".json"),
        help="Name a new file to measure everything again; by default that of the published table.",
    )
    def run(seeds: int, steps: int | None, results: Path) -> None:
        recipe = read_recipe(path.with_suffix(".toml"))
        try:
            rows = measure_all(_shortened(recipe, steps), variants, seeds, results)
        except GITError as error:
            raise click.ClickException(str(error)) from None
        click.echo(table(rows))

    return run


def measure_all(
    recipe: Recipe, variants: Sequence[Variant], seeds: int, path: Path
) -> dict[str, list[Result]]:
    """The results of each variant, seed by seed; the file is written after every run.

    Raises:
        GITError: the file has results of another recipe.
    """
    results = _read(path, recipe)
    source = recipe.validation.open()
    for seed in range(seeds):
        for variant in variants:
            row = results.setdefault(variant.name, [])
            if len(row) > seed:
                continue
            changed = replace(
                recipe, seed=seed, learning=replace(recipe.learning, **variant.learning)
            )
            row.append(measure(train(changed, variant.initializer), source))
            _write(path, recipe, results)
            click.echo(f"{variant.name}, seed {seed}: {row[-1]}", err=True)
    return {variant.name: results[variant.name] for variant in variants}


def table(results: Mapping[str, Sequence[Result]]) -> str:
    """A Markdown table: for each variant the mean of its seeds ± their standard deviation."""
    heads = ["", *(head for head, _ in COLUMNS.values())]
    rows = [heads, ["---"] * len(heads)]
    for name, row in results.items():
        cells = [
            _cell([result[column] for result in row], decimals)
            for column, (_, decimals) in COLUMNS.items()
        ]
        rows.append([name, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(values: Sequence[float], decimals: int) -> str:
    mean = f"{statistics.mean(values):.{decimals}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}"


def _shortened(recipe: Recipe, steps: int | None) -> Recipe:
    """The recipe with this number of steps, and a warm-up that fits; for trying a script."""
    if steps is None:
        return recipe
    warmup = min(recipe.learning.warmup_steps, steps - 1)
    return replace(recipe, steps=steps, learning=replace(recipe.learning, warmup_steps=warmup))


def _read(path: Path, recipe: Recipe) -> dict[str, list[Result]]:
    if not path.exists():
        return {}
    stored = read_mapping(path)
    change = difference(from_dict(Recipe, stored["recipe"]), recipe)
    if change is not None:
        raise GITError(
            f"{path} has results of another recipe: {change}; name a new file: --results"
        )
    return stored["results"]


def _write(path: Path, recipe: Recipe, results: Mapping[str, Sequence[Result]]) -> None:
    text = json.dumps({"recipe": to_dict(recipe), "results": results}, indent=1)
    with new_file(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")
