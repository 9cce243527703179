"""What the COCO tools do in Java: the Penn Treebank's words, METEOR and SPICE.

The programs come with pycocoevalcap, the extra `eval`; only SPICE fetches something, its language
models, when it is first asked for.
"""

import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path

from git_model.evaluation.metrics import Words
from git_model.utils.errors import GITError

PARSER = "stanford-corenlp-3.6.0"  # what SPICE fetches


class ToolError(GITError):
    """Java or one of its programs is missing or fails; the message says which."""


def lacking() -> str | None:
    """What these tools need and this machine has not; None if they can run."""
    if not _java_runs():
        return "Java, which is not installed (`java -version` fails)"
    if find_spec("pycocoevalcap") is None:
        return "pycocoevalcap, which is not installed: pip install 'git-model[eval]'"
    return None


def _java_runs() -> bool:
    try:  # to find the program is not enough: macOS has one that only says where to get Java
        subprocess.run(["java", "-version"], check=True, capture_output=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def require(tool: str) -> None:
    """Refuse to go on if a tool cannot run.

    Raises:
        ToolError: it says what the tool needs.
    """
    needs = lacking()
    if needs is not None:
        raise ToolError(f"{tool} needs {needs}")


def ptb_words(texts: Sequence[str]) -> list[list[str]]:
    """The words of each text as the COCO tools see them: the Penn Treebank's, in lower case,
    without punctuation.

    Raises:
        ToolError: Java or pycocoevalcap is missing, or Java fails.
    """
    require("the Penn Treebank tokenizer")
    from pycocoevalcap.tokenizer import ptbtokenizer as ptb

    jar = Path(ptb.__file__).with_name(ptb.STANFORD_CORENLP_3_4_1_JAR)
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    lines = "".join(" ".join(text.split()) + "\n" for text in texts)
    try:
        done = subprocess.run(  # noqa: S603  (a program of our choice; texts go to its stdin)
            [*command, "-preserveLines", "-lowerCase", "-encoding", "UTF-8"],
            input=lines.encode(errors="replace"),
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ToolError(f"the Penn Treebank tokenizer failed: {_reason(error)}") from None
    found = done.stdout.decode().split("\n")[:-1]
    if len(found) != len(texts):
        raise ToolError(
            f"the Penn Treebank tokenizer made {len(found)} lines of {len(texts)} texts"
        )
    return [[word for word in line.split() if word not in ptb.PUNCTUATIONS] for line in found]


def meteor(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """METEOR 1.5 of a corpus; arguments as in metrics.py.

    Raises:
        ToolError: as in `ptb_words`.
    """
    require("METEOR")
    from pycocoevalcap.meteor import meteor as tool

    # not its class Meteor, which waits for ever once Java has failed
    command = ["java", "-jar", "-Xmx2G", tool.METEOR_JAR, "-", "-"]
    command += ["-stdio", "-l", "en", "-norm"]
    texts = [
        " ||| ".join(" ".join(words) for words in (*others, candidate))
        for candidate, others in zip(candidates, references, strict=True)
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
            _reply(java, f"EVAL ||| {' ||| '.join(counts)}")  # of the first text alone,
            rest = [_reply(java) for _ in texts]  # then of the others, and of all of them
            return float(rest[-1])
    except (OSError, ValueError) as error:
        raise ToolError(f"METEOR failed, which needs 2 GB for Java: {_reason(error)}") from None


def _reply(java: "subprocess.Popen[str]", line: str | None = None) -> str:
    """The next line that a program says, if any after it is told a line."""
    if java.stdin is None or java.stdout is None:
        raise ValueError("no pipes")
    if line is not None:
        java.stdin.write(line + "\n")
        java.stdin.flush()
    reply = java.stdout.readline()
    if not reply:
        raise OSError("it ended too early")
    return reply.strip()


def spice(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """SPICE of a corpus, the mean over images; arguments as in metrics.py.

    Raises:
        ToolError: as in `ptb_words`, or `prepare_spice`.
    """
    prepare_spice()
    from pycocoevalcap.spice.spice import Spice

    try:
        with _stdout_as_stderr():
            found, _ = Spice().compute_score(*_as_the_tools_take(candidates, references))
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise ToolError(f"SPICE failed: {_reason(error)}") from None
    if math.isnan(found):
        raise ToolError("SPICE found nothing to judge in some caption, so that there is no mean")
    return float(found)


def has_parser() -> bool:
    """Whether SPICE's language models are there, so that it can run without fetching anything."""
    return lacking() is None and all(path.is_file() for path in _parser_files())


def prepare_spice() -> None:
    """Fetch SPICE's language models, unless they are there.

    Raises:
        ToolError: Java or pycocoevalcap is missing, or the models cannot be fetched.
    """
    require("SPICE")
    if has_parser():
        return
    from pycocoevalcap.spice.get_stanford_models import get_stanford_models

    try:
        with redirect_stdout(sys.stderr):
            get_stanford_models()
    except Exception as error:  # the network, the disk, or a damaged archive
        names = " and ".join(path.name for path in _parser_files())
        raise ToolError(
            f"SPICE's language models cannot be fetched from nlp.stanford.edu ({_reason(error)}): "
            f"put {names} into {_parser_files()[0].parent}, or leave SPICE out"
        ) from None


def _parser_files() -> list[Path]:
    from pycocoevalcap import spice

    folder = Path(spice.__file__).with_name("lib")
    return [folder / f"{PARSER}.jar", folder / f"{PARSER}-models.jar"]


def _as_the_tools_take(
    candidates: Sequence[Words], references: Sequence[Sequence[Words]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and candidates as lines of words, numbered."""
    expected = {n: [" ".join(text) for text in texts] for n, texts in enumerate(references)}
    return expected, {n: [" ".join(text)] for n, text in enumerate(candidates)}


@contextmanager
def _stdout_as_stderr() -> Iterator[None]:
    """Send what a program prints to stderr, for stdout is for results."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _reason(error: Exception) -> str:
    """One line: the last that the program printed, or what Python says."""
    if isinstance(error, subprocess.CalledProcessError):
        printed = (error.stderr or b"").decode(errors="replace").strip()
        return printed.splitlines()[-1] if printed else f"exit code {error.returncode}"
    return " ".join(str(getattr(error, "reason", error)).split())
