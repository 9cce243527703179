"""From inputs to outcomes: worker processes load images ahead of the model, and the model captions
them in batches of one shape."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path

from torch.utils.data import Dataset

from git_model.batch.caption_filters import RecordEditor
from git_model.batch.items import AnyInput, Input, OutputRecord, RefusedInput
from git_model.batch.journal import Outcome
from git_model.batch.source_files import SOURCE_FILE, source_file
from git_model.batch.workers import is_worker_death, worker_stream
from git_model.captioner import MAX_ROWS, Captioner
from git_model.config import DecodingOptions, GITConfig
from git_model.preprocessing.image import group_by_shape, reason_of
from git_model.preprocessing.inputs import (
    LoadedImage,
    frames_to_read,
    load_media,
    with_orientation,
)
from git_model.preprocessing.sampling import ReadOptions
from git_model.utils.errors import GITError, bounded_line

TRIES_ALONE = 2  # of an image whose worker died
MAX_WAITING = 4  # batches of images that wait for others of their shape

InputGroup = tuple[AnyInput, ...]  # all about one image
InputOutcome = tuple[AnyInput, Outcome]
_Row = tuple[LoadedImage, OutputRecord, list[Input]]  # an image, notes about it, its inputs


@dataclass(frozen=True)
class LoadedInput:
    """An image as the model's input, or the reason why it cannot be loaded.

    inputs: the inputs about this image, such as its questions.
    source_file: of the image, see `source_files.source_file`.
    """

    inputs: InputGroup
    image: LoadedImage | None = None
    failure: str | None = None
    source_file: OutputRecord | None = None


class InputDataset(Dataset[LoadedInput]):
    """From files to pixels: the work of the worker processes.

    Args:
        folder: of the run's output, that the paths in records are relative to; None: the records
            say nothing about the files.
    """

    def __init__(
        self, config: GITConfig, reading: ReadOptions | None = None, folder: Path | None = None
    ) -> None:
        self._reading, self._folder = reading or ReadOptions(), folder
        self._config = with_orientation(config, self._reading)

    def __getitem__(self, inputs: InputGroup) -> LoadedInput:
        """Load an image; nothing is raised, because one image must not end a run."""
        first = inputs[0]
        if isinstance(first, RefusedInput):
            return LoadedInput(inputs, failure=first.reason)
        try:
            return self._load(inputs, first)
        except Exception as error:
            reason, name = reason_of(error), first.name
            failure = reason if name in reason else f"{name}: {reason}"
            return LoadedInput(inputs, failure=bounded_line(failure))

    def _load(self, inputs: InputGroup, item: Input) -> LoadedInput:
        data = None if isinstance(item.location, Path) else item.read()  # once, for both uses
        media = item.open(frames_to_read(self._config, self._reading), self._reading, data)
        image = load_media(media, self._config)
        about = None if self._folder is None else source_file(item, self._folder, data)
        return LoadedInput(inputs, image, source_file=about)


def group_by_image(inputs: Iterable[AnyInput]) -> Iterator[InputGroup]:
    """Groups of consecutive inputs about one image, so that the image is loaded once. A group has
    at most as many inputs as a model answers at a time."""
    for _, group in groupby(inputs, key=_image_of):
        while part := tuple(islice(group, MAX_ROWS)):
            yield part


def _image_of(item: AnyInput) -> object:
    """Equal for inputs about the same image."""
    return item.location if isinstance(item, Input) else item


def load_inputs(
    groups: Iterable[InputGroup], dataset: InputDataset, *, workers: int = 0, ahead: int = 1
) -> Generator[LoadedInput, None, None]:
    """Load the image of each group, in order. Closing the generator ends the workers.

    Args:
        workers: processes that load ahead; 0: this process loads. If a worker dies, as when memory
            is short, only the image that killed it fails.
        ahead: images that they load together before they wait for the model.
    """
    if workers == 0:
        yield from map(dataset.__getitem__, groups)
        return
    groups, sent, errors = iter(groups), deque[InputGroup](), list[Exception]()
    while True:
        tasks = _recorded(groups, sent, errors)
        try:
            with worker_stream(tasks, dataset, workers=workers, ahead=ahead) as stream:
                for loaded in stream:
                    sent.popleft()
                    yield loaded
            if errors:
                raise errors[0]
            return
        except RuntimeError as error:
            if not is_worker_death(error):
                raise
        while sent:
            yield _load_alone(sent.popleft(), dataset)


def _recorded(
    groups: Iterator[InputGroup], sent: deque[InputGroup], errors: list[Exception]
) -> Iterator[InputGroup]:
    """Groups on their way to the workers; `sent` holds those without a result yet. An error ends
    the groups, and is kept in `errors` until all earlier groups have their results."""
    try:
        for group in groups:
            sent.append(group)
            yield group
    except Exception as error:
        errors.append(error)


def _load_alone(group: InputGroup, dataset: InputDataset) -> LoadedInput:
    """Load an image that may have killed its worker. If the worker dies again, it is tried once
    more, because another program may have killed the worker."""
    reason = ""
    for _ in range(TRIES_ALONE):
        try:
            with worker_stream([group], dataset, workers=1, ahead=1) as stream:
                return next(stream)
        except RuntimeError as error:
            if not is_worker_death(error):
                raise
            reason = reason_of(error).rstrip(".")
    failure = f"{group[0].name}: the process that loaded it was ended: {reason}"
    return LoadedInput(group, failure=failure)


def one_shape_batches(stream: Iterable[LoadedInput], size: int) -> Iterator[list[LoadedInput]]:
    """Batches of at most `size` images of one shape, each with the failures since the last
    batch."""
    waiting: list[LoadedInput] = []
    failed: list[LoadedInput] = []
    for loaded in stream:
        (failed if loaded.image is None else waiting).append(loaded)
        groups = _shape_groups(waiting)
        full = next((group for group in groups if len(group) == size), None)
        if full is None and len(waiting) >= MAX_WAITING * size:
            full = groups[0]  # not full, but its first image has waited longest
        if full is not None or len(failed) >= size:
            batch, waiting = _split(waiting, full or [])
            yield failed + batch
            failed = []
    while waiting or failed:
        groups = _shape_groups(waiting)
        batch, waiting = _split(waiting, groups[0] if groups else [])
        yield failed + batch
        failed = []


def _shape_groups(loaded: Sequence[LoadedInput]) -> list[list[int]]:
    return group_by_shape([item.image.pixels for item in loaded if item.image is not None])


def _split(
    loaded: Sequence[LoadedInput], positions: Sequence[int]
) -> tuple[list[LoadedInput], list[LoadedInput]]:
    """The images at these positions, and the other images."""
    others = [item for position, item in enumerate(loaded) if position not in positions]
    return [loaded[position] for position in positions], others


def no_text(_: Input) -> None:
    """The old text of an input: none."""


@dataclass
class BatchCaptioner:
    """Captions batches of images, or answers questions about them.

    editor: makes the records.
    old_text: the text that an input has already, if any.
    busy_seconds: how long the model worked.
    n_sideways: the number of images that are stored rotated or mirrored, and were left so.
    """

    captioner: Captioner
    decoding: DecodingOptions
    editor: RecordEditor
    old_text: Callable[[Input], str | None] = no_text
    busy_seconds: float = field(default=0.0, init=False)
    n_sideways: int = field(default=0, init=False)

    def outcomes(self, batch: Sequence[LoadedInput]) -> list[InputOutcome]:
        """The outcomes of the inputs of a batch, whose images have one shape."""
        failures = {
            item: loaded.failure or self._fault(item) for loaded in batch for item in loaded.inputs
        }
        outcomes: list[InputOutcome] = [
            (item, Outcome(item.identity, failure=failure))
            for item, failure in failures.items()
            if failure is not None
        ]
        rows: list[_Row] = []
        for loaded in batch:
            items = [item for item in loaded.inputs if failures[item] is None]
            answerable = [item for item in items if isinstance(item, Input)]
            if loaded.image is not None and answerable:
                rows.append((loaded.image, _notes(loaded), answerable))
        return outcomes + (self._captioned(rows) if rows else [])

    def _fault(self, item: AnyInput) -> str | None:
        """The reason why the model cannot answer an input, or None."""
        try:
            self.captioner.prompt(item.question if isinstance(item, Input) else None)
            return None
        except GITError as error:
            return f"{item.name}: {error}"

    def _captioned(self, rows: Sequence[_Row]) -> list[InputOutcome]:
        """The outcomes of images with their inputs; each image is encoded once."""
        start = time.monotonic()
        scene = self.captioner.see_batch([image for image, _, _ in rows])
        questions = [[item.question for item in items] for _, _, items in rows]
        captions = self.captioner.generate(scene, questions, self.decoding)
        self.busy_seconds += time.monotonic() - start
        self.n_sideways += sum(image.is_sideways for image, _, _ in rows)
        outcomes: list[InputOutcome] = []
        for (image, notes, items), texts_of_items in zip(rows, captions, strict=True):
            warning = self.captioner.image_warning(image)
            for item, texts in zip(items, texts_of_items, strict=True):
                old_text = self.old_text(item)
                record = self.editor.record(item, image.frames, texts, old_text, warning)
                outcomes.append((item, Outcome(item.identity, record | notes)))
        return outcomes


def _notes(loaded: LoadedInput) -> OutputRecord:
    """What a record says about the file of its image."""
    is_truncated = loaded.image is not None and loaded.image.is_truncated
    notes: OutputRecord = {"truncated": True} if is_truncated else {}
    return notes if loaded.source_file is None else notes | {SOURCE_FILE: loaded.source_file}
