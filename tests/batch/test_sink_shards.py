"""Records as WebDataset's shards."""

import json
import tarfile
from pathlib import Path

import pytest
from photos import photo

from git_model.batch import sink_shards as target_shards
from git_model.batch.inputs import Input, InputOptions, find_inputs
from git_model.batch.sink_shards import Shards
from git_model.data.webdataset import WebDatasetData
from git_model.utils.errors import GITError


def pairs(folder: Path, n: int) -> list[tuple[Input, dict[str, str]]]:
    made = [photo(folder / f"{number}.png") for number in range(n)]
    return [
        (Input(path.name, path), {"file_name": path.name, "text": f"text {path.stem}"})
        for path in made
    ]


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_a_shard_has_pictures_texts_and_records(tmp_path: Path) -> None:
    made = pairs(tmp_path, 2)
    assert Shards(str(tmp_path / "x.tar")).finish(made) == []
    found = members(tmp_path / "x.tar")
    assert list(found) == [
        f"00000000{n}.{kind}" for n in range(2) for kind in ("png", "txt", "json")
    ]
    assert found["000000001.png"] == (tmp_path / "1.png").read_bytes()
    assert found["000000001.txt"] == b"text 1"
    assert json.loads(found["000000001.json"]) == made[1][1]


def test_shards_have_equally_many_samples_and_are_data_to_train_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_shards, "SAMPLES", 2)
    target = Shards(str(tmp_path / "x-{000..999}.tar"))
    target.finish(pairs(tmp_path, 5))
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == [
        "x-000.tar", "x-001.tar", "x-002.tar",
    ]  # fmt: skip
    data = WebDatasetData(shards=str(tmp_path / "x-{000..002}.tar"), shuffle=0).open()
    examples = [sealed() for sealed in data.stream(0, 0, 0, 1)]
    assert sorted(one.annotations[0].texts[0] for one in examples) == [
        f"text {n}" for n in range(5)
    ]
    inputs = find_inputs(str(tmp_path / "x-{000..002}.tar"), InputOptions())
    assert sum(1 for _ in inputs) == 5
    target.finish(pairs(tmp_path, 1))  # written anew
    assert [path.name for path in tmp_path.glob("*.tar")] == ["x-000.tar"]
    assert target.place == tmp_path / "x.tar"


def test_several_questions_about_a_picture_are_one_sample(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png")
    made = [
        (Input("a.png", path, asked), {"file_name": "a.png", "question": asked, "answer": "b"})
        for asked in ("x?", "y?")
    ]
    Shards(str(tmp_path / "x.tar")).finish(made)
    found = members(tmp_path / "x.tar")
    assert list(found) == ["000000000.png", "000000000.json"]
    assert [one["question"] for one in json.loads(found["000000000.json"])] == ["x?", "y?"]


def test_what_is_rejected_or_gone_is_left_out_and_told(tmp_path: Path) -> None:
    made = pairs(tmp_path, 4)
    made[0][1]["rejected"] = "too short"
    (tmp_path / "1.png").unlink()
    lost = Shards(str(tmp_path / "x.tar")).finish([*made, (None, {"file_name": "z", "text": "z"})])
    assert [item.key for item, _ in lost] == ["1.png"]
    assert "1.png: No such file" in lost[0][1]
    assert sum(name.endswith(".txt") for name in members(tmp_path / "x.tar")) == 2


def test_shards_that_are_there_are_not_added_to(tmp_path: Path) -> None:
    target = Shards(str(tmp_path / "x-{00..99}.tar"))
    assert list(target.old()) == []
    target.finish(pairs(tmp_path, 1))
    with pytest.raises(GITError, match=r"x-00\.tar: is there already.*--overwrite"):
        target.old()


def test_a_failure_leaves_the_old_shards(tmp_path: Path) -> None:
    target = Shards(str(tmp_path / "x.tar"))
    target.finish(pairs(tmp_path, 1))
    before = (tmp_path / "x.tar").read_bytes()

    def failing():
        yield from pairs(tmp_path, 2)
        raise GITError("the journal is gone")

    with pytest.raises(GITError, match="gone"):
        target.finish(failing())
    assert (tmp_path / "x.tar").read_bytes() == before
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
