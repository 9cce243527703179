"""The notebook runs, prints what it shows, and carries nothing of the machine that wrote it."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

PATH = Path(__file__).parents[2] / "examples" / "git_in_150_lines.ipynb"
GENERIC = {"display_name": "Python 3", "language": "python", "name": "python3"}


@pytest.fixture
def notebook() -> NotebookNode:
    return nbformat.read(PATH, as_version=4)


def printed(notebook: NotebookNode) -> list[str]:
    """What each cell of code wrote, in one piece however many it came in."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(output["text"] for output in cell.outputs) for cell in cells]


def test_the_notebook_runs_and_prints_what_it_shows(notebook: NotebookNode) -> None:
    shown = printed(notebook)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=240,
        resources={"metadata": {"path": str(PATH.parent)}},
    )
    client.execute()
    assert printed(notebook) == shown
    assert "False" not in "".join(shown)


def test_the_model_takes_at_most_150_lines_and_nothing_but_torch(notebook: NotebookNode) -> None:
    titles = [cell.source.splitlines()[0] for cell in notebook.cells]
    of_model = notebook.cells[: titles.index("## Beside the real one")]
    lines = [
        line
        for cell in of_model
        if cell.cell_type == "code"
        for line in cell.source.splitlines()
        if line.strip()
    ]
    assert 100 <= len(lines) <= 150
    imports = [line for line in lines if line.startswith(("import ", "from "))]
    assert all(line.split()[1].startswith("torch") for line in imports)


def test_the_notebook_names_no_machine(notebook: NotebookNode) -> None:
    assert notebook.metadata == {"kernelspec": GENERIC, "language_info": {"name": "python"}}
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert str(Path.home()) not in PATH.read_text()
