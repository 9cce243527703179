"""The best checkpoint, early stopping, and validation loss."""

import json
import os
import signal

import pytest
from PIL import Image
from runs import log_of, recipe_of, same_weights, start_folder

from git_model.captioner import Captioner
from git_model.data.collation import Collator
from git_model.data.example import Annotation, Example
from git_model.evaluation.predictions import Prediction
from git_model.shapes.source import ShapesData
from git_model.training import loop as loop_module
from git_model.training.callbacks import Callback
from git_model.training.loop import Trainer, train
from git_model.training.loss import batch_loss
from git_model.training.selection import Selection
from git_model.training.state import BEST, CHECKPOINT, last_step
from git_model.training.validation import Validation, check_scores, require_validation
from git_model.utils.errors import GITError

VALIDATION = {"kind": "shapes", "split": "held_out", "size": 3, "tasks": ["captions"]}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return start_folder(tmp_path_factory.mktemp("start") / "start")


def recipe_with(start, **changes):
    reports = {"check_every": 1, "save_every": 1, "show": 0} | changes.pop("reports", {})
    learning = {"schedule": "constant"} | changes.pop("learning", {})
    changes = {
        "learning": learning,
        "steps": 6,
        "data": {"tasks": ["captions"], "size": 8},
    } | changes
    return recipe_of(
        start, validation=VALIDATION, reports=reports, loader={"batch_size": 2}, **changes
    )


CURVE = dict(enumerate((50.0, 91.0, 114.0, 103.0, 90.0, 80.0), 1))  # CIDEr-D at each step


class OnCurve(Selection):
    """Takes its scores from the curve."""

    def update(self, step, scores):
        return super().update(step, {"captions cider_d": CURVE[step]})


@pytest.fixture
def curve(monkeypatch):
    """Checks cost nothing, and find the scores of the curve."""
    no_texts = Validation([], None)
    monkeypatch.setattr(Validation, "scores", lambda _self, _metric: {})
    monkeypatch.setattr(loop_module, "validate", lambda *_: no_texts)
    monkeypatch.setattr(loop_module, "Selection", OnCurve)


def bytes_of(checkpoint):
    return (checkpoint / "model.safetensors").read_bytes()


def test_the_best_checkpoint_is_kept_beside_the_last(tmp_path, start, curve, monkeypatch):
    written, real = [], Trainer.write_checkpoint

    def write(self, out):
        real(self, out)
        written.append(bytes_of(out / CHECKPOINT))

    monkeypatch.setattr(Trainer, "write_checkpoint", write)
    train(recipe_with(start), tmp_path / "run")
    assert len(set(written)) == 6
    assert bytes_of(tmp_path / "run" / BEST) == written[2]
    assert bytes_of(tmp_path / "run" / CHECKPOINT) == written[5]
    assert Captioner.from_pretrained(tmp_path / "run" / BEST).model.config.frames == 6


def test_a_run_ends_without_improvement_and_stays_ended(tmp_path, start, curve):
    recipe = recipe_with(start, selection={"patience": 2})
    train(recipe, tmp_path / "run")
    assert last_step(tmp_path / "run") == 5
    reason = "2 checks without a better captions cider_d than 114 at step 3"
    assert log_of(tmp_path / "run")[-1] == {"step": 5, "ended": reason}
    best = bytes_of(tmp_path / "run" / BEST)
    train(recipe, tmp_path / "run", resume=True)
    assert last_step(tmp_path / "run") == 5
    patient = recipe_with(start, selection={"patience": 3})
    train(patient, tmp_path / "run", resume=True)
    assert last_step(tmp_path / "run") == 6
    assert bytes_of(tmp_path / "run" / BEST) == best


class KilledError(Exception):
    """In place of SIGKILL."""


def untimed(out):
    """The log without its speeds."""
    return [{k: v for k, v in line.items() if k != "images_per_s"} for line in log_of(out)]


