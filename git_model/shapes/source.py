"""The shapes world as a data set for training and evaluation: an example for every index."""

from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from git_model.data.example import Annotation, Example, Media
from git_model.shapes.clips import draw_clip, make_story
from git_model.shapes.questions import Question, ask_about, ask_about_story
from git_model.shapes.texts import describe, describe_story
from git_model.shapes.world import Split, World, draw, make_close_up, make_world
from git_model.utils.errors import ConfigError

ShapesTask = Literal["captions", "questions", "classes", "clips", "clip_questions"]
MediaKind = Literal["image", "close_up", "clip"]

MAX_THINGS = 5  # in an image
TASKS: tuple[ShapesTask, ...] = get_args(ShapesTask)
MEDIA_OF: dict[ShapesTask, MediaKind] = {
    "captions": "image",
    "questions": "image",
    "classes": "close_up",
    "clips": "clip",
    "clip_questions": "clip",
}


@dataclass(frozen=True, kw_only=True)
class ShapesData:
    """Examples of the shapes world.

    Attributes:
        tasks: the kinds of texts; captions and questions about an image are one example.
        split: train, held_out (worlds that training never shows) or recombination (colours and
            shapes that training never combines)
        size: number of examples
        questions: maximum number of questions about an image or a clip
        things: maximum number of things in an image; a small model learns a world of one or two
            things in a minute
        images, close_ups, clips: number of media of this kind in each round of examples; kinds that
            no task needs are left out
    """

    kind: Literal["shapes"] = "shapes"
    tasks: tuple[ShapesTask, ...] = TASKS
    split: Split = "train"
    size: int = 1000
    questions: int = 3
    things: int = MAX_THINGS
    images: int = 6
    close_ups: int = 1
    clips: int = 3

    def __post_init__(self) -> None:
        for name in ("size", "questions", "things", "images", "close_ups", "clips"):
            if getattr(self, name) < 1:
                raise ConfigError(f"shapes: {name} is {getattr(self, name)}, expected at least 1")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ConfigError(
                f"shapes: tasks are {', '.join(self.tasks) or 'none'}, expected some of "
                f"{', '.join(TASKS)}, each once"
            )

    def open(self) -> "ShapesSource":
        """The examples; an example is made on access."""
        return ShapesSource(self)


class ShapesSource:
    """Examples by index, the same on any machine: a `Source`."""

    def __init__(self, data: ShapesData) -> None:
        self._data = data
        shares: dict[MediaKind, int] = {
            "image": data.images,
            "close_up": data.close_ups,
            "clip": data.clips,
        }
        kinds = {MEDIA_OF[task] for task in data.tasks}
        self._round = [kind for kind, n in shares.items() if kind in kinds for _ in range(n)]

    def __len__(self) -> int:
        return self._data.size

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        rng = Random(index)  # noqa: S311  (images, not secrets)
        media, caption, questions = self._make(self._round[index % len(self._round)], rng)
        annotations = [Annotation((caption,))] if caption else []
        annotations += [
            Annotation((q.answer,), q.text, f"{index}/{q.kind}/{n}")
            for n, q in enumerate(questions)
        ]
        return Example(f"shapes/{self._data.split}/{index}", media, tuple(annotations))

    def _make(self, kind: MediaKind, rng: Random) -> tuple[Media, str | None, list[Question]]:
        """An image or a clip, its caption and its questions; None and [] without such a task."""
        tasks, split = self._data.tasks, self._data.split
        n = self._data.questions
        if kind == "clip":
            story = make_story(rng, split)
            questions = ask_about_story(story, rng, n) if "clip_questions" in tasks else []
            return draw_clip(story), describe_story(story) if "clips" in tasks else None, questions
        world = make_close_up(rng, split) if kind == "close_up" else self._world(rng)
        text_task = "classes" if kind == "close_up" else "captions"
        questions = ask_about(world, rng, n) if "questions" in tasks else []
        return draw(world), describe(world) if text_task in tasks else None, questions

    def _world(self, rng: Random) -> World:
        """A random world with few enough things."""
        while True:
            world = make_world(rng, self._data.split)
            if len(world.things) <= self._data.things:
                return world
