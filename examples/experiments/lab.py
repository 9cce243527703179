"""What the experiments share: teach each variant from several seeds, and show how well it does.

An experiment is a recipe, and beside it a script of the same name that lists its variants. All that
a variant does not change is the same for each row of the table: examples, steps, rates.
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
from git_model.data.collation import batches_of, sample_of
from git_model.data.example import Source
from git_model.data.loader import StepLoader
from git_model.evaluation.run import predict, writes
from git_model.evaluation.scores import PYTHON, score
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.initialization import initialize_by_width, named_tokenizer, start_of
from git_model.training.loop import Run, Start
from git_model.training.loss import batch_loss
from git_model.training.recipe import Recipe, difference, read_recipe
from git_model.utils.atomic import new_file
from git_model.utils.distributed import Ranks
from git_model.utils.serialize import from_dict, read_mapping, to_dict

# What is measured, by its name in a results file: the head of its column, and its decimals.
COLUMNS = {"loss": ("held-out loss, nats a token", 3), "exact": ("texts exactly right, %", 1)}
Result = dict[str, float]


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    start: makes the model before its first step.
    learning: what it changes of the recipe's table of that name.
    """

    name: str
    start: Start = start_of
    learning: Mapping[str, Any] = field(default_factory=dict)


def sized(change: Callable[[GITConfig], GITConfig]) -> Start:
    """Random weights for the recipe's model, once its configuration is changed."""

    def start(recipe: Recipe) -> tuple[GIT, Tokenizer]:
        model = GIT(change(named_config(str(recipe.model))))
        initialize_by_width(model)
        return model, named_tokenizer("shapes")

    return start


def teach(recipe: Recipe, start: Start = start_of) -> Captioner:
    """What `git-model train` does, without its files: the model after the last step."""
    torch.set_num_threads(recipe.compute.threads or 1)
    run = Run(recipe, Ranks(torch.device("cpu")), start)
    feed = StepLoader(
        recipe.data.open(), run.tokenizer, run.model.config, recipe.feed, seed=recipe.seed
    )
    for step, batches in enumerate(feed.steps(1, recipe.steps), 1):
        run.step(step, batches)
    return Captioner(run.model.eval(), run.tokenizer)


def measure(git: Captioner, source: Source) -> Result:
    """How well a model does on examples that it has not learned from."""
    [scores] = score(predict(git, source, writes(git), batch_size=100), ["exact"], PYTHON).values()
    return {"loss": held_out_loss(git, source), "exact": scores["exact"]}


@torch.inference_mode()
def held_out_loss(git: Captioner, source: Source) -> float:
    """-log p of each right next token, the mean of all; never smoothed."""
    config = git.model.config
    examples = (source[number] for number in range(len(source)))
    longest = config.decoder.positions
    lessons = [
        sample_of(one, git.tokenizer, config, rng=Random(0), max_tokens=longest) for one in examples
    ]
    batches = batches_of(lessons, config.pad_id, 100)
    total = sum(batch_loss(git.model, batch).item() for batch in batches)
    return total / sum(batch.n_predicted for batch in batches)


def experiment(script: str, variants: Sequence[Variant]) -> click.Command:
    """The command line of an experiment.

    Args:
        script: its file; the recipe and the results lie beside it.
    """
    path = Path(script)

    @click.command(help=f"Measure what is not measured yet of {path.stem}, and print its table.")
    @click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1))
    @click.option("--steps", type=click.IntRange(min=1), help="By default those of the recipe.")
    @click.option(
        "--results",
        type=click.Path(path_type=Path, dir_okay=False),
        default=path.with_suffix(".json"),
        help="A new file measures everything anew; by default that of the published table.",
    )
    def run(seeds: int, steps: int | None, results: Path) -> None:
        recipe = read_recipe(path.with_suffix(".toml"))
        try:
            found = measure_all(_shortened(recipe, steps), variants, seeds, results)
        except GITError as error:
            raise click.ClickException(str(error)) from None
        click.echo(table(found))

    return run


def measure_all(
    recipe: Recipe, variants: Sequence[Variant], seeds: int, path: Path
) -> dict[str, list[Result]]:
    """The results of each variant, seed by seed; each is in the file as soon as it is there.

    Raises:
        GITError: the file has results of another recipe.
    """
    found = _read(path, recipe)
    source = recipe.validation.open()
    for seed in range(seeds):
        for variant in variants:
            done = found.setdefault(variant.name, [])
            if len(done) > seed:
                continue
            changed = replace(
                recipe, seed=seed, learning=replace(recipe.learning, **variant.learning)
            )
            done.append(measure(teach(changed, variant.start), source))
            _write(path, recipe, found)
            click.echo(f"{variant.name}, seed {seed}: {done[-1]}", err=True)
    return {variant.name: found[variant.name] for variant in variants}


def table(found: Mapping[str, Sequence[Result]]) -> str:
    """In Markdown: for each variant the mean of its seeds ± their standard deviation."""
    heads = ["", *(head for head, _ in COLUMNS.values())]
    rows = [heads, ["---"] * len(heads)]
    for name, results in found.items():
        cells = [
            _cell([result[column] for result in results], decimals)
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
    """The recipe with so many steps, too few to warm up if need be; for trying a script out."""
    if steps is None:
        return recipe
    warmup = min(recipe.learning.warmup_steps, steps - 1)
    return replace(recipe, steps=steps, learning=replace(recipe.learning, warmup_steps=warmup))


def _read(path: Path, recipe: Recipe) -> dict[str, list[Result]]:
    if not path.exists():
        return {}
    kept = read_mapping(path)
    other = difference(from_dict(Recipe, kept["recipe"]), recipe)
    if other is not None:
        raise GITError(f"{path} has results of another recipe: {other}; name a new file: --results")
    return kept["results"]


def _write(path: Path, recipe: Recipe, found: Mapping[str, Sequence[Result]]) -> None:
    text = json.dumps({"recipe": to_dict(recipe), "results": found}, indent=1)
    with new_file(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")
