"""Inputs in tars and in the original's TSV: found by their headers, kept where they lie."""

import base64
import gzip
import io
import os
import tarfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from photos import colour_of, photo_bytes, write_tar

from git_model.batch.inputs import TarInputs, TsvInputs
from git_model.batch.items import Input, RefusedInput
from git_model.data.folder import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from git_model.data.tar import MAX_HEADER_BYTES


def in_tars(*paths, suffixes=IMAGE_SUFFIXES):
    inputs = TarInputs(paths, suffixes)
    items = list(inputs)
    assert list(inputs) == items
    for item in items:
        assert isinstance(item, Input) or len(item.reason.splitlines()) == 1
    return items


def special(path, *members):
    """A tar of members that need not be files, between two pictures."""
    with tarfile.open(path, "w") as tar:
        for member, data in ((tarfile.TarInfo("1.png"), photo_bytes()), *members,
                             (tarfile.TarInfo("9.png"), photo_bytes("blue"))):  # fmt: skip
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


# Tars


def test_a_tars_images_are_read_where_they_lie(tmp_path):
    long = "long/" * 40 + "é.PNG"
    files = {"a/1.png": photo_bytes(), "a/1.txt": b"x", "a/2.mp4": b"x", long: photo_bytes("blue")}
    path = write_tar(tmp_path / "x.tar", files)
    first, second = in_tars(path)
    assert (first.key, second.key) == ("a/1.png", long)
    assert colour_of(first.open(0)) == (1, 0, 0)
    assert colour_of(second.open(0)) == (0, 0, 1)
    assert second.read() == files[long]
    assert second.location.archive == path
    assert [item.key for item in in_tars(path, suffixes=IMAGE_SUFFIXES + VIDEO_SUFFIXES)][
        1
    ] == "a/2.mp4"


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_format_are_read(tmp_path, kind):
    path, name = tmp_path / "x.tar", "d" * 90 + "/" + os.fsdecode(b"\xff" + b"n" * 80) + ".png"
    with tarfile.open(path, "w", format=kind) as tar:
        for key in ("./1.png", name):
            info = tarfile.TarInfo(key)
            info.size = len(photo_bytes())
            tar.addfile(info, io.BytesIO(photo_bytes()))
    items = in_tars(path)
    assert [item.key for item in items] == ["1.png", name]
    assert all(item.read() == photo_bytes() for item in items)


