"""The layers of the package: imports point from a lower folder of this list to a higher one."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "git_model"

# A module imports only from its own folder and from those that stand before it.
LAYERS = [
    "utils", "config", "model", "generation", "preprocessing", "checkpoints", "captioner",
    "data", "shapes", "evaluation", "training", "explain", "batch", "page", "export", "cli",
    "__main__",
]  # fmt: skip
# Within these two, which are read in one sitting, the order of the files is held, too.
ORDER = {
    "model": ["layers", "attention", "encoder", "towers", "decoder", "git"],
    "generation": [
        "arguments", "logits_processors", "trie", "session", "padded_session", "compiled",
        "sampling", "beam_search", "scoring", "generate",
    ],
}  # fmt: skip
# Imports against the order, each inside a function: data sets by name include the built-in world,
# the model's own loading and saving know the checkpoint format, and a model by its name may be one
# that another engine runs.
EXCEPTIONS = {
    ("model.git", "checkpoints.native"),
    ("data.sources", "shapes.source"),
    ("checkpoints.loading", "export.model"),
}
CONVERTERS_MAY_USE = {
    "utils", "config", "model", "generation", "preprocessing", "checkpoints", "cli",
}  # fmt: skip
IMPORTS_CONVERTERS = "checkpoints.loading"

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
CONVERTERS = sorted((ROOT / "weights_convert").glob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def layer_of(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports_of(path: Path) -> list[tuple[str, bool]]:
    """(module, whether it stands at the top of the file) of every import in a file."""
    tree = tree_of(path)
    top = {id(node) for node in tree.body}
    modules = {module_of(file) for file in FILES}
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written out"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            inner = [name for name in names if name.removeprefix("git_model.") in modules]
            imports += [(name, id(node) in top) for name in inner or [node.module or ""]]
    return imports


def own_imports(path: Path) -> list[tuple[str, bool]]:
    return [
        (module.removeprefix("git_model."), at_top)
        for module, at_top in imports_of(path)
        if module.startswith("git_model.")
    ]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_module_imports_only_from_its_folder_and_those_before_it(path: Path) -> None:
    module = module_of(path)
    before = LAYERS[: LAYERS.index(layer_of(module)) + 1]
    for other, at_top in own_imports(path):
        if (module, other) in EXCEPTIONS:
            assert not at_top or module == "data.sources", f"{module} imports {other} at its top"
        else:
            assert layer_of(other) in before, f"{module} imports {other}"


@pytest.mark.parametrize("folder", ORDER)
def test_the_files_of_the_network_and_of_generation_stand_in_their_order(folder: str) -> None:
    assert {path.stem for path in FILES if path.parent.name == folder} == set(ORDER[folder])
    for number, name in enumerate(ORDER[folder]):
        for other, _ in own_imports(PACKAGE / folder / f"{name}.py"):
            if layer_of(other) == folder:
                assert other.split(".")[1] in ORDER[folder][:number], f"{name} imports {other}"


def test_the_network_imports_only_torch_config_and_utils() -> None:
    allowed = ("torch", "git_model.config", "git_model.utils.", "git_model.model.")
    for path in (PACKAGE / "model").glob("*.py"):
        for module, at_top in imports_of(path):
            is_library = module.split(".")[0] in sys.stdlib_module_names
            assert not at_top or is_library or module.startswith(allowed), f"{path.name}: {module}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module_of(path): {name for name, top in own_imports(path) if top} for path in FILES}
    while leaves := [name for name, targets in graph.items() if not targets & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert graph == {}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_converters_are_imported_in_one_place_and_inside_a_function(path: Path) -> None:
    for module, at_top in imports_of(path):
        if module.startswith("weights_convert"):
            assert module_of(path) == IMPORTS_CONVERTERS
            assert not at_top


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_the_package_never_imports_a_reference(path: Path) -> None:
    for module, _ in imports_of(path):
        assert module.split(".")[0] not in {"transformers", "torchvision", "open_clip"}


@pytest.mark.parametrize("path", CONVERTERS, ids=lambda path: path.stem)
def test_converters_use_only_the_folders_that_they_need(path: Path) -> None:
    for module, _ in own_imports(path):
        assert layer_of(module) in CONVERTERS_MAY_USE, f"{path.name} imports {module}"
        assert layer_of(module) != "cli" or path.name == "__main__.py"


def test_every_folder_has_one_row_in_the_readmes_table() -> None:
    rows = (ROOT / "README.md").read_text().splitlines()
    for name in LAYERS[:-1]:
        shown = f"`{name}/`" if (PACKAGE / name).is_dir() else f"`{name}.py`"
        listed = [row for row in rows if row.startswith("| ") and shown in row]
        assert len(listed) == 1, f"{shown}: {listed}"


def test_every_folder_is_in_the_list_and_says_what_it_is_for() -> None:
    assert {layer_of(module_of(path)) for path in FILES} == set(LAYERS)
    for folder in {path.parent for path in FILES} - {PACKAGE}:
        (only,) = ast.parse((folder / "__init__.py").read_text()).body
        assert isinstance(only, ast.Expr), folder


def test_the_package_and_a_model_load_no_reference_and_not_the_compiler_of_torch() -> None:
    steps = (
        "import git_model",
        "from git_model import Captioner, GIT",
        "Captioner.from_pretrained('demo')",
    )
    names = ("transformers", "torchvision", "open_clip", "torch._dynamo")
    check = f"print([m for m in {names} if m in sys.modules])"
    code = "; ".join(["import sys", *(f"{step}; {check}" for step in steps)])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[]"] * len(steps)


def functions_of(path: Path) -> list[tuple[str, int]]:
    return [
        (f"{path.name}: {node.name}", (node.end_lineno or 0) - node.lineno + 1)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef)
    ]


def test_no_function_is_longer_than_sixty_lines() -> None:
    lengths = [item for path in FILES + CONVERTERS for item in functions_of(path)]
    assert [name for name, length in lengths if length > 60] == []


# Names that stand for a thing whose noun is better (see CONTRIBUTING.md).
PLACEHOLDERS = {
    "found", "one", "each", "known", "going", "some", "place", "luck", "most", "told", "wanted",
    "given", "said",
}  # fmt: skip


@pytest.mark.parametrize("folder", ["model", "generation", "training"])
def test_variables_are_named_by_nouns(folder: str) -> None:
    for path in (PACKAGE / folder).glob("*.py"):
        tree = tree_of(path)
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        assert names & PLACEHOLDERS == set(), path.name
