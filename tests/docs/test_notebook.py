"""The notebook runs, prints what it shows, and carries no trace of the machine that wrote it."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

PATH = Path(__file__).parents[2] / "examples" / "git_in_150_lines.ipynb"
GENERIC_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


@pytest.fixture
def notebook() -> NotebookNode:
    return nbformat.read(PATH, as_version=4)


def outputs(notebook: NotebookNode) -> list[str]:
    """The output of each cell of code, joined."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(output["text"] for output in cell.outputs) for cell in cells]


def test_the_notebook_runs_and_prints_what_it_shows(notebook: NotebookNode) -> None:
    expected = outputs(notebook)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=240,
        resources={"metadata": {"path": str(PATH.parent)}},
    )
    client.execute()
    assert outputs(notebook) == expected
    assert "False" not in "".join(expected)


def test_the_model_takes_at_most_150_lines_and_nothing_but_torch(notebook: NotebookNode) -> None:
    titles = [cell.source.splitlines()[0] for cell in notebook.cells]
    model_cells = notebook.cells[: titles.index("## Beside the real one")]
    lines = [
        line
        for cell in model_cells
        if cell.cell_type == "code"
        for line in cell.source.splitlines()
        if line.strip()
    ]
    assert 100 <= len(lines) <= 150
    imports = [line for line in lines if line.startswith(("import ", "from "))]
    assert all(line.split()[1].startswith("torch") for line in imports)


def test_the_notebook_names_no_machine(notebook: NotebookNode) -> None:
    assert notebook.metadata == {"kernelspec": GENERIC_KERNEL, "language_info": {"name": "python"}}
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert str(Path.home()) not in PATH.read_text()