def test_keys_of_several_tars_begin_with_the_tars_name(tmp_path):
    for name in ("a/0.tar", "b/0.tar", "b/1.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_tar(tmp_path / name, {"1.png": photo_bytes()})
    items = in_tars(tmp_path / "a/0.tar", tmp_path / "b/0.tar", tmp_path / "b/1.tar")
    assert [item.key for item in items] == ["a/0/1.png", "b/0/1.png", "b/1/1.png"]
    items = in_tars(tmp_path / "b/0.tar", tmp_path / "b/1.tar")
    assert [item.key for item in items] == ["0/1.png", "1/1.png"]


@pytest.mark.parametrize(
    ("name", "kind", "link", "message"),
    [
        ("../2.png", tarfile.REGTYPE, "", "leaves its folder"),
        ("a/../../2.png", tarfile.REGTYPE, "", "leaves its folder"),
        ("/etc/2.png", tarfile.REGTYPE, "", "leaves its folder"),
        ("..\\2.png", tarfile.REGTYPE, "", "leaves its folder"),
        ("2.png", tarfile.SYMTYPE, "/etc/passwd", "a link, a folder or the like"),
        ("2.png", tarfile.LNKTYPE, "1.png", "a link, a folder or the like"),
        ("2.png", tarfile.DIRTYPE, "", "a link, a folder or the like"),
        ("2.png", tarfile.FIFOTYPE, "", "a link, a folder or the like"),
        ("2.png", tarfile.CHRTYPE, "", "a link, a folder or the like"),
    ],
)
def test_a_member_that_is_no_file_below_is_refused(tmp_path, name, kind, link, message):
    path = special(tmp_path / "x.tar", member(name, kind, link))
    first, bad, last = in_tars(path)
    assert (first.key, last.key) == ("1.png", "9.png")
    assert colour_of(last.open(0)) == (0, 0, 1)
    assert bad.reason.startswith(f"{path}: {name}: ")
    assert message in bad.reason


def test_what_is_hidden_in_a_tar_is_passed_over(tmp_path):
    path = special(tmp_path / "x.tar", member("._2.png"), member(".d/2.png"), member("2.txt"))
    assert [item.key for item in in_tars(path)] == ["1.png", "9.png"]


@pytest.mark.parametrize("part", [0.0, 0.1, 0.3, 0.55, 0.7])
def test_a_tar_that_is_cut_gives_what_is_whole_and_one_line(tmp_path, part):
    path = write_tar(tmp_path / "x.tar", {f"{n}.png": photo_bytes() for n in range(5)})
    size = 5 * 1024 + 1024  # five members and the end; what follows fills the last record
    path.write_bytes(path.read_bytes()[: int(part * size)])
    *good, bad = in_tars(path)
    assert [item.key for item in good] == [f"{n}.png" for n in range(len(good))]
    assert bad.key == "x.tar"
    assert bad.reason.startswith(f"{path}: the tar is damaged, the rest is not read: ")
    for item in good:
        item.open(0)


@pytest.mark.parametrize("n_members", [1, 3])
def test_a_tar_without_its_end_is_one_line(tmp_path, n_members):
    path = write_tar(tmp_path / "x.tar", {f"{n}.png": photo_bytes() for n in range(n_members)})
    path.write_bytes(path.read_bytes()[: 1024 * n_members])
    *good, bad = in_tars(path)
    assert len(good) == n_members
    assert "it is cut short" in bad.reason


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    path = write_tar(tmp_path / "x.tar", {f"{n}.png": photo_bytes() for n in range(5)})
    data = bytearray(path.read_bytes())
    data[2048:2060] = b"\xff" * 12
    path.write_bytes(data)
    *good, bad = in_tars(path)
    assert len(good) == 2
    assert isinstance(bad, RefusedInput)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            gzip.compress(bytes(512), mtime=0),
            "it is compressed with gzip, expected a plain tar: unpack it first",
        ),
        (b"BZh9" + bytes(600), "it is compressed with bzip2"),
        (b"a cat" * 200, "the tar is damaged"),
        (b"", "the tar is damaged, the rest is not read: empty file"),
    ],
)
def test_what_is_no_tar_is_one_line(tmp_path, data, message):
    (tmp_path / "x.tar").write_bytes(data)
    [bad] = in_tars(tmp_path / "x.tar")
    assert bad.reason.startswith(f"{tmp_path}/x.tar: {message}")


def test_a_tar_that_is_gone_is_one_line_and_the_next_is_read(tmp_path):
    path = write_tar(tmp_path / "2.tar", {"1.png": photo_bytes()})
    bad, good = in_tars(tmp_path / "1.tar", path)
    assert bad == RefusedInput("1", f"{tmp_path}/1.tar: No such file or directory")
    assert good.key == "2/1.png"


