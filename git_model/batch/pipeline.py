"""Pictures read ahead of the model, by processes of their own, and put together by their shape."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from git_model.batch.inputs import Input, Refused
from git_model.captioner import MAX_ROWS
from git_model.config import GITConfig
from git_model.data.loader import leave_signals_to_parent
from git_model.preprocessing.image import preprocess_batch, reason_of
from git_model.preprocessing.video import Clip, Sampling

HELD = 4  # batches of pictures that wait for others of their shape, at most

Asked = tuple[Input | Refused, ...]  # what is to be written about one picture


@dataclass(frozen=True)
class Look:
    """A picture as the model sees it, or why it cannot be seen.

    pixels: (3, H, W), of a clip (F, 3, H, W); None if there is a failure.
    frames: the numbers of a clip's frames in its file.
    """

    asked: Asked
    pixels: Tensor | None = None
    frames: list[int] | None = None
    failure: str | None = None


class Reader(Dataset[Look]):
    """From files to pixels: what the processes do."""

    def __init__(self, config: GITConfig, sampling: Sampling = "uniform") -> None:
        self._config, self._sampling = config, sampling

    def __getitem__(self, asked: Asked) -> Look:
        """The look at a picture; nothing is raised, for one picture must not end a run."""
        first = asked[0]
        if isinstance(first, Refused):
            return Look(asked, failure=first.reason)
        try:
            media = first.open(self._config.frames, self._sampling)
            if isinstance(media, Clip):
                pixels = preprocess_batch(media.frames, self._config.preprocess)
                return Look(asked, pixels, media.indices)
            return Look(asked, preprocess_batch([media], self._config.preprocess)[0])
        except Exception as error:
            reason, name = reason_of(error), first.name
            return Look(asked, failure=reason if name in reason else f"{name}: {reason}")


def by_picture(inputs: Iterable[Input | Refused]) -> Iterator[Asked]:
    """Inputs that follow one another and are about one picture, together, so that it is read once;
    at most as many as a model answers at a time."""
    for _, group in groupby(inputs, key=_picture):
        while some := tuple(islice(group, MAX_ROWS)):
            yield some


def looks(
    pictures: Iterable[Asked], reader: Reader, *, workers: int = 0, ahead: int = 1
) -> Iterator[Look]:
    """The look at each picture, in their order.

    Args:
        workers: processes that read ahead; 0: this one reads. One that dies, as when memory is
            short, costs the picture that kills it, not the run.
        ahead: pictures that they have read together before they wait for the model.
    """
    if workers == 0:
        yield from map(reader.__getitem__, pictures)
        return
    pictures, sent = iter(pictures), deque[Asked]()
    while True:
        try:
            for look in _loader(_noted(pictures, sent), reader, workers, ahead):
                sent.popleft()
                yield look
            return
        except RuntimeError as error:
            if not _is_death(error):
                raise
        while sent:
            yield _alone(sent.popleft(), reader)


def batches(seen: Iterable[Look], size: int) -> Iterator[list[Look]]:
    """Looks of one shape, at most `size` of them, and the failures that came meanwhile."""
    waiting: dict[torch.Size, list[Look]] = {}
    failed: list[Look] = []
    for look in seen:
        if look.pixels is None:
            failed.append(look)
        else:
            waiting.setdefault(look.pixels.shape, []).append(look)
        full = next((shape for shape, group in waiting.items() if len(group) == size), None)
        if full is None and sum(map(len, waiting.values())) >= HELD * size:
            full = next(iter(waiting))  # not full, but its first picture has waited longest
        if full is not None or len(failed) >= size:
            yield failed + (waiting.pop(full) if full is not None else [])
            failed = []
    for group in waiting.values():
        yield failed + group
        failed = []
    if failed:
        yield failed


def stacked(seen: Iterable[Look], device: torch.device) -> Tensor:
    """The pixels of some looks as one batch on the device; to a GPU they travel while it works."""
    pixels = torch.stack([look.pixels for look in seen if look.pixels is not None])
    if device.type != "cuda":
        return pixels.to(device)
    return pixels.pin_memory().to(device, non_blocking=True)


def _picture(item: Input | Refused) -> object:
    """What is the same for inputs about the same picture."""
    return item.place if isinstance(item, Input) else item


def _noted(pictures: Iterator[Asked], sent: deque[Asked]) -> Iterator[Asked]:
    """Pictures on their way to the processes; `sent` has those that are not back."""
    for asked in pictures:
        sent.append(asked)
        yield asked


def _loader(
    pictures: Iterable[Asked], reader: Reader, workers: int, ahead: int
) -> DataLoader[Look]:
    return DataLoader(
        reader,
        batch_size=None,
        sampler=pictures,
        num_workers=workers,
        prefetch_factor=-(-ahead // workers),  # of each
        worker_init_fn=leave_signals_to_parent,
        generator=torch.Generator(),  # or else it takes a number that sampling would get
    )


def _alone(asked: Asked, reader: Reader) -> Look:
    """The look at a picture that may have killed the process that read it."""
    try:
        return next(iter(_loader([asked], reader, workers=1, ahead=1)))
    except RuntimeError as error:
        if not _is_death(error):
            raise
        reason = reason_of(error).rstrip(".")
        return Look(asked, failure=f"{asked[0].name}: the process that read it was ended: {reason}")


def _is_death(error: RuntimeError) -> bool:
    return str(error).startswith("DataLoader worker")
