"""The rooms and who may know whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A room imports only from rooms that stand before it.
ROOMS = [
    "settings", "config", "tokenizer", "constraints", "devices",
    "linear", "mlp", "attention", "preprocess", "video", "writing", "checkpoint",
    "encoder", "decoder", "model",
    "search", "beams", "decoding",
    "opening", "speaker", "captioner",
    "beam_tree", "looks", "explain", "heat",
    "data",
    "shapes", "shape_clips", "shape_texts", "shape_questions", "shape_source",
    "manifests", "coco", "folders", "tsv", "order", "shards", "sources",
    "augment", "readings", "feed",
    "loss",
    "metrics", "vqa", "words", "coco_tools", "predictions", "scores", "prediction_files",
    "evaluate",
    "recipe", "start", "ranks", "learner", "optimize", "run_state", "reports", "train",
    "input_items", "input_paths", "input_lists", "input_tables", "input_archives", "inputs",
    "pipeline", "wording", "records", "target_tables", "target_shards", "targets",
    "journal", "author", "batch_files", "batch", "batch_run", "ray_engine",
    "plotting", "picture_tables", "pictures", "svg", "report",
    "page", "page_html", "page_layout",
    "cli_options", "cli_images", "cli_evaluate", "cli_train", "cli_batch_options", "cli_batch",
    "cli_explain", "cli_page", "cli", "__main__",
]  # fmt: skip
# Only these two may use the converters, and only inside a function.
USE_CONVERTERS = {"opening", "cli"}
CONVERTERS_MAY_USE = {
    "settings",
    "config",
    "tokenizer",
    "devices",
    "preprocess",
    "checkpoint",
    "attention",
    "model",
    "decoding",
}


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """(module, whether it stands at the top of the file) of every import in a file."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written out"
            found.append((node.module or "", id(node) in top))
    return found


FILES = sorted((ROOT / "git_model").glob("*.py"))
CONVERTERS = sorted((ROOT / "weights_convert").glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_room_imports_only_from_rooms_before_it(path: Path) -> None:
    if path.stem == "__init__":
        return
    before = ROOMS[: ROOMS.index(path.stem)]
    for module, _ in imports_of(path):
        if module.startswith("git_model."):
            assert module.split(".")[1] in before, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_converters_are_used_in_two_rooms_and_inside_functions(path: Path) -> None:
    for module, at_top in imports_of(path):
        if module.startswith("weights_convert"):
            assert path.stem in USE_CONVERTERS
            assert not at_top


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_model_never_imports_transformers(path: Path) -> None:
    for module, _ in imports_of(path):
        assert module.split(".")[0] not in {"transformers", "torchvision", "open_clip"}


@pytest.mark.parametrize("path", CONVERTERS, ids=lambda path: path.stem)
def test_converters_use_only_the_rooms_that_they_need(path: Path) -> None:
    for module, _ in imports_of(path):
        if module.startswith("git_model."):
            assert module.split(".")[1] in CONVERTERS_MAY_USE, f"{path.name} imports {module}"


def test_every_room_is_in_the_list_and_in_the_readme() -> None:
    names = {path.stem for path in FILES} - {"__init__"}
    assert names == set(ROOMS)
    readme = (ROOT / "README.md").read_text()
    assert [name for name in names - {"__main__"} if f"`{name}.py`" not in readme] == []


@pytest.mark.parametrize("code", ["import git_model", "from git_model import Captioner, GIT"])
def test_importing_the_package_loads_no_reference(code: str) -> None:
    wanted = "[m for m in ('transformers', 'torchvision', 'open_clip') if m in sys.modules]"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print({wanted})"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"


def test_opening_a_model_does_not_wait_for_the_compiler_of_torch() -> None:
    code = "from git_model import Captioner; Captioner.from_pretrained('demo')"
    check = f"import sys; {code}; sys.exit('torch._dynamo' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def functions_of(path: Path) -> list[tuple[str, int]]:
    tree = ast.parse(path.read_text())
    return [
        (f"{path.name}: {node.name}", (node.end_lineno or 0) - node.lineno + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    ]


def test_no_function_is_longer_than_sixty_lines() -> None:
    lengths = [item for path in FILES + CONVERTERS for item in functions_of(path)]
    assert [name for name, length in lengths if length > 60] == []
