"""The command `compare`: training runs side by side."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from git_model.cli.options import GroupedCommand, option

if TYPE_CHECKING:
    from git_model.training.compare import Row, Run


@click.command(cls=GroupedCommand)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN…")
@option(
    "Scores",
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help='A number in the logs, such as "captions cider_d"; may be given several times.  [default: '
    "all scores of the checks]",
)
@option(
    "Scores",
    "--at",
    type=click.Choice(["last", "best"]),
    default="last",
    show_default=True,
    help="Compare the last value of each metric in a run, or its best value, which another check "
    "than that of the checkpoint `best` may have.",
)
@option(
    "Output",
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="Draw the curves of the metrics into this file.",
)
@option("Output", "--json", "as_json", is_flag=True, help="Print a JSON object for each row.")
def compare(
    runs: tuple[Path, ...],
    metrics: tuple[str, ...],
    at: Literal["last", "best"],
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare the training runs in folders RUN…: means with 95 % intervals.

    Runs that differ only in their seed are one arm. Every arm is compared with the first, seed by
    seed.
    """
    if out is not None and out.suffix != ".png":
        raise click.UsageError(f"--out is {out}, expected a name in .png")
    from git_model.training.compare import (
        arms_of,
        compare,
        default_metrics,
        draw_curves,
        read_run,
    )
    from git_model.utils.atomic import new_file
    from git_model.utils.errors import GITError

    logs = [read_run(folder) for folder in runs]
    arms = arms_of(logs)
    names = list(metrics) or default_metrics(logs)
    if not names:
        raise GITError("the runs have no number that all of them logged: nothing to compare")
    rows = compare(arms, names, at)
    for line in dict.fromkeys(line for name in names for line in _other_ends(logs, name)):
        click.echo(line, err=True)
    if out is not None:
        with new_file(out) as beside:
            draw_curves(arms, names, beside)
    if as_json:
        for row in rows:
            click.echo(json.dumps(dataclasses.asdict(row)))
    else:
        _print_table(rows, at)


def _other_ends(runs: "Sequence[Run]", metric: str) -> Iterator[str]:
    """A warning for each step at which few runs end, among those that are to have as many steps."""
    groups: dict[Any, dict[int, list[str]]] = {}
    for run in runs:
        last, _ = run.curves[metric][-1]
        ends = groups.setdefault(run.settings["steps"], {})
        ends.setdefault(last, []).append(str(run.folder))
    for ends in groups.values():
        usual = max(ends, key=lambda step: (len(ends[step]), step))
        for step, folders in sorted(ends.items()):
            if step != usual:
                yield (
                    f"Warning: {', '.join(folders)}: the last value is of step {step}, those of "
                    f"{len(ends[usual])} other runs of as many steps are of step {usual}"
                )


def _print_table(rows: "list[Row]", at: str) -> None:
    width = max(len(row.arm) for row in rows)
    for number, row in enumerate(rows):
        if number == 0 or rows[number - 1].metric != row.metric:
            click.echo(f"{row.metric}, {at}")
        line = f"  {row.arm:{width}}  n = {row.n}  {_with_interval(row.mean, row.interval)}"
        if row.difference is not None:
            difference = _with_interval(row.difference, row.difference_interval, sign="+")
            line += f"  difference {difference}"
        click.echo(line)


def _with_interval(value: float, interval: tuple[float, float] | None, sign: str = "") -> str:
    if interval is None:
        return f"{value:{sign}.4g}"
    low, high = interval
    return f"{value:{sign}.4g} [{low:{sign}.4g}, {high:{sign}.4g}]"
