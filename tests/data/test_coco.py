"""COCO's captions, Karpathy's splits, VQAv2: small files of the same form."""

import copy

import pytest
from photos import colour_of, photo, write_json

from git_model.data.coco import CocoData, KarpathyData, VqaData
from git_model.data.example import Annotation
from git_model.data.manifests import DataError
from git_model.utils.errors import GITError

# Captions

COCO = {
    "info": {"year": 2017},
    "images": [
        {"id": 9, "file_name": "000009.jpg", "height": 8},
        {"id": 25, "file_name": "000025.jpg"},
        {"id": 30, "file_name": "000030.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 25, "caption": "A red picture.\n"},
        {"id": 2, "image_id": 9, "caption": "Blue."},
        {"id": 3, "image_id": 25, "caption": "Red\u2014all of it."},
    ],
}


@pytest.fixture
def coco(tmp_path):
    photo(tmp_path / "images" / "000009.jpg", "blue")
    photo(tmp_path / "images" / "000025.jpg", "red")
    photo(tmp_path / "images" / "000030.jpg", "lime")

    def make(**changes):
        path = write_json(tmp_path / "captions.json", {**copy.deepcopy(COCO), **changes})
        return CocoData(annotations=path, images=str(tmp_path / "images"))

    return make


def test_an_image_of_coco_has_all_its_captions(coco):
    source = coco().open()
    assert [source[i].key for i in range(len(source))] == ["9", "25"]  # 30 has no caption
    assert source[1].annotations == (Annotation(("A red picture.", "Red\u2014all of it.")),)
    assert [colour_of(source[i].media) for i in (0, 1)] == [(0, 0, 1), (1, 0, 0)]


@pytest.mark.parametrize("annotations", [{}, {"annotations": []}])
def test_a_test_split_of_coco_has_images_without_captions(coco, tmp_path, annotations):
    data = coco()
    table = {name: value for name, value in COCO.items() if name != "annotations"}
    write_json(tmp_path / "captions.json", table | annotations)
    source = data.open()
    assert [source[i].annotations for i in range(len(source))] == [(Annotation(()),)] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "a caption is about image 25, which is not among the images"),
        ({"images": [], "annotations": []}, "there are no images in it"),
        ({"images": "here"}, "images is 'here', expected a list"),
        ({"images": [{"id": 1}]}, "images 1: file_name is missing"),
        ({"images": [{"file_name": "a.jpg"}]}, "images 1: id is missing"),
        ({"images": [{"id": 1, "file_name": "../a.jpg"}]}, "'../a.jpg' leaves its folder"),
        ({"images": [{"id": 1, "file_name": "/a.jpg"}]}, "'/a.jpg' leaves its folder"),
        ({"images": [{"id": "\ud800", "file_name": "a.jpg"}]}, "id is '\\ud800', expected whole"),
        ({"images": [COCO["images"][0]] * 2}, "two of the images have the id 9"),
        ({"annotations": [{"image_id": 9}]}, "annotations 1: caption is missing"),
        ({"annotations": [{"caption": "a"}]}, "annotations 1: image_id is missing"),
        ({"annotations": [{"image_id": 9, "caption": " "}]}, "annotations 1: caption is empty"),
        ({"annotations": [{"image_id": 9, "caption": 5}]}, "caption is 5, expected a text"),
        ({"annotations": [{"image_id": 9, "caption": "\ud800"}]}, "expected whole characters"),
        ({"annotations": [7]}, "annotations 1: found 7, expected an object with image_id"),
    ],
)
def test_a_fault_in_cocos_file_is_one_line(coco, changes, message):
    with pytest.raises(DataError) as error:
        coco(**changes).open()
    assert message in str(error.value)
    assert "captions.json: " in str(error.value)
    assert "\n" not in str(error.value)


def test_captions_that_are_not_utf8_are_refused(coco, tmp_path):
    data = coco()
    path = tmp_path / "captions.json"
    path.write_bytes(path.read_bytes().replace(b"Blue.", "forêt".encode("latin-1")))
    with pytest.raises(GITError, match=r"captions\.json: not UTF-8: invalid"):
        data.open()


