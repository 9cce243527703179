"""Which example comes when: the same on any number of processes, helpers and restarts."""

import os
import pickle
import signal
from dataclasses import replace
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import tiny_config

from git_model.data.augmentation import AugmentConfig
from git_model.data.example import Annotation, Example
from git_model.data.loader import LoaderConfig, StepLoader
from git_model.data.readings import Share
from git_model.data.sampler import visits
from git_model.preprocessing.image import preprocess
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.errors import ConfigError, GITError

WORDS = [chr(ord("a") + number) for number in range(26)]
TOKENIZER = Tokenizer.from_vocab(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])
CONFIG = tiny_config()


class Greys:
    """Example i is a picture of grey 9 * i, whose caption is the letter i."""

    def __init__(self, n, broken=(), sizes=((24, 16),), answers=None, more=()):
        self.n, self.broken, self.sizes, self.answers = n, broken, sizes, answers
        self.more = more  # captions

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if index in self.broken:
            raise GITError(f"{index}.jpg: cut short")
        picture = Image.new("RGB", self.sizes[index % len(self.sizes)], (9 * index,) * 3)
        picture.paste("white", (0, 0, 5, 5))
        target = Annotation((WORDS[index], *self.more))
        if self.answers:
            target = Annotation(self.answers, "a b")
        return Example(str(index), picture, (target,))


def feed(source, seed=0, **options):
    options = LoaderConfig(**{"max_tokens": 24, **options})
    return StepLoader(source, TOKENIZER, CONFIG, options, seed=seed)


def letters(batches):
    """Which examples are in there, by their captions."""
    return [int(row[1]) - 4 for batch in batches for row in batch.tokens]


def same(one, other):
    parts = [[(b.pixels, b.tokens, b.mask) for b in batches] for batches in (one, other)]
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(*parts, strict=True) for a, b in zip(x, y, strict=True)
    )


# Batches


@settings(max_examples=20, deadline=None)
@given(n_ranks=st.integers(1, 4), size=st.integers(4, 10), micro=st.none() | st.integers(1, 5))
def test_processes_share_a_step_and_cut_it_as_they_like(n_ranks, size, micro):
    made = feed(Greys(10, sizes=((24, 16), (16, 24))), batch_size=size, micro_batch=micro)
    for step in (1, 2, 3):
        parts = [next(made.steps(step, step, rank, n_ranks)) for rank in range(n_ranks)]
        found = [letter for batches in parts for letter in letters(batches)]
        assert sorted(found) == sorted(index for _, index in visits(step, 10, size, seed=0))
        assert all(len(b.pixels) <= (micro or size) for batches in parts for b in batches)


