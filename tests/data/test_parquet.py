"""Parquet with the images in the table."""

from itertools import chain

import pytest
from stored_examples import png
from tiny import tiny_config

from git_model.data.example import Annotation
from git_model.data.loader import LoaderConfig, StepLoader
from git_model.data.parquet import ParquetData
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.errors import GITError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def image(number: int) -> dict[str, object]:
    return {"bytes": png(number), "path": f"{number}.png"}


def write(path, rows, row_group_size=2):
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=row_group_size)
    return ParquetData(files=str(path))


def read(data: ParquetData) -> list[tuple[str, tuple[Annotation, ...]]]:
    examples = [open_example() for open_example in data.open().stream(0, 0, 0, 1)]
    return sorted((example.key, example.annotations) for example in examples)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"text": "a dog"}, (Annotation(("a dog",)),)),
        ({"caption": ["a dog", "a cat"]}, (Annotation(("a dog", "a cat")),)),
        ({"sentences": [{"raw": "a dog", "sentid": 3}]}, (Annotation(("a dog",)),)),
        ({"question": "who?", "answer": "me"}, (Annotation(("me",), "who?"),)),
        (
            {"question": "who?", "question_id": 5, "answers": [{"answer": "me"}, {"answer": "I"}]},
            (Annotation(("me", "I"), "who?", "5"),),
        ),
        (
            {"texts": ["x"], "questions": [{"question": "who?", "answers": ["me"]}]},
            (Annotation(("x",)), Annotation(("me",), "who?")),
        ),
    ],
)
def test_the_usual_columns_are_read(tmp_path, columns, expected):
    data = write(tmp_path / "a.parquet", [{"image": image(1), "image_id": 9} | columns])
    assert read(data) == [("9", expected)]


def test_columns_may_be_named_and_bytes_need_no_record(tmp_path):
    rows = [{"jpg": png(1), "image": image(2), "text": "no", "alt": "yes"}]
    write(tmp_path / "a.parquet", rows)
    data = ParquetData(files=str(tmp_path / "*.parquet"), image="jpg", text="alt")
    [example] = [open_example() for open_example in data.open().stream(0, 0, 0, 1)]
    assert example.media.getpixel((0, 0)) == (1, 2, 7)
    assert example.annotations == (Annotation(("yes",)),)
    assert example.key == "a/1"


@pytest.mark.parametrize("n_readers", [1, 2, 7])
@pytest.mark.parametrize("shuffle", [0, 3])
def test_all_readers_together_get_each_row_once(tmp_path, n_readers, shuffle):
    for name, numbers in (("a", range(5)), ("b", range(5, 7))):
        write(tmp_path / f"{name}.parquet", [
            {"image": image(number), "id": number, "text": "x"} for number in numbers
        ])  # fmt: skip
    stream = ParquetData(files=str(tmp_path / "*.parquet"), shuffle=shuffle).open()
    parts = [
        [open_example().key for open_example in stream.stream(1, 0, reader, n_readers)]
        for reader in range(n_readers)
    ]
    assert sorted(chain(*parts)) == [str(number) for number in range(7)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a dog"}, "there is no column of images, .*columns are: text.*metadata.jsonl"),
        ({"image": "a.png", "text": "a dog"}, "there is no column of images"),
        ({"image": {"bytes": b"x"}, "label": 3}, "there is no column of texts, .*image, label"),
    ],
)
def test_a_table_without_images_or_texts_is_one_clear_line(tmp_path, row, message):
    with pytest.raises(GITError, match=rf"a\.parquet: {message}"):
        write(tmp_path / "a.parquet", [row]).open()


def test_a_named_column_that_does_not_fit_is_refused(tmp_path):
    path = str(tmp_path / "a.parquet")
    write(tmp_path / "a.parquet", [{"image": image(1), "text": "x"}])
    with pytest.raises(GITError, match="text is no column of images"):
        ParquetData(files=path, image="text").open()
    with pytest.raises(GITError, match="no column alt"):
        ParquetData(files=path, text="alt").open()


def test_rows_that_cannot_be_used_are_named(tmp_path):
    rows = [
        {"image": {"bytes": None, "path": "a.png"}, "text": "x"},
        {"image": {"bytes": b"no image", "path": None}, "text": "x"},
        {"image": image(1) | {"path": None}, "text": " "},
    ]
    messages = []
    stream = write(tmp_path / "a.parquet", rows, row_group_size=9).open()
    for open_example in stream.stream(0, 0, 0, 1):
        with pytest.raises(GITError) as error:
            open_example()
        messages.append(str(error.value))
    messages.sort()
    assert "row 1: image is empty, expected the bytes of an image" in messages[0]
    assert "row 2: not an image" in messages[1]
    assert "row 3: text 1: text is empty" in messages[2]


def test_a_damaged_file_gives_one_broken_example(tmp_path):
    path = tmp_path / "a.parquet"
    data = write(path, [{"image": image(1), "text": "x"}] * 4)
    stream = data.open()
    content = bytearray(path.read_bytes())
    content[10:200] = bytes(190)
    path.write_bytes(content)
    broken = 0
    for open_example in stream.stream(0, 0, 0, 1):
        try:
            open_example()
        except GITError:
            broken += 1
    assert broken >= 1


def test_files_that_are_missing_or_no_parquet_are_refused(tmp_path):
    with pytest.raises(GITError, match=r"no such shard, expected a Parquet file"):
        ParquetData(files=str(tmp_path / "a.parquet")).open()
    (tmp_path / "b.parquet").write_text("text")
    with pytest.raises(GITError, match=r"b\.parquet: not a Parquet file"):
        ParquetData(files=str(tmp_path / "b.parquet")).open()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_of_rows_is_learned_once(tmp_path, workers):
    words = [chr(ord("a") + number) for number in range(8)]
    rows = [{"image": image(number), "text": word} for number, word in enumerate(words)]
    data = write(tmp_path / "a.parquet", rows)
    tokenizer = Tokenizer.from_vocab(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *words])
    options = LoaderConfig(batch_size=4, max_tokens=24, workers=workers)
    loader = StepLoader(data.open(), tokenizer, tiny_config(), options)
    captions = [
        words[row[1] - 4]
        for batches in loader.steps(1, 2)
        for batch in batches
        for row in batch.tokens.tolist()
    ]
    assert sorted(captions) == words
