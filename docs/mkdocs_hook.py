"""What mkdocs does to these pages on the way to a site; mkdocs.yml names this file as a hook.

The pages are written to be read in the repository, where links lead to files. On the site a link to
a room of the code leads to its reference, and one to a file that is not part of the site is plain
text. The reference has a page for each room, and none of them has to be written.
"""

import posixpath
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PACKAGES = ("git_model", "weights_convert")
LINK = re.compile(r"(?<!!)\[([^]]*)\]\(([^)\s]+)\)")
ELSEWHERE = {"CONTRIBUTING.md": "contributing.md"}  # pages whose file is not in docs/


# What Python would print stands below a line with >>>, up to an empty line.
DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


# "name: what it is", as a class's docstring lists its fields.
FIELD = re.compile(r"^(\w+(?:, \w+)*): (?=\S)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Shows examples in docstrings as code, wherever they stand, and a class's fields as a list."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Put a fence around the ones, a dash before each of the others."""
        if obj.docstring is not None:
            text = DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
            if obj.is_class:
                text = "\n\n".join(_as_list(part, obj.members) for part in text.split("\n\n"))
            obj.docstring.value = text


def _as_list(part: str, members: Collection[str]) -> str:
    """A paragraph of a docstring; as a list if it begins with a field."""
    first = FIELD.match(part)
    if first is None or not set(first[1].split(", ")) <= set(members):
        return part
    return FIELD.sub(r"- `\1`: ", part)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of the reference."""
    rooms: dict[str, list[str]] = {}
    for page in _reference():
        if page != "reference/index.md":
            folder = posixpath.dirname(page).removeprefix("reference/")
            rooms.setdefault(folder, []).append(page)
    reference = [{folder: pages} for folder, pages in rooms.items()]
    config.nav = [
        {"Reference": ["reference/index.md", *reference]} if "Reference" in entry else entry
        for entry in config.nav or []
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    pages = {page: (ROOT / file).read_text() for file, page in ELSEWHERE.items()}
    for page, text in (pages | _reference()).items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(text: str, *, page: Page, files: Files, **_: Any) -> str:
    """Bring the links of a page to the site."""
    here = page.file.src_uri
    if here.startswith("reference/"):
        return text
    origin = next((file for file, page in ELSEWHERE.items() if page == here), f"docs/{here}")
    return LINK.sub(lambda link: _relinked(link, origin, here, files), text)


def _relinked(link: re.Match[str], origin: str, here: str, files: Files) -> str:
    """A link from the repository's file `origin` as one from the site's page `here`."""
    words, target = link.groups()
    if re.match(r"[a-z]+:|#", target):
        return link[0]
    path, _, part = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
    page = ELSEWHERE.get(path, _page_of_room(path) or path.removeprefix("docs/"))
    if files.get_file_from_path(page) is None:
        return words
    place = posixpath.relpath(page, posixpath.dirname(here) or ".")
    return f"[{words}]({place}{'#' + part if part else ''})"


def _page_of_room(path: str) -> str | None:
    package, _, name = path.partition("/")
    is_room = package in PACKAGES and name.endswith(".py")
    return f"reference/{package}/{name.removesuffix('.py')}.md" if is_room else None


def _reference() -> dict[str, str]:
    """A page for each room, and one that lists them with the first line of what they say."""
    pages, lists = {}, []
    for folder in [folder for package in PACKAGES for folder in _folders(ROOT / package)]:
        name = folder.relative_to(ROOT).as_posix()
        lists.append(
            f"\n## {name}\n\n{_first_line(folder / '__init__.py')}\n\n| room | |\n|---|---|"
        )
        for path in sorted(folder.glob("[!_]*.py")):
            room = f"{name}/{path.stem}"
            pages[f"reference/{room}.md"] = f"# {path.stem}\n\n::: {room.replace('/', '.')}\n"
            lists.append(f"| [{path.stem}]({room}.md) | {_first_line(path)} |")
    intro = "# Reference\n\nEvery room of the code; the README's *Layout* has them in order.\n"
    pages["reference/index.md"] = intro + "\n".join(lists) + "\n"
    return pages


def _folders(package: Path) -> list[Path]:
    """A package, and the folders of rooms within it."""
    return [package, *sorted(path.parent for path in package.glob("*/__init__.py"))]


def _first_line(path: Path) -> str:
    """The first paragraph of what a room says of itself, on one line."""
    return " ".join(path.read_text().removeprefix('"""').split("\n\n")[0].split('"""')[0].split())
