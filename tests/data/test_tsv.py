"""The original's pairs of files, with an index and without."""

import base64
import json
import pickle

import numpy as np
import pytest
from photos import colour_of, photo_bytes

from git_model.data.example import Annotation
from git_model.data.tsv import Rows, TsvData, row_starts
from git_model.utils.errors import GITError

COLOURS = {"1": "red", "2": "blue", "3": "lime"}
CAPTIONS = [
    ["1", json.dumps([{"caption": "red"}, {"caption": "it is red"}])],
    ["2", json.dumps([{"question": "what colour?", "answer": "blue", "question_id": 7}])],
    ["3", json.dumps([{"question": "what is it?", "question_id": 8}])],
]
ANNOTATIONS = [
    (Annotation(("red", "it is red")),),
    (Annotation(("blue",), "what colour?", "7"),),
    (Annotation((), "what is it?", "8"),),
]


def encoded(colour):
    return base64.b64encode(photo_bytes(colour, "JPEG")).decode()


IMAGES = [[key, encoded(colour)] for key, colour in COLOURS.items()]


def write(path, rows, end="\n"):
    path.write_bytes("".join("\t".join(row) + end for row in rows).encode())


@pytest.fixture
def pair(tmp_path):
    def make(images=IMAGES, texts=CAPTIONS, end="\n"):
        write(tmp_path / "train.image.tsv", images, end)
        write(tmp_path / "train.caption.tsv", texts, end)
        return TsvData(
            images=str(tmp_path / "train.image.tsv"), texts=str(tmp_path / "train.caption.tsv")
        )

    return make


def offsets(path):
    """As the original's tsv_writer counts them."""
    lines = path.read_bytes().splitlines(keepends=True)
    return [sum(map(len, lines[:n])) for n in range(len(lines))]


def index(path, kind):
    """A .lineidx beside a file, or the original's binary one."""
    if kind == "text":
        path.with_suffix(".lineidx").write_text("".join(f"{start}\n" for start in offsets(path)))
    elif kind == "binary":
        np.array(offsets(path), "<i8").tofile(path.with_suffix(".lineidx.8b"))