@pytest.mark.parametrize("text", ["", "[]", '{"images": [', "null"])
def test_a_file_that_is_no_json_object_is_refused(coco, tmp_path, text):
    data = coco()
    (tmp_path / "captions.json").write_text(text)
    with pytest.raises(GITError, match=r"captions\.json: (not valid JSON|expected a table)"):
        data.open()


def test_a_wrong_folder_is_refused_before_training(coco, tmp_path):
    coco()
    data = CocoData(annotations=str(tmp_path / "captions.json"), images=str(tmp_path))
    with pytest.raises(DataError, match=r"none of its 2 image files exists.*000009\.jpg"):
        data.open()


def test_one_missing_image_is_an_error_when_it_is_opened(coco, tmp_path):
    source = coco().open()
    (tmp_path / "images" / "000009.jpg").unlink()
    with pytest.raises(GITError, match=r"000009\.jpg: No such file"):
        source[0]
    assert source[1].key == "25"


# Karpathy's splits


def record(name, split, *captions, **fields):
    return {"filename": name, "split": split, "sentences": [{"raw": c} for c in captions], **fields}


KARPATHY = {
    "dataset": "coco",
    "images": [
        record("a.jpg", "train", "one", "two", filepath="train2014", cocoid=1),
        record("b.jpg", "restval", "three", filepath="val2014", cocoid=2),
        record("c.jpg", "val", "four", filepath="val2014", cocoid=3),
    ],
}


@pytest.fixture
def karpathy(tmp_path):
    for name in ("train2014/a.jpg", "val2014/b.jpg", "val2014/c.jpg", "d.jpg"):
        photo(tmp_path / "images" / name)

    def make(table=KARPATHY, **options):
        path = write_json(tmp_path / "dataset_coco.json", table)
        return KarpathyData(annotations=path, images=str(tmp_path / "images"), **options)

    return make


@pytest.mark.parametrize(
    ("split", "keys"),
    [("train+restval", ["1", "2"]), ("train", ["1"]), ("val", ["3"]), ("val+train", ["1", "3"])],
)
def test_karpathys_splits_can_be_joined(karpathy, split, keys):
    source = karpathy(split=split).open()
    assert [source[i].key for i in range(len(source))] == keys


def test_karpathys_training_images_are_train_and_restval(karpathy):
    source = karpathy().open()
    assert [source[i].annotations for i in (0, 1)] == [
        (Annotation(("one", "two")),),
        (Annotation(("three",)),),
    ]


def test_flickrs_images_have_no_folder_and_no_number(karpathy):
    source = karpathy({"images": [record("d.jpg", "train", "five")]}, split="train").open()
    assert source[0].key == "d.jpg"


@pytest.mark.parametrize("split", ["test", "", "train,val", "train+"])
def test_an_unknown_split_is_refused(karpathy, split):
    with pytest.raises(DataError, match=r"no image is of the split .*one of restval, train, val"):
        karpathy(split=split).open()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"split": "train", "sentences": []}, "images 1: filename is missing"),
        ({"split": "train", "filename": "a.jpg"}, "images 1: sentences is missing"),
        ({"sentences": [], "filename": "a.jpg"}, "images 1: split is missing"),
        (record("d.jpg", "train", "one", ""), "images 1: sentence 2: raw is empty"),
        (record("d.jpg", "train", filepath=".."), "leaves its folder"),
        (record("d.jpg", "train", filepath="\ud800"), "the file name is '\\ud800/d.jpg', expected"),
        (record("../d.jpg", "train"), "leaves its folder"),
    ],
)
def test_a_fault_in_karpathys_file_is_one_line(karpathy, item, message):
    with pytest.raises(DataError) as error:
        karpathy({"images": [item]}, split="train").open()
    assert message in str(error.value)
    assert "dataset_coco.json: images 1: " in str(error.value)


# VQAv2

