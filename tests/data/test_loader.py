"""The batches of every step: the same on any number of processes, workers and restarts."""

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
from git_model.data.loader import LoaderConfig, StepLoader, StepShare
from git_model.data.sampler import epoch_indices
from git_model.preprocessing.image import preprocess
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.errors import ConfigError, GITError

WORDS = [chr(ord("a") + number) for number in range(26)]
TOKENIZER = Tokenizer.from_vocab(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])
CONFIG = tiny_config()


class Greys:
    """Example i is an image of grey 9 * i, whose caption is the letter i."""

    def __init__(self, n, broken=(), sizes=((24, 16),), answers=None, more=()):
        self.n, self.broken, self.sizes, self.answers = n, broken, sizes, answers
        self.more = more  # captions

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if index in self.broken:
            raise GITError(f"{index}.jpg: cut short")
        image = Image.new("RGB", self.sizes[index % len(self.sizes)], (9 * index,) * 3)
        image.paste("white", (0, 0, 5, 5))
        annotation = Annotation((WORDS[index], *self.more))
        if self.answers:
            annotation = Annotation(self.answers, "a b")
        return Example(str(index), image, (annotation,))


def step_loader(source, seed=0, config=CONFIG, **options):
    options = LoaderConfig(**{"max_tokens": 24, **options})
    return StepLoader(source, TOKENIZER, config, options, seed=seed)


def letters(batches):
    """The indices of the examples in these batches, from their captions."""
    return [int(row[1]) - 4 for batch in batches for row in batch.tokens]


def same(first, second):
    parts = [[(b.pixels, b.tokens, b.mask) for b in batches] for batches in (first, second)]
    return len(first) == len(second) and all(
        torch.equal(a, b) for x, y in zip(*parts, strict=True) for a, b in zip(x, y, strict=True)
    )


# Batches


@settings(max_examples=20, deadline=None)
@given(n_ranks=st.integers(1, 4), size=st.integers(4, 10), micro=st.none() | st.integers(1, 5))
def test_processes_share_a_step_and_cut_it_into_batches_of_any_size(n_ranks, size, micro):
    source = Greys(10, sizes=((24, 16), (16, 24)))
    loader = step_loader(source, batch_size=size, micro_batch=micro)
    for step in (1, 2, 3):
        parts = [next(loader.steps(step, step, rank, n_ranks)) for rank in range(n_ranks)]
        indices = [letter for batches in parts for letter in letters(batches)]
        assert sorted(indices) == sorted(i for _, i in epoch_indices(step, 10, size, seed=0))
        assert all(len(b.pixels) <= (micro or size) for batches in parts for b in batches)


