"""WebDataset's shards: every example once an epoch for any readers; every fault is one line."""

import io
import json
import sys
import tarfile
from itertools import chain, islice

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from photos import colour_of, photo_bytes
from tiny import tiny_config

from git_model.data.example import Annotation, Stream
from git_model.data.loader import LoaderConfig, StepLoader
from git_model.data.manifests import DataError
from git_model.data.webdataset import WebDatasetData
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.errors import ConfigError, GITError

WORDS = [chr(ord("a") + number) for number in range(26)]
TOKENIZER = Tokenizer.from_vocab(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])


def shard(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def letters(folder, *sizes):
    """Shards of these numbers of examples, whose captions are a, b, c, …"""
    folder.mkdir(exist_ok=True)
    words = iter(WORDS)
    for number, size in enumerate(sizes):
        files = {}
        for word in islice(words, size):
            files[f"{word}.png"] = photo_bytes()
            files[f"{word}.txt"] = word.encode()
        shard(folder / f"{number:02}.tar", files)
    return WebDatasetData(shards=str(folder / f"{{00..{len(sizes) - 1:02}}}.tar"))


def keys(stream, epoch=0, seed=0, reader=0, n_readers=1):
    return [opener().key for opener in stream.stream(epoch, seed, reader, n_readers)]


# Examples


def open_only(tmp_path, files):
    shard(tmp_path / "a.tar", files)
    [open_example] = WebDatasetData(shards=str(tmp_path / "a.tar")).open().stream(0, 0, 0, 1)
    return open_example()


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "JPG", "jpeg"])
def test_an_example_is_an_image_and_its_text(tmp_path, kind):
    image = photo_bytes("blue", {"jpg": "JPEG"}.get(kind.lower(), kind.replace("jpg", "jpeg")))
    example = open_only(tmp_path, {f"x/1.{kind}": image, "x/1.txt": "one\n\n twö ".encode()})
    assert example.key == "x/1"
    assert colour_of(example.media) == (0, 0, 1)
    assert example.annotations == (Annotation(("one", "twö")),)


@pytest.mark.parametrize(
    ("record", "annotations"),
    [
        ({"caption": "one", "url": "x"}, (Annotation(("one",)),)),
        ({"question": "what?", "answer": "it"}, (Annotation(("it",), "what?"),)),
        (
            [{"text": "one"}, {"question": "what?", "answer": "it"}, {"text": "two"}],
            (Annotation(("one", "two")), Annotation(("it",), "what?")),
        ),
    ],
)
def test_texts_may_stand_in_json(tmp_path, record, annotations):
    files = {"1.json": json.dumps(record).encode(), "1.jpg": photo_bytes()}
    assert open_only(tmp_path, files).annotations == annotations


def test_txt_takes_precedence_over_json(tmp_path):
    files = {"1.json": b'{"caption": "one"}', "1.txt": b"two", "1.jpg": photo_bytes()}
    assert open_only(tmp_path, files).annotations == (Annotation(("two",)),)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.txt": b"a"}, "there is no image, expected .jpg"),
        ({"1": photo_bytes(), "1.txt": b"a"}, "there is no image, expected .jpg"),
        ({"1.jpg": photo_bytes(), "1.png": photo_bytes(), "1.txt": b"a"}, "jpg and png, expected"),
        ({"1.jpg": photo_bytes()}, "there is no text, expected .txt or .json"),
        ({"1.jpg": b"", "1.txt": b"a"}, "the file is empty"),
        ({"1.jpg": b"a cat", "1.txt": b"a"}, "not an image"),
        ({"1.jpg": photo_bytes(), "1.txt": b"\xff"}, "not UTF-8"),
        ({"1.jpg": photo_bytes(), "1.json": b"\xff"}, "not UTF-8"),
        ({"1.jpg": photo_bytes(), "1.json": b"{"}, "not valid JSON"),
        ({"1.jpg": photo_bytes(), "1.json": b"{}"}, "text 1: there is no text"),
    ],
)
def test_a_fault_in_an_example_is_one_line(tmp_path, files, message):
    with pytest.raises(GITError) as error:
        open_only(tmp_path, files)
    assert str(error.value).startswith(f"{tmp_path / 'a.tar'}: 1: ")
    assert message in str(error.value)


