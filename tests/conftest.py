"""Settings of the whole test run."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's library
# An export asks sympy the same questions about sizes again and again: a fifth of its time.
os.environ.setdefault("SYMPY_CACHE_SIZE", "None")
# And torch computes all strides of a tensor of free sizes only to remember them: an eighth.
os.environ.setdefault("TORCH_FAKE_TENSOR_DISPATCH_CACHE", "0")

import hypothesis
import pytest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A busy machine is no failure: pytest's own limit of time for each test is enough.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=20)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=300)
hypothesis.settings.load_profile("quick")  # another one: pytest --hypothesis-profile thorough

SKIP_IS_FAILURE = bool(os.environ.get("GIT_MODEL_SKIP_IS_FAILURE"))


def pytest_collection_finish() -> None:
    """What was imported and collected lives as long as the run: no search for garbage visits it."""
    gc.freeze()
    gc.enable()


def pytest_sessionstart(session: pytest.Session) -> None:
    """The tests run in parallel, and their tensors are small: one thread each. The process that
    starts those which run tests does without torch, so that they start seconds earlier."""
    runs_no_test = session.config.getoption("numprocesses", None) and not os.environ.get(
        "PYTEST_XDIST_WORKER"
    )
    if not runs_no_test:
        gc.disable()  # until all is collected
        import torch

        torch.set_num_threads(1)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell's script
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """The server of child processes starts before any test, if there are tests that use it."""
    forked = sys.modules.get("forked") if hasattr(os, "fork") else None
    if forked and not session.config.option.collectonly:
        forked.start_server()


def _not_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI a skipped test is a failed one: nothing may go untested for want of a package."""
    if SKIP_IS_FAILURE and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, which is not allowed here: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    _not_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    _not_skipped(report)
    return report


@pytest.fixture
def few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """An explanation has the figures of frames and of beams only: to draw all takes seconds."""
    from git_model.explain import figures
    from git_model.explain.explanation import Explanation

    def drawn(explanation: Explanation) -> "Iterator[tuple[str, Figure]]":
        if len(explanation.frames) > 1:
            yield "frames", figures.frames(explanation)
        if explanation.tree is not None:
            yield "beams", figures.beams(explanation)

    monkeypatch.setattr(figures, "_all_figures", drawn)


@pytest.fixture
def forget_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders that a test registers are unknown to the next one."""
    from git_model.config import TowerConfig
    from git_model.model import towers

    monkeypatch.setattr(TowerConfig, "KINDS", set(TowerConfig.KINDS))
    monkeypatch.setattr(towers, "TOWERS", dict(towers.TOWERS))


@pytest.fixture(autouse=True)
def same_random_state() -> None:
    """Every test starts from the same random state."""
    import torch

    # `torch.manual_seed` takes milliseconds to keep the call's stack for a GPU that may come.
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)
