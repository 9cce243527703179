"""Strict parsing of other people's files: every fault is one line with file, line and reason."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from photos import photo

from git_model.data.example import Annotation
from git_model.data.manifests import (
    DataError,
    FileEntry,
    FileSource,
    annotation_of,
    merge_captions,
    parse,
    parse_each,
    path_within,
    read_lines,
)

RECORDS = [
    ({"text": " a cat "}, Annotation(("a cat",))),
    ({"caption": "a cat", "id": 7, "more": None}, Annotation(("a cat",))),
    ({"caption": ["a cat", "a mat"]}, Annotation(("a cat", "a mat"))),
    ({"question": "what?", "answer": "a cat"}, Annotation(("a cat",), "what?")),
    ({"question": "what?", "answers": ["cat", ""]}, Annotation(("cat", ""), "what?")),
    ({"question": "what?", "question_id": 9}, Annotation((), "what?", "9")),
    ({"question": "what?", "question_id": "q9", "answer": "a"}, Annotation(("a",), "what?", "q9")),
]


@pytest.mark.parametrize(("record", "annotation"), RECORDS)
def test_a_record_is_captions_or_a_question(record, annotation):
    assert annotation_of(record) == annotation


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "there is no text, expected text, caption or question"),
        ({"answer": "a cat"}, "there is no text"),
        ({"text": ""}, "text is empty, expected some words"),
        ({"text": ["a cat", " \n"]}, "text is empty"),
        ({"text": 5}, "text is 5, expected a text"),
        ({"text": None}, "text is None, expected a text"),
        ({"text": ["a", None]}, "text is None, expected a text"),
        ({"caption": "\udc80"}, "expected whole characters"),
        ({"question": " ", "answer": "a"}, "question is empty"),
        ({"question": "a", "answer": 3}, "answer is 3, expected a text"),
        ({"question": "a", "question_id": 1.5}, "question_id is 1.5, expected a text"),
        ({"question": "a", "question_id": True}, "question_id is True, expected a text"),
        ({"question": "a", "question_id": "\ud800"}, "question_id is '\\ud800', expected whole"),
        (["a cat"], "expected an object"),
        ("a cat", "expected an object"),
        (None, "expected an object"),
    ],
)
def test_an_invalid_record_is_refused(record, message):
    with pytest.raises(DataError) as error:
        annotation_of(record)
    assert message in str(error.value)


half = st.text(st.characters(categories=["Cs"]), min_size=1, max_size=1)  # of a character
plain = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | half
values = st.recursive(plain, lambda items: st.lists(items, max_size=2), max_leaves=3)
names = st.sampled_from(["text", "caption", "question", "answer", "answers", "question_id", "x"])


@given(st.dictionaries(names, values) | values)
def test_any_record_becomes_an_annotation_or_one_line(record):
    try:
        annotation = annotation_of(record)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        texts = (*annotation.texts, annotation.question or "", annotation.key)
        assert all(text == text.encode().decode() for text in texts)


def test_all_captions_of_an_image_are_one_annotation_and_come_first():
    question = Annotation(("b",), "what?")
    annotations = [question, Annotation(("a",)), question, Annotation(("c", "d"))]
    assert merge_captions(annotations) == (Annotation(("a", "c", "d")), question, question)
    assert merge_captions([]) == ()


def test_a_fault_has_the_number_of_its_record():
    with pytest.raises(DataError, match=r"^x\.jsonl: line 2: there is no text"):
        list(parse_each([{"text": "a"}, {}], annotation_of, "x.jsonl: line"))


def test_lines_end_as_on_any_system_and_may_begin_with_a_mark(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffa cat\r\nça\u2028va\n".encode())
    assert read_lines(path) == ["a cat", "ça\u2028va"]


def test_a_line_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes("a cat\nune forêt\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"lines\.txt: line 2: not UTF-8: .* at byte 8$"):
        read_lines(path)
    with pytest.raises(DataError, match=r"none\.txt: No such file"):
        read_lines(tmp_path / "none.txt")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "nope"])
def test_invalid_json_is_refused(text):
    with pytest.raises(DataError, match="not valid JSON"):
        parse(text)


@pytest.mark.parametrize(
    "name",
    ["../x.jpg", "a/../../x.jpg", "/etc/passwd", "..", "..\\x.jpg", "C:\\x.jpg", "\\x", "a\0.jpg"],
)
def test_a_name_that_leaves_its_folder_is_refused(name):
    with pytest.raises(DataError, match="leaves its folder"):
        path_within(Path("images"), name)


@pytest.mark.parametrize("name", ["x.jpg", "a/b/x.jpg", "./x.jpg", "a..b.jpg", "..x/y.jpg"])
def test_a_name_within_its_folder_is_kept(name):
    assert path_within(Path("images"), name) == Path("images") / name


def test_a_file_is_opened_when_its_example_is_asked_for(tmp_path):
    path, missing = photo(tmp_path / "a.png"), tmp_path / "b.png"
    notes = (Annotation(("a cat",)),)
    entries = [FileEntry("b", missing, notes), FileEntry("a", path, notes)]
    files = FileSource(entries, "manifest.json")
    assert len(files) == 2
    assert (files[1].key, files[1].media.size, files[1].annotations) == ("a", (12, 8), notes)
    with pytest.raises(ValueError, match=r"b\.png: No such file"):
        files[0]


def test_no_entries_and_no_existing_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"^manifest\.json: there are no images in it"):
        FileSource([], "manifest.json")
    entries = [FileEntry(str(n), tmp_path / f"{n}.png", ()) for n in range(3)]
    entries[0] = FileEntry("0", tmp_path / ("x" * 999), ())  # longer than any file system's names
    with pytest.raises(DataError, match=r"none of its 3 image files exists, the first is .*xxx"):
        FileSource(entries, "manifest.json")
