"""Signals of `batch`: it ends with one line, whatever it does when a signal comes."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from git_model.utils.distributed import StopRequest
from git_model.utils.errors import GITError


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
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, request.on_signal)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class RunStop(StopRequest):
    """A stop request that ends the command at once if no run has begun."""

    begun = False

    def on_signal(self, number: int, _: FrameType | None) -> None:
        """Handle a signal."""
        self.received = True
        if not self.begun:
            name = signal.Signals(number).name
            raise StoppedError(f"stopped by {name} before the run began; nothing is lost")
