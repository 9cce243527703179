"""The COCO tools in Java: their results, and the error where they cannot run."""

from pathlib import Path
from urllib.error import URLError

import pytest
from forked import run as run_forked

from git_model.evaluation import coco_tools
from git_model.evaluation.coco_tools import (
    ToolError,
    meteor,
    missing_requirement,
    prepare_spice,
    ptb_words,
    spice,
)

with_java = pytest.mark.skipif(
    missing_requirement() is not None, reason=f"needs {missing_requirement()}"
)


def fake_java(folder: Path, script: str) -> str:
    """A PATH where `java` is this shell script, and has a version."""
    program = folder / "java"
    program.write_text(f'#!/bin/sh\n[ "$1" = -version ] && exit\n{script}\n')
    program.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_without_java_every_tool_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for run in (lambda: ptb_words(["a"]), lambda: meteor([["a"]], [[["a"]]]), prepare_spice):
        with pytest.raises(ToolError, match="needs Java, which is not installed"):
            run()
    assert not coco_tools.has_spice_models()
    program = tmp_path / "java"
    program.write_text("#!/bin/sh\nexit 1")
    program.chmod(0o755)
    assert "Java, which is not installed" in str(missing_requirement())


def test_without_pycocoevalcap_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", fake_java(tmp_path, "exit 0"))
    monkeypatch.setattr(coco_tools, "find_spec", lambda _: None)
    with pytest.raises(ToolError, match=r"needs pycocoevalcap, .* 'git-model\[eval\]'"):
        meteor([["a"]], [[["a"]]])


@with_java
def test_ptb_words_are_those_of_the_coco_tools() -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = ["A dog's (big) nose.", "", "rock'n'roll, y'all!", "naïve café, 1/2 of it", "--"]
    theirs = PTBTokenizer().tokenize({n: [{"caption": text}] for n, text in enumerate(texts)})
    assert [" ".join(words) for words in ptb_words(texts)] == [line for [line] in theirs.values()]


@with_java
def test_odd_line_ends_do_not_shift_texts() -> None:
    assert ptb_words(["a\rb", "c\u2028d\x85e", "f\x0bg\n\nh"]) == [
        ["a", "b"],
        list("cde"),
        list("fgh"),
    ]


@with_java
def test_a_java_that_fails_gives_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", fake_java(tmp_path, "echo first >&2; echo no memory >&2; exit 3"))
    with pytest.raises(ToolError, match="tokenizer failed: no memory"):
        ptb_words(["a"])
    with pytest.raises(ToolError, match="METEOR failed, which needs 2 GB"):
        meteor([["a"]], [[["a"]]])
    monkeypatch.setenv("PATH", fake_java(tmp_path, "echo one line"))
    with pytest.raises(ToolError, match="made 1 lines of 2 texts"):
        ptb_words(["a", "b"])


@with_java
@pytest.mark.slow
def test_meteor_of_the_reference_itself_is_one() -> None:
    cat, dog = list("abcd"), list("efgh")
    assert meteor([cat, dog], [[cat], [dog, cat]]) == 1
    assert 0 < meteor([cat, ["e"]], [[cat], [dog]]) < 1


@with_java
def test_spice_names_the_files_that_it_cannot_download_and_their_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pycocoevalcap.spice import get_stanford_models as module

    def offline() -> None:
        print("Downloading")
        raise URLError("no network")

    monkeypatch.setattr(module, "get_stanford_models", offline)
    monkeypatch.setattr(coco_tools, "_model_files", lambda: [tmp_path / "a.jar", tmp_path / "b"])
    line = rf"nlp.stanford.edu \(no network\): put a.jar and b into {tmp_path}, or leave SPICE out"
    with pytest.raises(ToolError, match=line):
        spice([["a"]], [[["a"]]])
    assert capsys.readouterr().out == ""  # stdout is for results


def spice_without_models() -> None:
    """A child's score of SPICE, printed."""
    from pycocoevalcap.spice import spice as module

    module.get_stanford_models = coco_tools.prepare_spice = lambda: None
    print("result", spice([["a"]], [[["a"]]]))


@with_java
def test_spice_runs_as_in_the_coco_tools_and_prints_on_stderr_only(tmp_path: Path) -> None:
    """With a Java that writes the tool's result without its models."""
    result = '[{"image_id": 0, "scores": {"All": {"f": 0.25, "pr": 1.0, "re": 1.0}}}]'
    script = f"""echo parsing; while [ "$1" != -out ]; do shift; done; echo '{result}' > "$2" """
    code, output, errors = run_forked(spice_without_models, PATH=fake_java(tmp_path, script))
    assert (code, output) == (0, "result 0.25\n"), errors
    assert errors == "parsing\n"
