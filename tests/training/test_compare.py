"""Runs side by side: arms, means, paired intervals, curves."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image
from runs import recipe_of

from git_model.cli.main import main
from git_model.training.compare import arms_of, compare, default_metrics, read_run
from git_model.utils.errors import GITError
from git_model.utils.serialize import to_dict


def run_folder(folder, scores, seed, **changes):
    """A run whose checks have these scores."""
    folder.mkdir()
    recipe = recipe_of("start", seed=seed, **changes)
    (folder / "recipe.json").write_text(json.dumps(to_dict(recipe)))
    lines = [{"step": 1, "loss": 3.0, "encoder_lr": 1e-3}]
    lines += [{"step": n, "captions cider_d": score} for n, score in enumerate(scores, 1)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def folders(tmp_path):
    fast = {"learning": {"decoder_lr": 0.01}}
    base, other = [(50.0, 60.0), (52.0, 80.0), (51.0, 70.0)], [(55.0, 62.0), (51.0, 83.0)]
    return [
        *(run_folder(tmp_path / f"a{n}", curve, n) for n, curve in enumerate(base)),
        *(run_folder(tmp_path / f"b{n}", curve, n, **fast) for n, curve in enumerate(other)),
        run_folder(tmp_path / "b9", (1.0, 10.0), 9, **fast),  # a seed that the first arm lacks
    ]


def test_arms_are_named_by_what_differs_and_compared_seed_by_seed(folders):
    arms = arms_of([read_run(folder) for folder in folders])
    assert list(arms) == ["learning.decoder_lr=0.002", "learning.decoder_lr=0.01"]
    first, second = compare(arms, ["captions cider_d"], "last")
    assert (first.n, first.mean, first.difference) == (3, pytest.approx(70), None)
    assert first.interval == pytest.approx((70 - 24.841, 70 + 24.841), abs=1e-2)  # 4.303 x 10/√3
    assert (second.n, second.mean) == (3, pytest.approx((62 + 83 + 10) / 3))
    assert second.difference == pytest.approx(2.5)  # of the seeds 0 and 1: 2 and 3
    assert second.difference_interval == pytest.approx((2.5 - 6.353, 2.5 + 6.353), abs=1e-2)


def test_the_best_of_a_loss_is_the_least_and_of_a_score_the_most(tmp_path):
    run = read_run(run_folder(tmp_path / "a", (5.0, 9.0, 7.0), 0))
    assert run.value("captions cider_d", "best") == 9
    assert run.value("captions cider_d", "last") == 7
    (tmp_path / "a" / "log.jsonl").write_text(
        '{"step": 1, "validation loss": 2.0}\n{"step": 2, "validation loss": 3.0}\n'
    )
    assert read_run(tmp_path / "a").value("validation loss", "best") == 2


def test_by_default_the_scores_of_checks_are_compared_and_else_the_loss(folders, tmp_path):
    runs = [read_run(folder) for folder in folders]
    assert default_metrics(runs) == ["captions cider_d"]
    plain = run_folder(tmp_path / "plain", (), 0)
    assert default_metrics([read_run(plain)]) == ["loss"]


def test_the_command_prints_a_table_and_draws_curves(folders, tmp_path):
    picture = tmp_path / "curves.png"
    result = CliRunner().invoke(main, ["compare", *map(str, folders), "--out", str(picture)])
    assert result.exit_code == 0, result.output
    head, first, second = result.stdout.splitlines()
    assert head == "captions cider_d, last"
    assert first == "  learning.decoder_lr=0.002  n = 3  70 [45.16, 94.84]"
    assert second.startswith("  learning.decoder_lr=0.01   n = 3  51.67 [")
    assert second.endswith("difference +2.5 [-3.853, +8.853]")
    with Image.open(picture) as image:
        assert min(image.size) > 500
    result = CliRunner().invoke(main, ["compare", *map(str, folders), "--json", "--at", "best"])
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["mean"] for row in rows] == [70, pytest.approx(51.6667, abs=1e-3)]


def test_the_mean_curve_takes_the_steps_that_all_runs_have(tmp_path):
    from git_model.training.compare import _mean_curve

    runs = [
        read_run(run_folder(tmp_path / str(n), curve, n))
        for n, curve in enumerate([(1.0, 2.0, 3.0), (3.0, 6.0)])
    ]
    assert _mean_curve(runs, "captions cider_d") == ([1, 2], [2.0, 4.0])


@pytest.mark.parametrize("name", ["loss", "optimizer", "source"])
def test_runs_that_were_called_with_other_objects_are_other_arms(tmp_path, name):
    paths = [run_folder(tmp_path / f"a{n}", (1.0,), n) for n in range(2)]
    (paths[1] / "objects.json").write_text(json.dumps({name: "mine.Own"}))
    assert list(arms_of([read_run(path) for path in paths])) == [f"{name}=None", f"{name}=mine.Own"]


@pytest.mark.parametrize("name", ["loss", "cross_entropy", "divergence", "contrastive"])
def test_the_best_of_a_part_of_the_loss_is_the_least(tmp_path, name):
    run = run_folder(tmp_path / "a", (), 0)
    lines = [{"step": step, name: value} for step, value in ((1, 0.5), (2, 0.2), (3, 0.3))]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_run(run).value(name, "best") == 0.2


@pytest.mark.parametrize("n_bytes", [1, 10, 25])
def test_a_last_line_that_a_kill_cut_is_left_out(tmp_path, n_bytes):
    run = run_folder(tmp_path / "a", (5.0, 7.0), 0)
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 3, "captions cider_d": 9.0}'[:n_bytes])
    assert read_run(run).curves["captions cider_d"] == [(1, 5.0), (2, 7.0)]


@pytest.mark.parametrize("options", [(), ("--at", "best"), ("--json",)])
def test_runs_that_ended_at_another_step_are_named(tmp_path, options):
    curves = [(2.0, 3.0, 4.0), (1.0, 2.0, 3.0), (9.0,)]
    paths = [str(run_folder(tmp_path / f"a{n}", curve, n)) for n, curve in enumerate(curves)]
    longer = str(run_folder(tmp_path / "longer", (1.0,) * 5, 0, steps=99))  # another arm
    result = CliRunner().invoke(main, ["compare", *paths, longer, *options])
    assert result.exit_code == 0, result.output
    assert result.stderr == (
        f"Warning: {paths[2]}: the last value is of step 1, those of 2 other runs of as many steps "
        "are of step 3\n"
    )
    assert not CliRunner().invoke(main, ["compare", *paths[:2], longer, *options]).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no run, expected a folder with recipe.json"),
        (["a0", "--metric", "captions spice"], "the log has no 'captions spice', expected one of"),
        (["a0", "--out", "curves.jpg"], "expected a name in .png"),
        (["a0", "twin"], "have the same recipe and seed 0: name one of them"),
        (["a0", "other"], "the runs differ in validation.kind, so their scores cannot be compared"),
        (["a0", "few"], "the runs differ in reports.check_examples, so their scores cannot be"),
        (["damaged"], "log.jsonl: line 1 is damaged"),
        (["endless"], "log.jsonl: line 1 is damaged"),
    ],
)
def test_what_cannot_be_compared_is_one_line(folders, tmp_path, monkeypatch, arguments, message):
    run_folder(tmp_path / "twin", (1.0,), 0)
    data = {"kind": "shapes", "size": 3}
    run_folder(tmp_path / "other", (1.0,), 0, validation=data)
    run_folder(tmp_path / "few", (1.0,), 0, reports={"check_examples": 5})
    run_folder(tmp_path / "damaged", (1.0,), 0)
    (tmp_path / "damaged" / "log.jsonl").write_text("[]\n")
    run_folder(tmp_path / "endless", (1.0,), 0)
    (tmp_path / "endless" / "log.jsonl").write_text('{"step": Infinity}\n')
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["compare", *arguments])
    assert result.exit_code in (1, 2)
    assert message in result.stderr.splitlines()[-1]


def test_a_damaged_run_raises_a_git_error(tmp_path):
    with pytest.raises(GITError, match="no run"):
        read_run(tmp_path)
