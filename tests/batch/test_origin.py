"""Texts that another model, or other options, wrote."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from batch_runs import beside, fill, records, run, table, texts, tiny_captioner
from PIL import Image

from git_model import Captioner
from git_model.batch.caption_filters import CaptionFilters
from git_model.batch.origin import MAX_ORIGINS, add_counts, other_origin
from git_model.batch.sinks import Sink
from git_model.config import DecodingOptions

LONGER = DecodingOptions(max_new_tokens=5, min_new_tokens=4)
STAMP = {"model": "a", "revision": "1", "style": "huggingface", "decoding": {"num_beams": 4}}


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return tiny_captioner()


def sink_of(kind: str, folder: Path) -> Sink:
    return beside(folder) if kind == "beside" else table(folder.parent / f"out.{kind}")


@pytest.mark.parametrize("kind", ["beside", "jsonl", "csv", "parquet", "tsv"])
def test_texts_of_other_options_are_counted_and_written_anew_on_request(
    captioner: Captioner, tmp_path: Path, kind: str
) -> None:
    folder = fill(tmp_path / "in", 4)
    sink = sink_of(kind, folder)
    first = run(captioner, folder, sink)
    assert (first["written"], first["kept_from_others"]) == (4, {})
    again = run(captioner, folder, sink)
    assert (again["kept"], again["kept_from_others"]) == (4, {})
    other = run(captioner, folder, sink, decoding=LONGER)
    short = "tiny with max_new_tokens 3, min_new_tokens 2"
    assert (other["written"], other["kept_from_others"]) == (0, {short: 4})
    fill(folder, 1, first=4)
    run(captioner, folder, sink, decoding=LONGER)
    anew = run(captioner, folder, sink, decoding=LONGER, mode="overwrite-if-other")
    assert (anew["written"], anew["kept"], anew["kept_from_others"]) == (4, 1, {})
    last = run(captioner, folder, sink, decoding=LONGER)
    assert (last["kept"], last["kept_from_others"]) == (5, {})


def test_what_a_hand_wrote_or_changed_is_nobodys_and_stays(
    captioner: Captioner, tmp_path: Path
) -> None:
    folder = fill(tmp_path / "in", 4)
    names = sorted(path for path in folder.rglob("*.png"))
    names[0].with_suffix(".txt").write_text("by hand\n")
    run(captioner, folder, beside(folder))
    names[1].with_suffix(".txt").write_text("changed by hand\n")
    summary = run(captioner, folder, beside(folder), decoding=LONGER, mode="overwrite-if-other")
    assert (summary["written"], summary["kept"]) == (2, 2)
    kept = sorted(text for text in texts(folder).values() if "hand" in text)
    assert kept == ["by hand", "changed by hand"]


def test_words_around_a_text_are_options(captioner: Captioner, tmp_path: Path) -> None:
    folder, out = fill(tmp_path / "in", 2), tmp_path / "out.jsonl"
    run(captioner, folder, table(out), filters=CaptionFilters(trigger="ohwx"))
    assert [record["options"] for record in records(out)] == [{"trigger": "ohwx"}] * 2
    summary = run(captioner, folder, table(out))
    assert summary["kept_from_others"] == {"tiny with trigger ohwx": 2}


def test_the_records_of_text_files_lie_beside_them(captioner: Captioner, tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", 3)
    run(captioner, folder, beside(folder))
    noted = {Path(record["file_name"]).with_suffix(".txt").as_posix(): record["text"]
             for record in records(folder / "batch.jsonl")}  # fmt: skip
    assert noted == texts(folder)
    report = json.loads((folder / "batch.json").read_text())
    assert len(report["files_sha256"]) == 1


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({}, None),
        ({"model": "b", "revision": "2"}, "b with revision 2"),
        ({"model": "b"}, "b"),
        ({"revision": "2"}, "a with revision 2"),
        ({"style": "microsoft", "decoding": {}}, "a with style microsoft, plain decoding"),
        ({"options": {"remove": ["x"], "trigger": "y"}}, 'a with remove ["x"], trigger y'),
        ({"options": {}}, None),
        ({"question": "what is it?"}, 'a with the question "what is it?"'),
    ],
)
def test_a_difference_is_named(changes: dict[str, Any], difference: str | None) -> None:
    assert other_origin(STAMP | changes, STAMP) == difference


def test_a_record_without_a_model_is_nobodys() -> None:
    assert other_origin({"file_name": "a", "text": "x"}, STAMP) is None


def test_a_count_names_only_the_most_frequent_origins() -> None:
    counts: Counter[str] = Counter()
    for number in range(MAX_ORIGINS + 30):
        counts = add_counts(counts, Counter({f"model {number}": 50 - number % 50}))
    assert len(counts) <= MAX_ORIGINS + 1
    assert sum(counts.values()) == sum(50 - number % 50 for number in range(MAX_ORIGINS + 30))


def test_images_that_the_model_was_not_made_for_are_marked(tmp_path: Path) -> None:
    demo = Captioner.from_pretrained("demo")
    (tmp_path / "in").mkdir()
    for name, side in (("large", 65), ("small", 64)):
        Image.new("RGB", (side, side), "white").save(tmp_path / "in" / f"{name}.png")
    out = tmp_path / "out.csv"
    summary = run(demo, tmp_path / "in", table(out))
    assert summary["unsuited"] == 1
    warnings = {record["file_name"]: record.get("warning") for record in table(out).old_records()}
    assert warnings["small.png"] is None
    assert "the model was made for" in warnings["large.png"]
    assert "65 x 65 pixels" in warnings["large.png"]