@pytest.mark.parametrize("kind", ["none", "text", "binary"])
def test_images_and_texts_are_matched_row_by_row(pair, tmp_path, kind):
    data = pair()
    index(tmp_path / "train.image.tsv", kind)
    source = data.open()
    assert len(source) == 3
    for row in (2, 0, 1):
        assert source[row].key == str(row + 1)
        assert source[row].annotations == ANNOTATIONS[row]
    assert [colour_of(source[row].media) for row in (0, 1, 2)] == [(1, 0, 0), (0, 0, 1), (0, 1, 0)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_index_made_by_reading_is_the_originals(pair, tmp_path, end):
    pair(end=end)
    path = tmp_path / "train.image.tsv"
    assert row_starts(path).tolist() == [*offsets(path), path.stat().st_size]
    assert Rows(path, row_starts(path))[1].decode().strip().split("\t") == IMAGES[1]


def test_the_last_line_may_lack_its_end(pair, tmp_path):
    data = pair()
    path = tmp_path / "train.image.tsv"
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert colour_of(data.open()[2].media) == (0, 1, 0)


def test_a_source_can_be_sent_to_another_process(pair):
    source = pickle.loads(pickle.dumps(pair().open()))
    assert source[1].annotations == ANNOTATIONS[1]


@pytest.mark.parametrize(
    ("images", "texts", "message"),
    [
        (IMAGES[:2], CAPTIONS, "has 2 rows and .* has 3: expected as many"),
        ([], [], "has 0 rows and .* has 0: expected as many, at least one"),
        (IMAGES[::-1], CAPTIONS, "row 1 begins b'3', expected the key '1'"),
        ([["1"], *IMAGES[1:]], CAPTIONS, "row 1 begins b'1', expected the key '1'"),
        ([["1", "no base64"], *IMAGES[1:]], CAPTIONS, "row 1: the image is no base64"),
        (IMAGES, [["1"], *CAPTIONS[1:]], "row 1: 1 columns, expected two"),
        (IMAGES, [["1", "[]", "x"], *CAPTIONS[1:]], "row 1: 3 columns, expected two"),
        (IMAGES, [["1", "{}"], *CAPTIONS[1:]], "row 1: '{}', expected a JSON list"),
        (IMAGES, [["1", "[{"], *CAPTIONS[1:]], "row 1: not valid JSON"),
        (IMAGES, [*CAPTIONS[:2], ["3", '[{"caption": ""}]']], "row 3: text 1: caption is empty"),
        (IMAGES, [*CAPTIONS[:2], ["3", "[{}]"]], "row 3: text 1: there is no text"),
    ],
)
def test_a_fault_on_opening_is_one_line(pair, images, texts, message):
    with pytest.raises(GITError, match=message) as error:
        pair(images, texts).open()
    assert "\n" not in str(error.value)


def test_rows_that_are_not_utf8_are_refused(pair, tmp_path):
    data = pair()
    path = tmp_path / "train.caption.tsv"
    path.write_bytes(path.read_bytes().replace(b"it is red", b"it is \xff"))
    with pytest.raises(GITError, match=r"caption\.tsv: row 1|line 1: not UTF-8"):
        data.open()


def test_a_fault_in_one_image_is_an_error_when_it_is_opened(pair):
    bad = base64.b64encode(b"no picture").decode()
    source = pair([IMAGES[0], ["2", bad], ["4", IMAGES[2][1]]]).open()
    with pytest.raises(GITError, match=r"image\.tsv: row 2, 2: not an image"):
        source[1]
    with pytest.raises(GITError, match="row 3 begins b'4', expected the key '3', as in the texts"):
        source[2]
    assert source[0].key == "1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\nc\n", r"\.lineidx: expected a number on each line"),
        ("0\n5\n5\n", r"\.lineidx is not of .*image\.tsv"),
        ("5\n9\n12\n", r"\.lineidx is not of .*image\.tsv"),
        ("0\n5\n999999\n", r"\.lineidx is not of .*image\.tsv"),
        ("", r"\.lineidx is not of .*image\.tsv"),
    ],
)
def test_an_index_of_another_file_is_refused(pair, tmp_path, text, message):
    data = pair()
    (tmp_path / "train.image.lineidx").write_text(text)
    with pytest.raises(GITError, match=message):
        data.open()


def test_a_binary_index_of_another_file_is_refused_and_named(pair, tmp_path):
    data = pair()
    path = tmp_path / "train.image.lineidx.8b"
    np.array([0, 5, 999_999], "<i8").tofile(path)
    with pytest.raises(GITError, match=r"\.lineidx\.8b is not of .*image\.tsv, expected rising"):
        data.open()
    path.write_bytes(bytes(12))
    with pytest.raises(GITError, match=r"\.lineidx\.8b is cut short"):
        data.open()


def test_an_index_that_is_out_of_date_is_an_error_at_the_row(pair, tmp_path):
    data = pair()
    path = tmp_path / "train.image.tsv"
    starts = [*offsets(path)[:2], offsets(path)[2] + 1]
    path.with_suffix(".lineidx").write_text("".join(f"{start}\n" for start in starts))
    source = data.open()
    with pytest.raises(GITError, match="row 2: the image is no base64"):
        source[1]
    with pytest.raises(GITError, match=r"row 3 begins b'', expected the key '3'"):
        source[2]


@pytest.mark.parametrize("name", ["image", "caption"])
def test_a_missing_file_is_named(pair, tmp_path, name):
    data = pair()
    source = data.open()
    (tmp_path / f"train.{name}.tsv").unlink()
    with pytest.raises(GITError, match=rf"train\.{name}\.tsv: No such file"):
        data.open()
    if name == "image":
        with pytest.raises(GITError, match=r"train\.image\.tsv: No such file"):
            source[0]
