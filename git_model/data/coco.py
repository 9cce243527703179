"""Data sets on the images of COCO: its captions, Karpathy's splits of them, VQAv2.

Karpathy's file also exists for Flickr8k and Flickr30k. The readers depend only on the form of the
files, so they read every data set of that form.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any, Literal, TypeVar

from git_model.data.example import Annotation
from git_model.data.manifests import (
    DataError,
    FileEntry,
    FileSource,
    clean,
    id_of,
    parse_each,
    path_within,
    text_of,
    value_of,
)
from git_model.utils.serialize import read_mapping

T = TypeVar("T")
# The safe part of the patterns that `format` takes.
IMAGE_NAME = re.compile(r"([^{}]|\{split\}|\{id(:0?\d{1,2}d?)?\})*")


@dataclass(frozen=True, kw_only=True)
class CocoData:
    """Captions in COCO's form. Images without a caption are left out, unless no image has one, as
    in a test split."""

    kind: Literal["coco"] = "coco"
    annotations: str  # the file, such as annotations/captions_train2017.json
    images: str  # the folder of the images, such as train2017

    def open(self) -> FileSource:
        """Read the annotations."""
        table = read_mapping(Path(self.annotations), max_bytes=None)
        names = _index_by(table, "images", "id", self.annotations, self._path)
        captions: dict[str, list[str]] = {}
        if "annotations" in table:
            for image, caption in _read_list(table, "annotations", self.annotations, _caption):
                if image not in names:
                    raise DataError(
                        f"{self.annotations}: a caption is about image {image}, which is not "
                        "among the images"
                    )
                captions.setdefault(image, []).append(caption)
        entries = [
            FileEntry(image, path, (Annotation(tuple(captions.get(image, ()))),))
            for image, path in names.items()
            if image in captions or not captions
        ]
        return FileSource(entries, self.annotations)

    def _path(self, image: Any) -> Path:
        return path_within(Path(self.images), text_of(image, "file_name"))


def _caption(record: Any) -> tuple[str, str]:
    return id_of(record, "image_id"), text_of(record, "caption")


@dataclass(frozen=True, kw_only=True)
class KarpathyData:
    """Karpathy's dataset_coco.json, dataset_flickr8k.json or dataset_flickr30k.json."""

    kind: Literal["karpathy"] = "karpathy"
    annotations: str  # the file
    images: str  # the folder that holds val2014 and train2014; for Flickr the images' folder
    split: str = "train+restval"  # a split, or several splits joined by +

    def open(self) -> FileSource:
        """Read the file, and keep the images of the split."""
        table = read_mapping(Path(self.annotations), max_bytes=None)
        entries = list(_read_list(table, "images", self.annotations, self._entry))
        all_splits = sorted({split for split, _ in entries})
        splits = self.split.split("+")
        for split in splits:
            if split not in all_splits:
                raise DataError(
                    f"{self.annotations}: no image is of the split {split!r}, expected one of "
                    f"{', '.join(all_splits)}, or several joined by +"
                )
        return FileSource([entry for split, entry in entries if split in splits], self.annotations)

    def _entry(self, record: Any) -> tuple[str, FileEntry]:
        name = text_of(record, "filename")
        folder = value_of(record, "filepath", str) if "filepath" in record else ""
        sentences = value_of(record, "sentences", list)
        captions = tuple(parse_each(sentences, lambda item: text_of(item, "raw"), "sentence"))
        key = id_of(record, "cocoid") if "cocoid" in record else name
        path = path_within(Path(self.images), f"{folder}/{name}" if folder else name)
        return value_of(record, "split", str), FileEntry(key, path, (Annotation(captions),))


@dataclass(frozen=True, kw_only=True)
class VqaData:
    """VQAv2, and data sets of its form: questions, with the answers of ten people to each."""

    kind: Literal["vqav2"] = "vqav2"
    questions: str  # such as v2_OpenEnded_mscoco_train2014_questions.json
    annotations: str | None = None  # such as v2_mscoco_train2014_annotations.json; None: no answers
    images: str  # the folder of the images, such as train2014
    image_name: str = "COCO_{split}_{id:012d}.jpg"  # the file name of an image, by its id
    split: str | None = None  # {split} in the file names; None: the questions' data_subtype

    def open(self) -> FileSource:
        """Read both files; all questions about an image become one example."""
        table = read_mapping(Path(self.questions), max_bytes=None)
        answers = self._answers()
        split = self.split or self._split(table)
        annotations: dict[int, list[Annotation]] = {}
        for image, key, question in _read_list(table, "questions", self.questions, _question):
            if answers is not None and key not in answers:
                raise DataError(f"{self.annotations}: no answers to question {key}, expected ten")
            texts = answers[key] if answers is not None else ()
            annotations.setdefault(image, []).append(Annotation(texts, question, key))
        entries = [
            FileEntry(str(image), self._path(image, split), tuple(items))
            for image, items in annotations.items()
        ]
        return FileSource(entries, self.questions)

    def _answers(self) -> dict[str, tuple[str, ...]] | None:
        if self.annotations is None:
            return None
        table = read_mapping(Path(self.annotations), max_bytes=None)
        return _index_by(table, "annotations", "question_id", self.annotations, _answers)

    def _split(self, table: Mapping[str, Any]) -> str:
        """Such as train2014. The questions of test-dev2015 are about images of test2015."""
        if "{split" not in self.image_name:
            return ""
        try:
            return value_of(table, "data_subtype", str).replace("-dev", "")
        except DataError as error:
            raise DataError(f"{self.questions}: {error}: give split") from None

    def _path(self, image: int, split: str) -> Path:
        if not IMAGE_NAME.fullmatch(self.image_name):
            raise DataError(
                f"image_name is {self.image_name!r}, expected a pattern of split and id such as "
                "COCO_{split}_{id:012d}.jpg"
            )
        return path_within(Path(self.images), self.image_name.format(split=split, id=image))


def _question(record: Any) -> tuple[int, str, str]:
    return (
        value_of(record, "image_id", int),
        id_of(record, "question_id"),
        text_of(record, "question"),
    )


def _answers(record: Any) -> tuple[str, ...]:
    answers = value_of(record, "answers", list)
    if not answers:
        raise DataError("answers is empty, expected at least one")
    return tuple(parse_each(answers, _answer, "answer"))


def _answer(record: Any) -> str:
    # interned, because VQAv2's four million answers are a few thousand different texts
    return intern(clean(value_of(record, "answer", str), "answer"))


def _read_list(
    table: Mapping[str, Any], name: str, path: str, read: Callable[[Any], T]
) -> Iterator[T]:
    """`read` of each item of a list in a file."""
    try:
        records = value_of(table, name, list)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return parse_each(records, read, f"{path}: {name}")


def _index_by(
    table: Mapping[str, Any], name: str, key: str, path: str, read: Callable[[Any], T]
) -> dict[str, T]:
    """`read` of each item of a list in a file, by the item's unique id."""
    by_id: dict[str, T] = {}
    for index, value in _read_list(table, name, path, lambda item: (id_of(item, key), read(item))):
        if index in by_id:
            raise DataError(f"{path}: two of the {name} have the {key} {index}, expected one")
        by_id[index] = value
    return by_id
