"""The COCO tools in Java: the Penn Treebank tokenizer, METEOR and SPICE.

The programs come with pycocoevalcap, the extra `eval`; only SPICE downloads something, its language
models, when it is first used.
"""

import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path

from git_model.evaluation.metrics import WordList
from git_model.utils.errors import GITError

SPICE_MODELS = "stanford-corenlp-3.6.0"  # what SPICE downloads


class ToolError(GITError):
    """Java or one of its programs is missing or fails; the message says which."""


def missing_requirement() -> str | None:
    """The first requirement of these tools that this machine lacks; None if they can run."""
    if not _java_runs():
        return "Java, which is not installed (`java -version` fails)"
    if find_spec("pycocoevalcap") is None:
        return "pycocoevalcap, which is not installed: pip install 'git-model[eval]'"
    return None


def _java_runs() -> bool:
    try:  # a program of this name is not enough: macOS has one that only says where to get Java
        subprocess.run(["java", "-version"], check=True, capture_output=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def require(tool: str) -> None:
    """Refuse a tool that cannot run here.

    Raises:
        ToolError: the message names what the tool needs.
    """
    requirement = missing_requirement()
    if requirement is not None:
        raise ToolError(f"{tool} needs {requirement}")


def ptb_words(texts: Sequence[str]) -> list[list[str]]:
    """The words of each text as the COCO tools use them: by the Penn Treebank's rules, in lower
    case, without punctuation.

    Raises:
        ToolError: Java or pycocoevalcap is missing, or Java fails.
    """
    require("the Penn Treebank tokenizer")
    from pycocoevalcap.tokenizer import ptbtokenizer as ptb

    jar = Path(ptb.__file__).with_name(ptb.STANFORD_CORENLP_3_4_1_JAR)
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    lines = "".join(" ".join(text.split()) + "\n" for text in texts)
    try:
        process = subprocess.run(  # noqa: S603  (a fixed program; texts go to its stdin)
            [*command, "-preserveLines", "-lowerCase", "-encoding", "UTF-8"],
            input=lines.encode(errors="replace"),
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ToolError(f"the Penn Treebank tokenizer failed: {_reason(error)}") from None
    output = process.stdout.decode().split("\n")[:-1]
    if len(output) != len(texts):
        raise ToolError(
            f"the Penn Treebank tokenizer made {len(output)} lines of {len(texts)} texts"
        )
    return [[word for word in line.split() if word not in ptb.PUNCTUATIONS] for line in output]


def meteor(candidates: Sequence[WordList], references: Sequence[Sequence[WordList]]) -> float:
    """METEOR 1.5 of a corpus; arguments as in metrics.py.

    Raises:
        ToolError: as in `ptb_words`.
    """
    require("METEOR")
    from pycocoevalcap.meteor import meteor as tool

    # pycocoevalcap's class Meteor waits forever once Java has failed, so it is not used.
    command = ["java", "-jar", "-Xmx2G", tool.METEOR_JAR, "-", "-"]
    command += ["-stdio", "-l", "en", "-norm"]
    texts = [
        " ||| ".join(" ".join(words) for words in (*reference, candidate))
        for candidate, reference in zip(candidates, references, strict=True)
    ]
    try:
        with subprocess.Popen(  # noqa: S603
            command,
            cwd=Path(tool.__file__).parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        ) as java:
            counts = [_reply(java, f"SCORE ||| {text}") for text in texts]
            _reply(java, f"EVAL ||| {' ||| '.join(counts)}")  # the score of the first text,
            scores = [_reply(java) for _ in texts]  # then of each other text, then of the corpus
            return float(scores[-1])
    except (OSError, ValueError) as error:
        raise ToolError(f"METEOR failed, which needs 2 GB for Java: {_reason(error)}") from None


def _reply(java: "subprocess.Popen[str]", line: str | None = None) -> str:
    """Write a line to a program, if there is one, and read the next line that it prints."""
    if java.stdin is None or java.stdout is None:
        raise ValueError("no pipes")
    if line is not None:
        java.stdin.write(line + "\n")
        java.stdin.flush()
    reply = java.stdout.readline()
    if not reply:
        raise OSError("it ended too early")
    return reply.strip()


def spice(candidates: Sequence[WordList], references: Sequence[Sequence[WordList]]) -> float:
    """SPICE of a corpus, the mean over images; arguments as in metrics.py.

    Raises:
        ToolError: as in `ptb_words`, or `prepare_spice`.
    """
    prepare_spice()
    from pycocoevalcap.spice.spice import Spice

    try:
        with _stdout_as_stderr():
            value, _ = Spice().compute_score(*_numbered(candidates, references))
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise ToolError(f"SPICE failed: {_reason(error)}") from None
    if math.isnan(value):
        raise ToolError("SPICE has no score for some caption, so there is no mean")
    return float(value)


def has_spice_models() -> bool:
    """Whether SPICE can run without a download of its language models."""
    return missing_requirement() is None and all(path.is_file() for path in _model_files())


def prepare_spice() -> None:
    """Download SPICE's language models, unless they are there.

    Raises:
        ToolError: Java or pycocoevalcap is missing, or the download fails.
    """
    require("SPICE")
    if has_spice_models():
        return
    from pycocoevalcap.spice.get_stanford_models import get_stanford_models

    try:
        with redirect_stdout(sys.stderr):
            get_stanford_models()
    except Exception as error:  # the network, the disk, or a damaged archive
        names = " and ".join(path.name for path in _model_files())
        raise ToolError(
            "SPICE's language models cannot be downloaded from nlp.stanford.edu "
            f"({_reason(error)}): put {names} into {_model_files()[0].parent}, or leave SPICE out"
        ) from None


def _model_files() -> list[Path]:
    from pycocoevalcap import spice

    folder = Path(spice.__file__).with_name("lib")
    return [folder / f"{SPICE_MODELS}.jar", folder / f"{SPICE_MODELS}-models.jar"]


def _numbered(
    candidates: Sequence[WordList], references: Sequence[Sequence[WordList]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and candidates in pycocoevalcap's form: texts by the number of the image."""
    expected = {n: [" ".join(text) for text in texts] for n, texts in enumerate(references)}
    return expected, {n: [" ".join(text)] for n, text in enumerate(candidates)}


@contextmanager
def _stdout_as_stderr() -> Iterator[None]:
    """Send the output of child processes to stderr: stdout is for results."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def _reason(error: Exception) -> str:
    """One line: the last that the program printed, or the message of the exception."""
    if isinstance(error, subprocess.CalledProcessError):
        printed = (error.stderr or b"").decode(errors="replace").strip()
        return printed.splitlines()[-1] if printed else f"exit code {error.returncode}"
    return " ".join(str(getattr(error, "reason", error)).split())
