"""The command `evaluate`: a model on a data set, or predictions in a file, to scores."""

import dataclasses
import json
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from git_model.cli.options import (
    Decoding,
    ModelOptions,
    Template,
    decoding_options,
    distinct_lines,
    model_options,
)
from git_model.config import DecodingOptions
from git_model.evaluation.scores import METRICS, best_splitter, check_metrics, score
from git_model.utils.errors import GITError
from git_model.utils.serialize import read_mapping

if TYPE_CHECKING:
    from git_model.captioner import Captioner
    from git_model.data.example import Source
    from git_model.data.webdataset import Stream
    from git_model.evaluation.predictions import Prediction
    from git_model.evaluation.run import Predictor

NAMES = {
    "exact": "exact match",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
    "cider_plain": "CIDEr, plain",
    "meteor": "METEOR",
    "spice": "SPICE",
    "vqa": "VQA accuracy",
    "top_1": "top-1",
    "top_5": "top-5",
} | {f"bleu_{n}": f"BLEU-{n}" for n in range(1, 5)}
OF_FILES = ("predictions", "references", "subset")  # options that go without a model
OF_BOTH = ("metrics", "as_json")


@click.command()
@click.argument("data", type=click.Path(path_type=Path), required=False, metavar="DATA.toml")
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Score what is in this file instead of running a model: lines of JSON, or the results "
    "form of COCO or EvalAI.",
)
@click.option(
    "--references",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What is right for the predictions: annotations of COCO or VQAv2, or lines of JSON.  "
    "[default: the predictions' own answers]",
)
@click.option("--subset", is_flag=True, help="Leave out references without a prediction.")
@click.option(
    "--metric",
    "metrics",
    type=click.Choice(list(dict.fromkeys(name for names in METRICS.values() for name in names))),
    multiple=True,
    help="A metric to compute; may come several times.  [default: all that fit and need nothing "
    "fetched]",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Classify: score every label in this file, one a line, instead of writing.",
)
@click.option("--template", type=Template(), help="What a label is put into.  [default: {}]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the predictions: FILE.jsonl with all that is known, FILE.json in the results form "
    "of COCO (captions) or EvalAI (answers).",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only so many of the first examples.")
@click.option(
    "--broken-limit",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Samples that may be broken; they are named, and left out.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Images of one size that are read together.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@model_options
@decoding_options
def evaluate(
    data: Path | None,
    predictions: Path | None,
    references: Path | None,
    subset: bool,
    metrics: tuple[str, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Score a model on the data that DATA.toml names in its table [data], or a file of predictions.

    Scores are times 100. CIDEr-D is what the COCO tools and papers call CIDEr. Without Java
    captions are cut into words by Python, and the output says so: not PTB.
    """
    if data is not None and predictions is None:
        _refuse(OF_FILES, "--predictions")
        run = ModelRun(data=data, **given)
        check_metrics(metrics)
        about, found = run.predict()
        if run.out is not None and not any(one.answers for one in found):
            click.echo(f"{len(found)} predictions, with no answers to compare them with", err=True)
            return
    elif predictions is not None and data is None:
        running = click.get_current_context().params.keys() - {*OF_FILES, *OF_BOTH}
        _refuse(running, "DATA.toml")
        if subset and references is None:
            raise click.UsageError("--subset goes with --references")
        check_metrics(metrics)
        about = {"predictions": str(predictions)}
        found = _from_files(predictions, references, subset)
    else:
        raise click.UsageError("expected either DATA.toml or --predictions FILE")
    _report(about, found, metrics, as_json)


@dataclass(frozen=True, kw_only=True)
class ModelRun(ModelOptions):
    """What the command is told when it runs a model."""

    data: Path
    decoding: Decoding
    labels: Path | None
    template: str | None
    out: Path | None
    limit: int | None
    broken_limit: int
    batch_size: int

    def __post_init__(self) -> None:
        if self.template is not None and self.labels is None:
            raise click.UsageError("--template goes with --labels")
        if self.labels is not None:
            decoding = [item.name for item in dataclasses.fields(DecodingOptions)]
            _refuse(decoding, "writing, so without --labels")
        if self.out is not None and self.out.suffix not in (".json", ".jsonl"):
            raise click.UsageError(f"--out is {self.out}, expected a name in .jsonl or .json")

    def predict(self) -> tuple[dict[str, Any], list["Prediction"]]:
        """Run the model and write what it says: what was run, and the predictions."""
        from git_model.data.example import BrokenExamples
        from git_model.evaluation.files import write_predictions
        from git_model.evaluation.run import predict
        from git_model.utils.atomic import new_file

        labels = None if self.labels is None else distinct_lines(self.labels, "label")
        source = _open_data(self.data)
        broken = BrokenExamples(self.broken_limit)
        with nullcontext() if self.out is None else new_file(self.out) as beside:
            git = self.open_model()
            found = predict(
                git,
                source,
                self._saying(git, labels),
                limit=self.limit,
                batch_size=self.batch_size,
                broken=broken,
                progress=True,
            )
            if beside is not None:
                write_predictions(beside, found, results=self._as_results)
        for error in broken.reasons:
            click.echo(f"Left out: {error}", err=True)
        about = {"model": self.model, "data": str(self.data), "broken": len(broken.reasons)}
        return about, found

    def _saying(self, git: "Captioner", labels: list[str] | None) -> "Predictor":
        from git_model.evaluation.files import require_results_form
        from git_model.evaluation.run import label_predictor, text_predictor

        if labels is None:
            say = text_predictor(git, self.decoding(git.model.config.decoding))
        else:
            say = label_predictor(git, labels, self.template or "{}")
        if not self._as_results:
            return say

        def checked(*about: Any) -> list[list["Prediction"]]:
            rows = say(*about)
            require_results_form([one for row in rows for one in row])  # not after hours of work
            return rows

        return checked

    @property
    def _as_results(self) -> bool:
        return self.out is not None and self.out.suffix == ".json"


def _open_data(path: Path) -> "Source | Stream":
    """The data set that a file's table [data] names."""
    from git_model.data.sources import read_data

    table = read_mapping(path)
    if list(table) != ["data"] or not isinstance(table["data"], dict):
        raise GITError(f"{path}: expected one table, [data], found {', '.join(table) or 'nothing'}")
    return read_data(table["data"], str(path)).open()


def _refuse(names: Collection[str], purpose: str) -> None:
    """Refuse options that would have no effect."""
    context = click.get_current_context()
    for param in context.command.params:
        given = context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        if param.name in names and given:
            raise click.UsageError(f"{param.opts[0]} goes with {purpose}")


def _from_files(path: Path, references: Path | None, subset: bool) -> list["Prediction"]:
    from git_model.evaluation.files import read_predictions, read_references
    from git_model.evaluation.predictions import with_answers

    found = read_predictions(path)
    if references is None:
        return found
    right = read_references(references)
    try:
        return with_answers(found, right, subset=subset)
    except GITError as error:
        raise GITError(f"{path}: {error}") from None


def _report(
    about: dict[str, Any], found: Sequence["Prediction"], metrics: Sequence[str], as_json: bool
) -> None:
    """Score predictions and print what came out."""
    splitter = best_splitter()
    scores = score(found, metrics, splitter)
    if scores.get("captions", {}).keys() - {"count", "exact"}:  # these look at no words
        about["tokenizer"] = splitter.name
    if as_json:
        click.echo(json.dumps(about | scores, ensure_ascii=False, allow_nan=False))
        return
    for task, values in scores.items():
        words = about.get("tokenizer") if task == "captions" else None
        click.echo(f"{values.pop('count')} {task}" + (f", tokenizer: {words}" if words else ""))
        for name, value in values.items():
            click.echo(f"  {NAMES[name]:13} {value:6.2f}")
