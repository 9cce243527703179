"""Damaged data sets, recipes and predictions are read, or refused in one line."""

import base64
import io
import json
import tarfile
import tomllib
from functools import partial
from pathlib import Path

import pytest
from fuzzing import as_json, damaged, examples, fuzz, nothing_else_touched, outcome, warped
from hypothesis import strategies as st
from photos import photo, photo_bytes

from git_model.cli.options import distinct_lines
from git_model.data.coco import CocoData, KarpathyData, VqaData
from git_model.data.example import Source
from git_model.data.folder import FolderData
from git_model.data.parquet import ParquetData
from git_model.data.tsv import TsvData
from git_model.data.webdataset import WebDatasetData
from git_model.evaluation.predictions import read_predictions, read_references, write_predictions
from git_model.training.recipe import read_recipe

COCO = {
    "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
    "annotations": [{"image_id": 1, "caption": "a cat"}, {"image_id": 2, "caption": "a dög"}],
}
KARPATHY = {
    "images": [
        {"filename": "a.png", "split": "train", "cocoid": 1, "sentences": [{"raw": "a cat"}]},
        {"filename": "b.png", "filepath": "x", "split": "val", "sentences": [{"raw": "a dog"}]},
    ]
}
QUESTIONS = {
    "data_subtype": "train2014",
    "questions": [{"image_id": 1, "question_id": 10, "question": "what?"}],
}
ANSWERS = {"annotations": [{"question_id": 10, "answers": [{"answer": "a cat"}] * 2}]}
LINES = [
    {"file_name": "a.png", "text": "a cat"},
    {"file_name": "b.png", "question": "what?", "answers": ["a dog"], "question_id": 3},
]
RECIPE = """
model = "demo"
tokenizer = "shapes"
steps = 1000
seed = 3
[data]
kind = "mixed"
repeats = [1, 2]
[[data.parts]]
kind = "coco"
annotations = "a.json"
images = "images"
[[data.parts]]
kind = "shapes"
size = 64
[loader]
batch_size = 8
[loader.augment]
[learning]
encoder_lr = 1e-3
decoder_lr = 1e-3
betas = [0.9, 0.99]
[compute]
threads = 1
""".strip()
PREDICTIONS = [
    {"key": "a", "text": "a cat", "logprob": -1.5, "answers": ["a cat"]},
    {"key": "b", "text": "two", "question": "how many?", "question_key": "7"},
]


@pytest.fixture
def home(tmp_path) -> Path:
    """A folder with two pictures, beside which tests put manifests."""
    for name in ("a.png", "b.png"):
        photo(tmp_path / name)
    return tmp_path


def seen(source: Source) -> None:
    """Open the first examples; each may be refused."""
    for number in range(min(len(source), 3)):
        outcome(partial(source.__getitem__, number))


def read_file(path, read):
    """Write a file's bytes, and read it while nothing changes beside it."""

    def run(data):
        path.write_bytes(data)
        with nothing_else_touched(path.parent):
            read()

    return run


def either(whole) -> st.SearchStrategy[bytes]:
    """A JSON file that is damaged, or that says other things."""
    return st.one_of(warped(whole).map(as_json), damaged(as_json(whole)))


@examples(25, 10000)
@pytest.mark.parametrize(
    ("kind", "whole"), [(CocoData, COCO), (KarpathyData, KARPATHY)], ids=["coco", "karpathy"]
)
def test_a_damaged_list_of_pictures(home, kind, whole, count):
    made = kind(annotations=str(home / "list.json"), images=str(home))
    fuzz(count, either(whole), read_file(home / "list.json", lambda: seen(made.open())))


@examples(25, 10000)
@pytest.mark.parametrize("spoiled", ["questions", "answers"])
def test_damaged_questions_or_answers(home, spoiled, count):
    tables = {"questions": QUESTIONS, "answers": ANSWERS}
    paths = {name: home / f"{name}.json" for name in tables}
    for name, table in tables.items():
        paths[name].write_text(json.dumps(table))
    photo(home / "1.png")
    made = VqaData(
        questions=str(paths["questions"]),
        annotations=str(paths["answers"]),
        images=str(home),
        image_name="{id}.png",
    )
    fuzz(count, either(tables[spoiled]), read_file(paths[spoiled], lambda: seen(made.open())))


@examples(25, 10000)
def test_damaged_metadata_of_a_folder(home, count):
    whole = b"\n".join(map(as_json, LINES))
    lines = st.tuples(*map(warped, LINES)).map(lambda two: b"\n".join(map(as_json, two)))
    made = FolderData(path=str(home))
    read = read_file(home / "metadata.jsonl", lambda: seen(made.open()))
    fuzz(count, st.one_of(damaged(whole), lines), read)


@examples(25, 10000)
def test_damaged_texts_beside_pictures(home, count):
    (home / "b.txt").write_text("a dog")
    made = FolderData(path=str(home))
    fuzz(count, damaged(b"a cat\n\nzwei K\xc3\xa4tzchen\n"), read_file(home / "a.txt", made.open))


