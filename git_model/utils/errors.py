"""The errors that a user can fix: one line each, safe to show on a terminal."""

MAX_ERROR_LENGTH = 2000  # characters


class GITError(ValueError):
    """An error that the user can fix. The message is one line: what, where, what was expected.

    Control characters are escaped, so that text from a file cannot control a terminal.
    """

    def __init__(self, message: str) -> None:
        super().__init__(bounded_line(message))


def bounded_line(text: str) -> str:
    """A text as one line of at most MAX_ERROR_LENGTH characters; a longer one ends in …"""
    line = one_line(text[: MAX_ERROR_LENGTH + 1])
    return line if len(line) <= MAX_ERROR_LENGTH else f"{line[:MAX_ERROR_LENGTH]}…"


def shortened(text: str, limit: int = 1000) -> str:
    """A text of at most about `limit` characters: a longer one has … in its middle."""
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 2 :]}"


def one_line(text: str) -> str:
    r"""A text with every character escaped that is not printable: a line break as \n, and so on."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


class ConfigError(GITError):
    """A setting that cannot be used; the message names the field, its value and what to do."""


class CheckpointError(GITError):
    """A checkpoint that cannot be read or written; the message names the file and the tensor."""
