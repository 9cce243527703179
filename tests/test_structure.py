"""The rooms and who may know whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def in_folder(folder: str, rooms: str) -> list[str]:
    return [f"{folder}.{room}" for room in rooms.split()]


# A room imports only from rooms that stand before it; a folder's rooms stand together.
ROOMS = [
    "settings", "config", "tokenizer", "constraints", "devices", "ranks",
    "linear", "mlp", "attention", "preprocess", "video", "writing", "checkpoint",
    "encoder", "decoder", "model",
    "search", "beams", "decoding",
    "opening", "speaker", "captioner",
    *in_folder("explain", "beam_tree looks explanation heat"),
    *in_folder("explain", "plotting picture_tables pictures svg report"),
    "data", "loss",
    *in_folder("shapes", "world clips texts questions source"),
    *in_folder("datasets", "manifests coco folders tsv order shards sources augment readings feed"),
    *in_folder("evaluate", "metrics vqa words coco_tools predictions scores files run"),
    *in_folder("train", "recipe start learner optimize run_state reports loop"),
    *in_folder("batch", "input_items input_paths input_lists input_tables input_archives inputs"),
    *in_folder("batch", "pipeline wording records target_tables target_shards targets"),
    *in_folder("batch", "journal author files loop run ray_engine"),
    *in_folder("page", "actions html layout"),
    *in_folder("commands", "options images evaluate train batch_options batch explain page"),
    "cli", "__main__",
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


def room_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "git_model").with_suffix("").parts)


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
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            rooms = [name for name in whole if name.removeprefix("git_model.") in ROOMS]
            found += [(name, id(node) in top) for name in rooms or [node.module or ""]]
    return found


FILES = sorted(path for path in (ROOT / "git_model").rglob("*.py") if path.name != "__init__.py")
CONVERTERS = sorted((ROOT / "weights_convert").glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=room_of)
def test_a_room_imports_only_from_rooms_before_it(path: Path) -> None:
    before = ROOMS[: ROOMS.index(room_of(path))]
    for module, _ in imports_of(path):
        if module.startswith("git_model."):
            assert module.removeprefix("git_model.") in before, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=room_of)
def test_converters_are_used_in_two_rooms_and_inside_functions(path: Path) -> None:
    for module, at_top in imports_of(path):
        if module.startswith("weights_convert"):
            assert room_of(path) in USE_CONVERTERS
            assert not at_top


@pytest.mark.parametrize("path", FILES, ids=room_of)
def test_the_model_never_imports_transformers(path: Path) -> None:
    for module, _ in imports_of(path):
        assert module.split(".")[0] not in {"transformers", "torchvision", "open_clip"}


@pytest.mark.parametrize("path", CONVERTERS, ids=lambda path: path.stem)
def test_converters_use_only_the_rooms_that_they_need(path: Path) -> None:
    for module, _ in imports_of(path):
        if module.startswith("git_model."):
            assert module.split(".")[1] in CONVERTERS_MAY_USE, f"{path.name} imports {module}"


def test_every_room_is_in_the_list_and_in_the_readme() -> None:
    assert {room_of(path) for path in FILES} == set(ROOMS)
    rows = (ROOT / "README.md").read_text().splitlines()
    for room in ROOMS[:-1]:
        folder, _, name = room.rpartition(".")
        start = f"| `{folder}/` |" if folder else "| "
        listed = [row for row in rows if row.startswith(start) and f"`{name}.py`" in row]
        assert len(listed) == 1, f"{room}: {listed}"


def test_a_folder_of_rooms_says_what_it_is_for_and_nothing_else() -> None:
    for folder in {path.parent for path in FILES} - {ROOT / "git_model"}:
        (only,) = ast.parse((folder / "__init__.py").read_text()).body
        assert isinstance(only, ast.Expr), folder


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
