"""`git-model data`: inspect, split, convert and vocab."""

import json
import tarfile
from pathlib import Path

import pyarrow
import pytest
from commands import refusal, run
from pyarrow import parquet
from stored_examples import png

from git_model.data.sources import read_data, stored_examples
from git_model.preprocessing.tokenizer import Tokenizer

SHAPES = '[data]\nkind = "shapes"\ntasks = ["captions", "questions"]\nsize = 12\n'


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    path = tmp_path / "shapes.toml"
    path.write_text(SHAPES)
    return path


def write_folder(folder: Path, n_images: int) -> Path:
    folder.mkdir()
    for number in range(n_images):
        (folder / f"{number}.png").write_bytes(png(number))
        (folder / f"{number}.txt").write_text(f"the picture {number}\n")
    return folder


def texts_in(folder: Path, kind: str = "folder", key: str = "path") -> dict[bytes, object]:
    source = read_data({"kind": kind, key: str(folder)}, "test").open()
    examples = [open_stored() for open_stored in stored_examples(source)]
    return {example.data: example.annotations for example in examples}


def test_inspect_prints_a_line_a_field_and_one_json_object(tmp_path, shapes):
    text = run("data", "inspect", shapes, "--vocabulary", "shapes").stdout
    assert text.startswith("examples                 12\n")
    assert "\nunknown share            0.00%\n" in text
    report = json.loads(run("data", "inspect", shapes, "--json").stdout)
    assert report["examples"] == 12
    assert report["captions"] == 12
    assert report["width"]["max"] == 64


@pytest.mark.parametrize("command", ["inspect", "convert", "split"])
def test_files_that_look_like_images_and_are_no_examples_are_named(tmp_path, command):
    folder = write_folder(tmp_path / "in", 4)
    (folder / "noext").write_bytes(png(9))
    for name in ("raw.CR2", "v.mp4"):
        (folder / name).write_bytes(b"x")
    if command == "inspect":
        report = json.loads(run("data", "inspect", folder, "--json").stdout)
        assert report["not_taken"] == {"count": 3, "first": ["noext", "raw.CR2", "v.mp4"]}
        return
    options = () if command == "convert" else ("--part", "a=1.0")
    line = run("data", command, folder, tmp_path / "out", *options).stderr.splitlines()[-1]
    assert line.startswith(
        "Not taken, though they look like images or videos: 3: noext, raw.CR2, v"
    )


@pytest.mark.parametrize("kind", ["parquet", "tar"])
@pytest.mark.parametrize("command", ["inspect", "convert", "split", "vocab"])
def test_data_without_an_example_are_refused(tmp_path, kind, command):
    path = tmp_path / f"empty.{kind}"
    if kind == "tar":
        tarfile.open(path, "w").close()
    else:
        columns = {
            "image": pyarrow.array([], pyarrow.binary()),
            "text": pyarrow.array([], "string"),
        }
        parquet.write_table(pyarrow.table(columns), path)
    out = {"inspect": (), "vocab": ("--out", tmp_path / "out")}.get(command, (tmp_path / "out",))
    assert f"{path}: there are no " in refusal("data", command, path, *out)
    assert not (tmp_path / "out").exists()


def test_inspect_advises_nothing_that_it_does_not_have(tmp_path):
    folder = write_folder(tmp_path / "in", 1)
    (folder / "0.png").write_bytes(b"a film")
    report = run("data", "inspect", folder).stdout
    assert "0.png: not an image" in report
    assert "--" not in report


def test_inspect_counts_identical_images_of_one_id(tmp_path):
    table = {"image": [png(1), png(1), png(2)], "image_id": [7, 7, 8], "text": ["a", "b", "c"]}
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table(table), path)
    report = json.loads(run("data", "inspect", path, "--json").stdout)
    first = [f"{path}: row 1 = {path}: row 2"]
    assert report["identical_images"] == {"count": 1, "first": first}


def test_convert_writes_a_form_that_every_data_command_opens(tmp_path, shapes):
    result = run("data", "convert", shapes, tmp_path / "tars", "--to", "webdataset")
    assert result.exit_code == 0, result.output
    pattern = tmp_path / "tars" / "*.tar"
    assert result.stdout == f'[data]\nkind = "webdataset"\nshards = {json.dumps(str(pattern))}\n'
    assert run("data", "convert", tmp_path / "tars", tmp_path / "back").exit_code == 0
    assert texts_in(tmp_path / "back") == texts_in(pattern, "webdataset", "shards")
    assert "already exists" in refusal("data", "convert", shapes, tmp_path / "back")


