"""The command `train`."""

from pathlib import Path

import click

from git_model.cli.options import GroupedCommand, option


@click.command(cls=GroupedCommand)
@click.argument("recipe", type=click.Path(path_type=Path), metavar="RECIPE.toml")
@option(
    "Output",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="A new folder for the log, the checkpoint and the state.",
)
@option(
    "Input",
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of the recipe, such as learning.rate=3e-4 or seed=2; may be given several "
    "times. VALUE is TOML; texts need no quotes. learning.rate stands for encoder_lr and "
    "decoder_lr.",
)
@option("Output", "--resume", is_flag=True, help="Continue the run in FOLDER from its last state.")
def train(recipe: Path, out: Path, resume: bool, settings: tuple[str, ...]) -> None:
    """Train a model by RECIPE (see configs/train; docs/recipe.md lists all keys).

    Under torchrun every process computes a part of every step. Ctrl-C and SIGTERM save the state
    and end the run, SIGTERM with exit code 0.
    """
    from git_model.cli.signals import line_on_interrupt
    from git_model.training.loop import train as run_recipe
    from git_model.training.overrides import SettingError
    from git_model.training.recipe import read_recipe

    try:
        settled = read_recipe(recipe, settings)
    except SettingError as error:
        raise click.UsageError(str(error)) from None
    with line_on_interrupt(f"{out}: stopped by Ctrl-C; --resume continues from its last state"):
        run_recipe(settled, out, resume=resume)