OPTIONS = {
    "plain": {},
    "augmented": {"augment": AugmentConfig(flip=0.5), "micro_batch": 2},
    "answers": {"seed": 5},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine's cores
def test_workers_change_nothing(name, workers):
    source = Greys(10, broken=(4,), answers=("a", "b", "c") if name == "answers" else None)
    options = {"batch_size": 4, **OPTIONS[name]}
    loaders = [step_loader(source, workers=n, **options) for n in (0, workers)]
    first, second = (list(loader.steps(1, 7)) for loader in loaders)
    assert len(first) == 7
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert loaders[0].broken.reasons == loaders[1].broken.reasons == ["4.jpg: cut short"]


def test_a_loader_that_continues_at_a_step_is_as_one_that_never_stopped():
    options = {"batch_size": 4, "augment": AugmentConfig(flip=0.5)}
    source = Greys(10, answers=("a", "b", "c"))
    whole = list(step_loader(source, **options).steps(1, 8))
    rest = list(step_loader(source, **options).steps(5, 8))
    assert all(same(a, b) for a, b in zip(whole[4:], rest, strict=True))
    assert not same(whole[4], whole[5])
    assert list(step_loader(source, **options).steps(9, 8)) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_torchs_random_numbers_are_left_to_dropout(workers):
    before = torch.get_rng_state()
    list(step_loader(Greys(10), batch_size=4, workers=workers).steps(1, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_answers_are_drawn_anew_in_every_epoch():
    loader = step_loader(Greys(4, answers=("a", "b", "c")), batch_size=4)
    answers = [batch.tokens[:, 3].tolist() for [batch] in loader.steps(1, 12)]
    assert len(set(map(tuple, answers))) > 6
    assert {token for row in answers for token in row} == {4, 5, 6}


def test_images_are_flipped_only_with_the_probability_of_a_flip():
    def corners(flip):
        augment = AugmentConfig(flip=flip)
        loader = step_loader(Greys(10, sizes=((16, 16),)), batch_size=10, augment=augment)
        [[batch]] = loader.steps(1, 1)
        return (batch.pixels[:, 0, 0, 0] < batch.pixels[:, 0, 0, -1]).tolist()

    assert not any(corners(0.0))
    assert all(corners(1.0))
    assert 0 < sum(corners(0.5)) < 10


def test_a_crop_is_resized_to_the_models_input():
    whole = AugmentConfig(scale=(1.0, 1.0), ratio=(1.5, 1.5))  # all of 24 x 16 pixels
    source = Greys(3)
    [[batch]] = step_loader(source, batch_size=3, augment=whole).steps(1, 1)
    stretched = replace(CONFIG.preprocess, exact=(16, 16), short_side=None, crop=None)
    for pixels, index in zip(batch.pixels, letters([batch]), strict=True):
        assert torch.equal(pixels, preprocess(source[index].media, stretched))


def test_without_augmentation_an_image_is_the_same_in_every_epoch():
    [[first]], [[second]] = (step_loader(Greys(1), batch_size=1).steps(n, n) for n in (1, 2))
    assert torch.equal(first.pixels, second.pixels)
    assert torch.equal(first.pixels[0], preprocess(Greys(1)[0].media, CONFIG.preprocess))


def test_of_many_texts_max_texts_are_drawn():
    loader = step_loader(Greys(1, more=("y", "z")), batch_size=1, max_texts=2)
    texts = [letters(batches) for batches in loader.steps(1, 30)]
    assert all(len(set(row)) == 2 for row in texts)
    assert {letter for row in texts for letter in row} == {0, 24, 25}


# Broken examples


def test_a_broken_example_is_left_out_and_named_once():
    loader = step_loader(Greys(6, broken=(1, 4)), batch_size=3)
    steps = list(loader.steps(1, 6))
    assert sorted(letters(chain(*steps))) == sorted([0, 2, 3, 5] * 3)
    assert sorted(loader.broken.reasons) == ["1.jpg: cut short", "4.jpg: cut short"]


def test_a_broken_example_is_named_at_the_step_that_needs_it():
    loader = step_loader(Greys(6, broken=(1, 4)), batch_size=3)
    for step, _batches in enumerate(loader.steps(1, 2), start=1):
        indices = [i for at in range(1, step + 1) for _, i in epoch_indices(at, 6, 3, seed=0)]
        reasons = [f"{index}.jpg: cut short" for index in indices if index in (1, 4)]
        assert loader.broken.reasons == reasons


def test_a_process_whose_share_is_broken_has_no_batches():
    loader = step_loader(Greys(2, broken=(1,)), batch_size=2)
    parts = [next(loader.steps(1, 1, rank, 2)) for rank in (0, 1)]
    assert sorted(map(len, parts)) == [0, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_broken_examples_end_it_in_one_line(workers):
    source = Greys(9, broken=(1, 4, 7))
    loader = step_loader(source, batch_size=3, broken_limit=2, workers=workers)
    with pytest.raises(GITError, match=r"^3 examples cannot be read, .* at most 2; .*short$"):
        list(loader.steps(1, 3))
    assert len(loader.broken.reasons) == 3


def test_a_source_of_which_nothing_can_be_read_ends_it_below_the_limit():
    loader = step_loader(Greys(3, broken=(0, 1, 2)), batch_size=3)
    with pytest.raises(GITError, match="3 examples cannot be read, expected at most 2"):
        list(loader.steps(1, 9))


def test_the_reason_names_the_examples_key():
    loader = step_loader(Greys(3, sizes=((24, 16), (24, 16), (0, 16))), batch_size=3)
    list(loader.steps(1, 3))
    assert loader.broken.reasons == [
        "2: an image of mode RGB: 0 x 16 pixels, expected at least 1 x 1"
    ]


# Workers


def test_the_data_of_workers_can_be_pickled_for_systems_without_fork():
    share = StepShare(batch_size=3, rank=0, n_ranks=1, seed=0)
    steps = step_loader(Greys(9), batch_size=3)._dataset(range(1, 3), share)
    copy = pickle.loads(pickle.dumps(steps))
    assert same(copy[1].batches, steps[1].batches)


class Interrupting(Greys):
    """Sends the signals of Ctrl-C and of a cluster to the process that opens an example."""

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        return super().__getitem__(index)


def test_workers_leave_signals_to_the_process_that_saves():
    assert len(list(step_loader(Interrupting(4), batch_size=2, workers=2).steps(1, 3))) == 3


class Killing(Greys):
    """Kills the process that opens an example, as a kernel does that is out of memory."""

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_was_killed_is_one_line():
    with pytest.raises(GITError, match=r"was killed, .*: use fewer workers") as error:
        list(step_loader(Killing(4), batch_size=2, workers=1).steps(1, 3))
    assert "\n" not in str(error.value)


# Wrong options


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
        step_loader(Greys(3), batch_size=4)


def test_texts_longer_than_the_model_are_refused():
    with pytest.raises(ConfigError, match=r"max_tokens is 25, .* positions for 24 tokens"):
        step_loader(Greys(3), batch_size=1, max_tokens=25)


def test_style_microsoft_needs_two_more_positions_for_start_and_end():
    microsoft = replace(CONFIG, style="microsoft")
    with pytest.raises(ConfigError, match=r"max_tokens is 23, .* 24 tokens: expected at most 22"):
        step_loader(Greys(3), batch_size=1, max_tokens=23, config=microsoft)
    source = Greys(1, answers=(" ".join(["a"] * 30),))
    [[batch]] = step_loader(source, batch_size=1, max_tokens=22, config=microsoft).steps(1, 1)
    assert batch.tokens.shape == (1, 22)  # above the limit it is cut to 20, and start and end
    source = Greys(1, answers=(" ".join(["a"] * 20),))  # with the question of two words: the limit
    [[batch]] = step_loader(source, batch_size=1, max_tokens=22, config=microsoft).steps(1, 1)
    assert batch.tokens.shape == (1, CONFIG.decoder.positions)


def test_a_negative_seed_is_refused():
    with pytest.raises(ConfigError, match="seed is -1, expected 0 or more"):
        step_loader(Greys(3), seed=-1, batch_size=1)


def test_more_processes_than_images_are_refused():
    with pytest.raises(ConfigError, match="batch_size is 2, but there are 3 processes"):
        next(step_loader(Greys(3), batch_size=2).steps(1, 1, 0, 3))
