"""The command `train`."""

from pathlib import Path

import click


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path), metavar="RECIPE.toml")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="A new folder for the log, the checkpoint and the state.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in FOLDER from its last state.")
def train(recipe: Path, out: Path, resume: bool) -> None:
    """Train a model as RECIPE says (see configs/train).

    Under torchrun each process takes its part of every step. SIGTERM saves the state and ends the
    run with exit code 0.
    """
    from git_model.training.loop import train as run
    from git_model.training.recipe import read_recipe

    run(read_recipe(recipe), out, resume=resume)
