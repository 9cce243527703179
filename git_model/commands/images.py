"""Commands that read images: their options, and the one loop over files and batches."""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from git_model.commands.options import Command, ModelOptions, model_options, sampling_option
from git_model.settings import GITError

if TYPE_CHECKING:
    from torch import Tensor

    from git_model.captioner import Captioner
    from git_model.model import Scene
    from git_model.video import Sampling

Record = dict[str, Any]  # what is found about an image, as in the JSON output
Task = Callable[["Scene"], Sequence[Sequence[Record]]]  # for each image of a scene its records


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageRun(ModelOptions):
    """What each of these commands is told: which images, which model, how to print."""

    images: Sequence[str]
    batch_size: int
    sampling: "Sampling"
    as_json: bool

    def report(self, git: "Captioner", task: Task, line: str) -> NoReturn:
        """Print what a task finds, and exit: with 1 if a file could not be read, else with 0.

        Args:
            line: a record as text, such as "{caption}  (log p {logprob:.3f})".
        """
        failed, width = 0, max(map(len, self.images))
        for name, found in self._found(git, task):
            if isinstance(found, GITError):
                failed += 1
                click.echo(f"Error: {found}", err=True)
                continue
            for record in found:
                if self.as_json:
                    record = {"image": name, "model": self.model, **record}
                    click.echo(json.dumps(record, ensure_ascii=False, allow_nan=False))
                else:
                    click.echo(f"{name:{width}}  {line.format_map(record)}")
        sys.exit(1 if failed else 0)

    def _found(
        self, git: "Captioner", task: Task
    ) -> Iterator[tuple[str, Sequence[Record] | GITError]]:
        """Each file's records, or what is wrong with the file, in the order of the names."""
        from tqdm import tqdm

        one_batch = len(self.images) <= self.batch_size
        total, quiet = len(self.images), one_batch or None  # None: if there is no terminal
        with tqdm(total=total, unit="image", disable=quiet) as progress:
            for start in range(0, total, self.batch_size):
                names = self.images[start : start + self.batch_size]
                results = _of_batch(git, names, task, self.sampling)
                progress.clear()  # the bar is drawn below the lines, not into them
                yield from zip(names, results, strict=True)
                progress.update(len(names))


def _of_batch(
    git: "Captioner", names: Sequence[str], task: Task, sampling: "Sampling"
) -> list[Sequence[Record] | GITError]:
    import torch

    results: dict[int, Sequence[Record] | GITError] = {}
    by_shape: dict[Any, dict[int, tuple[Tensor, list[int] | None]]] = {}
    for index, name in enumerate(names):
        try:
            pixels, frames = git.look(name, sampling)
            by_shape.setdefault(pixels.shape, {})[index] = pixels, frames
        except GITError as error:
            results[index] = error
    for group in by_shape.values():  # only pictures of one size form a batch
        found = task(git.see_pixels(torch.stack([pixels for pixels, _ in group.values()])))
        for (index, (_, frames)), records in zip(group.items(), found, strict=True):
            picked = {} if frames is None else {"frames": frames}
            results[index] = [record | picked for record in records]
    return [results[index] for index in range(len(names))]


def reads_images(command: Command) -> Command:
    """Make a function of an `ImageRun` a command of IMAGE…, with the options that belong to it."""
    names = [item.name for item in dataclasses.fields(ImageRun)]

    @functools.wraps(command)
    def reading(**given: Any) -> Any:
        run = ImageRun(**{name: given.pop(name) for name in names})
        return command(run=run, **given)

    found = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")(
        model_options(reading)
    )
    found = sampling_option(found)
    found = click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        help="Images that are read together.",
    )(found)
    return click.argument("images", nargs=-1, required=True, metavar="IMAGE…")(found)