def test_best_and_patience_survive_a_kill_with_the_same_bits(tmp_path, start, curve, monkeypatch):
    recipe = recipe_with(start, selection={"patience": 2}, reports={"save_every": 2})
    whole, real = tmp_path / "whole", Trainer.step
    train(recipe, whole)
    for killed_at in (4, 5):
        out = tmp_path / f"killed-{killed_at}"

        def step(self, number, batches, last=killed_at):
            if number == last:
                raise KilledError
            return real(self, number, batches)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", step)
            with pytest.raises(KilledError):
                train(recipe, out)
        train(recipe, out, resume=True)
        assert same_weights(whole, out)
        assert bytes_of(whole / BEST) == bytes_of(out / BEST)
        assert untimed(out) == untimed(whole)


class Signal(Callback):
    """Sends a signal to this process after a step."""

    def __init__(self, number, last):
        self.number, self.last = number, last

    def on_step(self, trainer, step, stats):
        if step == self.last:
            os.kill(os.getpid(), self.number)


def test_a_check_that_a_signal_left_out_is_made_up_for(tmp_path, start, curve, capsys):
    recipe = recipe_with(start)
    train(recipe, tmp_path / "whole")
    out = tmp_path / "stopped"
    train(recipe, out, callbacks=[Signal(signal.SIGTERM, 3)])
    assert last_step(out) == 3
    assert "step 3: stopped, and the state is saved: --resume continues" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out, resume=True, callbacks=[Signal(signal.SIGINT, 5)])
    assert last_step(out) == 5
    assert "resuming: after step 3" in capsys.readouterr().err
    train(recipe, out, resume=True)
    best = f"best at step 3 (captions cider_d 114.000): {out / BEST}"
    assert f"complete: {out / CHECKPOINT}; {best}" in capsys.readouterr().err
    assert bytes_of(tmp_path / "whole" / BEST) == bytes_of(out / BEST)
    assert same_weights(tmp_path / "whole", out)


def selection(**settings) -> Selection:
    return Selection(recipe_of("start", validation=VALIDATION, selection=settings))


def test_less_loss_is_better_and_a_small_gain_is_none():
    chosen = selection(metric="validation loss", min_delta=0.1, patience=2)
    steps = [3.0, 2.5, 2.45, 2.3, 2.3, 2.4]
    better = [chosen.update(n, {"validation loss": loss}) for n, loss in enumerate(steps, 1)]
    assert better == [True, True, False, True, False, False]
    assert chosen.best == (2.3, 4)
    assert chosen.is_over


def test_without_a_metric_cider_d_decides_and_else_exact_match():
    chosen = selection()
    chosen.update(1, {"captions exact": 3.0, "captions cider_d": 50.0})
    assert chosen.metric == "captions cider_d"
    other = selection()
    other.update(1, {"questions exact": 3.0, "validation loss": 1.0})
    assert other.metric == "questions exact"
    assert not other.update(2, {})


def test_a_nan_is_never_the_best_after_a_number():
    chosen = selection(metric="validation loss")
    chosen.update(1, {"validation loss": 2.0})
    assert not chosen.update(2, {"validation loss": float("nan")})


def test_the_state_comes_back_unless_its_scores_cannot_be_compared(capsys):
    first = selection()
    first.update(4, {"captions exact": 50.0})
    state = json.loads(json.dumps(first.state_dict()))
    second = selection()
    second.load_state_dict(state)
    assert (second.best, second.metric) == ((50.0, 4), "captions exact")
    other = selection(metric="validation loss")
    other.load_state_dict(state)
    assert other.best is None
    assert "the metric differs from before: the best score is forgotten" in capsys.readouterr().err
    data = recipe_of("start", validation=VALIDATION | {"size": 9})
    third = Selection(data)
    third.load_state_dict(state)
    assert third.best is None
    assert "the validation data differs from before" in capsys.readouterr().err


