"""Handlers of signals for a while."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Never


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """Let `handler` handle these signals, and restore their handlers at the end. A signal that is
    ignored, as under nohup, stays ignored."""
    before: dict[int, Any] = {}
    try:
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def handling_ends(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """As `handling`, of SIGTERM, from a cluster, and SIGHUP, from a terminal that is closed. Only
    the main thread gets signals."""
    is_main = threading.current_thread() is threading.main_thread()
    with handling(handler, *((signal.SIGTERM, signal.SIGHUP) if is_main else ())):
        yield


@contextmanager
def cleanup_on_signals() -> Iterator[None]:
    """Let the signals of `handling_ends` end the process as an exception does, so that half-written
    files are deleted."""

    def stop(number: int, _: FrameType | None) -> Never:
        raise SystemExit(128 + number)

    with handling_ends(stop):
        yield