def test_a_form_that_cannot_hold_the_data_leaves_nothing_behind(tmp_path, shapes):
    line = refusal("data", "convert", shapes, tmp_path / "coco", "--to", "coco")
    assert "has questions, which this form cannot hold" in line
    assert [path.name for path in tmp_path.iterdir()] == ["shapes.toml"]


def test_unreadable_examples_are_named_and_left_out_up_to_a_limit(tmp_path):
    folder = write_folder(tmp_path / "images", 3)
    (folder / "1.png").write_bytes(b"no image")
    line = refusal("data", "convert", folder, tmp_path / "out", "--to", "tsv")
    assert "1.png: not an image" in line
    assert line.endswith("--broken-limit leaves such examples out")
    result = run("data", "convert", folder, tmp_path / "out", "--to", "tsv", "--broken-limit", 1)
    assert result.exit_code == 0, result.output
    assert "Left out: " in result.stderr
    assert len((tmp_path / "out" / "texts.tsv").read_text().splitlines()) == 2


def test_split_is_by_images_and_does_not_change_when_others_are_added(tmp_path):
    small, large = write_folder(tmp_path / "small", 20), write_folder(tmp_path / "large", 40)
    (large / "copy.png").write_bytes(png(3))
    (large / "copy.txt").write_text("again")
    parts = ("--part", "train=0.6", "--part", "val=0.4")
    for folder in (small, large):
        out = tmp_path / f"{folder.name}_parts"
        result = run("data", "split", folder, out, *parts, "--to", "folder")
        assert result.exit_code == 0, result.output
    split = {
        (name, part): set(texts_in(tmp_path / f"{name}_parts" / part))
        for name in ("small", "large")
        for part in ("train", "val")
    }
    assert not split["large", "train"] & split["large", "val"]
    assert len(split["large", "train"] | split["large", "val"]) == 40  # of 41, two are the same
    for part in ("train", "val"):
        assert split["small", part] <= split["large", part]
    assert 14 <= len(split["large", "train"]) <= 34
    other = run("data", "split", small, tmp_path / "other", *parts, "--seed", 1, "--to", "folder")
    assert other.exit_code == 0, other.output
    assert set(texts_in(tmp_path / "other" / "train")) != split["small", "train"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("train",), "expected a name, = and a share"),
        (("train=2",), "a share from above 0 to 1"),
        (("../up=1",), "a name of letters"),
        (("a=0.5", "b=0.6"), "add up to 1"),
        (("a=0.5", "a=0.5"), "different names"),
    ],
)
def test_wrong_parts_are_wrong_usage(tmp_path, shapes, parts, message):
    options = [word for part in parts for word in ("--part", part)]
    assert message in refusal("data", "split", shapes, tmp_path / "out", *options, code=2)


def test_a_part_without_images_is_refused(tmp_path):
    folder = write_folder(tmp_path / "images", 2)
    parts = ("--part", "most=0.999999999", "--part", "few=0.000000001")
    assert "no image falls into few" in refusal("data", "split", folder, tmp_path / "out", *parts)
    assert not (tmp_path / "out").exists()


def test_vocab_writes_a_tokenizer_that_a_recipe_can_name(tmp_path, shapes):
    folder = write_folder(tmp_path / "images", 3)
    result = run("data", "vocab", shapes, folder, "--out", tmp_path / "words", "--size", 120)
    assert result.exit_code == 0, result.output
    tokenizer = Tokenizer.from_folder(tmp_path / "words")
    assert tokenizer.decode(tokenizer.encode("the picture 2")) == "the picture 2"
    assert result.stdout.endswith(f"tokenizer = {json.dumps(str(tmp_path / 'words'))}\n")


def test_data_that_is_none_is_one_clear_line(tmp_path):
    assert "no such folder, expected a folder" in refusal("data", "inspect", tmp_path / "nowhere")
    (tmp_path / "a.toml").write_text("steps = 3\n")
    assert "expected a table [data]" in refusal("data", "inspect", tmp_path / "a.toml")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"text": ["a"], "label": [1]})
    parquet.write_table(table, tmp_path / "a.parquet")
    line = refusal("data", "convert", tmp_path / "a.parquet", tmp_path / "out")
    assert "there is no column of images, expected bytes" in line
    assert "its columns are: text, label" in line
