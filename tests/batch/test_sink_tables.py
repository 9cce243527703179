"""Records in one file, in every format."""

import csv
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.batch import sink_tables
from git_model.batch.sink_tables import TABLE_FORMATS, UNESCAPED_CSV, read_csv, write_csv
from git_model.data.tsv import parse_texts
from git_model.utils.errors import GITError

CONTROLS = [chr(n) for n in (*range(32), *range(127, 160), 0x2028, 0x2029)]

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
words = texts.filter(lambda text: text == text.strip() != "")
names = words.map(lambda text: f"a{text}".replace("\0", ""))
numbers = st.floats(-100, 0)
stamps = st.fixed_dictionaries(
    {"model": texts, "style": st.just("huggingface"), "decoding": st.just({"num_beams": 4})},
    optional={"options": st.fixed_dictionaries({"prefix": texts}), "warning": words},
)
captions = st.builds(
    lambda name, text, p, frames, stamp: (
        {"file_name": name, "text": text, "logprob": p, "confidence": 0.5} | frames | stamp
    ),
    names,
    words,
    numbers,
    st.sampled_from([{}, {"frames": [0, 2]}, {"rejected": "too short"}]),
    stamps,
)  # fmt: skip
answers = st.builds(
    lambda name, question, text, p: {
        "file_name": name, "question": question, "question_id": "7", "answer": text, "logprob": p,
    },
    names, words, words, numbers,
)  # fmt: skip
several = st.builds(
    lambda name, texts: {"file_name": name, "text": texts, "logprob": [-1.0] * len(texts)},
    names, st.lists(texts, min_size=1, max_size=3),
)  # fmt: skip


