"""Commands that read images: their options, and the one loop over files and batches."""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from git_model.cli.options import (
    Command,
    ModelOptions,
    frame_sampling_option,
    model_options,
    option,
)
from git_model.utils.errors import GITError

if TYPE_CHECKING:
    from git_model.captioner import BatchScene, Caption, Captioner
    from git_model.preprocessing.inputs import LoadedImage
    from git_model.preprocessing.video import Sampling

Record = dict[str, Any]  # a text about an image, as in the JSON output
Records = Callable[["BatchScene"], Sequence[Sequence[Record]]]  # for each image its records


def as_record(name: str, text: "Caption") -> Record:
    """A text under this name, with its log-probabilities."""
    numbers = {key: getattr(text, key) for key in ("logprob", "tokens", "token_logprobs")}
    return {name: text.text} | numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageRun(ModelOptions):
    """The options of these commands: which images, which model, how to print."""

    images: Sequence[str]
    batch_size: int
    sampling: "Sampling"
    as_json: bool
    upright: bool | None

    def open_model(self) -> "Captioner":
        """The model, with `--upright` or `--no-upright` in its preprocessing."""
        captioner = super().open_model()
        if self.upright is not None:
            config = captioner.model.config
            preprocess = dataclasses.replace(config.preprocess, upright=self.upright)
            captioner.model.config = dataclasses.replace(config, preprocess=preprocess)
        return captioner

    def report(self, captioner: "Captioner", records: Records, line: str) -> NoReturn:
        """Print the records of all images, and exit: with 1 if a file could not be read, else 0.

        Args:
            line: a record as text, such as "{caption}  (log p {logprob:.3f})".
        """
        n_failed, width = 0, max(map(len, self.images))
        for name, result in self._results(captioner, records):
            if isinstance(result, GITError):
                n_failed += 1
                click.echo(f"Error: {result}", err=True)
                continue
            for record in result:
                if self.as_json:
                    record = {"image": name, "model": self.model, **record}
                    click.echo(json.dumps(record, ensure_ascii=False, allow_nan=False))
                else:
                    click.echo(f"{name:{width}}  {line.format_map(record)}")
        sys.exit(1 if n_failed else 0)

    def _results(
        self, captioner: "Captioner", records: Records
    ) -> Iterator[tuple[str, Sequence[Record] | GITError]]:
        """Each file's records, or what is wrong with the file, in the order of the names."""
        from tqdm import tqdm

        total = len(self.images)
        quiet = total <= self.batch_size or None  # None: if there is no terminal
        with tqdm(total=total, unit="image", disable=quiet) as progress:
            for start in range(0, total, self.batch_size):
                names = self.images[start : start + self.batch_size]
                results = _of_batch(captioner, names, records, self.sampling)
                progress.clear()  # the bar is drawn below the lines, not into them
                yield from zip(names, results, strict=True)
                progress.update(len(names))


def _of_batch(
    captioner: "Captioner", names: Sequence[str], records: Records, sampling: "Sampling"
) -> list[Sequence[Record] | GITError]:
    images: dict[int, LoadedImage] = {}
    results: dict[int, Sequence[Record] | GITError] = {}
    for index, name in enumerate(names):
        try:
            images[index] = captioner.load(name, sampling)
        except GITError as error:
            results[index] = error
    if images:
        rows = records(captioner.see_batch(list(images.values())))
        for (index, image), row in zip(images.items(), rows, strict=True):
            frames = {} if image.frames is None else {"frames": image.frames}
            results[index] = [record | frames for record in row]
    return [results[index] for index in range(len(names))]


def image_command(command: Command) -> Command:
    """Make a function of an `ImageRun` a command of IMAGE…, with the options that belong to it."""
    names = [item.name for item in dataclasses.fields(ImageRun)]

    @functools.wraps(command)
    def reading(**options: Any) -> Any:
        run = ImageRun(**{name: options.pop(name) for name in names})
        return command(run=run, **options)

    decorated = option(
        "Output", "--json", "as_json", is_flag=True, help="One JSON object per line."
    )(model_options(reading))
    decorated = option(
        "Input",
        "--upright/--no-upright",
        default=None,
        help="Rotate a photo as its EXIF orientation says, or leave it as it is stored.  "
        "[default: as the model's style]",
    )(decorated)
    decorated = frame_sampling_option(decorated)
    decorated = option(
        "Input",
        "--batch-size",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        help="Images that are encoded together.",
    )(decorated)
    return click.argument("images", nargs=-1, required=True, metavar="IMAGE…")(decorated)