QUESTIONS = {
    "data_subtype": "train2014",
    "questions": [
        {"image_id": 458, "question": "What colour?", "question_id": 458000},
        {"image_id": 9, "question": "Is it blue?", "question_id": 9000},
        {"image_id": 458, "question": "How many?", "question_id": 458001},
    ],
}
TEN = [{"answer": answer, "answer_confidence": "yes"} for answer in ["red"] * 9 + ["dark red"]]
ANNOTATIONS = {
    "annotations": [
        {"question_id": question["question_id"], "answers": TEN, "answer_type": "other"}
        for question in QUESTIONS["questions"]
    ]
}


@pytest.fixture
def vqa(tmp_path):
    for split in ("train2014", "test2015"):
        for number in (458, 9):
            photo(tmp_path / "images" / f"COCO_{split}_{number:012d}.jpg")

    def make(questions=QUESTIONS, annotations=ANNOTATIONS, **options):
        path = write_json(tmp_path / "questions.json", questions)
        answers = None
        if annotations is not None:
            answers = write_json(tmp_path / "annotations.json", annotations)
        images = str(tmp_path / "images")
        return VqaData(questions=path, annotations=answers, images=images, **options)

    return make


def test_all_questions_about_an_image_share_one_example(vqa):
    source = vqa().open()
    assert [source[i].key for i in range(len(source))] == ["458", "9"]
    ten = ("red",) * 9 + ("dark red",)
    assert source[0].annotations == (
        Annotation(ten, "What colour?", "458000"),
        Annotation(ten, "How many?", "458001"),
    )


def test_a_test_split_has_questions_only(vqa):
    source = vqa(QUESTIONS | {"data_subtype": "test-dev2015"}, None).open()
    assert [annotation.texts for annotation in source[0].annotations] == [(), ()]


def test_images_may_be_named_by_another_pattern(vqa, tmp_path):
    photo(tmp_path / "images" / "9.png")
    nine = {"questions": [QUESTIONS["questions"][1]]}
    assert vqa(nine, None, image_name="{id}.png").open()[0].key == "9"
    assert vqa(nine, None, split="train2014").open()[0].key == "9"
    with pytest.raises(DataError, match="data_subtype is missing: give split"):
        vqa(nine, None).open()


@pytest.mark.parametrize("name", ["{name}.jpg", "{id", "{0}", "{id:q}", "{id.x}", "{id[0]}"])
def test_an_invalid_pattern_is_refused(vqa, name):
    with pytest.raises(GITError, match=r"image_name is .*expected a pattern of split and id"):
        vqa(image_name=name).open()


def test_a_pattern_that_leaves_the_folder_is_refused(vqa):
    with pytest.raises(DataError, match="leaves its folder"):
        vqa(image_name="../{id}.jpg").open()


@pytest.mark.parametrize(
    ("questions", "annotations", "message"),
    [
        ({"questions": []}, ANNOTATIONS, "there are no images in it"),
        ({"questions": [{"image_id": 9, "question_id": 1}]}, None, "question is missing"),
        ({"questions": [{"image_id": "x", "question_id": 1}]}, None, "image_id is 'x', expected a"),
        ({}, {"annotations": []}, "annotations.json: no answers to question 458000"),
        ({}, {}, "annotations.json: annotations is missing"),
        ({}, {"annotations": [{"question_id": 458000}]}, "annotations 1: answers is missing"),
        ({}, {"annotations": [{"question_id": 1, "answers": []}]}, "answers is empty"),
        (
            {},
            {"annotations": [{"question_id": 1, "answers": [{"answer": "a"}, {}]}]},
            "annotations.json: annotations 1: answer 2: answer is missing",
        ),
        ({}, {"annotations": ANNOTATIONS["annotations"] * 2}, "two of the annotations have the"),
    ],
)
def test_a_fault_in_vqas_files_is_one_line(vqa, questions, annotations, message):
    with pytest.raises(DataError) as error:
        vqa(QUESTIONS | questions, annotations).open()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
