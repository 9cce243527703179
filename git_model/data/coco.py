"""Data sets on the pictures of COCO: its captions, Karpathy's splits of them, VQAv2.

Karpathy's file also comes for Flickr8k and Flickr30k. Each reader here only knows the files' form.
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
    Entry,
    Files,
    clean,
    each,
    id_of,
    inside,
    text_of,
    value_of,
)
from git_model.utils.serialize import read_mapping

T = TypeVar("T")
IMAGE_NAME = re.compile(r"([^{}]|\{split\}|\{id(:0?\d{1,2}d?)?\})*")  # of what `format` may do


@dataclass(frozen=True, kw_only=True)
class CocoData:
    """Captions in COCO's form. Pictures without a caption are left out, unless none has any: those
    of a test split are there to be captioned."""

    kind: Literal["coco"] = "coco"
    annotations: str  # such as annotations/captions_train2017.json
    images: str  # the folder of its pictures, such as train2017

    def open(self) -> Files:
        """Read the annotations."""
        table = read_mapping(Path(self.annotations), max_bytes=None)
        names = _by_id(table, "images", "id", self.annotations, self._path)
        captions: dict[str, list[str]] = {}
        if "annotations" in table:
            for image, caption in _all(table, "annotations", self.annotations, _caption):
                if image not in names:
                    raise DataError(
                        f"{self.annotations}: a caption is about image {image}, which is not there"
                    )
                captions.setdefault(image, []).append(caption)
        entries = [
            Entry(image, path, (Annotation(tuple(captions.get(image, ()))),))
            for image, path in names.items()
            if image in captions or not captions
        ]
        return Files(entries, self.annotations)

    def _path(self, image: Any) -> Path:
        return inside(Path(self.images), text_of(image, "file_name"))


def _caption(record: Any) -> tuple[str, str]:
    return id_of(record, "image_id"), text_of(record, "caption")


@dataclass(frozen=True, kw_only=True)
class KarpathyData:
    """Karpathy's dataset_coco.json, dataset_flickr8k.json or dataset_flickr30k.json."""

    kind: Literal["karpathy"] = "karpathy"
    annotations: str
    images: str  # the folder of val2014 and train2014; Flickr's pictures lie in it themselves
    split: str = "train+restval"  # one or several, joined by +

    def open(self) -> Files:
        """Read the file, and keep the pictures of the split."""
        table = read_mapping(Path(self.annotations), max_bytes=None)
        pictures = list(_all(table, "images", self.annotations, self._entry))
        known = sorted({split for split, _ in pictures})
        wanted = self.split.split("+")
        for split in wanted:
            if split not in known:
                raise DataError(
                    f"{self.annotations}: no picture is of the split {split!r}, expected one of "
                    f"{', '.join(known)}, or several joined by +"
                )
        return Files([entry for split, entry in pictures if split in wanted], self.annotations)

    def _entry(self, record: Any) -> tuple[str, Entry]:
        name = text_of(record, "filename")
        folder = value_of(record, "filepath", str) if "filepath" in record else ""
        sentences = value_of(record, "sentences", list)
        captions = tuple(each(sentences, lambda item: text_of(item, "raw"), "sentence"))
        key = id_of(record, "cocoid") if "cocoid" in record else name
        path = inside(Path(self.images), f"{folder}/{name}" if folder else name)
        return value_of(record, "split", str), Entry(key, path, (Annotation(captions),))


@dataclass(frozen=True, kw_only=True)
class VqaData:
    """VQAv2, and what has its form: questions, and to each of them ten people's answers."""

    kind: Literal["vqav2"] = "vqav2"
    questions: str  # such as v2_OpenEnded_mscoco_train2014_questions.json
    annotations: str | None = None  # such as v2_mscoco_train2014_annotations.json; None: a test
    images: str  # the folder of the pictures, such as train2014
    image_name: str = "COCO_{split}_{id:012d}.jpg"
    split: str | None = None  # in the pictures' names; None: as the questions' data_subtype

    def open(self) -> Files:
        """Read both files; all questions on a picture become one example."""
        table = read_mapping(Path(self.questions), max_bytes=None)
        answers = self._answers()
        split = self.split or self._split(table)
        targets: dict[int, list[Annotation]] = {}
        for image, key, question in _all(table, "questions", self.questions, _question):
            if answers is not None and key not in answers:
                raise DataError(f"{self.annotations}: no answers to question {key}, expected ten")
            target = Annotation(answers[key] if answers is not None else (), question, key)
            targets.setdefault(image, []).append(target)
        entries = [
            Entry(str(image), self._path(image, split), tuple(found))
            for image, found in targets.items()
        ]
        return Files(entries, self.questions)

    def _answers(self) -> dict[str, tuple[str, ...]] | None:
        if self.annotations is None:
            return None
        table = read_mapping(Path(self.annotations), max_bytes=None)
        return _by_id(table, "annotations", "question_id", self.annotations, _answers)

    def _split(self, table: Mapping[str, Any]) -> str:
        """Such as train2014. The questions called test-dev2015 are about pictures of test2015."""
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
        return inside(Path(self.images), self.image_name.format(split=split, id=image))


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
    return tuple(each(answers, _answer, "answer"))


def _answer(record: Any) -> str:
    # four million answers, of which a few thousand differ
    return intern(clean(value_of(record, "answer", str), "answer"))


def _all(table: Mapping[str, Any], name: str, path: str, read: Callable[[Any], T]) -> Iterator[T]:
    """What `read` makes of each item of a list in a file."""
    try:
        records = value_of(table, name, list)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return each(records, read, f"{path}: {name}")


def _by_id(
    table: Mapping[str, Any], name: str, key: str, path: str, read: Callable[[Any], T]
) -> dict[str, T]:
    """The same, by an id that none may share."""
    found: dict[str, T] = {}
    for index, value in _all(table, name, path, lambda item: (id_of(item, key), read(item))):
        if index in found:
            raise DataError(f"{path}: two of the {name} have the {key} {index}, expected one")
        found[index] = value
    return found
