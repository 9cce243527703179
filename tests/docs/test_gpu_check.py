"""The check for machines with a GPU runs to its end without one."""

import pytest
from click.testing import CliRunner
from scripts import load_script

gpu_check = load_script("benchmarks/gpu_check.py")


def test_every_section_runs_with_a_tiny_model_on_the_cpu() -> None:
    result = CliRunner().invoke(gpu_check.main, ["--device", "cpu", "--small"])
    assert result.exit_code == 0, result.output
    sections = result.output.split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections] == list(gpu_check.SECTIONS)
    n_rows = {
        "Parity": 3,
        "Speed": 12,
        "Compiled": 4,
        "A training step": 1,
        "A folder": 3,
        "FSDP2": 2,
    }
    for section in sections:
        name, *lines = section.splitlines()
        assert sum(line.startswith("| ") for line in lines) == 1 + n_rows[name]
        assert lines[-1].startswith("ok, ")


def test_a_section_that_fails_is_one_line_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(check: object) -> object:
        yield "work", "time"
        raise RuntimeError("out of memory\nmore about it")

    sections = {"Broken": broken, "Whole": lambda check: iter([("work", "time")])}
    monkeypatch.setattr(gpu_check, "SECTIONS", sections)
    monkeypatch.setattr(gpu_check, "write_small_checkpoint", lambda folder: None)
    result = CliRunner().invoke(gpu_check.main, ["--device", "cpu", "--small"])
    assert result.exit_code == 1
    assert result.output.splitlines().count("FAILED: RuntimeError: out of memory") == 1
    assert result.output.rstrip().endswith("ok, 0 s")


def test_a_device_that_is_not_there_is_one_line() -> None:
    result = CliRunner().invoke(gpu_check.main, ["--device", "quantum"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: device 'quantum' cannot be used here")
