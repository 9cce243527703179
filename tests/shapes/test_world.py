from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.shapes.world import (
    APPEARANCES,
    CELL,
    CLOSE_UP_RADII,
    COLOURS,
    IMAGE_SIZE,
    MAX_TINT,
    NEW_APPEARANCES,
    OUTLINES,
    SIZES,
    TRAINING_APPEARANCES,
    Thing,
    World,
    draw,
    make_close_up,
    make_world,
    split_of,
)

SPLITS = ("train", "held_out", "recombination")
seeds = st.integers(0, 10**9)
splits = st.sampled_from(SPLITS)
worlds = st.builds(lambda seed, split: make_world(Random(seed), split), seeds, splits)
close_ups = st.builds(lambda seed, split: make_close_up(Random(seed), split), seeds, splits)


def centre(thing: Thing) -> tuple[int, int]:
    return int(thing.y), int(thing.x)


def appearances_of(world: World) -> set[tuple[str, str]]:
    return {thing.appearance for thing in world.things}


def draw_only(thing: Thing, background: int = 250) -> np.ndarray:
    return np.asarray(draw(World(things=(thing,), background=background)))


@given(seeds, splits, st.sampled_from([make_world, make_close_up]))
def test_the_same_seed_gives_the_same_image(seed, split, make):
    first, second = (make(Random(seed), split) for _ in range(2))
    assert first == second
    assert draw(first).tobytes() == draw(second).tobytes()


def test_the_worlds_of_a_seed_never_change():
    # The held-out scores of the shipped model are about these very worlds.
    assert [make_world(Random(n)).signature for n in range(3)] == [
        "small blue circle 2, small blue circle 6, large blue circle 8",
        "small pink star 6",
        "large pink triangle 2, large pink triangle 4, small red cross 5, small red triangle 6",
    ]
    signature = make_close_up(Random(0), "held_out").signature
    assert signature == "a close-up: red cross of 21 at 32 34 on 225"


@given(worlds | close_ups)
def test_every_world_belongs_to_one_split(world):
    split = split_of(appearances_of(world), world.signature)
    assert (split == "recombination") == bool(appearances_of(world) & set(NEW_APPEARANCES))


@pytest.mark.parametrize("make", [make_world, make_close_up])
def test_no_world_of_training_is_a_held_out_one(make):
    signatures = {split: {make(Random(n), split).signature for n in range(500)} for split in SPLITS}
    assert not signatures["train"] & signatures["held_out"]
    assert not signatures["train"] & signatures["recombination"]


def test_training_and_held_out_worlds_never_show_a_new_appearance():
    for n in range(500):
        for split in ("train", "held_out"):
            for make in (make_world, make_close_up):
                assert not appearances_of(make(Random(n), split)) & set(NEW_APPEARANCES)


@given(seeds)
def test_a_world_of_recombination_shows_a_new_appearance(seed):
    assert appearances_of(make_world(Random(seed), "recombination")) & set(NEW_APPEARANCES)


def test_training_has_every_colour_and_every_shape_in_most_combinations():
    assert sorted([*TRAINING_APPEARANCES, *NEW_APPEARANCES]) == sorted(APPEARANCES)
    for part, words in ((0, COLOURS), (1, OUTLINES)):
        for word in words:
            assert sum(appearance[part] == word for appearance in NEW_APPEARANCES) <= 1


def test_about_one_world_in_ten_is_held_out():
    held_out = [split_of([], f"scene {n}") == "held_out" for n in range(10_000)]
    assert sum(held_out) == pytest.approx(1000, abs=100)


def test_background_and_exact_position_do_not_change_the_signature():
    thing = Thing(shape="star", colour="blue", x=10.0, y=10.0, radius=5.0)
    neighbour = Thing(shape="star", colour="blue", x=10.5, y=10.0, radius=5.2)
    first = World(things=(thing,), background=150)
    second = World(things=(neighbour,), background=250)
    assert first.signature == second.signature


@given(worlds)
def test_things_stand_in_reading_order_each_in_its_own_cell(world):
    cells = [thing.cell for thing in world.things]
    assert cells == sorted(set(cells))
    assert 1 <= len(cells) <= 5


@given(worlds | close_ups)
def test_the_centre_of_each_thing_has_its_colour(world):
    pixels = np.asarray(draw(world))
    for thing in world.things:
        pixel = pixels[centre(thing)].astype(float)
        assert np.abs(pixel - COLOURS[thing.colour]).max() <= MAX_TINT + 1
        assert min(COLOURS, key=lambda name: np.abs(pixel - COLOURS[name]).max()) == thing.colour


@given(worlds)
def test_things_stay_in_their_cells(world):
    for thing in world.things:
        rows, columns = np.nonzero((draw_only(thing, world.background) != world.background).any(-1))
        top, left = (CELL * part for part in divmod(thing.cell, 3))
        assert top - 1 < rows.min() <= rows.max() < top + CELL
        assert left - 1 < columns.min() <= columns.max() < left + CELL


@given(close_ups)
def test_a_close_up_is_one_thing_much_larger_than_any_other(world):
    assert world.is_close_up
    assert len(world.things) == 1
    assert CLOSE_UP_RADII[0] > 1.4 * SIZES["large"][1]


@given(worlds)
def test_no_other_world_is_a_close_up(world):
    assert not world.is_close_up


@given(worlds)
def test_every_colour_stands_out_from_the_background(world):
    for thing in world.things:
        pixel = np.asarray(draw(world))[centre(thing)].astype(int)
        assert np.abs(pixel - world.background).max() > 30


@pytest.mark.parametrize("shape", OUTLINES)
def test_a_large_shape_covers_much_more_than_a_small_one(shape):
    def area(radius: float) -> int:
        thing = Thing(shape=shape, colour="black", x=32, y=32, radius=radius)
        return int((draw_only(thing) < 125).any(-1).sum())

    assert area(SIZES["large"][0]) > 1.5 * area(SIZES["small"][1])


def test_a_faded_thing_has_a_colour_between_its_own_and_the_background():
    def grey(fade: float) -> int:
        thing = Thing(shape="square", colour="black", x=32, y=32, radius=9, fade=fade)
        return int(draw_only(thing, 225)[32, 32, 0])

    assert [grey(fade) for fade in (0.0, 0.5, 1.0)] == [25, 125, 225]


def test_an_image_is_rgb_of_the_models_input_size():
    image = draw(make_world(Random(0)))
    assert (image.mode, image.size) == ("RGB", (IMAGE_SIZE, IMAGE_SIZE))
