"""The processes of a run (torch.distributed): one process, or those that `torchrun` started.

Each process has a rank from 0 to size - 1 and computes its part of every step. Only rank 0 writes
files and prints.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from git_model.utils.devices import usable_device
from git_model.utils.errors import GITError
from git_model.utils.signals import handling

TIMEOUT = timedelta(hours=2)  # other ranks wait while rank 0 captions the validation data
# Texts of torch's errors when the process at the other end of a connection has ended.
PEER_GONE = ("closed by peer", "reset by peer", "Broken pipe")
T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of its run."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def all_gather(self, *numbers: float) -> Tensor:
        """(size, len(numbers)): these numbers of every process, in float64."""
        local = torch.tensor(numbers, dtype=torch.float64)
        if self.size == 1:
            return local[None]
        gathered = [torch.empty_like(local) for _ in range(self.size)]
        dist.all_gather(gathered, local)
        return torch.stack(gathered)

    def all_gather_object(self, value: T) -> list[T]:
        """The value of every process."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """The value of rank 0."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def barrier(self) -> None:
        """Wait until every process has called this."""
        self.all_gather(0)


@contextmanager
def init(device: str, timeout: timedelta = TIMEOUT) -> Iterator[ProcessGroup]:
    """The process group. It waits until all processes that torchrun started are connected.

    Args:
        timeout: the longest that processes wait for each other.

    Raises:
        GITError: the device cannot be used, or another process has ended.
    """
    target = usable_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ProcessGroup(target)
        return
    if target.type == "cuda":
        target = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(target)
    # Numbers that processes exchange stay on the CPU, so that nothing waits for a GPU.
    backend = "cpu:gloo,cuda:nccl" if target.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timeout)
    try:
        yield ProcessGroup(target, dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or any(text in str(error) for text in PEER_GONE):
            raise GITError("another process of this run has ended; its own line says why") from None
        raise
    finally:
        dist.destroy_process_group()


@dataclass
class StopRequest:
    """Whether this process was asked to stop, and whether by Ctrl-C."""

    received: bool = False
    interrupted: bool = False


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Record a signal instead of ending at once: SIGTERM, which a cluster sends before it stops a
    machine, and the first SIGINT, which Ctrl-C sends. A second SIGINT raises KeyboardInterrupt. A
    signal that is ignored, as SIGINT is in a shell's background, stays ignored.

    Only for the main thread of a process.
    """
    request, at_second = StopRequest(), signal.getsignal(signal.SIGINT)

    def record(number: int, _: FrameType | None) -> None:
        request.received = True
        if number == signal.SIGINT:
            request.interrupted = True
            signal.signal(signal.SIGINT, at_second)
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")

    with handling(record, signal.SIGTERM, signal.SIGINT):
        yield request
