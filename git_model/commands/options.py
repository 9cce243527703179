"""Options that several commands share, as decorators: the model, the decoding, lists of texts."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import click

from git_model.config import LARGEST, LARGEST_OF, DecodingOptions, Style, style_decoding
from git_model.settings import GITError

if TYPE_CHECKING:
    from git_model.captioner import Captioner

Command = Callable[..., Any]
Decoding = Callable[[DecodingOptions], DecodingOptions]
FOR_SAMPLING = ("temperature", "top_k", "top_p", "seed")
FOR_BEAMS = ("length_penalty", "dialect")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, and how it is run: what `model_options` gives a command."""

    model: str
    revision: str | None
    device: str
    dtype: str
    style: Style | None
    compile: bool = False

    def open_model(self) -> "Captioner":
        """The model."""
        from git_model.captioner import Captioner

        return Captioner.from_pretrained(
            self.model,
            revision=self.revision,
            device=self.device,
            dtype=self.dtype,
            style=self.style,
            compile=self.compile,
        )


def model_options(command: Command) -> Command:
    """The options that say which model, and how it is run."""
    compiling = click.option(
        "--compile",
        is_flag=True,
        help="Run the encoder through torch.compile, for many images: the first of each size "
        "takes some seconds more.",
    )
    return uncompiled_model_options(compiling(command))


def uncompiled_model_options(command: Command) -> Command:
    """As `model_options`, for commands that look into the model, which needs it as it is."""
    for option in (
        click.option(
            "--style",
            type=click.Choice(["huggingface", "microsoft"]),
            help="Run the checkpoint as this reference does.  [default: as it says]",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "bfloat16", "float16", "auto"]),
            default="float32",
            show_default=True,
            help="Number format of the weights; auto: bfloat16 where the device computes in it.",
        ),
        click.option(
            "--device",
            default="cpu",
            show_default=True,
            help="cpu, cuda, cuda:1, mps; auto: a GPU if there is one.",
        ),
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
    cannot drift apart. The command gets `decoding`, a function from a checkpoint's own decoding
    to that with the options that were given."""

    @functools.wraps(command)
    def decoded(**given: Any) -> Any:
        chosen = {item.name: given.pop(item.name) for item in fields}
        chosen = {name: value for name, value in chosen.items() if value not in (None, ())}
        _refuse_early(chosen)
        return command(decoding=functools.partial(_decoding, chosen), **given)

    fields, hints = dataclasses.fields(DecodingOptions), get_type_hints(DecodingOptions)
    found: Command = decoded
    for item in reversed(fields):
        hint = hints[item.name]
        is_list = get_origin(hint) is tuple
        kind = get_args(hint)[0] if is_list else hint
        found = click.option(
            "--" + item.name.replace("_", "-"),
            type=click.Choice(get_args(hint)) if get_origin(hint) is Literal else kind,
            default=None,
            is_flag=hint is bool,
            multiple=is_list,
            help=item.metadata["help"] + _default(item),
        )(found)
    return found


def _default(item: dataclasses.Field[Any]) -> str:
    """The end of an option's help: its value in most checkpoints, and in the microsoft style."""
    if item.default in (False, ()):
        return ""
    microsoft = getattr(style_decoding("microsoft"), item.name)
    other = f"; microsoft style: {microsoft}" if microsoft != item.default else ""
    return f"  [usually {item.default}{other}]"


def _decoding(chosen: dict[str, Any], usual: DecodingOptions) -> DecodingOptions:
    try:
        options = dataclasses.replace(usual, **chosen)
    except GITError as error:
        raise click.UsageError(str(error)) from None
    for name in chosen:  # no option without effect
        if name in FOR_SAMPLING and not options.sample:
            raise click.UsageError(f"--{name.replace('_', '-')} is for sampling, add --sample")
        if name in FOR_BEAMS and options.beams == 1:
            raise click.UsageError(f"--{name.replace('_', '-')} is for beam search, add --beams")
    return options


def _refuse_early(chosen: dict[str, Any]) -> None:
    """Tell wrong usage before a model is loaded, unless a checkpoint's own settings may mend it."""
    try:
        _decoding(chosen, DecodingOptions(beams=LARGEST_OF["beams"], max_new_tokens=LARGEST))
    except click.UsageError:
        _decoding(chosen, DecodingOptions())


class Words(click.types.StringParamType):
    """A text that is not blank."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text without space around it."""
        if not value.strip():
            self.fail("it is empty, expected some words", param, ctx)
        return str(value.strip())


class Template(click.types.StringParamType):
    """A text with a place for a label."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, if it has {} in it."""
        if "{}" not in value:
            self.fail(f"{value!r} has no place for the label, expected {{}}", param, ctx)
        return str(value)


sampling_option = click.option(
    "--sampling",
    type=click.Choice(["uniform", "ends"]),
    default="uniform",
    show_default=True,
    help="Which frames of a clip a video model sees: the middle of equal parts, or from end to "
    "end.",
)

question_option = click.option(
    "--question", "-q", type=Words(), help="Judge answers to this question instead of captions."
)


def text_list(
    name: str, meaning: str, *, distinct: bool = False, required: bool = True
) -> Callable[[Command], Command]:
    """Two options for texts called `name`: one that may come several times, and one, in the plural,
    for a file with a text on each line. The command gets all the texts as one list, named by the
    plural.

    Args:
        meaning: the first option's help.
        distinct: refuse a text that is there twice.
        required: refuse to go without a text.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def gathered(**given: Any) -> Any:
            some, file = given.pop(name), given.pop(f"{name}s")
            wanted = required or some or file is not None
            texts = _gathered(name, some, file, distinct) if wanted else []
            return command(**{f"{name}s": texts}, **given)

        one = click.option(f"--{name}", f"-{name[0]}", type=Words(), multiple=True, help=meaning)
        lines = click.option(
            f"--{name}s",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help=f"File with a {name} on each line, in UTF-8.",
        )
        return one(lines(gathered))

    return decorate


def distinct_lines(file: Path, name: str) -> list[str]:
    """The texts in a file, a `name` on each line; none may come twice."""
    return _gathered(name, (), file, distinct=True)


def _gathered(name: str, given: Sequence[str], file: Path | None, distinct: bool) -> list[str]:
    """The texts of both options, those of the file last."""
    if not given and file is None:
        raise click.UsageError(f"no {name} was given, expected --{name} or --{name}s FILE")
    lines = {} if file is None else _lines(file, name)
    if distinct:
        _refuse_twice(name, given, lines)
    return [*given, *lines.values()]


def _refuse_twice(name: str, given: Sequence[str], lines: dict[str, str]) -> None:
    for number, text in enumerate(given):
        if text in given[:number]:
            raise click.UsageError(f"the {name} {text!r} comes twice")
    known = dict.fromkeys(given, f"--{name}")
    for place, text in lines.items():
        if text in known:
            raise GITError(f"{place}: the {name} {text!r} comes twice, first in {known[text]}")
        known[text] = place


def _lines(file: Path, name: str) -> dict[str, str]:
    """The texts in a file, each under its place there, such as "labels.txt: line 3"."""
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise GITError(f"{file}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise GITError(f"{file}: not UTF-8: {error.reason} at byte {error.start}") from None
    if lines[-1] == "":
        lines.pop()  # the file's last line ends, too
    if not lines:
        raise GITError(f"{file}: the file is empty, expected a {name} on each line")
    found = {f"{file}: line {number}": line.strip() for number, line in enumerate(lines, start=1)}
    for place, text in found.items():
        if not text:
            raise GITError(f"{place} is empty, expected a {name}")
    return found
