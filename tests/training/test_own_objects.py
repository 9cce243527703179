"""A source, a loss, an optimizer and callbacks of a user's: what they do, and what resumes."""

import json
from functools import partial

import own_objects
import pytest
import torch
from PIL import Image
from runs import losses_of, recipe_table, same_weights, start_folder

from git_model.data.example import Annotation, Example
from git_model.training.callbacks import Callback, states_of
from git_model.training.loop import CHECKPOINT, Trainer, train
from git_model.training.own_source import checked
from git_model.training.recipe import Recipe
from git_model.training.state import OBJECTS, last_step
from git_model.utils.dotted import dotted_name, import_object
from git_model.utils.errors import ConfigError, GITError
from git_model.utils.serialize import from_dict


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return start_folder(tmp_path_factory.mktemp("start") / "start", dropout=0.1)


class KilledError(Exception):
    """In place of SIGKILL."""


def resumed(monkeypatch, recipe, out, **objects):
    """A run that is killed in step 4, after the state of step 2, and resumed."""
    real = Trainer.step

    def step(self, number, batches):
        if number == 4:
            raise KilledError
        return real(self, number, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        with pytest.raises(KilledError):
            train(recipe, out, **objects)
    assert last_step(out) == 2
    train(recipe, out, resume=True, **objects)
    return out


def small(start, **changes) -> Recipe:
    changes = {"reports": {"save_every": 2}, "loader": {"batch_size": 3}, "steps": 5} | changes
    table = recipe_table(start, **changes)
    return from_dict(Recipe, {name: value for name, value in table.items() if value is not None})


BY_NAME = {
    "data": {"kind": "python", "source": "own_objects.Source", "arguments": {"size": 9}},
    "loss": {"kind": "python", "loss": "own_objects.scaled", "arguments": {"scale": 3.0}},
    "learning": {"optimizer": "torch.optim.SGD", "optimizer_arguments": {"momentum": 0.9}},
}


def test_objects_by_name_and_objects_as_arguments_give_the_same_run_and_resume(
    tmp_path, start, monkeypatch
):
    table = recipe_table(start, steps=5, loader={"batch_size": 3}, reports={"save_every": 2})
    named = from_dict(
        Recipe,
        table | BY_NAME | {"learning": table["learning"] | BY_NAME["learning"]},
    )
    train(named, tmp_path / "named")
    same = resumed(monkeypatch, named, tmp_path / "resumed")
    assert same_weights(tmp_path / "named", same)
    objects = {
        "source": own_objects.Source(9),
        "loss": partial(own_objects.scaled, scale=3.0),
        "optimizer": partial(torch.optim.SGD, momentum=0.9),
    }
    plain = small(start, data=None)
    passed = resumed(monkeypatch, plain, tmp_path / "passed", **objects)
    assert same_weights(tmp_path / "named", passed)
    assert losses_of(tmp_path / "named") == losses_of(passed)
    assert json.loads((passed / OBJECTS).read_text()) == {
        "source": "own_objects.Source",
        "loss": "own_objects.scaled(scale=3.0)",
        "optimizer": "torch.optim.sgd.SGD(momentum=0.9)",
    }
    with pytest.raises(ConfigError, match=r"was started with optimizer torch\.optim.*, not of its"):
        train(plain, passed, resume=True, **(objects | {"optimizer": None}))
    with pytest.raises(ConfigError, match=r"with loss own_objects\.scaled\(scale=3\.0\), not own"):
        train(plain, passed, resume=True, **(objects | {"loss": own_objects.squared}))


class Counter(Callback):
    """Remembers its steps; ends the run at the fourth."""

    def __init__(self, last: int = 99) -> None:
        self.steps: list[int] = []
        self.checks: list[int] = []
        self.last = last

    def on_step(self, trainer, step, stats):
        assert isinstance(trainer, Trainer)
        assert stats.loss > 0
        self.steps.append(step)
        return step == self.last

    def on_check(self, trainer, step, scores):
        self.checks.append(step)
        assert scores == {}

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = list(state["steps"])


def test_a_callback_sees_every_step_resumes_with_its_state_and_may_end_the_run(
    tmp_path, start, monkeypatch
):
    recipe = small(start)
    out = tmp_path / "run"
    counter = Counter(last=4)
    train(recipe, out, callbacks=[counter])
    assert counter.steps == [1, 2, 3, 4]
    assert counter.checks == [4]  # the checkpoint is that of the last step
    assert (out / CHECKPOINT).is_dir()
    fresh = Counter()
    train(recipe, out, resume=True, callbacks=[fresh])
    assert fresh.steps == [1, 2, 3, 4, 5]
    with pytest.raises(ConfigError, match=r"this run was started with callback .*Counter: pass it"):
        train(recipe, out, resume=True)


def test_callbacks_that_do_nothing_change_nothing(tmp_path, start):
    train(small(start, steps=2), tmp_path / "plain")
    train(small(start, steps=2), tmp_path / "other", callbacks=[Callback()])
    assert same_weights(tmp_path / "plain", tmp_path / "other")


class Stateful(Callback):
    def __init__(self, state) -> None:
        self.state = state

    def state_dict(self):
        return self.state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"loss": torch.zeros(1)},
            "callback .*Stateful has a Tensor as loss, expected JSON values",
        ),
        ({"by_step": {1: 2}}, "has an int as a key of by_step, expected JSON values"),
        ({"pairs": [[1, (2, 3)]]}, "has a tuple as pairs,"),
        ({2: 3}, "has an int as a key, expected"),
        (None, "has a NoneType, expected"),
        ({"last": {"a": b"x"}}, r"has a bytes as last\.a, expected"),
    ],
)
def test_a_state_that_json_would_change_is_refused_with_the_callbacks_name(state, message):
    with pytest.raises(ConfigError, match=message):
        states_of([Stateful(state)])


