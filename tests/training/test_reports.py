"""The log, the terminal output and TensorBoard's files of a run."""

import builtins
import json

import pytest
from runs import recipe_of

from git_model.evaluation.predictions import Prediction
from git_model.training.reports import LOG, Report, StepStats
from git_model.training.trackers import require_trackers
from git_model.training.validation import check_scores
from git_model.utils.errors import GITError

STATS = StepStats(loss=2.0, n_images=6, grad_norm=3.0, lr_share=0.5)
CORRECT = Prediction(key="1.png", text="a star", answers=("a star",))
WRONG = Prediction(key="1.png", text="red", question="what colour?", answers=("blue",))


def lines_of(folder):
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def test_the_log_has_the_mean_loss_since_the_last_line_with_rates_and_speed(tmp_path):
    recipe = recipe_of("start", reports={"log_every": 2})
    with Report(tmp_path, recipe, 0) as report:
        for step, loss in enumerate((4.0, 2.0, 9.0), 1):
            report.step(step, StepStats(loss, 6, 3.0, 0.5))
    [line] = lines_of(tmp_path)
    assert line.pop("images_per_s") > 0
    assert line == {
        "step": 2, "loss": 3.0, "grad_norm": 3.0, "encoder_lr": 1e-3, "decoder_lr": 1e-3
    }  # fmt: skip


def test_a_check_prints_scores_and_texts_beside_their_references(tmp_path, capsys):
    with Report(tmp_path, recipe_of("start", reports={"show": 1}), 0) as report:
        predictions = [CORRECT, WRONG]
        report.check(4, predictions, check_scores(predictions))
    [line] = lines_of(tmp_path)
    assert line == {"step": 4, "captions exact": 100.0, "questions exact": 0.0}
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "step 4: captions exact 100.00, questions exact 0.00" in captured.err
    assert "1.png: a star | reference: a star" in captured.err
    assert "blue" not in captured.err


def test_captions_with_several_references_get_cider_d():
    several = [
        Prediction(key=str(n), text=f"a {n} star", answers=(f"a {n} star", "a star"))
        for n in ("red", "green")
    ]
    assert check_scores([CORRECT]).keys() == {"captions exact"}
    assert check_scores(several).keys() == {"captions exact", "captions cider_d"}


def test_examples_that_were_left_out_are_logged(tmp_path, capsys):
    with Report(tmp_path, recipe_of("start", reports={"log_every": 2}), 0) as report:
        report.step(1, STATS, ["1.png: not an image"])
    assert lines_of(tmp_path) == [{"step": 1, "left_out": "1.png: not an image"}]
    assert "step 1: left out: 1.png: not an image" in capsys.readouterr().err


def test_the_bar_shows_loss_and_steps(tmp_path, capsys):
    with Report(tmp_path, recipe_of("start"), 5) as report:
        report.step(6, STATS)
    output = capsys.readouterr().err
    assert "loss=2.0000" in output
    assert "6/8" in output


def test_a_resumed_log_drops_the_steps_that_are_repeated(tmp_path):
    recipe = recipe_of("start")
    with Report(tmp_path, recipe, 0) as report:
        for step in range(1, 6):
            report.step(step, STATS)
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 6, "lo')  # a kill may leave part of a line
    with Report(tmp_path, recipe, 3) as report:
        report.step(4, STATS)
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4]


def test_tensorboard_gets_the_same_numbers(tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    recipe = recipe_of("start", reports={"trackers": ["tensorboard"]})
    with Report(tmp_path, recipe, 0) as report:
        report.step(1, STATS)
        report.check(1, [CORRECT], check_scores([CORRECT]))
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.0)]
    assert events.Scalars("captions exact")[0].value == 100


def test_without_tensorboard_a_recipe_that_asks_for_it_is_refused(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(GITError, match=r"pip install 'git-model\[tensorboard\]'"):
        require_trackers(recipe_of("start", reports={"trackers": ["tensorboard"]}))
