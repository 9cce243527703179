"""Data sets written in each form that `sources.py` reads, from examples in sequence.

A form is a folder of its own. The images keep their bytes; no image is decoded. One example is in
memory at a time, except for COCO and Karpathy, where one JSON file holds all texts.
"""

import base64
import glob
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from git_model.data.example import Annotation, StoredExample
from git_model.data.manifests import DataError, require_characters
from git_model.preprocessing.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from git_model.preprocessing.image import open_with_pillow, reason_of

IMAGES = "images"  # the subfolder of images
SHARD_EXAMPLES = 1000  # of a tar or a Parquet file
ROW_GROUP = 100  # rows, as Hugging Face writes images
MAX_NAME = 60  # letters of an example's name in a file name
NOT_IN_NAMES = re.compile(r"[^\w-]+")
SUFFIX_OF = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}

Record = dict[str, Any]


@dataclass(frozen=True)
class NamedExample:
    """An example to write. name: unique, and usable as a file name; suffix: such as .jpg."""

    name: str
    suffix: str
    stored: StoredExample

    @property
    def file_name(self) -> str:
        """The name of its image's file."""
        return self.name + self.suffix

    @property
    def captions(self) -> list[str]:
        """All captions, each on one line.

        Raises:
            DataError: there are questions, which this form cannot hold.
        """
        for annotation in self.stored.annotations:
            if annotation.question is not None:
                raise DataError(
                    f"{self.stored.where}: it has questions, which this form cannot hold: expected "
                    f"one of {', '.join(name for name, form in FORMS.items() if form.questions)}"
                )
        texts = [text for annotation in self.stored.annotations for text in annotation.texts]
        return [" ".join(text.split()) for text in texts]

    @property
    def records(self) -> list[Record]:
        """All texts as records that `manifests.annotation_of` reads.

        Raises:
            DataError: there are none.
        """
        records = [_record(annotation) for annotation in self.stored.annotations]
        records = [record for record in records if record.get("text") != []]
        if not records:
            raise DataError(f"{self.stored.where}: it has no text, expected at least one")
        return records


def _record(annotation: Annotation) -> Record:
    texts = list(annotation.texts)
    if annotation.question is None:
        return {"text": texts}
    key = {"question_id": annotation.key} if annotation.key else {}
    return {"question": annotation.question, "answers": texts} | key


def named_examples(examples: Iterable[StoredExample]) -> Iterator[NamedExample]:
    """The examples under names that are unique even if case is ignored, and that do not leave their
    folder.

    Raises:
        DataError: an image is in no format that Pillow knows, or a text has a lone surrogate, which
            no form can hold.
    """
    names: set[str] = set()
    for stored in examples:
        _require_characters(stored)
        path = PurePosixPath(stored.key)
        is_file_name = path.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES
        stem = str(path.with_suffix("")) if is_file_name else stored.key
        base = NOT_IN_NAMES.sub("_", stem).strip("_")[:MAX_NAME] or "example"
        name, number = base, 1
        while name.casefold() in names:
            number += 1
            name = f"{base}_{number}"
        names.add(name.casefold())
        suffix = path.suffix.lower() if is_file_name else _suffix(stored)
        yield NamedExample(name, suffix, stored)


def _require_characters(stored: StoredExample) -> None:
    """Refuse texts that UTF-8 cannot hold; a source of your own may have some."""
    for annotation in stored.annotations:
        for text in (*annotation.texts, annotation.question or "", annotation.key):
            require_characters(text, f"{stored.where}: a text")


def _suffix(stored: StoredExample) -> str:
    try:
        with open_with_pillow(BytesIO(stored.data)) as image:
            name = image.format or ""
    except Exception as error:  # a damaged file makes Pillow's readers raise almost anything
        raise DataError(f"{stored.where}: {reason_of(error)}, expected an image file") from None
    return SUFFIX_OF.get(name, f".{name.lower()}")


