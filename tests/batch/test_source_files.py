"""Images of one name in two places: none gets the text of the other, and moved ones keep theirs."""

import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from batch_runs import SHORT, fill, records, run, table, tiny_captioner
from photos import photo
from tiny import tiny_config

from git_model import Captioner
from git_model.batch import source_files
from git_model.batch.captioning import InputDataset
from git_model.batch.inputs import InputOptions, find_inputs
from git_model.batch.items import Input
from git_model.batch.sinks import Sink, find_sink

KINDS = ["jsonl", "csv", "parquet", "tsv", "folder"]


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return tiny_captioner()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read to be compared."""
    names: list[str] = []
    digest = source_files._digest

    def counted(item: Any, data: bytes | None = None) -> str:
        names.append(item.name)
        return digest(item, data)

    monkeypatch.setattr(source_files, "_digest", counted)
    return names


def mirrored(out: Path) -> Sink:
    return find_sink(f"{out}/", None, "unused")


def tar_of(path: Path, colours: dict[str, str]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, colour in colours.items():
            photo(path.with_name("member.png"), colour)
            tar.add(path.with_name("member.png"), name)
    return path


def sink_of(kind: str, folder: Path) -> Sink:
    return mirrored(folder / "out") if kind == "folder" else table(folder / f"out.{kind}")


def text_of(kind: str, folder: Path, name: str) -> str:
    if kind == "folder":
        return (folder / "out" / name).with_suffix(".txt").read_text().strip()
    by_name = {record["file_name"]: record for record in sink_of(kind, folder).old_records()}
    return str(by_name[name]["text"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_another_folder_does_not_get_the_text_of_its_namesake(
    captioner: Captioner, tmp_path: Path, kind: str
) -> None:
    first, second = fill(tmp_path / "a", 1), fill(tmp_path / "b", 1, first=3)
    (second / "003.png").rename(second / "000.png")
    theirs, own = (captioner.caption(folder / "000.png", SHORT).text for folder in (first, second))
    assert theirs != own
    sink = sink_of(kind, tmp_path)
    run(captioner, first, sink)
    summary = run(captioner, second, sink)
    assert (summary["failed"], summary["written"], summary["kept"]) == (1, 0, 0)
    errors = next(tmp_path.rglob("*errors.jsonl"))
    [line] = records(errors)
    assert line["file_name"] == "000.png"
    assert str(first / "000.png") in line["error"]
    assert "--overwrite-if-other" in line["error"]
    assert text_of(kind, tmp_path, "000.png") == theirs
    assert run(captioner, second, sink)["failed"] == 1  # and so again, although it ran here
    anew = run(captioner, second, sink, mode="overwrite-if-other")
    assert (anew["written"], anew["failed"]) == (1, 0)
    assert text_of(kind, tmp_path, "000.png") == own
    assert run(captioner, first, sink)["failed"] == 1


def test_a_text_that_was_changed_by_hand_is_not_given_to_a_namesake(
    captioner: Captioner, tmp_path: Path
) -> None:
    first, second = fill(tmp_path / "a", 1), fill(tmp_path / "b", 1, first=3)
    (second / "003.png").rename(second / "000.png")
    sink = mirrored(tmp_path / "out")
    run(captioner, first, sink)
    (tmp_path / "out" / "000.txt").write_text("by hand")
    for mode in ("skip", "overwrite-if-other"):
        summary = run(captioner, second, sink, mode=mode)
        assert (summary["failed"], summary["kept"]) == (1, 0)
        assert run(captioner, first, sink, mode=mode)["kept"] == 1
    assert (tmp_path / "out" / "000.txt").read_text() == "by hand"


@pytest.mark.parametrize("mode", ["append", "prepend"])
def test_no_text_is_joined_to_that_of_a_namesake(
    captioner: Captioner, tmp_path: Path, mode: str
) -> None:
    photo(tmp_path / "a.png", "red")
    (tmp_path / "in").mkdir()
    photo(tmp_path / "in" / "a.png", "blue")
    sink = table(tmp_path / "out.jsonl")
    run(captioner, tmp_path / "a.png", sink)
    assert run(captioner, tmp_path / "in", sink, mode=mode)["failed"] == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["moved together", "moved alone", "copied", "renamed"])
def test_a_folder_that_is_moved_or_copied_is_not_done_again(
    captioner: Captioner, tmp_path: Path, kind: str, how: str
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    fill(before / "in", 3)
    run(captioner, before / "in", sink_of(kind, before))
    if how == "moved together":
        before.rename(after)
    elif how == "copied":
        shutil.copytree(before, after, copy_function=shutil.copy)  # with new times
    elif how == "renamed":
        before.rename(after)
        (after / "in").rename(after / "other")
    else:
        after.mkdir()
        (before / "in").rename(after / "in")
        after, before = before, after
    source = next(path for path in tmp_path.rglob("*") if path.name in ("in", "other")
                  and (how != "copied" or path.parent == after))  # fmt: skip
    summary = run(captioner, source, sink_of(kind, after))
    assert (summary["kept"], summary["written"], summary["failed"]) == (3, 0, 0)
    assert summary["kept_from_others"] == {}


def test_files_in_their_place_are_not_read_to_be_compared(
    captioner: Captioner, tmp_path: Path, reads: list[str]
) -> None:
    folder, sink = fill(tmp_path / "in", 3), table(tmp_path / "out.jsonl")
    run(captioner, folder, sink)
    assert len(reads) == 3  # for the records
    run(captioner, folder, sink)
    assert len(reads) == 3
    (folder / "000.png").touch()
    run(captioner, folder, sink)
    assert reads[3:] == ["000.png"]


def test_a_file_that_is_replaced_in_its_place_is_counted(
    captioner: Captioner, tmp_path: Path
) -> None:
    folder, sink = fill(tmp_path / "in", 2), table(tmp_path / "out.jsonl")
    run(captioner, folder, sink)
    photo(folder / "000.png", "red")
    summary = run(captioner, folder, sink)
    assert summary["kept_from_others"] == {"tiny with another image file": 1}
    anew = run(captioner, folder, sink, mode="overwrite-if-other")
    assert (anew["written"], anew["kept"]) == (1, 1)
    assert run(captioner, folder, sink)["kept_from_others"] == {}


def test_a_file_in_another_format_beside_its_text_is_counted(
    captioner: Captioner, tmp_path: Path
) -> None:
    """As when a folder is converted from one format to another."""
    photo(tmp_path / "a.png", "red")
    sink = find_sink(None, None, str(tmp_path))
    run(captioner, tmp_path, sink)
    (tmp_path / "a.png").unlink()
    photo(tmp_path / "a.jpg", "red")
    summary = run(captioner, tmp_path, sink)
    assert (summary["kept"], summary["failed"]) == (1, 0)
    assert summary["kept_from_others"] == {"tiny with another image file": 1}


@pytest.mark.parametrize("kind", ["jsonl", "folder"])
def test_members_of_tars_are_told_apart_too(
    captioner: Captioner, tmp_path: Path, kind: str
) -> None:
    first = tar_of(tmp_path / "a.tar", {"x.png": "red", "y.png": "lime"})
    second = tar_of(tmp_path / "b.tar", {"y.png": "red", "z.png": "blue"})
    sink = sink_of(kind, tmp_path)
    run(captioner, first, sink)
    summary = run(captioner, second, sink)
    assert (summary["written"], summary["failed"]) == (1, 1)
    first.rename(tmp_path / "moved.tar")
    assert run(captioner, tmp_path / "moved.tar", sink)["kept"] == 2


def test_a_member_of_an_archive_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, read = [], Input.read
    monkeypatch.setattr(Input, "read", lambda item: names.append(item.name) or read(item))
    [item] = find_inputs(str(tar_of(tmp_path / "a.tar", {"x.png": "red"})), InputOptions())
    loaded = InputDataset(tiny_config(), folder=tmp_path)[(item,)]
    assert names == ["x.png"]
    assert loaded.source_file is not None
    assert loaded.source_file["path"] == "a.tar"
    content = (tmp_path / "member.png").read_bytes()
    assert loaded.source_file["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_record_says_which_file_it_is_about(captioner: Captioner, tmp_path: Path) -> None:
    path, out = fill(tmp_path / "in", 1) / "000.png", tmp_path / "texts" / "out.jsonl"
    run(captioner, path.parent, table(out))
    [record] = records(out)
    about = path.stat()
    assert record["source_file"] == {
        "path": "../in/000.png",
        "bytes": about.st_size,
        "modified": about.st_mtime_ns // 1000,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


@pytest.mark.parametrize("path", [None, 5, "", "a\0b", "x" * 5000, "/", {"a": 1}])
def test_a_record_that_somebody_changed_ends_no_run(
    captioner: Captioner, tmp_path: Path, path: object
) -> None:
    folder, out = fill(tmp_path / "in", 1), tmp_path / "out.jsonl"
    run(captioner, folder, table(out))
    [record] = records(out)
    record["source_file"] = {"path": path, "sha256": "0"}
    out.write_text(json.dumps(record) + "\n")
    summary = run(captioner, folder, table(out))
    assert summary["kept"] + summary["failed"] == 1


def test_a_name_that_is_not_utf8_keeps_its_text(captioner: Captioner, tmp_path: Path) -> None:
    folder, out = fill(tmp_path / "in", 1), tmp_path / "out.jsonl"
    (folder / "000.png").rename(os.fsdecode(os.fsencode(folder) + b"/\xff.png"))
    run(captioner, folder, table(out))
    assert run(captioner, folder, table(out))["kept"] == 1
    assert len(records(out)) == 1


@pytest.mark.parametrize("out", [None, "texts"])
def test_a_text_file_of_another_question_is_of_another_origin(
    captioner: Captioner, tmp_path: Path, out: str | None
) -> None:
    folder = fill(tmp_path / "in", 2)
    sink = find_sink(None, None, str(folder)) if out is None else mirrored(tmp_path / out)
    question = {"questions": ("word1?",)}
    run(captioner, folder, sink)
    summary = run(captioner, folder, sink, question)
    assert summary["kept_from_others"] == {"tiny with no question": 2}
    anew = run(captioner, folder, sink, question, mode="overwrite-if-other")
    assert anew["written"] == 2
    kept = run(captioner, folder, sink)
    assert kept["kept_from_others"] == {'tiny with the question "word1?"': 2}
    other = run(captioner, folder, sink, {"questions": ("word2?",)})
    assert other["kept_from_others"] == {'tiny with the question "word1?"': 2}
    names = [record["file_name"] for record in sink.old_records()]
    assert len(names) == len(set(names)) == 2


def test_a_table_has_captions_and_answers(captioner: Captioner, tmp_path: Path) -> None:
    folder, sink = fill(tmp_path / "in", 2), table(tmp_path / "out.jsonl")
    run(captioner, folder, sink)
    summary = run(captioner, folder, sink, {"questions": ("word1?",)})
    assert (summary["written"], len(list(sink.old_records()))) == (2, 4)
