"""Options that several commands share, as decorators: the model, the decoding, lists of texts."""

import dataclasses
import functools
import types
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import click

from git_model.checkpoints.defaults import DEMO, MODEL_CARD, Task, default_model
from git_model.config import (
    MAX_SIZE,
    MAX_SIZE_OF,
    DecodingOptions,
    EarlyStopping,
    Style,
    style_decoding,
)
from git_model.utils.errors import GITError

if TYPE_CHECKING:
    from git_model.captioner import Captioner

Command = Callable[..., Any]
Decoding = Callable[[DecodingOptions], DecodingOptions]
DECODING_FIELDS = [item for item in dataclasses.fields(DecodingOptions) if item.name != "style"]
FOR_SAMPLING = ("temperature", "top_k", "top_p", "seed")
FOR_BEAMS = ("length_penalty", "early_stopping")
EARLY_STOPPING: dict[str, EarlyStopping] = {"false": False, "true": True, "never": "never"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The values of `model_options`: which model, and how it runs."""

    model: str
    revision: str | None
    device: str
    dtype: str
    style: Style | None
    integrity: bool = False
    compile: bool = False
    adapter: str | None = None
    threads: int | None = None

    def open_model(self) -> "Captioner":
        """The model, which must have a vocabulary."""
        from git_model.captioner import Captioner
        from git_model.checkpoints.loading import require_vocabulary

        require_vocabulary(self.model)
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        return Captioner.from_pretrained(
            self.model,
            revision=self.revision,
            device=self.device,
            dtype=self.dtype,
            style=self.style,
            integrity=self.integrity,
            adapter=self.adapter,
            compile=self.compile,
        )


class GroupedOption(click.Option):
    """An option that `--help` lists under a heading."""

    def __init__(self, *args: Any, heading: str = "Other", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


class GroupedCommand(click.Command):
    """A command whose `--help` groups options under headings, in the order of first appearance."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, heading by heading."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                groups.setdefault(getattr(param, "heading", "Other"), []).append(record)
        other = groups.pop("Other", [])
        for heading, records in [*groups.items(), ("Other", other)]:
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def chosen_model(model: str | None, task: Task, images: Iterable[str]) -> str:
    """The model that the command line names, or else the released one that fits.

    Args:
        images: the inputs: if all of them are videos or animations, a video model fits.
    """
    if model is not None:
        return model
    from git_model.preprocessing.video import is_clip

    return default_model(task, videos=all(map(is_clip, images)))


def option(heading: str, *names: str, **settings: Any) -> Callable[[Command], Command]:
    """`click.option` under a heading."""
    return click.option(*names, cls=GroupedOption, heading=heading, **settings)


broken_limit_option = option(
    "Input",
    "--broken-limit",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Maximum number of unreadable examples; they are named, and left out.",
)


def model_options(
    model_help: str, *, default: str | None = None, can_compile: bool = True
) -> Callable[[Command], Command]:
    """The options that choose the model and how it runs.

    Args:
        model_help: the help text of `--model`.
        default: of `--model`; None: the command chooses by its task.
        can_compile: False for commands that record what happens inside the model.
    """

    def decorate(command: Command) -> Command:
        if can_compile:
            command = _compile_option(command)
        for add_option in _how_options:
            command = add_option(command)
        names = ("--model", "-m")
        # click leaves lines after \b as they are
        card = f"\b\nModel card of {DEMO}:\n{MODEL_CARD}"
        text = f"{model_help}\n\n{card}"
        return option("Model", *names, default=default, metavar="MODEL", help=text)(command)

    return decorate


_compile_option = option(
    "Model",
    "--compile",
    is_flag=True,
    help="Run encoder and decoder steps through torch.compile. The first calls take minutes, so "
    "it seldom saves time on a CPU (docs/speed.md). If it cannot be compiled, a line says why.",
)
_how_options = (  # the last one comes first in `--help`
    option(
        "Model",
        "--adapter",
        metavar="FOLDER",
        help="An adapter that was trained on MODEL (see docs/adapters.md).",
    ),
    option(
        "Model",
        "--integrity",
        is_flag=True,
        help="Compare every file of the model's folder with its digest in SHA256SUMS first.",
    ),
    option(
        "Model",
        "--style",
        type=click.Choice(["huggingface", "microsoft"]),
        help="Run the checkpoint as this reference does.  [default: the checkpoint's style]",
    ),
    option(
        "Model",
        "--dtype",
        type=click.Choice(["float32", "bfloat16", "float16", "auto"]),
        default="float32",
        show_default=True,
        help="Number format of the weights; auto: bfloat16 where the device computes in it.",
    ),
    option(
        "Model",
        "--device",
        default="auto",
        show_default=True,
        help="cpu, cuda, cuda:1, mps; auto: a GPU if there is one. For an exported model: a device "
        "of its engine, such as an execution provider of ONNX Runtime.",
    ),
    option(
        "Model",
        "--threads",
        type=click.IntRange(min=1),
        help="Number of CPU threads of the model.  [default: torch's]",
    ),
    option("Model", "--revision", help="Branch, tag or commit of a hub id."),
)


def decoding_options(command: Command) -> Command:
    """The options of `add_decoding_options` for a command that takes `decoding`."""

    @functools.wraps(command)
    def with_decoding(**values: Any) -> Any:
        return command(decoding=take_decoding(values), **values)

    return add_decoding_options(with_decoding)


def take_decoding(values: dict[str, Any]) -> Decoding:
    """Remove the decoding options from a command's values, and return a function that replaces them
    in a checkpoint's decoding options."""
    chosen = {item.name: values.pop(item.name) for item in DECODING_FIELDS}
    chosen = {name: value for name, value in chosen.items() if value not in (None, ())}
    if "early_stopping" in chosen:
        chosen["early_stopping"] = EARLY_STOPPING[chosen["early_stopping"]]
    _refuse_early(chosen)
    return functools.partial(_decoding, chosen)


def add_decoding_options(command: Command) -> Command:
    """An option for each field of DecodingOptions, with its help and defaults, so that the two
    cannot drift apart. `style` has none: the model's `--style` sets it."""
    hints = get_type_hints(DecodingOptions)
    for item in reversed(DECODING_FIELDS):
        hint = hints[item.name]
        kind = get_args(hint)[0] if get_origin(hint) in (tuple, types.UnionType) else hint
        heading, _, meaning = item.metadata["help"].rpartition(": ")
        if heading not in ("Sampling", "Beam search"):
            heading, meaning = "Decoding", item.metadata["help"]
        command = option(
            heading,
            _flag(item.name),
            type=click.Choice(list(EARLY_STOPPING)) if item.name == "early_stopping" else kind,
            default=None,
            is_flag=hint is bool,
            multiple=get_origin(hint) is tuple,
            help=meaning[:1].upper() + meaning[1:] + _default(item),
        )(command)
    return command


def _flag(name: str) -> str:
    """The command line's option for a field."""
    return f"--{name.replace('_', '-')}"


def _default(item: dataclasses.Field[Any]) -> str:
    """The end of an option's help: its value in most checkpoints, and in the microsoft style."""
    usual = getattr(style_decoding("huggingface"), item.name)
    if usual in (False, (), None) and type(usual) is not int:
        return ""
    microsoft = getattr(style_decoding("microsoft"), item.name)
    other = f"; microsoft style: {microsoft}" if microsoft != usual else ""
    return f"  [usually {usual}{other}]"


def _decoding(chosen: dict[str, Any], base: DecodingOptions) -> DecodingOptions:
    try:
        options = base.changed(**chosen)
    except GITError as error:
        raise click.UsageError(str(error)) from None
    for name in chosen:  # no option without effect
        if name in FOR_SAMPLING and not options.do_sample:
            raise click.UsageError(f"{_flag(name)} is for sampling, add --do-sample")
        if name in FOR_BEAMS and options.num_beams == 1:
            raise click.UsageError(f"{_flag(name)} is for beam search, add --num-beams")
    return options


def _refuse_early(chosen: dict[str, Any]) -> None:
    """Report wrong usage before a model is loaded, unless a checkpoint's settings may permit it."""
    try:
        widest = DecodingOptions(num_beams=MAX_SIZE_OF["num_beams"], max_new_tokens=MAX_SIZE)
        _decoding(chosen, widest)
    except click.UsageError:
        _decoding(chosen, DecodingOptions())


class Words(click.types.StringParamType):
    """A text that is not blank."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text without surrounding spaces."""
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


question_option = option(
    "Input", "--question", "-q", type=Words(), help="Score answers to this question, not captions."
)


def text_list(
    name: str, meaning: str, *, distinct: bool = False, required: bool = True
) -> Callable[[Command], Command]:
    """Two options for texts called `name`: one that may be given several times, and one, in the
    plural, for a file with a text on each line. The command gets all texts as one list, named by
    the plural.

    Args:
        meaning: the help of the first option.
        distinct: refuse a text that occurs twice.
        required: require at least one text.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_texts(**values: Any) -> Any:
            single, file = values.pop(name), values.pop(f"{name}s")
            needed = required or single or file is not None
            texts = _all_texts(name, single, file, distinct) if needed else []
            return command(**{f"{name}s": texts}, **values)

        repeated = option(
            "Input", f"--{name}", f"-{name[0]}", type=Words(), multiple=True, help=meaning
        )
        lines = option(
            "Input",
            f"--{name}s",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help=f"File with a {name} on each line, in UTF-8.",
        )
        return repeated(lines(with_texts))

    return decorate


def distinct_lines(file: Path, name: str) -> list[str]:
    """The texts in a file, a `name` on each line; none may occur twice."""
    return _all_texts(name, (), file, distinct=True)


def _all_texts(name: str, single: Sequence[str], file: Path | None, distinct: bool) -> list[str]:
    """The texts of both options, those of the file last."""
    if not single and file is None:
        raise click.UsageError(f"no {name} was given, expected --{name} or --{name}s FILE")
    lines = {} if file is None else _lines(file, name)
    if distinct:
        _refuse_twice(name, single, lines)
    return [*single, *lines.values()]


def _refuse_twice(name: str, texts: Sequence[str], lines: dict[str, str]) -> None:
    for number, text in enumerate(texts):
        if text in texts[:number]:
            raise click.UsageError(f"the {name} {text!r} comes twice")
    origin = dict.fromkeys(texts, f"--{name}")
    for position, text in lines.items():
        if text in origin:
            raise GITError(f"{position}: the {name} {text!r} comes twice, first in {origin[text]}")
        origin[text] = position


def _lines(file: Path, name: str) -> dict[str, str]:
    """The texts in a file, each under its position there, such as "labels.txt: line 3"."""
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
    texts = {f"{file}: line {number}": line.strip() for number, line in enumerate(lines, start=1)}
    for position, text in texts.items():
        if not text:
            raise GITError(f"{position} is empty, expected a {name}")
    return texts
