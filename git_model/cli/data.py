"""The commands `data inspect | split | convert | vocab`: data sets before training."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from git_model.cli.options import GroupedCommand, broken_limit_option, option
from git_model.utils.errors import GITError
from git_model.utils.serialize import is_folder, read_mapping

if TYPE_CHECKING:
    from git_model.data.example import OpenStored, Source, StoredExample, Stream

FORM_NAMES = ("folder", "metadata", "coco", "karpathy", "tsv", "webdataset", "parquet")
PATTERNS = {".parquet": ("parquet", "files"), ".tar": ("webdataset", "shards")}
SHARE_BITS = 2**64


@click.group()
def data() -> None:
    """Inspect, split and convert data sets; make a vocabulary.

    DATA is a folder in any form that `convert` writes, Parquet files or shards (train-*.parquet,
    train-*.tar), or a .toml file with a table [data], such as a recipe.
    """


def data_argument(command: Any) -> Any:
    """The argument DATA."""
    return click.argument("source", metavar="DATA")(command)


def out_argument(command: Any) -> Any:
    """The argument OUT."""
    return click.argument("out", type=click.Path(path_type=Path), metavar="OUT")(command)


form_option = option(
    "Output",
    "--to",
    "form",
    type=click.Choice(FORM_NAMES),
    default="metadata",
    show_default=True,
    help="The form to write.",
)


@data.command(cls=GroupedCommand)
@data_argument
@option(
    "Input",
    "--vocabulary",
    metavar="FOLDER",
    help="Compare the words with the vocabulary in this folder (shapes: the built-in one).",
)
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(source: str, vocabulary: str | None, as_json: bool) -> None:
    """Print the content of DATA and its faults.

    Every image is decoded. Identical images have the same bytes; near-duplicate captions differ
    only in case, punctuation or articles. A split word is a word of several tokens.
    """
    from git_model.data.inspection import inspect as report_on
    from git_model.data.sources import untaken_files
    from git_model.training.initialization import named_tokenizer

    tokenizer = None if vocabulary is None else named_tokenizer(vocabulary)
    examples = _open(source)
    report = report_on(_progress(examples, source), tokenizer, untaken_files(examples))
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
        return
    for name, value in report.items():
        for line in _lines(name.replace("_", " "), value):
            click.echo(line)


@data.command(cls=GroupedCommand)
@data_argument
@out_argument
@form_option
@broken_limit_option
def convert(source: str, out: Path, form: str, broken_limit: int) -> None:
    """Write DATA in another form into the new folder OUT, and print its table [data].

    Each image is decoded once, so that a broken image is an error here; it keeps its bytes. Only
    metadata, tsv, webdataset and parquet can hold questions.
    """
    from git_model.data.forms import write_form
    from git_model.utils.atomic import new_folder

    broken, examples = _Broken(broken_limit), _open(source)
    with new_folder(out) as beside:
        count = write_form(form, beside, broken.open_all(_progress(examples, source)))
    _report_written(form, out, count, broken)
    _report_untaken(examples)


@data.command(cls=GroupedCommand)
@data_argument
@out_argument
@option(
    "Output",
    "--part",
    "parts",
    multiple=True,
    default=("train=0.9", "val=0.1"),
    show_default=True,
    metavar="NAME=SHARE",
    help="A part, and its share of the images; may be given several times.",
)
@option("Output", "--seed", default=0, show_default=True, help="Another seed gives another split.")
@form_option
@broken_limit_option
def split(
    source: str, out: Path, parts: tuple[str, ...], seed: int, form: str, broken_limit: int
) -> None:
    """Split DATA into parts: a folder in OUT for each.

    The part of an image depends only on its bytes and the seed. So identical images are in the same
    part, and a part keeps its images when others are added. The shares are met on average.
    """
    from git_model.data.forms import write_form
    from git_model.utils.atomic import new_folder

    shares = _shares(parts)
    opened = _open(source)
    broken = _Broken(broken_limit)
    counts = {}
    with new_folder(out) as beside:
        part_of = [
            None if stored is None else _part(stored.data, shares, seed)
            for stored in broken.open_each(_progress(opened, source))
        ]
        for name in shares:
            if name not in part_of:
                raise GITError(f"{source}: no image falls into {name}, expected larger shares")
            (beside / name).mkdir()
            examples = (
                open_stored()
                for part, open_stored in zip(part_of, _stored(opened), strict=True)
                if part == name
            )
            counts[name] = write_form(form, beside / name, examples)
    for name, count in counts.items():
        _report_written(form, out / name, count, broken)
        broken = _Broken(0)
    _report_untaken(opened)


@data.command(cls=GroupedCommand)
@click.argument("sources", metavar="DATA...", nargs=-1, required=True)
@option(
    "Output",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="A new folder for tokenizer.json; recipes name the folder as `tokenizer`.",
)
@option(
    "Output",
    "--size",
    type=click.IntRange(min=5, max=2**20),
    default=8000,
    show_default=True,
    help="Maximum number of tokens.",
)
@option(
    "Output",
    "--min-count",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Merge two pieces that stand side by side at least this many times.",
)
def vocab(sources: tuple[str, ...], out: Path, size: int, min_count: int) -> None:
    """Train a WordPiece vocabulary on the captions, questions and answers of DATA.

    It is lowercase, like bert-base-uncased's, and depends only on the texts and these options.
    """
    from git_model.data.vocabulary import train_vocabulary
    from git_model.preprocessing.tokenizer_files import JSON
    from git_model.utils.atomic import new_folder

    texts = (
        text
        for source in sources
        for open_stored in _progress(_open(source), source)
        for annotation in open_stored().annotations
        for text in (*annotation.texts, annotation.question or "")
    )
    with new_folder(out) as beside:
        tokenizer = train_vocabulary(texts, size, min_count)
        (beside / JSON).write_text(tokenizer.to_json(), encoding="utf-8")
    click.echo(f"{len(tokenizer)} tokens; in a recipe: tokenizer = {json.dumps(str(out))}")


@dataclass
class _Broken:
    """Opens examples, and leaves out those that cannot be read, up to a limit."""

    limit: int
    reasons: list[str] = field(default_factory=list)

    def open_each(self, examples: Iterator["OpenStored"]) -> Iterator["StoredExample | None"]:
        """Each example, or None.

        Raises:
            GITError: more than `limit` are broken.
        """
        for open_stored in examples:
            try:
                stored = open_stored()
                _require_image(stored)
                yield stored
            except GITError as error:
                self.reasons.append(str(error))
                if len(self.reasons) > self.limit:
                    hint = "" if self.limit else "; --broken-limit leaves such examples out"
                    raise GITError(f"{error}{hint}") from None
                yield None

    def open_all(self, examples: Iterator["OpenStored"]) -> Iterator["StoredExample"]:
        """The examples that can be read."""
        return (stored for stored in self.open_each(examples) if stored is not None)


def _require_image(stored: "StoredExample") -> None:
    """Refuse a file that is not an image; a video is not decoded."""
    from git_model.preprocessing.formats import VIDEO_SUFFIXES
    from git_model.preprocessing.image import decode_image

    if not stored.key.lower().endswith(VIDEO_SUFFIXES):
        decode_image(stored.data, stored.where)


def _open(name: str) -> "Source | Stream":
    """The data set that DATA names."""
    from git_model.data.sources import read_data

    return read_data(_table(name), name).open()


def _table(name: str) -> dict[str, Any]:
    """The table [data] of DATA."""
    from git_model.data.forms import form_of, table_of

    path = Path(name)
    if path.suffix == ".toml":
        table = read_mapping(path).get("data")
        if not isinstance(table, dict):
            raise GITError(f"{name}: expected a table [data]")
        return table
    if is_folder(path):
        return dict(table_of(form_of(path), path))
    for suffix, (kind, key) in PATTERNS.items():
        if name.endswith(suffix):
            return {"kind": kind, key: name}
    raise GITError(
        f"{name}: no such folder, expected a folder, files in .parquet or .tar, or a .toml file "
        "with a table [data]"
    )


def _stored(source: "Source | Stream") -> Iterator["OpenStored"]:
    from git_model.data.sources import stored_examples

    return stored_examples(source)


def _progress(source: "Source | Stream", name: str) -> Iterator["OpenStored"]:
    """The examples of a source, with a bar on stderr if it is a terminal.

    Raises:
        GITError: there is none; the message begins with `name`.
    """
    from git_model.data.example import Stream
    from git_model.utils.progress import ProgressBar

    total = None if isinstance(source, Stream) else len(source)
    number = 0
    bar = ProgressBar(_stored(source), total=total, unit="example", disable=None)
    for number, example in enumerate(bar, 1):  # noqa: B007  (used after the loop)
        yield example
    if number == 0:
        raise GITError(f"{name}: there are no examples in it, expected at least one")


def _shares(parts: tuple[str, ...]) -> dict[str, float]:
    """The share of each part, all together 1."""
    shares: dict[str, float] = {}
    for part in parts:
        name, _, share = part.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise click.UsageError(f"--part is {part!r}, expected a name, = and a share") from None
        if not name.isidentifier() or not 0 < shares[name] <= 1:
            raise click.UsageError(
                f"--part is {part!r}, expected a name of letters and a share from above 0 to 1"
            )
    if len(shares) < len(parts) or abs(sum(shares.values()) - 1) > 1e-6:
        raise click.UsageError(
            f"the parts are {', '.join(parts)}, expected different names and shares that add up "
            "to 1"
        )
    return shares


def _part(image: bytes, shares: dict[str, float], seed: int) -> str:
    """The part that an image falls into."""
    digest = blake2b(image, digest_size=8, key=str(seed).encode()).digest()
    position, end = int.from_bytes(digest, "big") / SHARE_BITS, 0.0
    for name, share in shares.items():
        end += share
        if position < end:
            return name
    return name  # the sum of the shares may be rounded to below 1


def _report_written(form: str, folder: Path, count: int, broken: _Broken) -> None:
    from git_model.data.forms import table_of

    for reason in broken.reasons:
        click.echo(f"Left out: {reason}", err=True)
    click.echo(f"{folder}: {count:,} examples", err=True)
    click.echo("[data]")
    for name, value in table_of(form, folder).items():
        click.echo(f"{name} = {json.dumps(value, ensure_ascii=False)}")


def _report_untaken(source: "Source | Stream") -> None:
    """Name the files beside the data that look like images or videos."""
    from git_model.data.sources import untaken_files
    from git_model.data.untaken import untaken_line

    line = untaken_line(untaken_files(source))
    if line is not None:
        click.echo(line, err=True)


def _lines(name: str, value: Any) -> Iterator[str]:
    """A field of a report, as lines for people."""
    if isinstance(value, dict) and "first" in value:
        yield f"{name:24} {value['count']:,}"
        yield from (f"    {item}" for item in value["first"])
    elif isinstance(value, dict):
        yield f"{name:24} {', '.join(f'{key} {number:,}' for key, number in value.items())}"
    else:
        yield f"{name:24} {f'{value:.2%}' if isinstance(value, float) else f'{value:,}'}"
