"""Records as WebDataset's shards."""

import json
import tarfile
from pathlib import Path

import pytest
from photos import photo

from git_model.batch import sinks
from git_model.batch.inputs import InputOptions, find_inputs
from git_model.batch.items import Input
from git_model.batch.sinks import ShardSink
from git_model.data.webdataset import WebDatasetData
from git_model.utils.errors import GITError


def pairs(folder: Path, n: int) -> list[tuple[Input, dict[str, str]]]:
    paths = [photo(folder / f"{number}.png") for number in range(n)]
    return [
        (Input(path.name, path), {"file_name": path.name, "text": f"text {path.stem}"})
        for path in paths
    ]


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_a_shard_has_images_texts_and_records(tmp_path: Path) -> None:
    records = pairs(tmp_path, 2)
    assert ShardSink(str(tmp_path / "x.tar")).finish(records) == []
    files = members(tmp_path / "x.tar")
    assert list(files) == [
        f"00000000{n}.{kind}" for n in range(2) for kind in ("png", "txt", "json")
    ]
    assert files["000000001.png"] == (tmp_path / "1.png").read_bytes()
    assert files["000000001.txt"] == b"text 1"
    assert json.loads(files["000000001.json"]) == records[1][1]


def test_shards_have_equally_many_samples_and_are_data_to_train_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "SAMPLES_PER_SHARD", 2)
    sink = ShardSink(str(tmp_path / "x-{000..999}.tar"))
    sink.finish(pairs(tmp_path, 5))
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == [
        "x-000.tar", "x-001.tar", "x-002.tar",
    ]  # fmt: skip
    data = WebDatasetData(shards=str(tmp_path / "x-{000..002}.tar"), shuffle=0).open()
    examples = [open_example() for open_example in data.stream(0, 0, 0, 1)]
    assert sorted(example.annotations[0].texts[0] for example in examples) == [
        f"text {n}" for n in range(5)
    ]
    inputs = find_inputs(str(tmp_path / "x-{000..002}.tar"), InputOptions())
    assert sum(1 for _ in inputs) == 5
    sink.finish(pairs(tmp_path, 1))  # written anew
    assert [path.name for path in tmp_path.glob("*.tar")] == ["x-000.tar"]
    assert sink.path == tmp_path / "x.tar"


def test_several_questions_about_an_image_are_one_sample(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png")
    records = [
        (Input("a.png", path, text), {"file_name": "a.png", "question": text, "answer": "b"})
        for text in ("x?", "y?")
    ]
    ShardSink(str(tmp_path / "x.tar")).finish(records)
    files = members(tmp_path / "x.tar")
    assert list(files) == ["000000000.png", "000000000.json"]
    answers = json.loads(files["000000000.json"])
    assert [answer["question"] for answer in answers] == ["x?", "y?"]


def test_what_is_rejected_or_gone_is_left_out_and_reported(tmp_path: Path) -> None:
    records = pairs(tmp_path, 4)
    records[0][1]["rejected"] = "too short"
    (tmp_path / "1.png").unlink()
    gone = (None, {"file_name": "z", "text": "z"})
    failures = ShardSink(str(tmp_path / "x.tar")).finish([*records, gone])
    assert [item.key for item, _ in failures] == ["1.png"]
    assert "1.png: No such file" in failures[0][1]
    assert sum(name.endswith(".txt") for name in members(tmp_path / "x.tar")) == 2


def test_shards_that_are_there_are_not_added_to(tmp_path: Path) -> None:
    sink = ShardSink(str(tmp_path / "x-{00..99}.tar"))
    assert list(sink.old_records()) == []
    sink.finish(pairs(tmp_path, 1))
    with pytest.raises(GITError, match=r"x-00\.tar: already exists.*--overwrite"):
        sink.old_records()


def test_a_failure_leaves_the_old_shards(tmp_path: Path) -> None:
    sink = ShardSink(str(tmp_path / "x.tar"))
    sink.finish(pairs(tmp_path, 1))
    before = (tmp_path / "x.tar").read_bytes()

    def failing():
        yield from pairs(tmp_path, 2)
        raise GITError("the journal is gone")

    with pytest.raises(GITError, match="gone"):
        sink.finish(failing())
    assert (tmp_path / "x.tar").read_bytes() == before
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
