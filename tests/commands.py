"""The command line in this process: its result, and the error line that it ends with."""

from pathlib import Path

from click.testing import CliRunner, Result

from git_model.cli.main import main

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"word{n}" for n in range(36))]


def run(*arguments: str | Path | int) -> Result:
    """Run `git-model` with these arguments; an exception that it does not handle is raised."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def refusal(*arguments: str | Path | int, code: int = 1) -> str:
    """The error line that a command ends with."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ")
    return line
