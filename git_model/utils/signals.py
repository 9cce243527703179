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
def cleanup_on_signals() -> Iterator[None]:
    """Let SIGTERM, from a cluster, and SIGHUP, from a terminal that is closed, end the process as
    an exception does, so that half-written files are deleted. Only the main thread gets signals."""

    def stop(number: int, _: FrameType | None) -> Never:
        raise SystemExit(128 + number)

    is_main = threading.current_thread() is threading.main_thread()
    with handling(stop, *((signal.SIGTERM, signal.SIGHUP) if is_main else ())):
        yield
