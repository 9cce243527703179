from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.shapes.clips import ACTIONS, FRAME_COUNTS, STAY, Actor, Story, draw_clip, make_story
from git_model.shapes.world import COLOURS, IMAGE_SIZE, NEW_APPEARANCES

SPLITS = ("train", "held_out", "recombination")
seeds = st.integers(0, 10**9)
stories = st.builds(
    lambda seed, split: make_story(Random(seed), split), seeds, st.sampled_from(SPLITS)
)


def story_of(action: str, frames: int, cell: int = 4) -> Story:
    actor = Actor(appearance=("black", "square"), cell=cell, actions=(action,))
    return Story(actors=(actor,), background=250, frames=frames)


@given(seeds, st.sampled_from(SPLITS))
def test_the_same_seed_gives_the_same_clip(seed, split):
    first, second = (make_story(Random(seed), split) for _ in range(2))
    assert first == second
    assert [f.tobytes() for f in draw_clip(first)] == [f.tobytes() for f in draw_clip(second)]


def test_no_story_of_training_is_a_held_out_one():
    signatures = {
        split: {make_story(Random(n), split).signature for n in range(500)} for split in SPLITS
    }
    assert not signatures["train"] & signatures["held_out"]
    assert not signatures["train"] & signatures["recombination"]


@given(seeds)
def test_a_story_of_recombination_shows_a_new_appearance(seed):
    story = make_story(Random(seed), "recombination")
    assert any(actor.appearance in NEW_APPEARANCES for actor in story.actors)


@given(seeds, st.sampled_from(["train", "held_out"]))
def test_training_and_held_out_stories_never_show_a_new_appearance(seed, split):
    actors = make_story(Random(seed), split).actors
    assert all(actor.appearance not in NEW_APPEARANCES for actor in actors)


@given(stories)
def test_a_clip_has_four_to_six_frames_of_the_models_input_size(story):
    frames = draw_clip(story)
    assert len(frames) == story.frames
    assert story.frames in FRAME_COUNTS
    assert {(frame.mode, frame.size) for frame in frames} == {("RGB", (IMAGE_SIZE, IMAGE_SIZE))}


@given(stories)
def test_no_actor_leaves_the_image_or_touches_another(story):
    for world in story.worlds():
        for thing in world.things:
            assert thing.radius <= min(thing.x, IMAGE_SIZE - thing.x, thing.y, IMAGE_SIZE - thing.y)
        if len(world.things) == 2:
            first, second = world.things
            gap = max(abs(first.x - second.x), abs(first.y - second.y))
            assert gap >= first.radius + second.radius


@given(stories)
def test_the_actors_of_a_story_have_different_appearances(story):
    assert len({actor.appearance for actor in story.actors}) == len(story.actors)


@pytest.mark.parametrize("frames", FRAME_COUNTS)
@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_changes_the_image(action, frames):
    clip = draw_clip(story_of(action, frames))
    first, *others = (np.asarray(frame).astype(int) for frame in clip)
    assert max(np.abs(other - first).max() for other in others) > 100


@pytest.mark.parametrize("frames", FRAME_COUNTS)
@pytest.mark.parametrize("first", ACTIONS)
@pytest.mark.parametrize("second", ACTIONS)
def test_each_of_two_actions_shows_in_its_half_of_the_clip(first, second, frames):
    actors = (
        Actor(appearance=("black", "square"), cell=4, actions=(first, None)),
        Actor(appearance=("red", "star"), cell=4, actions=(None, second)),
    )
    worlds = Story(actors=actors, background=250, frames=frames).worlds()
    square, star = zip(*(world.things for world in worlds), strict=True)
    half = (frames - 1) / 2
    assert {square[0]} != {thing for n, thing in enumerate(square) if n <= half + 0.5}
    assert len({thing for n, thing in enumerate(square) if n >= half}) == 1
    assert len({thing for n, thing in enumerate(star) if n <= half}) == 1
    assert {star[-1]} != {thing for n, thing in enumerate(star) if n >= half - 0.5}


def test_a_move_is_one_cell_in_its_direction():
    ends = {}
    for action in ACTIONS[:4]:
        worlds = story_of(action, 5).worlds()
        first, last = worlds[0].things[0], worlds[-1].things[0]
        ends[action] = (last.cell % 3 - first.cell % 3, last.cell // 3 - first.cell // 3)
    assert ends == {
        "moves left": (-1, 0),
        "moves right": (1, 0),
        "moves up": (0, -1),
        "moves down": (0, 1),
    }


def test_a_bounce_goes_up_and_ends_where_it_began():
    heights = [world.things[0].y for world in story_of("bounces", 5).worlds()]
    assert heights[0] == pytest.approx(heights[-1])
    assert min(heights) < heights[0] - 15


def test_an_actor_that_stays_does_not_change():
    assert len({world.things[0] for world in story_of(STAY, 6).worlds()}) == 1


def test_an_actor_that_fades_is_just_visible_at_the_end():
    last = np.asarray(draw_clip(story_of("fades", 4))[-1]).astype(int)
    assert 20 < np.abs(last - 250).max() < 60
    assert COLOURS["black"][0] < 250 - 60