def through(form: str, folder: Path, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    table = TABLE_FORMATS[form]
    table.write(folder / f"x{form}", iter(records))
    return list(table.read(folder / f"x{form}"))


@pytest.mark.parametrize("form", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize(
    "kind", [captions, answers, several], ids=["captions", "answers", "several"]
)
def test_records_come_back_as_they_were(
    form: str, kind: st.SearchStrategy[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tables")

    @given(st.lists(kind, max_size=4))
    def check(records: list[dict[str, Any]]) -> None:
        assert through(form, folder, records) == records

    check()


@given(st.lists(captions | answers, max_size=4))
def test_the_originals_form_keeps_names_and_texts(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    good = [record for record in records if "rejected" not in record]
    expected = sorted(record.get("answer", record.get("text")) for record in good)
    read = through(".tsv", tmp_path_factory.mktemp("tsv"), records)
    texts = [record.get("answer", record.get("text")) for record in read]
    flat = [text for item in texts for text in (item if isinstance(item, list) else [item])]
    assert sorted(flat) == expected
    escaped = str.maketrans({c: c.encode("unicode_escape").decode() for c in CONTROLS})
    names = {record["file_name"].translate(escaped) for record in good}
    assert {record["file_name"] for record in read} == names


def test_the_originals_form_is_what_this_project_reads(tmp_path: Path) -> None:
    records = [
        {"file_name": "a", "text": "a cat"},
        {"file_name": "b", "question": "what?", "question_id": "1", "answer": "a dog"},
        {"file_name": "b", "question": "where?", "question_id": "2", "answer": "here"},
        {"file_name": "c", "text": ["one", "two"]},
    ]
    TABLE_FORMATS[".tsv"].write(tmp_path / "x.tsv", iter(records))
    rows = (tmp_path / "x.tsv").read_text().splitlines()
    assert rows[0] == 'a\t[{"caption": "a cat"}]'
    assert len(rows) == 3
    annotations = dict(map(parse_texts, rows))
    assert annotations["a"][0].texts == ("a cat",)
    assert [(item.question, item.texts, item.key) for item in annotations["b"]] == [
        ("what?", ("a dog",), "1"), ("where?", ("here",), "2"),
    ]  # fmt: skip
    assert annotations["c"][0].texts == ("one", "two")


@pytest.mark.parametrize(
    ("form", "data", "message"),
    [
        (".jsonl", b'{"file_name": "a"}\n{"file_name": "b', r"line 2: not valid JSON"),
        (".jsonl", b'{"text": "a"}\n', r"line 1: file_name is missing"),
        (".jsonl", b"\xff\n", r"line 1: not UTF-8"),
        (".jsonl", b"[1]\n", r"line 1: found \[1\], expected an object"),
        (".csv", b"text\na\n", r"no column file_name"),
        (".csv", b"", r"no column file_name"),
        (".csv", b"file_name,text\na\n", r"record 1: 1 columns, expected 2"),
        (".csv", b'file_name,text\na,"b\n', r"line 2: .*expected CSV"),
        (".csv", b"file_name,logprob\na,b\n", r"record 1: not valid JSON"),
        (".parquet", b"PAR1 no parquet", r"expected Parquet"),
        (".parquet", b"", r"expected Parquet"),
        (".tsv", b"a\n", r"row 1: 1 columns, expected two"),
        (".tsv", b"a\t{}\n", r"row 1: .*expected a JSON list"),
        (".tsv", b"a\t[1]\n", r"row 1: found 1, expected an object"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_line_with_the_position(
    tmp_path: Path, form: str, data: bytes, message: str
) -> None:
    path = tmp_path / f"x{form}"
    path.write_bytes(data)
    with pytest.raises(GITError, match=message) as error:
        list(TABLE_FORMATS[form].read(path))
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_parquet_holds_a_text_of_every_input_or_lists(tmp_path: Path) -> None:
    single = {"file_name": "a", "text": "x", "logprob": -1.0}
    many = {"file_name": "b", "text": ["x", "y"], "logprob": [-1.0, -2.0]}
    with pytest.raises(GITError, match="do not fit together"):
        TABLE_FORMATS[".parquet"].write(tmp_path / "x.parquet", iter([single, many]))


@pytest.mark.parametrize("form", list(TABLE_FORMATS))
def test_memory_does_not_grow_with_the_records(form: str, tmp_path: Path) -> None:
    def records(n: int) -> Iterator[dict[str, Any]]:
        for number in range(n):
            yield {"file_name": f"{number}.jpg", "text": "a picture of a cat", "logprob": -1.0}

    table = TABLE_FORMATS[form]
    peaks = []
    for n in (1_000, 7_000):
        tracemalloc.start()
        table.write(tmp_path / f"{n}{form}", records(n))
        assert sum(1 for _ in table.read(tmp_path / f"{n}{form}")) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000


def test_half_a_character_does_no_harm(tmp_path: Path) -> None:
    record = {"file_name": "a", "text": "caf\udce9"}
    assert through(".jsonl", tmp_path, [record]) == [record]
    assert json.loads((tmp_path / "x.jsonl").read_text())["text"] == "caf\udce9"
    assert through(".csv", tmp_path, [record])[0]["text"] == "caf\\udce9"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''@a"])
def test_a_spreadsheet_runs_no_cell_and_the_text_comes_back(tmp_path: Path, text: str) -> None:
    record = {"file_name": text, "text": text, "logprob": -1.5}
    write_csv(tmp_path / "x.csv", [record])
    assert (tmp_path / "x.csv").read_bytes().startswith(b"\xef\xbb\xbffile_name,")
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8-sig") as file:
        [cells] = csv.DictReader(file)
    assert cells["file_name"] == cells["text"] == "'" + text
    assert cells["logprob"] == "-1.5"  # a number stays one
    assert list(read_csv(tmp_path / "x.csv")) == [record]


def test_an_apostrophe_in_a_usual_text_stays_alone(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", [{"file_name": "a.png", "text": "'tis a cat"}])
    assert "\na.png,'tis a cat," in (tmp_path / "x.csv").read_text().replace("\r", "")
    assert next(read_csv(tmp_path / "x.csv"))["text"] == "'tis a cat"


def test_formulas_are_written_as_they_are_if_asked(tmp_path: Path) -> None:
    """`--no-csv-safe`: what other programs read, and a text that begins like an escape."""
    rows = [{"file_name": "a.png", "text": text} for text in ("=1+1", "'=1", "a cat")]
    UNESCAPED_CSV.write(tmp_path / "x.csv", rows)
    with (tmp_path / "x.csv").open(newline="") as file:
        assert [cells["text"] for cells in csv.DictReader(file)] == ["=1+1", "'=1", "a cat"]
    assert list(UNESCAPED_CSV.read(tmp_path / "x.csv")) == rows


@pytest.mark.parametrize("form", [".jsonl", ".csv", ".tsv"])
def test_a_line_too_long_is_refused_before_it_is_held(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_tables, "MAX_RECORD_BYTES", 300)
    record = {"file_name": "a.png", "text": "x" * 400}
    TABLE_FORMATS[form].write(tmp_path / f"x{form}", [record])
    with pytest.raises(GITError, match="too long, expected fewer than 300 bytes"):
        list(TABLE_FORMATS[form].read(tmp_path / f"x{form}"))
