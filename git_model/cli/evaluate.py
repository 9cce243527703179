"""The command `evaluate`: scores of a model on a data set, or of predictions in a file."""

import dataclasses
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from git_model.checkpoints.defaults import MODEL_HELP
from git_model.cli.evaluate_report import report, report_versus, with_scores
from git_model.cli.options import (
    Decoding,
    GroupedCommand,
    ModelOptions,
    Template,
    broken_limit_option,
    decoding_options,
    distinct_lines,
    model_options,
    option,
)
from git_model.config import DecodingOptions
from git_model.evaluation.scores import METRICS, WITHOUT_TEXT_SCORES, check_metrics
from git_model.utils.errors import GITError
from git_model.utils.serialize import read_mapping

if TYPE_CHECKING:
    from git_model.captioner import Captioner
    from git_model.data.example import Source, Stream
    from git_model.evaluation.predictions import Prediction
    from git_model.evaluation.run import Predictor

FILE_OPTIONS = (
    "predictions",
    "versus",
    "references",
    "subset",
)  # for scoring a file, without a model
COMMON_OPTIONS = ("metrics", "intervals", "as_json")


@click.command(cls=GroupedCommand)
@click.argument("data", type=click.Path(path_type=Path), required=False, metavar="DATA.toml")
@option(
    "Input",
    "--predictions",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Score the predictions in this file instead of running a model: lines of JSON, or the "
    "results form of COCO or EvalAI.",
)
@option(
    "Input",
    "--references",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="References for the predictions: annotations of COCO or VQAv2, or lines of JSON.  "
    "[default: the answers in the predictions' own file]",
)
@option(
    "Input",
    "--versus",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare with the predictions in this file, text by text: the difference of each score, "
    "and its 95 % interval.",
)
@option("Input", "--subset", is_flag=True, help="Leave out references without a prediction.")
@option(
    "Input",
    "--limit",
    type=click.IntRange(min=1),
    help="Use only the first N examples.",
    metavar="N",
)
@broken_limit_option
@option(
    "Scores",
    "--metric",
    "metrics",
    type=click.Choice(list(dict.fromkeys(name for names in METRICS.values() for name in names))),
    multiple=True,
    help="A metric to compute; may be given several times.  [default: all metrics of the task that "
    "need no download]",
)
@option(
    "Scores",
    "--intervals",
    is_flag=True,
    help="Print the 95 % interval of each score, from a bootstrap over the texts.",
)
@option(
    "Classification",
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Rank the labels in this file, one a line, by their log-probabilities, instead of "
    "generating text.",
)
@option(
    "Classification",
    "--template",
    type=Template(),
    help="The text that is made of a label.  [default: {}]",
)
@option(
    "Output",
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the predictions: FILE.jsonl with all fields, FILE.json in the results form of COCO "
    "(captions) or EvalAI (answers).",
)
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
@model_options(MODEL_HELP)
@option(
    "Model",
    "--batch-size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Images of one size that are encoded together.",
)
@decoding_options
def evaluate(
    data: Path | None,
    predictions: Path | None,
    versus: Path | None,
    references: Path | None,
    subset: bool,
    intervals: bool,
    metrics: tuple[str, ...],
    as_json: bool,
    **model_run_options: Any,
) -> None:
    """Score a model on the data set that the table [data] of DATA.toml names, or score a file of
    predictions.

    Scores are times 100. The COCO tools and papers call CIDEr-D CIDEr. Without Java, Python splits
    captions into words, and the output says "not PTB".
    """
    if metrics and set(metrics) <= set(WITHOUT_TEXT_SCORES) and (intervals or versus is not None):
        raise click.UsageError(
            f"{'--intervals' if intervals else '--versus'} needs scores of single texts, which "
            f"{' and '.join(metrics)} does not have here: name another --metric"
        )
    if data is not None and predictions is None:
        _refuse(FILE_OPTIONS, "--predictions")
        if model_run_options["model"] is None:
            raise click.UsageError("no model was named, expected --model")
        run = ModelRun(data=data, **model_run_options)
        check_metrics(metrics)
        header, items = run.predict(metrics)
        if run.out is not None and not any(item.answers for item in items):
            click.echo(f"{len(items)} predictions, with no references to compare with", err=True)
            return
    elif predictions is not None and data is None:
        options = click.get_current_context().params.keys() - {*FILE_OPTIONS, *COMMON_OPTIONS}
        _refuse(options, "DATA.toml")
        if subset and references is None:
            raise click.UsageError("--subset goes with --references")
        if versus is not None:
            _refuse(("intervals",), "one file, so without --versus")
        check_metrics(metrics)
        header = {"predictions": str(predictions)}
        items = _from_files(predictions, references, subset)
        if versus is not None:
            others = _from_files(versus, references, subset)
            report_versus(header | {"versus": str(versus)}, items, others, metrics, as_json)
            return
    else:
        raise click.UsageError("expected either DATA.toml or --predictions FILE")
    report(header, items, metrics, intervals=intervals, as_json=as_json)


