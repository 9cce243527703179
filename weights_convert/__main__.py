"""`python -m weights_convert FORMAT SRC DST …` is `git-model convert --from FORMAT SRC DST …`."""

import sys

from git_model.cli.convert import FORMATS


def command_line(arguments: list[str]) -> list[str]:
    """The arguments of `git-model` that do the same. Without a format it is recognised by the
    files.

    >>> command_line(["microsoft", "SRC", "DST"])
    ['convert', '--from', 'microsoft', 'SRC', 'DST']
    """
    has_format = bool(arguments) and arguments[0] in FORMATS
    return ["convert", *(["--from"] if has_format else []), *arguments]


def main() -> None:
    """Run the command."""
    from git_model.cli.main import main as git_model

    git_model(command_line(sys.argv[1:]), prog_name="git-model")


if __name__ == "__main__":
    main()
