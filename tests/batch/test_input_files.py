"""Inputs that are files: those of a folder and of a pattern, each once, in one order."""

import os
from fnmatch import fnmatch
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from git_model.batch.inputs import FolderInputs, GlobInputs, InputOptions, find_inputs
from git_model.batch.items import Input, RefusedInput
from git_model.data.folder import IMAGE_SUFFIXES
from git_model.data.manifests import DataError


def tree(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def keys(inputs):
    """Names of the inputs, and of what is refused in brackets; each lies where its key says."""
    items = list(inputs)
    for item in items:
        if isinstance(item, Input):
            assert item.location == inputs.folder / item.key
    assert list(inputs) == items
    return [item.name if isinstance(item, Input) else f"({item.name})" for item in items]


def of_folder(folder, recursive=True):
    return keys(FolderInputs(folder, IMAGE_SUFFIXES, recursive))


def of_pattern(pattern):
    return keys(GlobInputs.of(str(pattern), IMAGE_SUFFIXES))


# Folders


def test_a_folders_images_come_sorted_before_those_of_its_folders(tmp_path):
    tree(tmp_path, "b.jpg", "A.PNG", "a/z.webp", "a/b/c.gif", "a.b/c.jpg")
    assert of_folder(tmp_path) == ["A.PNG", "b.jpg", "a/z.webp", "a/b/c.gif", "a.b/c.jpg"]
    assert of_folder(tmp_path, recursive=False) == ["A.PNG", "b.jpg"]


def test_what_is_hidden_or_no_image_is_passed_over(tmp_path):
    tree(tmp_path, ".a.jpg", ".git/a.jpg", "a.txt", "jpg", "a.jpg.txt", "b/._a.jpg", "a.jpg")
    assert of_folder(tmp_path) == ["a.jpg"]


def test_what_is_named_like_an_image_is_an_input_but_a_folder_is_a_folder(tmp_path):
    tree(tmp_path, "folder.jpg/inner.jpg")
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    files = ["broken.jpg", "loop.jpg", "pipe.jpg"]
    assert of_folder(tmp_path) == [*files, "folder.jpg/inner.jpg"]
    assert of_folder(tmp_path, recursive=False) == of_pattern(tmp_path / "*") == files


def test_names_need_not_be_utf8(tmp_path):
    for name in (b"\xff.jpg", b"\xfe/\xfd.jpg"):
        tree(tmp_path, os.fsdecode(name))
    assert of_folder(tmp_path) == ["\\xff.jpg", "\\xfe/\\xfd.jpg"]


def test_links_are_followed_and_a_loop_is_refused_once(tmp_path):
    tree(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/b").symlink_to("../b")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "self").symlink_to("self")
    assert of_folder(tmp_path) == ["a/1.jpg", "a/b/2.jpg", "(a/up)", "b/2.jpg"]


def test_folders_that_link_to_each_other_come_to_an_end(tmp_path):
    tree(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/to").symlink_to("../b")
    (tmp_path / "b/to").symlink_to("../a")
    names = ["a/1.jpg", "a/to/2.jpg", "(a/to/to)", "b/2.jpg", "b/to/1.jpg", "(b/to/to)"]
    assert of_folder(tmp_path) == names


def test_folders_may_lie_in_each_other_as_deeply_as_the_system_allows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    depth = 1100  # more than Python's recursion
    for _ in range(depth):
        Path("deep").mkdir()
        os.chdir("deep")
    tree(tmp_path, "deep/deep/1.jpg")
    first, last = FolderInputs(tmp_path, IMAGE_SUFFIXES)
    for _ in range(depth - 2):  # pytest could not clear it away
        os.chdir("..")
        Path("deep").rmdir()
    assert first.key == "deep/deep/1.jpg"
    assert last.reason.endswith("File name too long")


@pytest.mark.parametrize("reason", ["Permission denied", "No such file or directory"])
def test_a_folder_that_cannot_be_read_is_refused_and_the_walk_goes_on(
    tmp_path, monkeypatch, reason
):
    tree(tmp_path, "a/1.jpg", "b/2.jpg", "c/3.jpg")
    scandir = os.scandir

    def deny(path):
        if path.name == "b":
            raise OSError(13, reason)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    inputs = FolderInputs(tmp_path, IMAGE_SUFFIXES)
    assert keys(inputs) == ["a/1.jpg", "(b)", "c/3.jpg"]
    assert list(inputs)[1] == RefusedInput("b", f"{tmp_path}/b: {reason}")


NAMES = st.sampled_from(["a", "b", "a.jpg", "b.png", ".c", ".d.jpg", "e.txt"])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.lists(NAMES, min_size=1, max_size=3).map(tuple)))
def test_every_image_that_is_not_hidden_comes_once(tmp_path_factory, paths):
    folder, expected = tmp_path_factory.mktemp("tree"), set()
    for parts in sorted(paths):
        # no folders named like images: their content is not looked at
        parts = (*(part.replace(".", "") for part in parts[:-1]), parts[-1])
        path = folder.joinpath(*parts)
        if not path.is_dir() and not any(parent.is_file() for parent in path.parents):
            tree(folder, "/".join(parts))
            if path.suffix in (".jpg", ".png") and not path.name.startswith("."):
                expected.add("/".join(parts))
    assert sorted(of_folder(folder)) == sorted(expected)


# Patterns


TREE = ["1.jpg", "2.png", "3.txt", "a/1.jpg", "a/b/1.jpg", "a/b/c/1.jpg", "a/c/2.jpg", ".h/1.jpg"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", ["1.jpg", "2.png"]),
        ("?.jpg", ["1.jpg"]),
        ("[23].*", ["2.png"]),
        ("*/*", ["a/1.jpg"]),
        ("a/*/1.jpg", ["b/1.jpg"]),
        ("*/b/*.jpg", ["a/b/1.jpg"]),
        ("**", ["1.jpg", "2.png", "a/1.jpg", "a/b/1.jpg", "a/b/c/1.jpg", "a/c/2.jpg"]),
        ("**/1.jpg", ["1.jpg", "a/1.jpg", "a/b/1.jpg", "a/b/c/1.jpg"]),
        ("a/**/c/*", ["c/2.jpg", "b/c/1.jpg"]),
        ("**/[bc]/*.jpg", ["a/b/1.jpg", "a/c/2.jpg", "a/b/c/1.jpg"]),
        ("*.txt", []),
        ("*.jpg/*", []),
    ],
)
def test_a_pattern_finds_what_matches_part_by_part(tmp_path, pattern, names):
    assert of_pattern(tree(tmp_path, *TREE) / pattern) == names


