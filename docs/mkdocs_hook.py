"""The hook of mkdocs.yml: links, equations, the notebook and the reference of the site.

The pages are written to be read in the repository, where links lead to files. On the site a link to
a module of the code leads to its reference page, and a link to a file that is not part of the site
becomes plain text. The hook generates a reference page for each module from its docstrings, and a
page from the notebook. Equations are LaTeX in the form that GitHub renders; the site has MathML,
which browsers draw themselves.
"""

import base64
import json
import posixpath
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import griffe
import latex2mathml.converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Link, Navigation
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PACKAGES = ("git_model", "weights_convert")
LINK = re.compile(r"(?<!!)\[([^]]*)\]\(([^)\s]+)\)")
# Pages of the site whose file is not in docs/.
ROOT_PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
NOTEBOOK = ROOT / "examples" / "git_in_150_lines.ipynb"
NOTEBOOK_FILE, NOTEBOOK_PAGE = NOTEBOOK.relative_to(ROOT).as_posix(), "notebook.md"
DISPLAY = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\$`([^`\n]+)`\$")


# An example in a docstring: lines with >>> and what Python prints, up to an empty line.
DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


# "name: meaning", as a class's docstring lists its fields.
FIELD = re.compile(r"^(\w+(?:, \w+)*): (?=\S)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Show the examples in docstrings as code, and a class's fields as a list."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Put a fence around examples, and a dash before fields."""
        if obj.docstring is not None:
            text = DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
            if obj.is_class:
                paragraphs = text.split("\n\n")
                text = "\n\n".join(_as_list(paragraph, obj.members) for paragraph in paragraphs)
            obj.docstring.value = text


def _as_list(paragraph: str, members: Collection[str]) -> str:
    """A paragraph of a docstring; as a list if it begins with a field."""
    first = FIELD.match(paragraph)
    if first is None or not set(first[1].split(", ")) <= set(members):
        return paragraph
    return FIELD.sub(r"- `\1`: ", paragraph)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of the reference."""
    pages_of: dict[str, list[str]] = {}
    for page in _reference():
        if page != "reference/index.md":
            folder = posixpath.dirname(page).removeprefix("reference/")
            pages_of.setdefault(folder, []).append(page)
    reference = [{folder: pages} for folder, pages in pages_of.items()]
    config.nav = [
        {"Reference": ["reference/index.md", *reference]} if "Reference" in entry else entry
        for entry in config.nav or []
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {page: (ROOT / file).read_text() for file, page in ROOT_PAGES.items()}
    text, pictures = _notebook()
    pages[NOTEBOOK_PAGE] = text
    for page, text in (pages | _reference()).items():
        files.append(File.generated(config, page, content=text))
    for name, picture in pictures.items():
        files.append(File.generated(config, name, content=picture))
    return files


def on_nav(nav: Navigation, **_: Any) -> Navigation:
    """Put the explorer, which is a page of its own, behind the first entry."""
    nav.items.insert(1, Link("Explorer", "explorer/index.html"))
    return nav


def on_page_markdown(text: str, *, page: Page, files: Files, **_: Any) -> str:
    """Turn the repository's links of a page into the site's."""
    uri = page.file.src_uri
    if uri.startswith("reference/"):
        return text
    sources = ROOT_PAGES | {NOTEBOOK_FILE: NOTEBOOK_PAGE}
    source = next((file for file, page in sources.items() if page == uri), f"docs/{uri}")
    text = LINK.sub(lambda link: _relinked(link, source, uri, files), text)
    text = DISPLAY.sub(lambda math: f'<div class="math">{_mathml(math[1], "block")}</div>', text)
    return INLINE.sub(lambda math: _mathml(math[1], "inline"), text)


def _mathml(latex: str, display: str) -> str:
    """An equation as MathML on one line, with nothing in it that Markdown would read."""
    mathml = latex2mathml.converter.convert(" ".join(latex.split()), display=display)
    return mathml.replace("*", "&#42;").replace("_", "&#95;")


def _relinked(link: re.Match[str], source: str, uri: str, files: Files) -> str:
    """A link from the repository's file `source` as a link from the site's page `uri`."""
    label, target = link.groups()
    if re.match(r"[a-z]+:|#", target):
        return link[0]
    path, _, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    pages = ROOT_PAGES | {NOTEBOOK_FILE: NOTEBOOK_PAGE}
    page = pages.get(path, _reference_page(path) or path.removeprefix("docs/"))
    file = files.get_file_from_path(page)
    if file is None or file.inclusion.is_excluded():
        return label
    relative = posixpath.relpath(page, posixpath.dirname(uri) or ".")
    return f"[{label}]({relative}{'#' + anchor if anchor else ''})"


def _reference_page(path: str) -> str | None:
    """The reference page of a file, if it is a module of the code."""
    package, _, name = path.partition("/")
    is_module = package in PACKAGES and name.endswith(".py")
    return f"reference/{package}/{name.removesuffix('.py')}.md" if is_module else None


def _notebook() -> tuple[str, dict[str, bytes]]:
    """The notebook as a page, and its pictures by name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"notebook/{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![Output of the cell above]({name})")
            text = "".join(output.get("text", data.get("text/plain", "")))
            if text.strip() and "image/png" not in data:
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures


def _reference() -> dict[str, str]:
    """A page for each module, and an index with the first paragraph of each docstring."""
    pages, tables = {}, []
    for folder in [folder for package in PACKAGES for folder in _folders(ROOT / package)]:
        name = folder.relative_to(ROOT).as_posix()
        summary = _summary(folder / "__init__.py")
        tables.append(f"\n## {name}\n\n{summary}\n\n| module | |\n|---|---|")
        for path in sorted(folder.glob("[!_]*.py")):
            module = f"{name}/{path.stem}"
            pages[f"reference/{module}.md"] = f"# {path.stem}\n\n::: {module.replace('/', '.')}\n"
            tables.append(f"| [{path.stem}]({module}.md) | {_summary(path)} |")
    intro = "# Reference\n\nEvery module of the code; the README's *Layout* orders the folders.\n"
    pages["reference/index.md"] = intro + "\n".join(tables) + "\n"
    return pages


def _folders(package: Path) -> list[Path]:
    """A package, and the packages within it."""
    return [package, *sorted(path.parent for path in package.glob("*/__init__.py"))]


def _summary(path: Path) -> str:
    """The first paragraph of a module's docstring, on one line."""
    return " ".join(path.read_text().removeprefix('"""').split("\n\n")[0].split('"""')[0].split())