def test_an_accepted_state_comes_back_from_json_as_it_was():
    state = {"lowest": float("inf"), "é": [None, True, 2**70, {"": [], "a": {"b": "\ud800"}}]}
    states = states_of([Stateful(state), Callback()])
    assert list(json.loads(json.dumps(states)).values()) == [state]


IMAGE = Image.new("RGB", (8, 8))


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"image": IMAGE}, r"source\[0\] is \{'image': .*, expected an Example"),
        (None, r"source\[0\] is None, expected an Example"),
        (Example("a", "a.png", ()), r"source\[0\]: media is 'a.png', expected a Pillow image"),
        (Example("a", [], ()), r"media is \[\], expected a Pillow image, or a list"),
        (Example(3, IMAGE, ()), "key is 3, expected a text"),
        (
            Example("a", IMAGE, ("a star",)),
            r"annotations is \('a star',\), expected a tuple of Ann",
        ),
        (Example("a", IMAGE, (Annotation("a star"),)), "texts is 'a star', expected a tuple of"),
        (Example("a", IMAGE, (Annotation((3,)),)), r"texts is \(3,\), expected a tuple of texts"),
        (Example("a", IMAGE, (Annotation(("a",), 3),)), "question is 3, expected a text or None"),
    ],
)
def test_an_example_of_a_wrong_type_is_named_before_the_first_step(example, message):
    with pytest.raises(ConfigError, match=message) as error:
        checked([example])
    assert "\n" not in str(error.value)


def test_later_examples_and_those_of_streams_are_checked_as_they_come():
    good = Example("a", IMAGE, (Annotation(("a star",)),))
    source = checked([good, 3])
    assert source[0] is good
    with pytest.raises(ConfigError, match=r"source\[1\] is 3, expected an Example"):
        source[1]

    class Own:
        def stream(self, epoch, seed, reader, n_readers):
            yield from (lambda: good, lambda: {})

    first, second = checked(Own()).stream(0, 0, 0, 1)
    assert first() is good
    with pytest.raises(ConfigError, match=r"source's stream is \{\}, expected an Exam"):
        second()
    for value, message in ((3, "source gives int"), ([], "source has no example"),
                           ({"a": 1}, r"source\[0\] cannot be opened: 0")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            checked(value)


@pytest.mark.parametrize(
    ("changes", "objects", "message"),
    [
        ({"data": None}, {}, r"data is missing: add a table \[data\], or give `train` a source"),
        (
            {},
            {"source": own_objects.Source()},
            "the recipe has data, and source is given",
        ),
        (
            {"loss": {"kind": "contrastive"}},
            {"loss": own_objects.squared},
            "the recipe has loss, and loss is given",
        ),
        ({}, {"callbacks": Callback()}, r"callbacks is .*\.Callback, expected a list of callbacks"),
        ({}, {"callbacks": [Stateful({1: 2})]}, "Stateful has an int as a key"),
        ({"data": None}, {"source": 3}, "source gives int, expected an object with __len__"),
        ({}, {"callbacks": [3]}, "callbacks has builtins.int, expected objects of a class of Call"),
        ({}, {"callbacks": [Callback(), Callback()]}, r"callbacks has 2 of .*Callback, expected"),
        ({}, {"loss": own_objects.no_source}, "no_source"),
        ({}, {"optimizer": lambda groups: 3}, "the optimizer is builtins.int, expected a torch"),
        (
            {},
            {"optimizer": lambda groups: torch.optim.SGD(groups[0]["params"])},
            "has other parameter groups than it got",
        ),
        (
            {"data": {"kind": "python", "source": "own_objects.no_source"}},
            {},
            "source is own_objects.no_source, which gives int, expected an object with __len__",
        ),
        (
            {"data": {"kind": "python", "source": "own_objects.Source", "arguments": {"sise": 1}}},
            {},
            "which cannot be called so: .*sise",
        ),
        (
            {"loss": {"kind": "python", "loss": "own_objects.missing"}},
            {},
            "loss.loss is own_objects.missing, but own_objects has no such name",
        ),
        (
            {"loss": {"kind": "python", "loss": "my_own_losses.focal"}},
            {},
            r"my_own_losses cannot be imported .*PYTHONPATH=\.",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, start, changes, objects, message):
    table = recipe_table(start, steps=1, data={"tasks": ["captions"], "size": 6}) | changes
    recipe = from_dict(Recipe, {name: v for name, v in table.items() if v is not None})
    with pytest.raises((GITError, TypeError), match=message) as error:
        train(recipe, tmp_path / "run", **objects)
    assert "\n" not in str(error.value)


def test_dotted_names_lead_to_objects_and_back():
    assert import_object("own_objects.Source", "source") is own_objects.Source
    assert dotted_name(own_objects.Source()) == "own_objects.Source"
    assert dotted_name(partial(own_objects.scaled, scale=1)) == "own_objects.scaled"
    for name in ("os", "os.path;x", "os..path", "", "a b.c", "é.b"):
        with pytest.raises(ConfigError, match="expected a dotted name"):
            import_object(name, "loss")
    with pytest.raises(ConfigError, match=r"os\.path has no such name"):
        import_object("os.path.nothing", "loss")
