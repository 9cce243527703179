"""Worker processes that load images ahead of the model. They end when the walk over the inputs
ends, also after an error."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.context import BaseContext
from types import FrameType
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from git_model.data.loader import leave_signals_to_parent

T = TypeVar("T")
PARENT_CHECK_SECONDS = 1.0


def is_worker_death(error: BaseException) -> bool:
    """Whether this is torch's error that a worker process has ended before its work was done."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")


@contextmanager
def worker_stream(
    tasks: Iterable[Any], dataset: Dataset[T], *, workers: int, ahead: int
) -> Iterator[Iterator[T]]:
    """The results of worker processes for each task, in the order of the tasks. When the block
    ends, no worker is alive any more.

    Args:
        tasks: indices of `dataset`. They must not raise: that would leave the loader half built,
            with workers that nothing refers to.
        ahead: tasks that the workers together do before they wait.

    Raises:
        RuntimeError: raised by the stream if a worker has died; see `is_worker_death`.
    """
    processes: list[Any] = []
    stream = _WorkerStream()
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=tasks,
        num_workers=workers,
        prefetch_factor=-(-ahead // workers),  # of each
        worker_init_fn=partial(_begin_worker, os.getpid()),
        multiprocessing_context=_recording_context(processes),
        generator=torch.Generator(),  # or else it takes a number that sampling would get
    )
    try:
        yield stream.results(loader)
    finally:
        stream.close()
        _end(processes)


class _WorkerStream:
    """The results of the workers."""

    def __init__(self) -> None:
        self._death: RuntimeError | None = None
        self._is_waiting = False
        self._iterator: Any = None
        self._handler: Any = None  # torch's, of SIGCHLD

    def results(self, loader: "DataLoader[T]") -> Iterator[T]:
        """The results, until there are no more tasks."""
        while True:
            self._is_waiting = True
            try:
                if self._death is not None:
                    raise self._death
                if self._iterator is None:
                    self._iterator = iter(loader)
                    self._defer_deaths()
                result = next(self._iterator)
            except StopIteration:
                return
            finally:
                self._is_waiting = False
            yield result

    def _defer_deaths(self) -> None:
        """Let torch's signal handler report a worker's death only from `results`. Without this, it
        raises the error wherever the main thread is, even while the model works."""
        handler = signal.getsignal(signal.SIGCHLD)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            self._handler = handler
            signal.signal(signal.SIGCHLD, self._on_child_signal)

    def _on_child_signal(self, number: int, frame: FrameType | None) -> None:
        try:
            self._handler(number, frame)
        except RuntimeError as error:
            if self._is_waiting or not is_worker_death(error):
                raise
            self._death = error

    def close(self) -> None:
        """Ask the workers to end, and wait some seconds."""
        self._is_waiting = False
        # `__del__` would call this too, but a traceback may keep the iterator
        shut_down: Callable[[], None] | None = getattr(self._iterator, "_shutdown_workers", None)
        if shut_down is not None:
            with suppress(RuntimeError):
                shut_down()
        if self._handler is not None:
            signal.signal(signal.SIGCHLD, self._handler)


def _recording_context(processes: list[Any]) -> BaseContext:
    """The default way of starting processes; it adds each one to a list."""
    context = multiprocessing.get_context(multiprocessing.get_start_method())
    recording = type(context)()

    def process(*args: Any, **values: Any) -> Any:
        processes.append(context.Process(*args, **values))  # type: ignore[attr-defined]
        return processes[-1]

    vars(recording)["Process"] = process
    return recording


def _end(processes: Iterable[Any]) -> None:
    """Kill the workers that are still alive, such as one that decodes an image. They ignore
    SIGTERM."""
    for process in processes:
        while process.pid is not None and process.is_alive():
            with suppress(RuntimeError):  # torch's signal handler
                process.kill()
                process.join()


def _begin_worker(parent: int, number: int) -> None:
    leave_signals_to_parent(number)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if multiprocessing.get_start_method() == "forkserver":  # Python 3.14's default on Linux
        parent = os.getppid()  # the server, which ends with the main process
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process once its parent has ended. torch's own check does not work if unread results
    fill a pipe."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)
