"""The command line: one function a command. Heavy imports stand inside them, so that `--help`
answers at once."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import click

from git_model.config import DecodingOptions, GITError, Style, from_dict, style_decoding

if TYPE_CHECKING:
    from git_model.captioner import Caption, Captioner

Command = Callable[..., Any]


class Commands(click.Group):
    """A group that turns an error the user can mend into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except GITError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="git-model")
def main() -> None:
    """GIT, the Generative Image-to-text Transformer: caption, convert, verify, train."""


def model_options(command: Command) -> Command:
    """The options that say which model, and how it is run."""
    for option in (
        click.option(
            "--style",
            type=click.Choice(["huggingface", "microsoft"]),
            help="Run the checkpoint as this reference does.  [default: as it says]",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "bfloat16", "float16"]),
            default="float32",
            show_default=True,
            help="Number format of the weights.",
        ),
        click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, mps."),
        click.option("--revision", help="Branch, tag or commit of a hub id."),
        click.option(
            "--model",
            "-m",
            default="demo",
            show_default=True,
            metavar="MODEL",
            help="demo, a folder, or a hub id such as microsoft/git-base-coco.",
        ),
    ):
        command = option(command)
    return command


def decoding_options(command: Command) -> Command:
    """An option for each field of DecodingOptions, with its help and defaults, so that the two
    cannot drift apart. The function gets those that were given, as keywords."""
    hints = get_type_hints(DecodingOptions)
    for item in reversed(dataclasses.fields(DecodingOptions)):
        hint = hints[item.name]
        is_list = get_origin(hint) is tuple
        kind = get_args(hint)[0] if is_list else hint
        command = click.option(
            "--" + item.name.replace("_", "-"),
            type=click.Choice(get_args(hint)) if get_origin(hint) is Literal else kind,
            default=None,
            is_flag=hint is bool,
            multiple=is_list,
            help=item.metadata["help"] + _default(item),
        )(command)
    return command


def _default(item: dataclasses.Field[Any]) -> str:
    """The end of an option's help: its value in most checkpoints, and in the microsoft style."""
    if item.default in (False, ()):
        return ""
    microsoft = getattr(style_decoding("microsoft"), item.name)
    other = f"; microsoft style: {microsoft}" if microsoft != item.default else ""
    return f"  [usually {item.default}{other}]"


def _decoding(usual: DecodingOptions, given: dict[str, Any]) -> DecodingOptions:
    """A checkpoint's way of decoding, with the options that were given."""
    chosen = {name: value for name, value in given.items() if value not in (None, ())}
    try:
        return dataclasses.replace(usual, **chosen)
    except GITError as error:
        raise click.UsageError(str(error)) from None


@main.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE…")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Images that are read together.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@decoding_options
@model_options
def caption(
    images: Sequence[str],
    batch_size: int,
    as_json: bool,
    model: str,
    revision: str | None,
    device: str,
    dtype: str,
    style: Style | None,
    **decoding: Any,
) -> None:
    """Say what is to be seen in each IMAGE.

    A file that cannot be read gets a line on stderr, the others are captioned, and the exit code
    is 1.
    """
    _decoding(DecodingOptions(), decoding)  # wrong usage is told before a model is loaded
    from git_model.captioner import Captioner

    git = Captioner.from_pretrained(
        model, revision=revision, device=device, dtype=dtype, style=style
    )
    options = _decoding(git.model.config.decoding, decoding)
    failed, width = 0, max(map(len, images))
    for name, result in _captions(git, images, batch_size, options):
        if isinstance(result, GITError):
            failed += 1
            click.echo(f"Error: {result}", err=True)
            continue
        for found in result:
            if as_json:
                record = {"image": name, "model": model, "caption": found.text}
                rest = dataclasses.asdict(found)
                del rest["text"]
                click.echo(json.dumps(record | rest, ensure_ascii=False))
            else:
                click.echo(f"{name:{width}}  {found.text}  (log p {found.logprob:.2f})")
    sys.exit(1 if failed else 0)


def _captions(
    git: "Captioner", names: Sequence[str], batch_size: int, options: DecodingOptions
) -> "Iterator[tuple[str, list[Caption] | GITError]]":
    """Each file's captions, or what is wrong with the file, in the order of the names."""
    import torch
    from tqdm import tqdm

    one_batch = len(names) <= batch_size
    progress = tqdm(total=len(names), unit="image", disable=one_batch or None)  # None: if no tty
    for start in range(0, len(names), batch_size):
        results: dict[int, Any] = {}
        by_shape: dict[Any, dict[int, torch.Tensor]] = {}  # only pictures of one size form a batch
        for index, name in enumerate(names[start : start + batch_size]):
            try:
                pixels = git.preprocess([name])
                by_shape.setdefault(pixels.shape, {})[index] = pixels
            except GITError as error:
                results[index] = error
        for group in by_shape.values():
            scene = git.see_pixels(torch.cat(list(group.values())))
            results |= zip(group, git.captions(scene, options), strict=True)
        progress.clear()  # the bar is drawn below the lines, not into them
        yield from ((names[start + index], results[index]) for index in sorted(results))
        progress.update(len(results))
    progress.close()


@main.command()
@click.argument("source", metavar="SOURCE")
@click.argument("destination", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option(
    "--to",
    type=click.Choice(["native", "hf"]),
    default="native",
    show_default=True,
    help="Our own form, or Hugging Face's (then SOURCE is in our form).",
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="A folder with the vocabulary, for sources that have none.",
)
@click.option("--revision", help="Branch, tag or commit of a hub id.")
def convert(
    source: str, destination: Path, to: Any, tokenizer: Path | None, revision: str | None
) -> None:
    """Bring a checkpoint into another form.

    SOURCE is a Hugging Face folder or hub id, or an original folder with snapshot/model.pt. The
    result is written to the new FOLDER, whole or not at all.
    """
    from weights_convert import convert as run

    click.echo(run(source, destination, to=to, tokenizer=tokenizer, revision=revision))


@main.command()
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Number format to compare in.",
)
@click.option("--revision", help="Branch, tag or commit of a hub id.")
@click.option(
    "--released",
    metavar="NAME",
    help="The released checkpoint it is, such as git-base-coco.  [default: by its id]",
)
@click.option(
    "--image",
    type=click.Path(path_type=Path),
    help="The picture that its published logits belong to.  [default: fetched]",
)
@click.argument("model", metavar="MODEL")
def verify(
    model: str, image: Path | None, released: str | None, revision: str | None, dtype: str
) -> None:
    """Compare MODEL, a folder or a hub id, with its references, stage by stage.

    The exit code is 1 if any distance is beyond its tolerance.
    """
    from git_model.captioner import Captioner
    from weights_convert.verify import verify as run

    git = Captioner.from_pretrained(model, revision=revision, dtype=dtype).model
    failed = 0
    for check in run(git, model, revision=revision, released=released, image=image):
        click.echo(str(check))
        failed += check.failed
    sys.exit(1 if failed else 0)


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path), metavar="RECIPE.toml")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="A new folder for the log and the checkpoint.",
)
def train(recipe: Path, out: Path) -> None:
    """Train a model as RECIPE says (see configs/train)."""
    from git_model.config import read_mapping
    from git_model.train import TrainConfig
    from git_model.train import train as run

    run(from_dict(TrainConfig, read_mapping(recipe), str(recipe)), out)
