from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.shapes.clips import ACTS, FRAMES, STAY, Actor, Story, draw_clip, make_story
from git_model.shapes.world import COLOURS, NEW_LOOKS, SIDE

SPLITS = ("train", "held_out", "recombination")
seeds = st.integers(0, 10**9)
stories = st.builds(
    lambda seed, split: make_story(Random(seed), split), seeds, st.sampled_from(SPLITS)
)


def told(act: str, frames: int, cell: int = 4) -> Story:
    actor = Actor(look=("black", "square"), cell=cell, acts=(act,))
    return Story(actors=(actor,), background=250, frames=frames)


@given(seeds, st.sampled_from(SPLITS))
def test_the_same_seed_gives_the_same_clip(seed, split):
    first, second = (make_story(Random(seed), split) for _ in range(2))
    assert first == second
    assert [f.tobytes() for f in draw_clip(first)] == [f.tobytes() for f in draw_clip(second)]


def test_no_story_of_training_is_a_held_out_one():
    stories = {split: {make_story(Random(n), split).scene for n in range(500)} for split in SPLITS}
    assert not stories["train"] & stories["held_out"]
    assert not stories["train"] & stories["recombination"]


@given(seeds)
def test_a_recombined_story_shows_a_new_look(seed):
    story = make_story(Random(seed), "recombination")
    assert any(actor.look in NEW_LOOKS for actor in story.actors)


@given(seeds, st.sampled_from(["train", "held_out"]))
def test_training_and_held_out_stories_never_show_a_new_look(seed, split):
    assert all(actor.look not in NEW_LOOKS for actor in make_story(Random(seed), split).actors)


@given(stories)
def test_a_clip_has_four_to_six_frames_of_the_size_the_model_takes(story):
    frames = draw_clip(story)
    assert len(frames) == story.frames
    assert story.frames in FRAMES
    assert {(frame.mode, frame.size) for frame in frames} == {("RGB", (SIDE, SIDE))}


@given(stories)
def test_nobody_leaves_the_picture_or_touches_another(story):
    for world in story.worlds():
        for thing in world.things:
            assert thing.radius <= min(thing.x, SIDE - thing.x, thing.y, SIDE - thing.y)
        if len(world.things) == 2:
            one, other = world.things
            gap = max(abs(one.x - other.x), abs(one.y - other.y))
            assert gap >= one.radius + other.radius


@given(stories)
def test_actors_look_different_from_each_other(story):
    assert len({actor.look for actor in story.actors}) == len(story.actors)


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("act", ACTS)
def test_every_act_changes_the_picture(act, frames):
    first, *others = (np.asarray(frame).astype(int) for frame in draw_clip(told(act, frames)))
    assert max(np.abs(other - first).max() for other in others) > 100


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("first", ACTS)
@pytest.mark.parametrize("second", ACTS)
def test_of_two_acts_each_shows_in_its_half(first, second, frames):
    actors = (
        Actor(look=("black", "square"), cell=4, acts=(first, None)),
        Actor(look=("red", "star"), cell=4, acts=(None, second)),
    )
    worlds = Story(actors=actors, background=250, frames=frames).worlds()
    one, other = zip(*(world.things for world in worlds), strict=True)
    half = (frames - 1) / 2
    assert {one[0]} != {thing for n, thing in enumerate(one) if n <= half + 0.5}
    assert len({thing for n, thing in enumerate(one) if n >= half}) == 1
    assert len({thing for n, thing in enumerate(other) if n <= half}) == 1
    assert {other[-1]} != {thing for n, thing in enumerate(other) if n >= half - 0.5}


def test_moves_go_one_cell_the_way_they_say():
    ends = {}
    for act in ACTS[:4]:
        worlds = told(act, 5).worlds()
        first, last = worlds[0].things[0], worlds[-1].things[0]
        ends[act] = (last.cell % 3 - first.cell % 3, last.cell // 3 - first.cell // 3)
    assert ends == {
        "moves left": (-1, 0),
        "moves right": (1, 0),
        "moves up": (0, -1),
        "moves down": (0, 1),
    }


def test_who_bounces_ends_where_it_began_and_was_higher_up():
    heights = [world.things[0].y for world in told("bounces", 5).worlds()]
    assert heights[0] == pytest.approx(heights[-1])
    assert min(heights) < heights[0] - 15


def test_who_stays_does_not_change():
    assert len({world.things[0] for world in told(STAY, 6).worlds()}) == 1


def test_who_fades_can_just_be_seen_at_the_end():
    last = np.asarray(draw_clip(told("fades", 4))[-1]).astype(int)
    assert 20 < np.abs(last - 250).max() < 60
    assert COLOURS["black"][0] < 250 - 60