OPTIONS = {
    "plain": {},
    "augmented": {"augment": AugmentConfig(flip=0.5), "micro_batch": 2},
    "answers": {"seed": 5},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine's cores
def test_helpers_change_nothing(name, workers):
    source = Greys(10, broken=(4,), answers=("a", "b", "c") if name == "answers" else None)
    options = {"batch_size": 4, **OPTIONS[name]}
    alone, helped = (feed(source, workers=n, **options) for n in (0, workers))
    one, other = list(alone.steps(1, 7)), list(helped.steps(1, 7))
    assert len(one) == 7
    assert all(same(a, b) for a, b in zip(one, other, strict=True))
    assert alone.broken == helped.broken != []


def test_a_feed_that_goes_on_at_a_step_is_as_one_that_never_stopped():
    options = {"batch_size": 4, "augment": AugmentConfig(flip=0.5)}
    source = Greys(10, answers=("a", "b", "c"))
    whole = list(feed(source, **options).steps(1, 8))
    rest = list(feed(source, **options).steps(5, 8))
    assert all(same(a, b) for a, b in zip(whole[4:], rest, strict=True))
    assert not same(whole[4], whole[5])
    assert list(feed(source, **options).steps(9, 8)) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_torchs_random_numbers_are_left_to_dropout(workers):
    before = torch.get_rng_state()
    list(feed(Greys(10), batch_size=4, workers=workers).steps(1, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_each_visit_draws_anew():
    made = feed(Greys(4, answers=("a", "b", "c")), batch_size=4)
    drawn = [batch.tokens[:, 3].tolist() for [batch] in made.steps(1, 12)]
    assert len(set(map(tuple, drawn))) > 6
    assert {token for row in drawn for token in row} == {4, 5, 6}


def test_pictures_are_mirrored_only_if_asked_for():
    def corners(flip):
        made = feed(Greys(10, sizes=((16, 16),)), batch_size=10, augment=AugmentConfig(flip=flip))
        [[batch]] = made.steps(1, 1)
        return (batch.pixels[:, 0, 0, 0] < batch.pixels[:, 0, 0, -1]).tolist()

    assert not any(corners(0.0))
    assert all(corners(1.0))
    assert 0 < sum(corners(0.5)) < 10


def test_a_crop_is_stretched_to_what_the_model_sees():
    whole = AugmentConfig(scale=(1.0, 1.0), ratio=(1.5, 1.5))  # of 24 x 16 pixels it leaves all
    source = Greys(3)
    [[batch]] = feed(source, batch_size=3, augment=whole).steps(1, 1)
    stretched = replace(CONFIG.preprocess, exact=(16, 16), short_side=None, crop=None)
    for pixels, index in zip(batch.pixels, letters([batch]), strict=True):
        assert torch.equal(pixels, preprocess(source[index].media, stretched))


def test_without_augmentation_pictures_are_seen_as_after_training():
    [[plain]] = feed(Greys(1), batch_size=1).steps(1, 1)
    [[again]] = feed(Greys(1), batch_size=1).steps(2, 2)
    assert torch.equal(plain.pixels, again.pixels)


def test_of_many_texts_some_are_drawn():
    made = feed(Greys(1, more=("y", "z")), batch_size=1, max_texts=2)
    drawn = [letters(batches) for batches in made.steps(1, 30)]
    assert all(len(set(row)) == 2 for row in drawn)
    assert {letter for row in drawn for letter in row} == {0, 24, 25}


# Broken examples


def test_a_broken_example_is_left_out_and_named_once():
    made = feed(Greys(6, broken=(1, 4)), batch_size=3)
    steps = list(made.steps(1, 6))
    assert sorted(letters(chain(*steps))) == sorted([0, 2, 3, 5] * 3)
    assert sorted(item.reason for item in made.broken) == ["1.jpg: cut short", "4.jpg: cut short"]
    for item in made.broken:
        assert int(item.reason[0]) in [index for _, index in visits(item.step, 6, 3, seed=0)]


def test_a_process_whose_share_is_broken_has_no_batches():
    made = feed(Greys(2, broken=(1,)), batch_size=2)
    parts = [next(made.steps(1, 1, rank, 2)) for rank in (0, 1)]
    assert sorted(map(len, parts)) == [0, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_broken_examples_end_it_in_one_line(workers):
    made = feed(Greys(9, broken=(1, 4, 7)), batch_size=3, broken_limit=2, workers=workers)
    with pytest.raises(GITError, match=r"^3 examples cannot be read, .* at most 2; .*short$"):
        list(made.steps(1, 3))
    assert len(made.broken) == 3


def test_a_source_of_which_nothing_can_be_read_ends_it_below_the_limit():
    made = feed(Greys(3, broken=(0, 1, 2)), batch_size=3)
    with pytest.raises(GITError, match="3 examples cannot be read, expected at most 2"):
        list(made.steps(1, 9))


def test_what_is_wrong_with_an_example_is_told_with_its_key():
    made = feed(Greys(3, sizes=((24, 16), (24, 16), (0, 16))), batch_size=3)
    list(made.steps(1, 3))
    [item] = made.broken
    assert item.reason == "2: a picture of mode RGB: 0 x 16 pixels, expected at least 1 x 1"


# Helpers


def test_what_helpers_get_can_be_sent_to_them_where_processes_are_not_forked():
    share = Share(batch_size=3, rank=0, n_ranks=1)
    readings = feed(Greys(9), batch_size=3)._readings(range(1, 3), share)
    sent = pickle.loads(pickle.dumps(readings))
    assert same(sent[1].batches, readings[1].batches)


class Patient(Greys):
    """Tells the process that asks for a picture to end, as a cluster does."""

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        return super().__getitem__(index)


def test_helpers_leave_signals_to_the_process_that_saves():
    assert len(list(feed(Patient(4), batch_size=2, workers=2).steps(1, 3))) == 3


class Deadly(Greys):
    """Its process is ended, as by a kernel that is out of memory."""

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_helper_that_was_killed_is_told_in_one_line():
    with pytest.raises(GITError, match=r"ended from outside, .*: use fewer workers") as error:
        list(feed(Deadly(4), batch_size=2, workers=1).steps(1, 3))
    assert "\n" not in str(error.value)


# What is refused


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("micro_batch", 0),
        ("workers", -1),
        ("max_tokens", 2),
        ("max_texts", 0),
        ("broken_limit", -1),
    ],
)
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} is {value}, expected at least"):
        LoaderConfig(**{"batch_size": 1, name: value})


def test_an_epoch_smaller_than_a_batch_is_refused():
    with pytest.raises(ConfigError, match="batch_size is 4, but there are only 3 examples"):
        feed(Greys(3), batch_size=4)


def test_texts_longer_than_the_model_are_refused():
    with pytest.raises(ConfigError, match=r"max_tokens is 25, .* positions for 24 tokens"):
        feed(Greys(3), batch_size=1, max_tokens=25)


def test_a_negative_seed_is_refused():
    with pytest.raises(ConfigError, match="seed is -1, expected 0 or more"):
        feed(Greys(3), seed=-1, batch_size=1)


def test_more_processes_than_pictures_are_refused():
    with pytest.raises(ConfigError, match="batch_size is 2, but there are 3 processes"):
        next(feed(Greys(3), batch_size=2).steps(1, 1, 0, 3))
