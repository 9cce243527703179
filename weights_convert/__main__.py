"""`python -m weights_convert`: checkpoints of other projects into our form, and back.

Heavy imports stand inside the functions, so that `--help` answers at once.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from git_model.config import GITConfig, named_config, read_config
from git_model.settings import GITError

Command = Callable[..., Any]
FOLDER = click.Path(path_type=Path)


class Forms(click.Group):
    """A command for each form; without its name, `hf` is meant. An error that the user can mend is
    one line and exit code 1."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named first, or `hf`."""
        return super().resolve_command(ctx, args if args[0] in self.commands else ["hf", *args])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except GITError as error:
            raise click.ClickException(str(error)) from None


@click.group(
    cls=Forms,
    context_settings={"help_option_names": ["-h", "--help"], "ignore_unknown_options": True},
)
def main() -> None:
    """Bring a checkpoint into this project's form, or with `--to hf` into Hugging Face's.

    The new folder is written whole or not at all.
    """


def source_and_destination(command: Command) -> Command:
    """The two arguments of every command."""
    for argument in (
        click.argument("destination", type=FOLDER, metavar="DST"),
        click.argument("source", metavar="SRC"),
    ):
        command = argument(command)
    return command


to_option = click.option(
    "--to",
    type=click.Choice(["native", "hf"]),
    default="native",
    show_default=True,
    help="The form to write: ours, or Hugging Face's.",
)
tokenizer_option = click.option(
    "--tokenizer", type=FOLDER, metavar="FOLDER", help="Where tokenizer.json or vocab.txt lies."
)


@main.command()
@source_and_destination
@to_option
@click.option("--revision", help="Branch, tag or commit of a hub id.")
def hf(source: str, destination: Path, to: Any, revision: str | None) -> None:
    """Hugging Face's form into ours.

    SRC is a folder or a hub id such as microsoft/git-base-coco. With `--to hf` it is the way back,
    and SRC a folder of ours (or of any form).
    """
    from weights_convert import huggingface
    from weights_convert.folders import convert, write
    from weights_convert.hub import find_folder

    if to == "hf":
        click.echo(convert(source, destination, to=to, revision=revision))
    else:
        checkpoint = huggingface.read_folder(find_folder(source, revision), dtype=None)
        click.echo(write(checkpoint, destination))


@main.command()
@source_and_destination
@to_option
@tokenizer_option
@click.option("--bos-id", type=int, default=101, show_default=True, help="Id of [CLS].")
@click.option("--eos-id", type=int, default=102, show_default=True, help="Id of [SEP].")
@click.option("--pad-id", type=int, default=0, show_default=True, help="Id of [PAD].")
def microsoft(source: str, destination: Path, to: Any, tokenizer: Path | None, **ids: int) -> None:
    """The original's form into ours.

    SRC is a folder with snapshot/model.pt and, if need be, parameter.yaml. These have no
    vocabulary and no special ids; the released models have those of bert-base-uncased.
    """
    from weights_convert.folders import with_tokenizer, write
    from weights_convert.microsoft import read_folder

    checkpoint = with_tokenizer(read_folder(Path(source), dtype=None, **ids), tokenizer)
    click.echo(write(checkpoint, destination, to))


@main.command("open_clip")
@source_and_destination
@tokenizer_option
@click.option("--pretrained", metavar="TAG", help="SRC is a model's name; take these weights.")
@click.option(
    "--activation",
    type=click.Choice(["quick_gelu", "gelu"]),
    help="What a file was trained with.  [default: quick_gelu, as OpenAI's]",
)
@click.option(
    "--heads",
    type=click.IntRange(min=1),
    help="What a file was trained with.  [default: width / 64]",
)
@click.option(
    "--config",
    default="git_base",
    show_default=True,
    help="Everything but the encoder: a configuration's name or .toml file.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the new weights.")
def open_clip(
    source: str, destination: Path, tokenizer: Path | None, config: str, seed: int, **tower: Any
) -> None:
    """An image encoder of open_clip's into a GIT that is yet to be trained.

    SRC is a file of tensors, or with `--pretrained` the name of a model, such as ViT-B-16.
    """
    from weights_convert.folders import with_tokenizer, write
    from weights_convert.open_clip import read_file, read_named, start

    base: GITConfig = (
        read_config(Path(config)) if config.endswith(".toml") else named_config(config)
    )
    tag = tower.pop("pretrained")
    options = {key: value for key, value in tower.items() if value is not None}
    if tag is None:
        encoder, state = read_file(Path(source), **options)
    elif options:
        raise click.UsageError(f"--{min(options)} is for files; a named model tells it by itself")
    else:
        encoder, state = read_named(source, tag)
    checkpoint = with_tokenizer(start(encoder, state, base, seed=seed), tokenizer)
    click.echo(write(checkpoint, destination))


if __name__ == "__main__":
    main(prog_name="python -m weights_convert")
