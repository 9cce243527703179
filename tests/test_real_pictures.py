"""The scripts that make data sets of stamps and emoji, on small packages made here."""

import importlib
import json
import lzma
import re
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def on_the_import_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "real_pictures"))


def png(size: tuple[int, int], colour: str) -> bytes:
    """A disc of a colour on nothing."""
    image = Image.new("RGBA", size)
    image.paste(colour, (size[0] // 4, 0, size[0] * 3 // 4, size[1]))
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def tar_of(files: dict[str, bytes], mode: str) -> bytes:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, BytesIO(data))
    return buffer.getvalue()


def write_deb(path: Path, files: dict[str, bytes]) -> None:
    data = lzma.compress(tar_of(files, "w"))
    members = [(b"debian-binary", b"2.0\n"), (b"control.tar.xz", b"odd"), (b"data.tar.xz", data)]
    content = b"!<arch>\n"
    for name, part in members:
        content += name.ljust(16) + b"0".ljust(32) + str(len(part)).encode().ljust(10) + b"`\n"
        content += part + b"\n" * (len(part) % 2)
    path.write_bytes(content)


def captions(folder: Path) -> dict[str, str]:
    rows = map(json.loads, (folder / "metadata.jsonl").read_text().splitlines())
    return {row["file_name"]: row["text"] for row in rows}


def run(name: str, *arguments: object):
    command = importlib.import_module(name).main
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "brown", "pink", "gold")


@pytest.fixture
def stamps(tmp_path: Path) -> Path:
    """A package of 40 photographs with names, and some files that are none of them."""
    stamps = "./usr/share/tuxpaint/stamps"
    files = {f"{stamps}/animals/cartoon/cat.png": png((8, 8), "red"),
             f"{stamps}/animals/cartoon/cat.txt": b"A cat.\n",
             f"{stamps}/animals/long.png": png((8, 8), "red"),
             f"{stamps}/animals/long.txt": b"The animal with the longest name of all.\n",
             f"{stamps}/animals/mute.png": png((8, 8), "red")}  # fmt: skip
    for number in range(40):
        word = "abcdefghij"[number % 10] * (number // 10 + 2)
        files[f"{stamps}/animals/{word}.png"] = png((20, 10 + number), COLOURS[number % 10])
        files[f"{stamps}/animals/{word}.txt"] = f"A {word.title()}.\nde.utf8=Ein {word}.\n".encode()
    files[f"{stamps}/animals/aa.txt"] = b"A A'a.\n"
    folder = tmp_path / "packages"
    folder.mkdir()
    write_deb(folder / "tuxpaint-stamps-default_1_all.deb", files)
    return folder


def test_stamps_makes_a_world_whose_captions_are_true(tmp_path, stamps):
    out = tmp_path / "out"
    module = importlib.import_module("stamps")
    command = [out, "--packages", stamps, "--size", 60]
    # few pictures are enough here
    original, module.N_TEST = module.N_TEST, 10
    try:
        result = run("stamps", *command)
    finally:
        module.N_TEST = original
    assert result.exit_code == 0, result.output
    splits = {path.name: captions(path) for path in out.iterdir()}
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 60, "held_out": 10, "validation": 10, "new_pairs": 10, "new_things": 10,
    }  # fmt: skip
    names = {
        name: [set(map(" ".join, _names(caption))) for caption in rows.values()]
        for name, rows in splits.items()
    }
    assert all(re.fullmatch("[a-z ]+", text) for rows in splits.values() for text in rows.values())
    known = set().union(*names["train"])
    assert "a cat" not in known
    assert not any(things <= known and len(things) == 1 for things in names["new_things"])
    assert not any(things in names["train"] for things in names["new_pairs"])
    for file_name, caption in splits["train"].items():
        if caption.endswith("at the top left"):
            image = Image.open(out / "train" / file_name)
            first, *others = (image.getpixel(place) for place in ((2, 94), (94, 2), (94, 94)))
            # the background, and JPEG's rounding
            assert all(
                abs(a - b) < 9 for other in others for a, b in zip(first, other, strict=True)
            )


def _names(caption: str) -> list[list[str]]:
    """The words of the names in a caption, each of an article and a word."""
    words = caption.split()
    first = [words[:2]]
    return first if " at the " in caption else [*first, words[-2:]]


def test_emoji_tests_on_another_vendor_and_on_new_names(tmp_path):
    names = [f"NÄME-{number}: two's" for number in range(30)]
    table = [{"name": name, "image": f"{n:04x}.png"} for n, name in enumerate(names)]
    packages = tmp_path / "packages"
    packages.mkdir()
    for vendor, colour in (("google", "red"), ("twitter", "blue")):
        files = {f"package/img/{vendor}/64/{row['image']}": png((64, 64), colour) for row in table}
        files["package/emoji.json"] = json.dumps(table).encode()
        files[f"package/img/{vendor}/64/ffff.png"] = png((64, 64), colour)  # a skin tone
        path = packages / f"emoji-datasource-{vendor}-16.0.0.tgz"
        path.write_bytes(tar_of(files, "w:gz"))
    out = tmp_path / "out"
    result = run("emoji", out, "--packages", packages, "--variants", 2)
    assert result.exit_code == 0, result.output
    splits = ("train", "validation", "other_vendor", "new_names")
    train, validation, other, new = (captions(out / name) for name in splits)
    assert validation
    assert not set(validation) & set(other)
    assert len(train) == 2 * len(validation | other)
    assert set(train.values()) == set((validation | other).values())
    names = {*train.values(), *new.values()}
    assert names == {f"name {number} twos" for number in range(30)}
    assert len(new) + len(validation | other) == 30
    assert list(other) != sorted(other)
    assert not set(train.values()) & set(new.values())
    assert new
    file_name = next(iter(other))
    red, _, blue = Image.open(out / "other_vendor" / file_name).getpixel((32, 32))
    assert blue > red  # Twitter's
    again = tmp_path / "again"
    run("emoji", again, "--packages", packages, "--variants", 2)
    name = next(iter(train))
    assert (again / "train" / name).read_bytes() == (out / "train" / name).read_bytes()


def test_a_package_that_is_none_or_cannot_be_fetched_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "tuxpaint-stamps-default_1_all.deb").write_bytes(b"no package")
    result = run("stamps", tmp_path / "out", "--packages", tmp_path)
    assert result.exit_code == 1
    assert "not a Debian package" in result.output
    monkeypatch.setenv("PATH", "")
    result = run("emoji", tmp_path / "out", "--packages", tmp_path / "none")
    assert result.exit_code == 1
    assert "npm pack emoji-datasource-google@16.0.0 failed" in result.output
    assert "put emoji-datasource-google-*.tgz into" in result.output
    assert not (tmp_path / "out").exists()
