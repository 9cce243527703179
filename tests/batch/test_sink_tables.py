"""Records in one file, in every form."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.batch.sink_tables import FORMS
from git_model.data.tsv import _texts
from git_model.utils.errors import GITError

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
words = texts.filter(lambda text: text == text.strip() != "")
names = words.map(lambda text: f"a{text}".replace("\0", ""))
numbers = st.floats(-100, 0)
stamps = st.fixed_dictionaries(
    {"model": texts, "style": st.just("huggingface"), "decoding": st.just({"beams": 4})}
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
    lambda name, said: {"file_name": name, "text": said, "logprob": [-1.0] * len(said)},
    names, st.lists(texts, min_size=1, max_size=3),
)  # fmt: skip


def through(form: str, folder: Path, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    read, write = FORMS[form]
    write(folder / f"x{form}", iter(records))
    return list(read(folder / f"x{form}"))


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
        expected = [
            {"decoding": {}} | record if form == ".parquet" else record for record in records
        ]
        assert through(form, folder, records) == expected

    check()


@given(st.lists(captions | answers, max_size=4))
def test_the_originals_form_keeps_names_and_texts(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    found = through(".tsv", tmp_path_factory.mktemp("tsv"), records)
    good = [one.get("answer", one.get("text")) for one in records if "rejected" not in one]
    back = [one.get("answer", one.get("text")) for one in found]
    flat = [text for one in back for text in (one if isinstance(one, list) else [one])]
    assert sorted(flat) == sorted(good)


def test_the_originals_form_is_what_this_project_reads(tmp_path: Path) -> None:
    records = [
        {"file_name": "a", "text": "a cat"},
        {"file_name": "b", "question": "what?", "question_id": "1", "answer": "a dog"},
        {"file_name": "b", "question": "where?", "question_id": "2", "answer": "here"},
        {"file_name": "c", "text": ["one", "two"]},
    ]
    FORMS[".tsv"][1](tmp_path / "x.tsv", iter(records))
    rows = (tmp_path / "x.tsv").read_text().splitlines()
    assert rows[0] == 'a\t[{"caption": "a cat"}]'
    assert len(rows) == 3
    found = dict(map(_texts, rows))
    assert found["a"][0].answers == ("a cat",)
    assert [(one.question, one.answers, one.key) for one in found["b"]] == [
        ("what?", ("a dog",), "1"), ("where?", ("here",), "2"),
    ]  # fmt: skip
    assert found["c"][0].answers == ("one", "two")


@pytest.mark.parametrize(
    ("form", "data", "told"),
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
def test_a_damaged_file_is_told_with_the_place(
    tmp_path: Path, form: str, data: bytes, told: str
) -> None:
    path = tmp_path / f"x{form}"
    path.write_bytes(data)
    with pytest.raises(GITError, match=told) as found:
        list(FORMS[form][0](path))
    assert str(found.value).startswith(str(path))
    assert "\n" not in str(found.value)


def test_parquet_holds_one_text_each_or_several(tmp_path: Path) -> None:
    one = {"file_name": "a", "text": "x", "logprob": -1.0}
    many = {"file_name": "b", "text": ["x", "y"], "logprob": [-1.0, -2.0]}
    with pytest.raises(GITError, match="do not fit together"):
        FORMS[".parquet"][1](tmp_path / "x.parquet", iter([one, many]))


@pytest.mark.parametrize("form", list(FORMS))
def test_memory_does_not_grow_with_the_records(form: str, tmp_path: Path) -> None:
    def made(n: int) -> Iterator[dict[str, Any]]:
        for number in range(n):
            yield {"file_name": f"{number}.jpg", "text": "a picture of a cat", "logprob": -1.0}

    read, write = FORMS[form]
    peaks = []
    for n in (2_000, 20_000):
        tracemalloc.start()
        write(tmp_path / f"{n}{form}", made(n))
        assert sum(1 for _ in read(tmp_path / f"{n}{form}")) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000


def test_half_a_character_does_no_harm(tmp_path: Path) -> None:
    record = {"file_name": "a", "text": "caf\udce9"}
    assert through(".jsonl", tmp_path, [record]) == [record]
    assert json.loads((tmp_path / "x.jsonl").read_text())["text"] == "caf\udce9"
    assert through(".csv", tmp_path, [record])[0]["text"] == "caf\\udce9"
