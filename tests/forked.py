"""`git-model` in child processes that tests can kill, without seconds of importing torch in each.

A server process imports the package once; every child is a fork of it. What a fresh Python does
differently is tested where it matters: torchrun, `python -m git_model`, the installed wheel.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PRELOADED = [
    "torch",
    "torch._dynamo",  # an optimizer imports it, which takes two seconds
    "fsspec",  # and a checkpoint of a run this
    "git_model.cli.main",
    "git_model.cli.train",
    "git_model.training.loop",
    "batch_runs",
]
START_METHOD = "TESTS_START_METHOD"  # of the child's own children
MAX_SECONDS = 280  # on a busy machine; a test has 300


def git_model(*arguments: str) -> None:
    """The command line, in a child."""
    from git_model.cli.main import main

    sys.argv = ["git-model", *arguments]
    main(arguments)


def end_after_two_steps(*arguments: str) -> None:
    """`git-model` in a child that sends itself SIGTERM after the second step of training."""
    from git_model.training.loop import Trainer

    step = Trainer.step

    def step_and_end(self: Trainer, number: int, batches: Any) -> Any:
        stats = step(self, number, batches)
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return stats

    Trainer.step = step_and_end  # type: ignore[method-assign]
    git_model(*arguments)


def _run(
    target: Callable[..., None],
    arguments: tuple[str, ...],
    environment: dict[str, str],
    output: str,
) -> None:
    """The child, with its own output files."""
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(f"{output}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
    multiprocessing.set_start_method(environment.get(START_METHOD, "fork"), force=True)
    import torch

    torch.set_num_threads(1)
    target(*arguments)


class Forked:
    """A running function, with the part of subprocess.Popen that the tests use.

    Args:
        target: a function of a module that the child can import.
        arguments: texts, numbers, paths.
        environment: variables that the child gets beside those of this process.
    """

    def __init__(self, target: Callable[..., None], *arguments: object, **environment: str) -> None:
        self._output = tempfile.TemporaryDirectory()
        texts = tuple(map(str, arguments))
        self._process: BaseProcess = _server().Process(
            target=_run, args=(target, texts, environment, self._output.name)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code of a process that ended; minus the signal that ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = MAX_SECONDS) -> int:
        """Wait for the end."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, "the process did not end in time"
        return self._process.exitcode

    def communicate(self, timeout: float = MAX_SECONDS) -> tuple[str, str]:
        """Wait for the end; what it wrote to stdout and stderr."""
        self.wait(timeout)
        out, err = (Path(self._output.name, name) for name in ("out", "err"))
        return out.read_text(), err.read_text()


def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
