"""`git-model` in child processes that tests can kill, without seconds of importing torch in each.

Before its first test, the process that runs the tests forks a server, which has then imported what
the tests import and has done nothing with it. Every child is a fork of that server. What a fresh
Python does differently is tested where it matters: torchrun, `python -m git_model`, the installed
wheel.
"""

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

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


def program(name: str, *arguments: str) -> None:
    """What `python FILE` or `python -m MODULE` runs, in a child."""
    sys.argv = [name, *arguments]
    sys.modules.pop(f"{name}.__main__", None)
    run = runpy.run_path if name.endswith(".py") else runpy.run_module
    run(name, run_name="__main__")


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
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores, as it is in a terminal
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(f"{output}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    multiprocessing.set_start_method(environment.get(START_METHOD, "fork"), force=True)
    import torch

    torch.set_num_threads(1)
    target(*arguments)


class Forked:
    """A running function, with the part of subprocess.Popen that the tests use.

    Args:
        target: a function of a module that the child can import.
        arguments: texts, numbers, paths.
        environment: variables that the child gets beside those of the server.
    """

    def __init__(self, target: Callable[..., None], *arguments: object, **environment: str) -> None:
        self._output = tempfile.TemporaryDirectory()
        self._watcher = _new_watcher()
        self._watcher.send((target, tuple(map(str, arguments)), environment, self._output.name))
        self.pid: int = self._watcher.recv()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code of a process that ended; minus the signal that ended it."""
        if self.returncode is None and self._watcher.poll():
            self.returncode = self._watcher.recv()
        return self.returncode

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
        if self.returncode is None:
            assert self._watcher.poll(timeout), "the process did not end in time"
            self.returncode = self._watcher.recv()
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float = MAX_SECONDS) -> tuple[str, str]:
        """Wait for the end; what it wrote to stdout and stderr."""
        self.wait(timeout)
        out, err = (Path(self._output.name, name) for name in ("out", "err"))
        return out.read_text(), err.read_text()


def run(
    target: Callable[..., None], *arguments: object, **environment: str
) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a child, at its end."""
    process = Forked(target, *arguments, **environment)
    return (process.wait(), *process.communicate())


_server: list[socket.socket] = []  # what asks the server for children, once it runs


def start_server() -> None:
    """Fork the server, before any test has changed this process or started a thread in it."""
    requests, served = socket.socketpair()
    if os.fork() == 0:
        _serve(served)
    served.close()
    _server.append(requests)


def _new_watcher() -> Connection:
    """A new process of the server, which starts one child and waits for it."""
    ours, theirs = multiprocessing.Pipe()
    socket.send_fds(_server[0], [b"."], [theirs.fileno()])
    theirs.close()
    return ours


def _serve(requests: socket.socket) -> NoReturn:
    """A watcher for each request, until the process of the tests ends."""
    try:
        _let_go_of_files(requests.fileno())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for watchers
        while descriptors := socket.recv_fds(requests, 1, 1)[1]:
            for name in PRELOADED:
                import_module(name)
            if os.fork() == 0:
                requests.close()
                _watch(Connection(descriptors[0]))
            os.close(descriptors[0])
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(0)


def _watch(connection: Connection) -> NoReturn:
    """Start the child that is asked for; send its process id and, at its end, its exit code."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        child = multiprocessing.get_context("fork").Process(target=_run, args=connection.recv())
        child.start()
        connection.send(child.pid)
        child.join()
        connection.send(child.exitcode)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(0)


def _let_go_of_files(keep: int) -> None:
    """No child holds a file of the test run open, such as a pipe whose end another waits for."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        with suppress(OSError):  # that of the list itself is closed
            if number > 2 and number not in (keep, nothing) and os.fstat(number):
                os.dup2(nothing, number)