def write_folder(folder: Path, examples: Iterable[NamedExample]) -> None:
    """Images, each beside a .txt file with a caption on each line."""
    for example in examples:
        captions = example.captions
        if not captions:
            raise DataError(f"{example.stored.where}: it has no caption, expected at least one")
        (folder / example.file_name).write_bytes(example.stored.data)
        _write(folder / f"{example.name}.txt", captions)


def write_metadata(folder: Path, examples: Iterable[NamedExample]) -> None:
    """Images, and a metadata.jsonl."""
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for example in examples:
            _write_image(folder, example)
            for record in example.records:
                row = {"file_name": f"{IMAGES}/{example.file_name}"} | record
                lines.write(_json(row) + "\n")


def write_coco(folder: Path, examples: Iterable[NamedExample]) -> None:
    """Images, and an annotations.json as COCO's."""
    images: list[Record] = []
    annotations: list[Record] = []
    for example in examples:
        _write_image(folder, example)
        key = _id(example.name)
        images.append({"id": key, "file_name": example.file_name})
        annotations += [
            {"id": len(annotations) + number, "image_id": key, "caption": caption}
            for number, caption in enumerate(example.captions)
        ]
    _write(folder / "annotations.json", [_json({"images": images, "annotations": annotations})])


def write_karpathy(folder: Path, examples: Iterable[NamedExample]) -> None:
    """Images, and a dataset.json as Karpathy's, in which all of them are of the split train."""
    images = []
    for example in examples:
        _write_image(folder, example)
        sentences = [{"raw": caption} for caption in example.captions]
        images.append({"filename": example.file_name, "split": "train", "sentences": sentences})
    _write(folder / "dataset.json", [_json({"images": images})])


def write_tsv(folder: Path, examples: Iterable[NamedExample]) -> None:
    """The original's pair of files, images.tsv and texts.tsv."""
    with (folder / "images.tsv").open("wb") as images, (folder / "texts.tsv").open("wb") as texts:
        for example in examples:
            data = base64.b64encode(example.stored.data)
            images.write(example.name.encode() + b"\t" + data + b"\n")
            texts.write(f"{example.name}\t{_json(example.records)}\n".encode())


def write_webdataset(folder: Path, examples: Iterable[NamedExample]) -> None:
    """Tars of SHARD_EXAMPLES examples; with a .txt of captions, or a .json if there are
    questions."""
    for number, shard in enumerate(_shards(examples)):
        with tarfile.open(folder / f"{number:06}.tar", "w") as tar:
            for example in shard:
                records = example.records
                if all("question" not in record for record in records):
                    suffix, text = ".txt", "\n".join(example.captions)
                else:
                    suffix, text = ".json", _json(records)
                for name, data in (
                    (example.file_name, example.stored.data),
                    (example.name + suffix, text.encode()),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, BytesIO(data))


