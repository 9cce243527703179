"""Settings of the whole test run."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's library

import hypothesis
import pytest
import torch

torch.set_num_threads(1)  # the tests run in parallel, and their tensors are small

# A busy machine is no failure: pytest's own limit of time for each test is enough.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

SKIP_IS_FAILURE = bool(os.environ.get("GIT_MODEL_SKIP_IS_FAILURE"))


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


@pytest.fixture(autouse=True)
def same_random_state() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)