def test_a_pattern_may_begin_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tree(tmp_path, *TREE))
    [item] = GlobInputs.of("?.png", IMAGE_SUFFIXES)
    assert item == Input("2.png", Path("2.png"))


def test_a_pattern_needs_a_folder_to_look_in(tmp_path):
    with pytest.raises(DataError, match="none: there is no such folder"):
        of_pattern(tmp_path / "none/*.jpg")


def test_a_loop_below_a_pattern_is_refused_once(tmp_path):
    tree(tmp_path, "a/1.jpg")
    (tmp_path / "a/up").symlink_to("..")
    assert of_pattern(tmp_path / "**/*.jpg") == ["a/1.jpg", "(a/up)"]


@given(st.text("ab*?.", min_size=1, max_size=6))
def test_a_part_of_a_pattern_means_what_a_shell_means(tmp_path_factory, part):
    folder = tmp_path_factory.getbasetemp() / "shell"
    tree(folder, "a.jpg", "b.jpg", "ab.jpg", "aa.b.jpg")
    if "*" in part or "?" in part:
        names = sorted(path.name for path in folder.iterdir())
        part = "*" if part == "**" else part
        assert of_pattern(folder / f"{part}.jpg") == [n for n in names if fnmatch(n, f"{part}.jpg")]


def test_a_file_is_one_input(tmp_path):
    tree(tmp_path, "a.jpg", "b.jpg")
    inputs = find_inputs(str(tmp_path / "a.jpg"), InputOptions())
    assert list(inputs) == list(inputs) == [Input("a.jpg", tmp_path / "a.jpg")]