@examples(20, 8000)
@pytest.mark.parametrize("spoiled", ["i.tsv", "t.tsv", "i.lineidx", "i.lineidx.8b"])
def test_damaged_rows(home, spoiled, count):
    rows = [b"%d\t%s\n" % (n, base64.b64encode(photo_bytes())) for n in range(2)]
    texts = [f'{n}\t[{{"caption": "a cat"}}]\n'.encode() for n in range(2)]
    wholes = {
        "i.tsv": b"".join(rows),
        "t.tsv": b"".join(texts),
        "i.lineidx": b"0\n%d\n" % len(rows[0]),
        "i.lineidx.8b": b"".join(at.to_bytes(8, "little") for at in (0, len(rows[0]))),
    }
    for name in {"i.tsv", "t.tsv", spoiled}:
        (home / name).write_bytes(wholes[name])
    made = TsvData(images=str(home / "i.tsv"), texts=str(home / "t.tsv"))
    numbers = st.lists(st.integers(-(2**63), 2**64)).map(
        lambda found: b"\n".join(b"%d" % number for number in found)
    )
    inputs = damaged(wholes[spoiled])
    inputs = st.one_of(inputs, numbers) if spoiled == "i.lineidx" else inputs
    fuzz(count, inputs, read_file(home / spoiled, lambda: seen(made.open())))


def tar(kind, names=("x/1.png", "x/1.txt", "2.png", "2.json")) -> bytes:
    contents = {"png": photo_bytes(), "txt": b"a cat", "json": as_json(LINES[1])}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as made:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(contents[name[-4:].strip(".")])
            info.pax_headers = {"comment": "x" * 50}
            made.addfile(info, io.BytesIO(contents[name[-4:].strip(".")]))
    return file.getvalue()


@examples(25, 10000)
@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_damaged_shard(home, kind, count):
    def read():
        for sealed in WebDatasetData(shards=str(home / "a.tar")).open().stream(0, 0, 0, 1):
            outcome(sealed)

    whole = tar(kind)
    headers = st.integers(0, len(whole) // 512 - 1).flatmap(
        lambda block: damaged(whole[512 * block :][:512]).map(
            lambda data: summed(whole, block, data)
        )
    )
    fuzz(count, st.one_of(damaged(whole), headers), read_file(home / "a.tar", read))


@examples(25, 10000)
def test_a_damaged_parquet_file(home, count):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    image = {"bytes": photo_bytes(), "path": "a.png"}
    table = pyarrow.Table.from_pylist([{"image": image, "texts": ["a cat"], "id": "1"}] * 2)
    file = io.BytesIO()
    parquet.write_table(table, file)

    def read():
        for sealed in ParquetData(files=str(home / "a.parquet")).open().stream(0, 0, 0, 1):
            outcome(sealed)

    whole = file.getvalue()
    footer = whole[len(whole) - 8 - int.from_bytes(whole[-8:-4], "little") : -8]
    ends = damaged(footer).map(
        lambda data: whole[: -8 - len(footer)] + data + len(data).to_bytes(4, "little") + b"PAR1"
    )
    fuzz(count, st.one_of(damaged(whole), ends), read_file(home / "a.parquet", read))


def summed(whole, block, data):
    """The tar with this block in place of one of its own, its sum made right if it is a header."""
    data = bytearray(data[:512].ljust(512, b"\0"))
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return whole[: 512 * block] + bytes(data) + whole[512 * (block + 1) :]


# Recipes, predictions, lists


@examples(60, 20000)
@pytest.mark.parametrize("form", ["toml", "json"])
def test_a_damaged_recipe(tmp_path, form, count):
    whole = tomllib.loads(RECIPE)
    path = tmp_path / f"recipe.{form}"
    lines = st.permutations(RECIPE.splitlines()).map("\n".join).map(str.encode)
    inputs = st.one_of(damaged(RECIPE.encode()), lines) if form == "toml" else either(whole)
    fuzz(count, inputs, read_file(path, lambda: read_recipe(path)))


@examples(40, 20000)
def test_damaged_predictions(tmp_path, count):
    path = tmp_path / "said.jsonl"
    lines = st.tuples(*map(warped, PREDICTIONS)).map(lambda two: b"\n".join(map(as_json, two)))
    results = [{"image_id": 1, "caption": "a cat"}, {"question_id": 2, "answer": "a dog"}]
    inputs = st.one_of(damaged(b"\n".join(map(as_json, PREDICTIONS))), lines, either(results))

    def read():
        found = read_predictions(path)
        for form in (False, True):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Path, "write_text", lambda self, text, **how: text.encode(**how))
                write_predictions(tmp_path / "again", found, results=form)

    fuzz(count, inputs, read_file(path, read))


@examples(40, 20000)
@pytest.mark.parametrize("whole", [COCO, ANSWERS, PREDICTIONS], ids=["coco", "vqa", "own"])
def test_damaged_references(tmp_path, whole, count):
    path = tmp_path / "right.json"
    fuzz(count, either(whole), read_file(path, lambda: read_references(path)))


@examples(40, 20000)
def test_a_damaged_list_of_labels(tmp_path, count):
    path = tmp_path / "labels.txt"
    whole = "cat\ndog\nzwölf Käfer\n".encode()
    fuzz(count, damaged(whole), read_file(path, lambda: distinct_lines(path, "label")))