@dataclass(frozen=True, kw_only=True)
class ModelRun(ModelOptions):
    """The options for running a model on a data set."""

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
            _refuse(decoding, "generated text, so without --labels")
        if self.out is not None and self.out.suffix not in (".json", ".jsonl"):
            raise click.UsageError(f"--out is {self.out}, expected a name in .jsonl or .json")

    def predict(self, metrics: Sequence[str]) -> tuple[dict[str, Any], list["Prediction"]]:
        """Run the model, and write its predictions to `out`.

        Args:
            metrics: those whose values for each text are written.

        Returns:
            the first fields of the JSON output, and the predictions.
        """
        from git_model.data.example import BrokenExamples
        from git_model.evaluation.predictions import write_predictions
        from git_model.evaluation.run import predict
        from git_model.utils.atomic import new_file

        labels = None if self.labels is None else distinct_lines(self.labels, "label")
        source = _open_data(self.data)
        broken = BrokenExamples(self.broken_limit)
        with nullcontext() if self.out is None else new_file(self.out) as beside:
            captioner = self.open_model()
            predictions = predict(
                captioner,
                source,
                self._predictor(captioner, labels),
                limit=self.limit,
                batch_size=self.batch_size,
                broken=broken,
                progress=True,
            )
            if beside is not None:
                if not self._as_results:
                    predictions = with_scores(predictions, metrics)
                write_predictions(beside, predictions, results=self._as_results)
        for reason in broken.reasons:
            click.echo(f"Left out: {reason}", err=True)
        header = {"model": self.model, "data": str(self.data), "broken": len(broken.reasons)}
        return header, predictions

    def _predictor(self, captioner: "Captioner", labels: list[str] | None) -> "Predictor":
        from git_model.evaluation.predictions import require_results_form
        from git_model.evaluation.run import label_predictor, text_predictor

        if labels is None:
            predictor = text_predictor(captioner, self.decoding(captioner.model.config.decoding))
        else:
            predictor = label_predictor(captioner, labels, self.template or "{}")
        if not self._as_results:
            return predictor

        def with_check(*arguments: Any) -> list[list["Prediction"]]:
            rows = predictor(*arguments)
            require_results_form([item for row in rows for item in row])  # at the first batch
            return rows

        return with_check

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
    """Refuse options that have no effect here."""
    context = click.get_current_context()
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if param.name in names and source is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{param.opts[0]} goes with {purpose}")


def _from_files(path: Path, references: Path | None, subset: bool) -> list["Prediction"]:
    from git_model.evaluation.predictions import (
        read_predictions,
        read_references,
        with_answers,
    )

    predictions = read_predictions(path)
    if references is None:
        return predictions
    answers = read_references(references)
    try:
        return with_answers(predictions, answers, subset=subset)
    except GITError as error:
        raise GITError(f"{path}: {error}") from None
