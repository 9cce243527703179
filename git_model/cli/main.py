"""The command line: one file per command. Slow imports are inside functions, so that `--help` is
fast."""

import io
import sys
import warnings
from typing import Any

import click

from git_model.cli.ask import ask
from git_model.cli.batch import batch
from git_model.cli.caption import caption
from git_model.cli.classify import classify
from git_model.cli.compare import compare
from git_model.cli.convert import convert
from git_model.cli.data import data
from git_model.cli.evaluate import evaluate
from git_model.cli.explain import explain
from git_model.cli.export import export
from git_model.cli.page import page
from git_model.cli.score import score
from git_model.cli.train import train
from git_model.cli.verify import verify
from git_model.utils.errors import GITError, one_line
from git_model.utils.signals import cleanup_on_signals


class Commands(click.Group):
    """A group that turns an error that the user can fix into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        for stream in (sys.stdout, sys.stderr):
            # file names may hold bytes that are not text, and a terminal may know few characters
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            with cleanup_on_signals(), warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except GITError as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:  # a full disk behind stdout, or a closed folder
            raise click.ClickException(str(error)) from None
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error):
                raise
            raise click.ClickException(
                "there is not enough memory: use a smaller --batch-size, or a smaller model"
            ) from None

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The commands in the order of this file."""
        return list(self.commands)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning of Python's as one line, without the source line that it comes from."""
    click.echo(f"Warning: {one_line(str(message))}", err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="git-model")
def main() -> None:
    """GIT, the Generative Image-to-text Transformer: caption images and answer questions."""


for command in (
    caption, ask, classify, score, batch, train, evaluate, compare, convert, export, verify,
    explain, page, data,
):  # fmt: skip
    main.add_command(command)
