"""Names that meet: two inputs for one key or one text file, and names that are too long."""

import base64
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from batch_runs import SHORT, beside, records, run, table, texts, tiny_captioner
from photos import photo, photo_bytes

from git_model import Captioner
from git_model.batch import distinct_inputs
from git_model.batch.items import Input, RefusedInput
from git_model.batch.sinks import Sink, find_sink

COLOURS = ("red", "lime", "blue")


@pytest.fixture
def captioner() -> Captioner:
    return tiny_captioner()


def mirrored(out: Path) -> Sink:
    out.mkdir(exist_ok=True)
    return find_sink(str(out), None, "unused")


def write_tar_of(path: Path, names: list[str]) -> Path:
    """A tar, in which a name may come more than once."""
    with tarfile.open(path, "w") as tar:
        for name, colour in zip(names, COLOURS, strict=False):
            data = photo_bytes(colour)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_tsv_of(path: Path, names: list[str]) -> Path:
    rows = zip(names, COLOURS, strict=False)
    path.write_bytes(
        b"".join(
            name.encode() + b"\t" + base64.b64encode(photo_bytes(colour)) + b"\n"
            for name, colour in rows
        )
    )
    return path


def adds_up(summary: dict[str, Any], n: int) -> bool:
    names = ("written", "rejected", "failed", "kept", "repeated", "done_before")
    return sum(summary[name] for name in names) == n


def test_without_text_files_only_names_are_refused_and_repeats_left_out(tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    inputs = [Input("x", first), Input("x", second), Input("x", first), Input("x.png", second)]
    once = list(distinct_inputs.each_once(distinct_inputs.DistinctInputs(inputs)))
    assert [type(item) for item in once] == [Input, RefusedInput, Input]
    assert once[0] == inputs[0]


def test_endings_in_mixed_case_share_no_text_file(captioner: Captioner, tmp_path: Path) -> None:
    photo(tmp_path / "x.Jpg", "red"), photo(tmp_path / "x.png", "blue"), photo(tmp_path / "y.png")
    expected = captioner.caption(tmp_path / "x.Jpg", SHORT).text
    summary = run(captioner, tmp_path, beside(tmp_path))
    assert (summary["written"], summary["failed"]) == (2, 1)
    assert texts(tmp_path)["x.txt"] == expected
    [error] = records(tmp_path / "errors.jsonl")
    assert error["file_name"] == "x.png"
    assert error["error"].startswith("x.png: x.Jpg would have the same text file")
    again = run(captioner, tmp_path, beside(tmp_path))
    assert (again["kept"], again["failed"]) == (2, 1)


@pytest.mark.parametrize("write", [write_tar_of, write_tsv_of])
@pytest.mark.parametrize(
    ("names", "n_texts", "n_records"),
    [(["a", "a.jpg", "a.png"], 1, 3), (["a.png", "a.png", "b.png"], 2, 2),
     (["A.png", "a.png", "b.png"], 3, 3)],
)  # fmt: skip
def test_keys_that_meet_are_refused_one_by_one(
    captioner: Captioner, tmp_path: Path, write: Any, names: list[str], n_texts: int, n_records: int
) -> None:
    suffix = ".tar" if write is write_tar_of else ".tsv"
    source = write(tmp_path / f"in{suffix}", names)
    if suffix == ".tar" and "a" in names:  # a member without an ending is no image
        n_records = 2
    n_inputs = 3 - (suffix == ".tar" and "a" in names)
    out = tmp_path / "texts"
    summary = run(captioner, source, mirrored(out))
    assert summary["written"] == n_texts == len(texts(out))
    assert summary["failed"] == n_inputs - n_texts
    assert adds_up(summary, n_inputs)
    summary = run(captioner, source, table(tmp_path / "out.jsonl"))
    written = records(tmp_path / "out.jsonl")
    assert summary["written"] == n_records == len({record["file_name"] for record in written})
    assert adds_up(summary, n_inputs)


def test_names_that_a_case_blind_disk_takes_for_one_are_refused(
    captioner: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distinct_inputs, "case_blind", lambda _: True)
    names = ["A.png", "a.png", "b.png"]
    summary = run(captioner, write_tar_of(tmp_path / "in.tar", names), mirrored(tmp_path / "out"))
    assert (summary["written"], summary["failed"]) == (2, 1)
    assert records(tmp_path / "out" / "errors.jsonl")[0]["file_name"] == "a.png"


def test_a_disk_that_tells_case_apart_is_known(tmp_path: Path) -> None:
    (tmp_path / "batch.run").mkdir()
    assert not distinct_inputs.case_blind(tmp_path / "batch.run")
    (tmp_path / "BATCH.RUN").symlink_to("batch.run")  # as such a disk would answer
    assert distinct_inputs.case_blind(tmp_path / "batch.run")


def test_a_line_that_comes_twice_is_counted(captioner: Captioner, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text("a.png\n./a.png\na.png\n")
    summary = run(captioner, tmp_path / "list.txt", table(tmp_path / "out.jsonl"))
    assert (summary["written"], summary["repeated"], summary["failed"]) == (1, 2, 0)


@pytest.mark.parametrize("extension", [None, "caption"])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_longest_legal_name_costs_at_most_its_own_text(
    captioner: Captioner, tmp_path: Path, extension: str | None, workers: int
) -> None:
    """255 bytes, which Linux allows; `.caption` makes 259."""
    photo(tmp_path / "b.png")
    name = "n" * 251 + ".png"
    photo(tmp_path / "short.png").rename(tmp_path / name)
    for n_kept in (0, 1):
        sink = find_sink(None, extension, str(tmp_path))
        summary = run(captioner, tmp_path, sink, workers=workers)
        n_failed = 0 if extension is None else 1
        assert summary["failed"] == n_failed
        assert summary["kept"] == n_kept * (2 - n_failed)
        assert adds_up(summary, 2)
    if extension is not None:
        [error] = records(tmp_path / "errors.jsonl")
        assert error["file_name"] == name
        assert "File name too long" in error["error"]
    assert len(list(tmp_path.iterdir())) == 2 + (2 - n_failed) + 2 + n_failed