def header(name, size, kind=tarfile.REGTYPE):
    """A header that claims any size."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "begin",
    [
        header("2.png", 1 << 60),
        header("2.png", -512),
        header("2.png", -1024),
        header("2", 1 << 40, tarfile.GNUTYPE_LONGNAME),
        header("2", -512, tarfile.GNUTYPE_LONGNAME),
        header("2", MAX_HEADER_BYTES + 1, tarfile.XHDTYPE) + bytes(2 * MAX_HEADER_BYTES),
        header("2", -1024, tarfile.XGLTYPE),
        header("2", 0, tarfile.GNUTYPE_LONGNAME) * 3000,
    ],
    ids=["huge", "back", "far back", "long name", "negative name", "pax", "negative pax", "many"],
)
def test_claims_of_a_header_take_no_memory_and_no_time(tmp_path, begin):
    path = special(tmp_path / "x.tar")
    path.write_bytes(begin + path.read_bytes())
    tracemalloc.start()
    *good, bad = in_tars(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(good) <= 1
    assert "the tar is damaged" in bad.reason
    assert peak < 8 * MAX_HEADER_BYTES


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 4095), st.binary(min_size=1, max_size=9)), max_size=5))
def test_a_tar_with_bytes_changed_never_breaks_the_walk(tmp_path, changes):
    path = special(tmp_path / "x.tar")
    data = bytearray(path.read_bytes())
    for offset, new in changes:
        data[offset : offset + len(new)] = new
    path.write_bytes(data)
    for item in in_tars(path):
        assert not item.key.startswith(("/", "..")) or isinstance(item, RefusedInput)


# The original's TSV


def tsv(path, rows, index=None, end=b"\n"):
    """Rows of bytes; index: None, "text" or "binary"."""
    lines = [key + b"\t" + base64.b64encode(data) + end for key, data in rows]
    path.write_bytes(b"".join(lines))
    starts = np.cumsum([0, *map(len, lines)])[:-1]
    if index == "text":
        path.with_suffix(".lineidx").write_text("".join(f"{start}\n" for start in starts))
    if index == "binary":
        starts.astype("<i8").tofile(path.with_suffix(".lineidx.8b"))
    return path


def in_tsv(path):
    inputs = TsvInputs(path)
    items = list(inputs)
    assert list(inputs) == items
    return items


@pytest.mark.parametrize("index", [None, "text", "binary"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_rows_are_read_where_they_lie(tmp_path, index, end):
    rows = [(b"a 1", photo_bytes()), (b"\xff", photo_bytes("blue")), (b"c", b"")]
    path = tsv(tmp_path / "x.tsv", rows, index, end)
    items = in_tsv(path)
    assert [os.fsencode(item.key) for item in items] == [key for key, _ in rows]
    assert [item.read() for item in items] == [data for _, data in rows]
    assert colour_of(items[1].open(0)) == (0, 0, 1)
    if index is None:
        path.write_bytes(path.read_bytes().removesuffix(end))
        assert [item.read() for item in in_tsv(path)] == [data for _, data in rows]


def test_rows_longer_than_what_is_read_at_once_are_found(tmp_path):
    rows = [(b"a", bytes(2_000_000)), (b"b", bytes(900_000)), (b"c", b"x")]
    items = in_tsv(tsv(tmp_path / "x.tsv", rows))
    assert [item.read() for item in items] == [data for _, data in rows]


@pytest.mark.parametrize("line", [b"", b"no tab", b"\tno key"])
def test_a_row_without_a_key_is_refused(tmp_path, line):
    path = tmp_path / "x.tsv"
    path.write_bytes(b"a\tAA==\n" + line + b"\nb\tAA==\n")
    first, bad, last = in_tsv(path)
    assert (first.key, last.key) == ("a", "b")
    assert bad.key == "x.tsv: row 2"
    begin = (line + b"\n")[:40]
    assert bad.reason == f"{path}: row 2: begins {begin!r}, expected a key, a tab and base64"


def test_a_key_of_any_length_is_no_key(tmp_path):
    first, bad, last = in_tsv(
        tsv(tmp_path / "x.tsv", [(b"a", b""), (b"k" * 5000, b""), (b"b", b"")])
    )
    assert (first.key, last.key) == ("a", "b")
    assert bad.reason.endswith("row 2: its key has more than 4096 bytes, expected a shorter one")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("0\n9\n", "row 2: the file .lineidx is of another TSV, expected the beginnings"),
        ("0\n99\n", "row 2: the file .lineidx is of another TSV, expected rising numbers"),
        ("7\n0\n", "row 1: the file .lineidx is of another TSV, expected rising numbers"),
        ("-3\n", "row 1: the file .lineidx is of another TSV, expected rising numbers"),
        ("0\nx\n", "row 1: {index}: expected a number on each line, line 2 has none, the"),
        (
            "0\n" + "9" * 5000,
            "row 1: {index}: expected a number on each line, line 2 has none, the",
        ),
    ],
)
def test_an_index_of_another_file_is_refused(tmp_path, index, message):
    path = tsv(tmp_path / "x.tsv", [(b"a", b"x"), (b"b", b"x")])
    assert path.stat().st_size == 14
    path.with_suffix(".lineidx").write_text(index)
    bad = [item for item in in_tsv(path) if isinstance(item, RefusedInput)]
    message = message.format(index=path.with_suffix(".lineidx"))
    assert bad[0].reason.startswith(f"{path}: {message}")


def test_a_cut_index_of_numbers_is_refused(tmp_path):
    path = tsv(tmp_path / "x.tsv", [(b"a", b"x"), (b"b", b"x")], "binary")
    beside = path.with_suffix(".lineidx.8b")
    beside.write_bytes(beside.read_bytes()[:-3])
    [bad] = in_tsv(path)
    assert bad.reason.endswith("x.lineidx.8b is cut short, the rest is not read")


def test_a_tsv_that_is_gone_is_one_line(tmp_path):
    [bad] = in_tsv(tmp_path / "x.tsv")
    assert bad.reason == f"{tmp_path}/x.tsv: row 1: No such file or directory, the rest is not read"