def write_parquet(folder: Path, examples: Iterable[NamedExample]) -> None:
    """Parquet files in the form of Hugging Face's data sets: columns `image` (bytes and path),
    `key`, `texts` (captions) and `questions`, which all files have, as a later one may need it."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError("writing Parquet needs pyarrow: pip install 'git-model[parquet]'") from None
    schema = _schema(pyarrow)
    for number, shard in enumerate(_shards(examples)):
        rows = map(_row, shard)
        with parquet.ParquetWriter(folder / f"{number:06}.parquet", schema) as file:
            while group := list(islice(rows, ROW_GROUP)):
                file.write_table(pyarrow.Table.from_pylist(group, schema))


class Form(NamedTuple):
    """A form: its writer, and the settings that read it."""

    write: Callable[[Path, Iterable[NamedExample]], None]
    file: str  # a pattern of files that only this form has
    table: dict[str, str]  # the fields of its table [data], as names in its folder
    questions: bool


FORMS = {
    "folder": Form(write_folder, "*.txt", {"path": ""}, questions=False),
    "metadata": Form(write_metadata, "metadata.jsonl", {"path": ""}, questions=True),
    "coco": Form(
        write_coco,
        "annotations.json",
        {"annotations": "annotations.json", "images": IMAGES},
        questions=False,
    ),
    "karpathy": Form(
        write_karpathy,
        "dataset.json",
        {"annotations": "dataset.json", "images": IMAGES},
        questions=False,
    ),
    "tsv": Form(
        write_tsv, "images.tsv", {"images": "images.tsv", "texts": "texts.tsv"}, questions=True
    ),
    "webdataset": Form(write_webdataset, "*.tar", {"shards": "*.tar"}, questions=True),
    "parquet": Form(write_parquet, "*.parquet", {"files": "*.parquet"}, questions=True),
}


def write_form(name: str, folder: Path, examples: Iterable[StoredExample]) -> int:
    """Write examples in a form into an empty folder.

    Returns:
        their number.

    Raises:
        DataError: there are none, or one does not fit the form.
    """
    count = 0

    def counted() -> Iterator[NamedExample]:
        nonlocal count
        for example in named_examples(examples):
            if example.suffix in VIDEO_SUFFIXES and name not in ("folder", "metadata"):
                raise DataError(
                    f"{example.stored.where}: a video, which this form cannot hold: expected "
                    "folder or metadata"
                )
            count += 1
            yield example

    FORMS[name].write(folder, counted())
    if count == 0:
        raise DataError("there are no examples to write, expected at least one")
    return count


def table_of(name: str, folder: Path) -> dict[str, str]:
    """The table [data] of a folder in a form."""
    kind = "folder" if name == "metadata" else name
    fields = {}
    for field, file in FORMS[name].table.items():
        is_pattern = "*" in file
        fields[field] = str((Path(glob.escape(str(folder))) if is_pattern else folder) / file)
    split = {"split": "train"} if name == "karpathy" else {}
    return {"kind": kind} | fields | split


def form_of(folder: Path) -> str:
    """The form of a folder, by its files; `metadata` if no other form fits."""
    names = [name for name in FORMS if name not in ("folder", "metadata")]
    return next((name for name in names if any(folder.glob(FORMS[name].file))), "metadata")


def _shards(examples: Iterable[NamedExample]) -> Iterator[Iterator[NamedExample]]:
    """The examples in parts of SHARD_EXAMPLES. A part must be used up before the next one."""
    stream = iter(examples)
    for first in stream:
        yield chain([first], islice(stream, SHARD_EXAMPLES - 1))


def _schema(pyarrow: Any) -> Any:
    text = pyarrow.string()
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", text)])
    question = [("question", text), ("answers", pyarrow.list_(text)), ("question_id", text)]
    fields = [
        ("image", image),
        ("key", text),
        ("texts", pyarrow.list_(text)),
        ("questions", pyarrow.list_(pyarrow.struct(question))),
    ]
    # Hugging Face's `datasets` decodes the column of images because of these.
    value = {"dtype": "string", "_type": "Value"}
    features: Record = {
        "image": {"_type": "Image"},
        "key": value,
        "texts": [value],
        "questions": [{"question": value, "answers": [value], "question_id": value}],
    }
    return pyarrow.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


def _row(example: NamedExample) -> Record:
    records = [_record(annotation) for annotation in example.stored.annotations]
    return {
        "image": {"bytes": example.stored.data, "path": example.file_name},
        "key": example.name,
        "texts": [text for record in records for text in record.get("text", ())],
        "questions": [record for record in records if "question" in record],
    }


def _write_image(folder: Path, example: NamedExample) -> None:
    (folder / IMAGES).mkdir(exist_ok=True)
    (folder / IMAGES / example.file_name).write_bytes(example.stored.data)


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _id(name: str) -> int | str:
    """A number if the name is one, as COCO has."""
    return int(name) if name.isdecimal() and str(int(name)) == name else name
