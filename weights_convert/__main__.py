"""`python -m weights_convert FORMAT SRC DST …` is `git-model convert --from FORMAT SRC DST …`."""

import sys

import click

from git_model.cli.convert import FORMATS, convert
from git_model.utils.errors import GITError


def main() -> None:
    """Run the command; without a format it is told by the files."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in FORMATS:
        arguments = ["--from", *arguments]
    try:
        convert.main(arguments, prog_name="python -m weights_convert")
    except GITError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