def test_the_validation_loss_is_the_mean_cross_entropy_of_the_examples(tmp_path, start):
    recipe = recipe_with(start, steps=1, learning={"label_smoothing": 0.1})
    train(recipe, tmp_path / "run")
    [line] = [line for line in log_of(tmp_path / "run") if "validation loss" in line]
    captioner = Captioner.from_pretrained(tmp_path / "run" / CHECKPOINT)
    source = recipe.validation.open()
    collator = Collator(tokenizer=captioner.tokenizer, config=captioner.model.config)
    samples = [collator.sample(source[n], None) for n in range(len(source))]
    total = n_tokens = 0
    for sample in samples:
        [batch] = collator.batches([sample])
        total += batch_loss(captioner.model, batch).item()
        n_tokens += batch.n_predicted
    assert line["validation loss"] == pytest.approx(total / n_tokens, rel=1e-5)
    assert line["captions exact"] >= 0


def test_the_chosen_metric_is_computed_where_it_would_not_be():
    items = [Prediction(key=str(n), text="a star", answers=("a star",)) for n in range(2)]
    assert check_scores(items).keys() == {"captions exact"}
    assert "captions cider_d" in check_scores(items, "captions cider_d")
    assert "captions bleu_4" in check_scores(items, "captions bleu_4")
    assert check_scores(items, "validation loss").keys() == {"captions exact"}


@pytest.mark.parametrize(
    ("tasks", "metric", "message"),
    [
        (["captions"], "questions exact", "the validation data has captions"),
        (["questions"], "captions cider_d", "the validation data has questions with fewer than 4"),
        (["captions", "questions"], "questions vqa", "captions and questions with fewer than 4"),
    ],
)
def test_a_metric_that_the_data_cannot_have_is_refused_before_training(
    tmp_path, start, tasks, metric, message
):
    validation = VALIDATION | {"tasks": tasks}
    recipe = recipe_of(start, validation=validation, selection={"metric": metric})
    with pytest.raises(GITError, match=f"metric is '{metric}', but .*{message}"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Listed:
    """Examples in a list; None is one that cannot be read."""

    def __init__(self, *notes: tuple[Annotation, ...] | None) -> None:
        self.notes = notes

    def __len__(self) -> int:
        return len(self.notes)

    def __getitem__(self, index: int) -> Example:
        if self.notes[index] is None:
            raise GITError(f"{index}.png is broken")
        return Example(f"{index}.png", Image.new("RGB", (8, 8)), self.notes[index])


CAPTION, QUESTION = Annotation(("a star",)), Annotation(("two",), "how many?")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            Listed((CAPTION,), (Annotation((), "what?"),)),
            r"1\.png has no answer to 'what\?', expec",
        ),
        (
            Listed(
                (CAPTION, Annotation(())),
            ),
            r"0\.png has no caption, expected at least one",
        ),
        (Listed((), ()), "no example has a caption or a question"),
        (Listed(None), "no example has a caption or a question"),
        (Listed((CAPTION,), None, None), "2 examples cannot be read, expected at most 1; the last"),
    ],
)
def test_validation_data_that_would_end_a_run_at_its_first_check_are_refused(source, message):
    recipe = recipe_of("start", validation=VALIDATION, loader={"broken_limit": 1})
    with pytest.raises(GITError, match=message) as error:
        require_validation(recipe, source)
    assert "\n" not in str(error.value)
    require_validation(recipe, Listed((CAPTION,), (CAPTION, QUESTION), (), None))


def test_an_example_without_a_reference_ends_a_run_before_its_first_step(
    tmp_path, start, monkeypatch
):
    recipe = recipe_of(start, validation=VALIDATION)
    monkeypatch.setattr(ShapesData, "open", lambda _: Listed(*[(Annotation((), "what?"),)] * 64))
    with pytest.raises(GITError, match=r"validation: 0\.png has no answer"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
