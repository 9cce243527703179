"""The README's and the guides' Python snippets pass `mypy --strict` and pyright.

Slow: a type checker reads torch first. `make lint` runs this file.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The walkthrough and the page about styles reach into torch's modules, whose attributes have no
# types; a test runs them instead (test_docs.py).
INNER = ("walkthrough", "styles.md")
PAGES = [
    path
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    if not any(part in INNER for part in path.parts)
]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A file for each page with snippets; of the README for each snippet."""
    folder = tmp_path_factory.mktemp("snippets")
    for path in PAGES:
        snippets = FENCE.findall(path.read_text())
        texts = snippets if path.name == "README.md" else ["\n".join(snippets)]
        for number, text in enumerate(filter(None, texts)):
            (folder / f"{path.stem}_{number}.py").write_text(text)
    names = {path.name for path in folder.iterdir()}
    assert {"README_0.py", "README_1.py", "from_transformers_0.py"} <= names
    return sorted(map(str, folder.iterdir()))


def check(*command: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", *command]
    return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_snippets_pass_mypy(files: list[str]) -> None:
    result = check("mypy", "--strict", *files)
    assert result.returncode == 0, result.stdout


def test_the_snippets_pass_pyright(files: list[str]) -> None:
    # basedpyright is pyright as a package that needs no download of Node
    folder = Path(files[0]).parent
    settings = {
        "typeCheckingMode": "standard",
        "include": [str(folder)],
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.11",
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    result = check("basedpyright", "--project", str(folder), "--pythonpath", sys.executable)
    assert result.returncode == 0, result.stdout
