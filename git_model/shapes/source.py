"""The shapes world as a source of examples for training and evaluation, one for each number."""

from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from git_model.data.example import Annotation, Example, Media
from git_model.shapes.clips import draw_clip, make_story
from git_model.shapes.questions import Question, ask_about, ask_about_story
from git_model.shapes.texts import describe, describe_story
from git_model.shapes.world import Split, World, draw, make_close_up, make_world
from git_model.utils.errors import ConfigError

Task = Literal["captions", "questions", "classes", "clips", "clip_questions"]
Kind = Literal["picture", "close_up", "clip"]

MOST_THINGS = 5  # that a picture has
TASKS: tuple[Task, ...] = get_args(Task)
ABOUT: dict[Task, Kind] = {
    "captions": "picture",
    "questions": "picture",
    "classes": "close_up",
    "clips": "clip",
    "clip_questions": "clip",
}


@dataclass(frozen=True, kw_only=True)
class ShapesData:
    """Some of the shapes world's examples.

    tasks: what is said about them; captions and questions about one picture share it.
    split: train, held_out (scenes that training never shows) or recombination (colours and shapes
        that training never shows together).
    size: number of examples.
    questions: most questions about a picture or a clip.
    things: most things in a picture; one or two make a world that a small model learns in a minute.
    pictures, close_ups, clips: how many there are of each for one round of examples; only those
        that a task needs are made.
    """

    kind: Literal["shapes"] = "shapes"
    tasks: tuple[Task, ...] = TASKS
    split: Split = "train"
    size: int = 1000
    questions: int = 3
    things: int = MOST_THINGS
    pictures: int = 6
    close_ups: int = 1
    clips: int = 3

    def __post_init__(self) -> None:
        for name in ("size", "questions", "things", "pictures", "close_ups", "clips"):
            if getattr(self, name) < 1:
                raise ConfigError(f"shapes: {name} is {getattr(self, name)}, expected at least 1")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ConfigError(
                f"shapes: tasks are {', '.join(self.tasks) or 'none'}, expected some of "
                f"{', '.join(TASKS)}, each once"
            )

    def open(self) -> "ShapesSource":
        """The examples; each is made when it is asked for."""
        return ShapesSource(self)


class ShapesSource:
    """Examples by number: the same number gives the same one on any machine."""

    def __init__(self, data: ShapesData) -> None:
        self._data = data
        shares: dict[Kind, int] = {
            "picture": data.pictures,
            "close_up": data.close_ups,
            "clip": data.clips,
        }
        wanted = {ABOUT[task] for task in data.tasks}
        self._round = [kind for kind, n in shares.items() if kind in wanted for _ in range(n)]

    def __len__(self) -> int:
        return self._data.size

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        rng = Random(index)  # noqa: S311  (pictures, not secrets)
        view, caption, questions = self._make(self._round[index % len(self._round)], rng)
        targets = [Annotation((caption,))] if caption else []
        targets += [
            Annotation((q.answer,), q.text, f"{index}/{q.kind}/{n}")
            for n, q in enumerate(questions)
        ]
        return Example(f"shapes/{self._data.split}/{index}", view, tuple(targets))

    def _make(self, kind: Kind, rng: Random) -> tuple[Media, str | None, list[Question]]:
        """The view, its caption and the questions, as far as they are among the tasks."""
        tasks, split = self._data.tasks, self._data.split
        n_asked = self._data.questions
        if kind == "clip":
            story = make_story(rng, split)
            asked = ask_about_story(story, rng, n_asked) if "clip_questions" in tasks else []
            return draw_clip(story), describe_story(story) if "clips" in tasks else None, asked
        world = make_close_up(rng, split) if kind == "close_up" else self._world(rng)
        said = "classes" if kind == "close_up" else "captions"
        asked = ask_about(world, rng, n_asked) if "questions" in tasks else []
        return draw(world), describe(world) if said in tasks else None, asked

    def _world(self, rng: Random) -> World:
        """The first that has few enough things."""
        while True:
            world = make_world(rng, self._data.split)
            if len(world.things) <= self._data.things:
                return world
