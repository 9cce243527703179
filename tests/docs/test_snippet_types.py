"""The Python snippets of the README and the guides pass `mypy --strict` and pyright.

Slow: both read torch first. `make lint` runs this file behind mypy, whose cache it shares.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The walkthrough takes models apart: torch gives the parts of a module no types. Another test runs
# its snippets (test_docs.py).
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MISTAKE = """
from git_model import Captioner
captioner = Captioner.from_pretrained("demo")
captioner.caption("one.jpg")[0]
captioner.caption(["one.jpg", "two.jpg"]).text
captioner.caption("one.jpg", num_beams=4)
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A module for each page with snippets, and one with three mistakes."""
    folder = tmp_path_factory.mktemp("snippets")
    for page in PAGES:
        snippets = FENCE.findall(page.read_text())
        if snippets:
            (folder / f"page_{page.stem}.py").write_text("\n".join(snippets))
    (folder / "mistake.py").write_text(MISTAKE)
    paths = sorted(folder.iterdir())
    assert {"page_README.py", "page_from_transformers.py"} <= {path.name for path in paths}
    return paths


def errors_of(*command: str) -> list[tuple[str, int, str]]:
    """What a type checker reports, each with its module and line."""
    run = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    found = re.findall(r"(\w+)\.py:(\d+)\S* (?:- )?error: (.*)", run.stdout)
    assert found, run.stdout + run.stderr
    return [(module, int(line), message) for module, line, message in found]


def assert_only_mistakes(errors: list[tuple[str, int, str]]) -> None:
    assert [error for error in errors if error[0] != "mistake"] == []
    assert {line for _, line, _ in errors} == {4, 5, 6}


def test_the_snippets_pass_mypy_strict(modules: list[Path]) -> None:
    assert_only_mistakes(errors_of("mypy", "--strict", *map(str, modules)))


def test_the_snippets_pass_pyright(modules: list[Path]) -> None:
    # basedpyright is pyright as a package that needs no download of Node
    folder = modules[0].parent
    settings = {
        "typeCheckingMode": "standard",
        "include": [str(folder)],
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.11",
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    errors = errors_of("basedpyright", "--project", str(folder), "--pythonpath", sys.executable)
    # Transformers' own types do not say that its models generate.
    theirs = 'Cannot access attribute "generate" for class "GitForCausalLM"'
    assert_only_mistakes([error for error in errors if theirs not in error[2]])
