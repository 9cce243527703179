"""Trackers: they get the log, the settings of the recipe and the final scores."""

import builtins
import json
import os
import sqlite3
import subprocess
import sys
import types
from pathlib import Path

import pytest
from runs import recipe_of

from git_model.training.reports import Report, StepStats
from git_model.training.trackers import require_trackers, run_id, settings_of
from git_model.utils.errors import GITError

ROOT = Path(__file__).parents[2]
STATS = StepStats(loss=2.0, n_images=6, grad_norm=3.0, lr_share=0.5, means={"reward": 7.0})
VALIDATION = {"kind": "shapes", "size": 2}


def recipe_with(*trackers: str):
    return recipe_of("start", validation=VALIDATION, reports={"trackers": trackers})


def report_a_run(out, recipe, last: int = 0) -> None:
    with Report(out, recipe, last) as report:
        report.step(last + 1, STATS)
        report.check(last + 1, [], {"captions cider_d": 114.0})
        report.best(last + 1, "captions cider_d", 114.0)


def test_the_settings_are_numbers_and_texts_by_dotted_key() -> None:
    settings = settings_of(recipe_of("start", learning={"frozen": ["encoder"]}))
    assert settings["learning.decoder_lr"] == 2e-3
    assert settings["learning.frozen"] == "('encoder',)"
    assert settings["validation"] == "None"
    assert {type(value) for value in settings.values()} <= {bool, int, float, str}


def test_tensorboard_has_the_settings_and_the_final_scores(tmp_path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    report_a_run(tmp_path, recipe_with("tensorboard"))
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Scalars("reward")[0].value == 7.0
    assert events.Scalars("final/captions cider_d")[0].value == 114.0
    assert events.Scalars("best/step")[0].value == 1.0
    plugin = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"learning.decoder_lr" in plugin


class FakeWandb(types.ModuleType):
    """What the tracker uses of wandb, recorded."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.calls: list[dict] = []
        self.rows: list[tuple[int, dict]] = []
        self.summary: dict[str, float] = {}
        self.finished = 0

    def init(self, **options):
        self.calls.append(options)
        return self

    def log(self, values, *, step):
        self.rows.append((step, values))

    def finish(self):
        self.finished += 1

    class Settings:
        def __init__(self, **options) -> None:
            self.options = options


def test_wandb_is_offline_and_gets_settings_numbers_and_summary(tmp_path, monkeypatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    report_a_run(tmp_path, recipe_with("wandb"))
    [call] = fake.calls
    assert (call["mode"], call["dir"], call["name"]) == ("offline", str(tmp_path), tmp_path.name)
    assert call["project"] == "git-model"
    assert call["config"]["learning"]["decoder_lr"] == 2e-3
    assert fake.rows[0][0] == 1
    assert fake.rows[0][1]["loss"] == 2.0
    assert fake.rows[1] == (1, {"captions cider_d": 114.0})
    assert fake.summary == {
        "final/captions cider_d": 114.0, "best/captions cider_d": 114.0, "best/step": 1.0
    }  # fmt: skip
    assert fake.finished == 1


def test_a_resumed_run_of_wandb_has_the_same_id_and_may_be_online(tmp_path, monkeypatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_MODE", "online")
    for last in (0, 1):
        report_a_run(tmp_path, recipe_with("wandb"), last)
    first, second = fake.calls
    assert first["id"] == second["id"] == run_id(tmp_path)
    assert (first["mode"], first["resume"]) == ("online", "allow")


class FakeTrackio(FakeWandb):
    """What the tracker uses of trackio, recorded."""


def test_trackio_gets_settings_numbers_and_final_scores(tmp_path, monkeypatch) -> None:
    fake = FakeTrackio()
    monkeypatch.setitem(sys.modules, "trackio", fake)
    report_a_run(tmp_path, recipe_with("trackio"))
    [call] = fake.calls
    assert call["name"] == f"{tmp_path.name}-{run_id(tmp_path)[:6]}"
    assert call["config"]["learning.decoder_lr"] == 2e-3
    assert call["resume"] == "allow"
    assert [step for step, _ in fake.rows] == [1, 1, 1]
    assert fake.rows[-1][1]["final/captions cider_d"] == 114.0
    assert fake.finished == 1


@pytest.mark.slow  # it imports gradio
def test_trackio_keeps_the_run_on_this_machine(tmp_path) -> None:
    pytest.importorskip("trackio")
    code = (
        "import sys; sys.path[:0] = ['tests', 'tests/training', '.']; from pathlib import Path; "
        "from test_trackers import recipe_with, report_a_run; "
        "report_a_run(Path(sys.argv[1]), recipe_with('trackio'))"
    )
    (tmp_path / "run").mkdir()
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        env=os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
    [database] = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = [json.loads(text) for (text,) in connection.execute("SELECT metrics FROM metrics")]
        configs = [json.loads(text) for (text,) in connection.execute("SELECT config FROM configs")]
    assert any(row.get("final/captions cider_d") == 114.0 for row in rows), rows
    assert any(row.get("reward") == 7.0 for row in rows)
    assert [config["learning.decoder_lr"] for config in configs] == [2e-3]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_extra_is_named(name, monkeypatch) -> None:
    real = builtins.__import__

    def without(module, *args):
        if module.startswith(("torch.utils.tensorboard", "wandb", "trackio")):
            raise ImportError(module)
        return real(module, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(GITError, match=rf"asks for {name}: pip install 'git-model\[{name}\]'"):
        require_trackers(recipe_with(name))


def test_the_mean_of_a_losss_other_numbers_is_logged(tmp_path) -> None:
    recipe = recipe_of("start", reports={"log_every": 2})
    with Report(tmp_path, recipe, 0) as report:
        report.step(1, STATS)
        report.step(2, StepStats(2.0, 6, 3.0, 0.5, means={"reward": 9.0}))
    [line] = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert line["reward"] == 8.0
