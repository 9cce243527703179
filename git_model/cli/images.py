"""Commands that read images: their options, and the one loop over files and batches."""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from git_model.checkpoints.defaults import Task, model_help
from git_model.cli.options import (
    Command,
    ModelOptions,
    add_decoding_options,
    chosen_model,
    model_options,
    option,
    take_decoding,
)
from git_model.cli.reading import Reading, reading_options, sideways_line
from git_model.utils.errors import GITError, one_line
from git_model.utils.serialize import is_file

if TYPE_CHECKING:
    from git_model.captioner import BatchScene, Caption, Captioner
    from git_model.preprocessing.inputs import LoadedImage
    from git_model.preprocessing.sampling import ReadOptions

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
    reading: Reading
    as_json: bool

    def open_model(self) -> "Captioner":
        """The model, unless no image can be read."""
        require_files(self.images)
        return super().open_model()

    def report(self, captioner: "Captioner", records: Records, line: str) -> NoReturn:
        """Print the records of all images, and exit: with 1 if a file could not be read, else 0.

        Args:
            line: a record as text, such as "{caption}  (log p {logprob:.3f})".
        """
        from git_model.utils.progress import ProgressBar

        n_failed, n_sideways, n_warned, total = 0, 0, 0, len(self.images)
        reading = self.reading.options_for(captioner.model)
        quiet = total <= self.batch_size or None  # None: if there is no terminal
        with ProgressBar(total=total, unit="image", disable=quiet) as progress:
            for start in range(0, total, self.batch_size):
                names = self.images[start : start + self.batch_size]
                loaded = [_load(captioner, name, reading) for name in names]
                images = [image for image in loaded if not isinstance(image, GITError)]
                rows = iter(records(captioner.see_batch(images)) if images else ())
                progress.clear()  # the bar is drawn below the lines, not into them
                for name, image in zip(names, loaded, strict=True):
                    if isinstance(image, GITError):
                        click.echo(f"Error: {image}", err=True)
                        continue
                    warning = captioner.image_warning(image)
                    if warning is not None and n_warned == 0:
                        click.echo(f"Warning: {one_line(name)}: {warning}", err=True)
                    n_warned += warning is not None
                    self._print(name, image, next(rows), line, warning)
                n_failed += len(loaded) - len(images)
                n_sideways += sum(image.is_sideways for image in images)
                progress.update(len(names))
        if n_warned > 1:
            click.echo(f"Warning: {n_warned} images in all have such a warning", err=True)
        if n_sideways:
            click.echo(f"Warning: {sideways_line(n_sideways)}", err=True)
        sys.exit(1 if n_failed else 0)

    def _print(
        self,
        name: str,
        image: "LoadedImage",
        records: Sequence[Record],
        line: str,
        warning: str | None,
    ) -> None:
        """The records of an image, each on a line."""
        from git_model.batch.items import readable

        name = readable(name)
        width = max(len(one_line(readable(other))) for other in self.images)
        about: Record = {} if image.frames is None else {"frames": image.frames}
        about |= {"truncated": True} if image.is_truncated else {}
        about |= {} if warning is None else {"warning": warning}
        for record in records:
            if self.as_json:
                whole = {"image": name, "model": self.model, **record, **about}
                click.echo(json.dumps(whole, ensure_ascii=False, allow_nan=False))
            else:
                note = "  (the file is cut short)" if image.is_truncated else ""
                click.echo(f"{one_line(name):{width}}  {line.format_map(record)}{note}")


def require_files(names: Sequence[str]) -> None:
    """Print why no image can be read, and exit, before a model is downloaded or opened.

    Does nothing if one of the names may be an image or is a web address.
    """
    from git_model.preprocessing.fetch import is_url
    from git_model.preprocessing.video import read_media

    if any(is_url(name) or (is_file(Path(name)) and not _hint(name)) for name in names):
        return
    errors = []
    for name in names:
        try:
            read_media(Path(name), 1)
            return
        except GITError as error:
            errors.append(f"Error: {error}{_hint(name)}")
    for line in errors:
        click.echo(line, err=True)
    sys.exit(1)


def _hint(name: str) -> str:
    """What to do with a file that names or holds images, for an error; empty for other names."""
    from git_model.batch.inputs import BATCH_SUFFIXES, PACKED_SUFFIXES

    if not is_file(Path(name)):
        return ""
    if name.lower().endswith(PACKED_SUFFIXES):
        return "; unpack a compressed file first: `git-model batch` captions a folder"
    if name.lower().endswith(BATCH_SUFFIXES):
        return (
            "; `git-model batch` captions the images that a list, a table or a tar names or holds"
        )
    return ""


def _load(captioner: "Captioner", name: str, reading: "ReadOptions") -> "LoadedImage | GITError":
    """An image, or the error if it cannot be read."""
    try:
        return captioner.load(name, reading)
    except GITError as error:
        return GITError(f"{error}{_hint(name)}")


def image_command(task: Task, *, decoding: bool = False) -> Callable[[Command], Command]:
    """Make a function of an `ImageRun` a command of IMAGE…, with the options that belong to it.

    Args:
        task: decides which model is used if none is named; with a `question` it is "ask".
        decoding: whether the function also takes the decoding options, see `decoding_options`.
    """
    names = [item.name for item in dataclasses.fields(ImageRun)]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run_command(**options: Any) -> Any:
            if decoding:
                options["decoding"] = take_decoding(options)
            true_task = "ask" if options.get("question") else task
            options["model"] = chosen_model(options["model"], true_task, options["images"])
            run = ImageRun(**{name: options.pop(name) for name in names})
            return command(run=run, **options)

        decorated = add_decoding_options(run_command) if decoding else run_command
        for add in (
            option("Output", "--json", "as_json", is_flag=True, help="One JSON object per line."),
            model_options(model_help(task)),
            reading_options,
            option(
                "Input",
                "--batch-size",
                type=click.IntRange(min=1),
                default=8,
                show_default=True,
                help="Images that are encoded together.",
            ),
            click.argument("images", nargs=-1, required=True, metavar="IMAGE…"),
        ):
            decorated = add(decorated)
        return decorated

    return decorate
