"""torch.compile: announced in one line, kept in a folder, and a failure is one line, too."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from git_model.utils import compiling
from git_model.utils.compiling import CACHE_VARIABLE, Compiler, compile_in_place

GRAPH = SimpleNamespace(forward=lambda x: x + 1)
SCRIPT = """
import torch
from git_model import Captioner, generate
pixels, texts = torch.rand(2, 3, 64, 64), []
for c in (False, True):
    model = Captioner.from_pretrained("demo", compile=c).model
    with torch.inference_mode():
        texts.append(generate(model, model.see(pixels), [[model.config.bos_id]] * 2))
assert [row[0].tokens for row in texts[0]] == [row[0].tokens for row in texts[1]]
"""


def test_the_first_graph_alone_is_announced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "/cache")
    monkeypatch.setattr(compiling, "_inductor", lambda mode: lambda graph, inputs: graph.forward)
    compiler = Compiler("the encoder")
    assert [compiler(GRAPH, [])(1) for _ in range(3)] == [2, 2, 2]
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("compiling the encoder: a minute or two")
    assert line.endswith("kept in /cache")


def test_a_compiler_that_fails_is_one_line_and_the_graph_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def broken(graph: object, inputs: object) -> None:
        calls.append(graph)
        raise RuntimeError("No working C++ compiler found\n  File ...")

    monkeypatch.setattr(compiling, "_inductor", lambda mode: broken)
    compiler = Compiler("the encoder")
    assert [compiler(GRAPH, [])(1) for _ in range(3)] == [2, 2, 2]
    lines = capsys.readouterr().err.splitlines()[1:]
    assert lines == [
        "Warning: the encoder runs uncompiled: RuntimeError: No working C++ compiler found"
    ]
    assert len(calls) == 1  # it is not tried again


def test_a_python_that_torch_cannot_compile_for_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("torch.compile is not supported on Python 4.0\nmore")

    module = torch.nn.Linear(2, 2)
    monkeypatch.setattr(module, "compile", refuse, raising=False)
    compile_in_place(module, "the encoder")
    assert capsys.readouterr().err == (
        "Warning: the encoder runs uncompiled: torch.compile is not supported on Python 4.0\n"
    )


def test_compiled_code_that_fails_is_one_line_and_the_module_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, calls = torch.nn.Linear(2, 2), []

    def broken(*_: object) -> None:
        calls.append(1)
        raise RuntimeError("CUDA error: out of graphs\nmore about it")

    def compile_to_broken_code(backend: object) -> None:
        module._compiled_call_impl = broken

    monkeypatch.setattr(module, "compile", compile_to_broken_code, raising=False)
    monkeypatch.setattr(compiling, "_keep_between_processes", lambda: None)
    compile_in_place(module, "the encoder")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        module(torch.zeros(1, 3))  # its own error
    assert capsys.readouterr().err == ""
    for _ in range(2):
        assert torch.equal(module(torch.ones(1, 2)), module.forward(torch.ones(1, 2)))
    assert len(calls) == 2
    assert capsys.readouterr().err == (
        "Warning: the encoder runs uncompiled: RuntimeError: CUDA error: out of graphs\n"
    )


@pytest.mark.parametrize("given", [None, "/mine"])
def test_the_cache_is_the_users_unless_the_environment_names_another(
    given: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, given or "")
    if given is None:
        monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiling._keep_between_processes()
    expected = tmp_path / "git-model" / "compiled"
    assert os.environ[CACHE_VARIABLE] == (given or str(expected))
    assert expected.is_dir() == (given is None)


def test_where_no_cache_can_be_written_torch_takes_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    compiling._keep_between_processes()
    assert CACHE_VARIABLE not in os.environ


def child(cache: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {CACHE_VARIABLE: str(cache), "OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_without_a_cpp_compiler_the_model_runs_uncompiled(tmp_path: Path) -> None:
    lines = child(tmp_path, CXX="/nowhere/g++").stderr.splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == [
        "compiling the encoder", "compiling the decoder's step"
    ]  # fmt: skip
    assert lines[1].startswith("Warning: the encoder runs uncompiled: ")
    assert lines[3].startswith("Warning: the decoder's step runs uncompiled: ")
    assert len(lines) == 4
