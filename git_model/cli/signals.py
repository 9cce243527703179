"""Signals of `batch` and `train`: they end with one line, whatever they do when a signal comes."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from git_model.utils.distributed import StopRequest
from git_model.utils.errors import GITError
from git_model.utils.signals import handling


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
    """Handle SIGTERM, from a cluster, and SIGHUP, from a terminal that is closed. After `begun` is
    set they are recorded, so that the run ends with the current batch; before that they raise an
    error at once. A signal that is ignored, as under nohup, stays ignored. Only the main thread
    gets signals.

    Raises:
        StoppedError: a signal came before the run had begun.
    """
    request = RunStop()
    is_main = threading.current_thread() is threading.main_thread()
    with handling(request.on_signal, *((signal.SIGTERM, signal.SIGHUP) if is_main else ())):
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
