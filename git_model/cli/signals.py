"""Signals of `batch` and `train`: they end with one line, whatever they do when a signal comes."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from git_model.utils.distributed import StopRequest
from git_model.utils.errors import GITError
from git_model.utils.signals import handling_ends


@contextmanager
def line_on_interrupt(line: str) -> Iterator[None]:
    """End with this line on Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        raise GITError(line) from None


class StoppedError(GITError):
    """The command was asked to stop before its run began."""


@contextmanager
def stop_signals() -> Iterator["RunStop"]:
    """Handle the signals of `handling_ends`. After `begun` is set they are recorded, so that the
    run ends with the current batch; before that they raise an error at once.

    Raises:
        StoppedError: a signal came before the run had begun.
    """
    request = RunStop()
    with handling_ends(request.on_signal):
        yield request


class RunStop(StopRequest):
    """A stop request that ends the command at once if no run has begun."""

    begun = False

    def on_signal(self, number: int, _: FrameType | None) -> None:
        """Handle a signal."""
        self.received = True
        if not self.begun:
            name = signal.Signals(number).name
            raise StoppedError(f"stopped by {name} before the run began; nothing is lost")
