"""The processes of a run: one alone, or as many as `torchrun` started.

Each process has a rank from 0 to count - 1 and its own part of every step. What they need to know
of each other goes through a `Ranks`. Only rank 0 writes files and talks.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from git_model.devices import usable_device
from git_model.settings import GITError

PATIENCE = timedelta(hours=2)  # with rank 0, while it captions the validation data
# What torch says where a process on the other end of a line is gone.
GONE = ("closed by peer", "reset by peer", "Broken pipe")
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and talks."""
        return self.rank == 0

    def gather(self, *numbers: float) -> Tensor:
        """(count, len(numbers)): these numbers of every rank, in float64."""
        mine = torch.tensor(numbers, dtype=torch.float64)
        if self.count == 1:
            return mine[None]
        everyones = [torch.empty_like(mine) for _ in range(self.count)]
        dist.all_gather(everyones, mine)
        return torch.stack(everyones)

    def all_of(self, value: T) -> list[T]:
        """What each rank has."""
        values = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    def same(self, value: T) -> T:
        """What rank 0 has."""
        values = [value]
        if self.count > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Until every rank is here."""
        self.gather(0)


@contextmanager
def joined(device: str, patience: timedelta = PATIENCE) -> Iterator[Ranks]:
    """This process, once all that torchrun started have found each other.

    Args:
        patience: how long they wait for each other.

    Raises:
        GITError: the device cannot be used, or another process has ended before its time.
    """
    place = usable_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks(place)
        return
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    # Numbers that processes tell each other stay on the CPU, where nobody waits for a GPU.
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=patience)
    try:
        yield Ranks(place, dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or any(text in str(error) for text in GONE):
            raise GITError("another process of this run has ended; its own line says why") from None
        raise
    finally:
        dist.destroy_process_group()


@dataclass
class Stop:
    """Whether this process was asked to stop."""

    asked: bool = False


@contextmanager
def sigterm() -> Iterator[Stop]:
    """Note SIGTERM, instead of ending at once: a cluster sends it before it takes a machine back.

    Only for the main thread of a process.
    """
    stop = Stop()

    def note(*_: object) -> None:
        stop.asked = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