# Readers


@pytest.mark.parametrize("sizes", [(3, 1, 4, 1, 5), (9,), (2, 0, 3)])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n_readers=st.integers(1, 7), epoch=st.integers(0, 3), shuffle=st.sampled_from([0, 1, 2, 99]))
def test_all_readers_together_get_each_example_once(tmp_path, sizes, n_readers, epoch, shuffle):
    shards = letters(tmp_path / "shards", *sizes).shards
    stream = WebDatasetData(shards=shards, shuffle=shuffle).open()
    assert isinstance(stream, Stream)
    parts = [keys(stream, epoch, 0, reader, n_readers) for reader in range(n_readers)]
    assert sorted(chain(*parts)) == WORDS[: sum(sizes)]


def test_each_epoch_and_seed_has_an_order_of_its_own(tmp_path):
    stream = letters(tmp_path, 4, 4, 4, 4).open()
    orders = {tuple(keys(stream, epoch, seed)) for epoch in range(3) for seed in range(3)}
    assert len(orders) == 9
    assert keys(stream, 2, 1) == keys(stream, 2, 1)


def test_without_shuffling_a_shard_is_read_in_its_order(tmp_path):
    shards = letters(tmp_path, 9).shards
    assert keys(WebDatasetData(shards=shards, shuffle=0).open()) == WORDS[:9]


def test_the_first_example_is_drawn_from_the_whole_shuffle_buffer(tmp_path):
    shards = letters(tmp_path, 9).shards
    for size in (1, 4, 9):
        stream = WebDatasetData(shards=shards, shuffle=size).open()
        assert {keys(stream, seed=seed)[0] for seed in range(99)} == set(WORDS[:size])


# Shards


def test_shards_may_be_named_by_a_pattern(tmp_path):
    letters(tmp_path, 1, 1, 1)
    for pattern, captions in (("0{0,2}.tar", "ac"), ("*.tar", "abc"), ("01.tar", "b")):
        stream = WebDatasetData(shards=str(tmp_path / pattern)).open()
        assert sorted(keys(stream)) == list(captions)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("none.tar", "none.tar: no such shard"),
        ("none-*.tar", "no shard has such a name"),
        ("{00..01}.tar", "01.tar: no such shard"),
        ("{00..01.tar", "01.tar: Unbalanced"),
        ("", "no such shard"),
    ],
)
def test_missing_shards_are_refused(tmp_path, pattern, message):
    letters(tmp_path, 1)
    with pytest.raises(DataError, match=message):
        WebDatasetData(shards=str(tmp_path / pattern)).open()


def test_without_webdataset_the_extra_is_named(tmp_path, monkeypatch):
    data = letters(tmp_path, 1)
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(DataError, match=r"pip install 'git-model\[webdataset\]'"):
        data.open()


def test_a_negative_shuffle_is_refused():
    with pytest.raises(ConfigError, match="shuffle is -1, expected 0 or more"):
        WebDatasetData(shards="a.tar", shuffle=-1)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.6, 0.8])
def test_a_damaged_shard_is_one_broken_example_and_the_others_continue(tmp_path, share):
    shards = letters(tmp_path, 3, 3)
    data = (tmp_path / "00.tar").read_bytes()
    (tmp_path / "00.tar").write_bytes(data[: int(share * 1536 * 3)])
    good, bad = [], []
    for open_example in shards.open().stream(0, 0, 0, 1):
        try:
            good.append(open_example().key)
        except GITError as error:
            bad.append(str(error))
    assert set("def") <= set(good) < set("abcdef")
    assert len(bad) >= 1
    assert any("00.tar: the shard is damaged: " in line for line in bad)
    assert all("\n" not in line for line in bad)


