"""The page of all keys of a recipe is that of the code."""

from pathlib import Path

from scripts import load_script

from git_model.training.overrides import recipe_keys

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_current_and_has_every_key_with_a_meaning() -> None:
    module = load_script("docs/recipe_page.py")
    text = (DOCS / "recipe.md").read_text()
    assert text == module.page(), "run python docs/recipe_page.py"
    for key in recipe_keys():
        if not key.endswith(".kind") and not key.startswith(("validation.", "data.parts")):
            assert f"| `{key}` |" in text, key
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []
