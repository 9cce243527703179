import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.shapes import (
    CELL,
    COLOURS,
    OUTLINES,
    PLACES,
    SIDE,
    SIZES,
    Thing,
    World,
    describe,
    draw,
    is_held_out,
    make_world,
    vocabulary,
)
from git_model.tokenizer import Tokenizer

numbers = st.integers(0, 10**9)
worlds = st.builds(make_world, numbers, held_out=st.booleans())


def inside(thing: Thing) -> tuple[int, int]:
    return int(thing.y), int(thing.x)


@given(numbers, st.booleans())
def test_the_same_number_gives_the_same_picture(number, held_out):
    first, second = (make_world(number, held_out=held_out) for _ in range(2))
    assert first == second
    assert draw(first).tobytes() == draw(second).tobytes()


def test_the_numbering_of_worlds_never_changes():
    # The shipped model's held-out score speaks about these very worlds.
    assert [describe(make_world(n)) for n in range(3)] == [
        "a large black cross at the top left, a large red triangle in the middle and a large green "
        "circle at the right",
        "a large green square at the bottom",
        "a large orange triangle at the left and a large purple cross at the bottom right",
    ]
    assert [describe(make_world(n, held_out=True)) for n in range(2)] == [
        "a large pink triangle at the top, a large yellow triangle at the left and a large pink "
        "cross at the bottom left",
        "a small black square at the top and a small pink star at the right",
    ]


@given(numbers, numbers)
def test_no_training_world_shares_a_caption_with_a_held_out_world(one, other):
    assert not is_held_out(describe(make_world(one)))
    assert is_held_out(describe(make_world(other, held_out=True)))


def test_about_one_caption_in_ten_is_held_out():
    captions = {f"caption {n}" for n in range(10_000)}
    assert sum(map(is_held_out, captions)) == pytest.approx(1000, abs=100)


@given(worlds)
def test_a_caption_names_each_thing_in_reading_order(world):
    phrases = re.split(r", | and ", describe(world))
    named = [re.fullmatch(r"a (\w+) (\w+) (\w+) ((?:at|in) the .+)", p).groups() for p in phrases]
    assert named == [(t.size, t.colour, t.shape, PLACES[t.cell]) for t in world.things]
    cells = [thing.cell for thing in world.things]
    assert cells == sorted(set(cells))


@given(worlds)
def test_the_centre_of_each_thing_has_its_colour(world):
    pixels = np.asarray(draw(world))
    for thing in world.things:
        assert tuple(pixels[inside(thing)]) == COLOURS[thing.colour]


@given(worlds)
def test_things_stay_in_their_cells(world):
    empty = World(things=(), background=world.background)
    for thing in world.things:
        alone = World(things=(thing,), background=world.background)
        rows, columns = np.nonzero((np.asarray(draw(alone)) != np.asarray(draw(empty))).any(-1))
        top, left = (CELL * part for part in divmod(thing.cell, 3))
        assert top - 1 < rows.min() <= rows.max() < top + CELL
        assert left - 1 < columns.min() <= columns.max() < left + CELL


@given(worlds)
def test_every_colour_stands_out_from_the_background(world):
    for thing in world.things:
        distance = np.abs(np.array(COLOURS[thing.colour]) - world.background).max()
        assert distance > 30


@pytest.mark.parametrize("shape", OUTLINES)
def test_a_large_shape_covers_much_more_than_a_small_one(shape):
    def area(radius: float) -> int:
        thing = Thing(shape=shape, colour="black", x=32, y=32, radius=radius)
        return int((np.asarray(draw(World(things=(thing,), background=250))) < 125).any(-1).sum())

    assert area(SIZES["large"][0]) > 1.5 * area(SIZES["small"][1])


def test_a_picture_is_rgb_of_the_size_the_model_takes():
    image = draw(make_world(0))
    assert (image.mode, image.size) == ("RGB", (SIDE, SIDE))


@given(worlds)
def test_every_word_of_a_caption_is_one_token_and_comes_back(world):
    tokenizer = Tokenizer.from_vocab(vocabulary())
    caption = describe(world)
    ids = tokenizer.encode(caption)
    assert len(ids) == len(caption.replace(",", " ,").split())
    assert tokenizer.decode(ids) == caption


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789 ,.?!'-:", max_size=40))
def test_any_plain_text_can_be_spelt(text):
    tokenizer = Tokenizer.from_vocab(vocabulary())
    assert tokenizer.token_id("[UNK]") not in tokenizer.encode(text)