def test_a_file_that_comes_twice_is_a_damaged_shard(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("1.txt"))
    [open_example] = WebDatasetData(shards=str(tmp_path / "a.tar")).open().stream(0, 0, 0, 1)
    with pytest.raises(DataError, match=r"the shard is damaged: 1\.txt: duplicate file name"):
        open_example()


# A loader of shards


def step_loader(data, **options):
    options = {"batch_size": 4, "max_tokens": 24, **options}
    return StepLoader(data.open(), TOKENIZER, tiny_config(), LoaderConfig(**options))


def captions(steps):
    return [WORDS[row[1] - 4] for batches in steps for batch in batches for row in batch.tokens]


@pytest.mark.parametrize(("n_ranks", "workers"), [(1, 0), (1, 2), (2, 0), (2, 2)])
def test_an_epoch_of_shards_is_learned_once_by_all_processes_together(tmp_path, n_ranks, workers):
    data = letters(tmp_path, *[4] * 4)  # one for each reader
    words = []
    for rank in range(n_ranks):
        words += captions(step_loader(data, workers=workers).steps(1, 4, rank, n_ranks))
    assert sorted(words) == WORDS[:16]


@pytest.mark.parametrize("workers", [0, 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine's cores
def test_a_loader_of_shards_continues_at_any_step(tmp_path, workers):
    data = letters(tmp_path, *[2] * 9)
    whole = list(step_loader(data, workers=workers).steps(1, 12))
    for first in (2, 5, 9):
        rest = list(step_loader(data, workers=workers).steps(first, 12))
        assert captions(rest) == captions(whole[first - 1 :])
    assert torch.equal(rest[0][0].pixels, whole[8][0].pixels)


def test_answers_are_drawn_anew_in_every_epoch(tmp_path):
    record = json.dumps({"question": "x", "answers": ["a", "b", "c"]}).encode()
    for shard_name in ("0.tar", "1.tar"):
        shard(tmp_path / shard_name, {"1.json": record, "1.png": photo_bytes()})
    data = WebDatasetData(shards=str(tmp_path / "*.tar"))
    answers = [
        [
            batch.tokens[0, 2].item()
            for [batch] in step_loader(data, batch_size=2).steps(1, 20, rank, 2)
        ]
        for rank in (0, 1)
    ]
    assert set(answers[0]) == set(answers[1]) == {4, 5, 6}
    assert answers[0] != answers[1]


def test_one_worker_reads_shards_as_the_process_itself_does(tmp_path):
    data = letters(tmp_path, 3, 3, 3)
    alone, with_worker = (captions(step_loader(data, workers=n).steps(1, 6)) for n in (0, 1))
    assert alone == with_worker


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_examples_of_shards_are_left_out_and_named(tmp_path, workers):
    data = letters(tmp_path, 3, 3)
    shard(tmp_path / "02.tar", {"x.jpg": b"no picture", "x.txt": b"x"})
    data = WebDatasetData(shards=str(tmp_path / "{00..02}.tar"))
    loader = step_loader(data, workers=workers, batch_size=7)
    steps = list(loader.steps(1, 4))
    assert set(captions(steps)) == set("abcdef")
    assert loader.broken.reasons == [
        f"{tmp_path / '02.tar'}: x: not an image, expected JPEG, PNG or another format that "
        "Pillow reads"
    ]
    with pytest.raises(GITError, match="1 examples cannot be read, expected at most 0"):
        list(step_loader(data, workers=workers, batch_size=7, broken_limit=0).steps(1, 4))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_reader_without_examples_ends_it_in_one_line(tmp_path, workers):
    data = letters(tmp_path, 1)
    with pytest.raises(GITError, match=r"^reader \d of \d finds no example in its part .* stream"):
        list(step_loader(data, workers=workers, batch_size=2).steps(1, 2, rank=1, n_ranks=2))
