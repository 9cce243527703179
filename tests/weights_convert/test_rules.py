"""The engine that renames tensors: what it does, and what it refuses."""

from collections.abc import Iterator, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from weights_convert.rules import ConversionError, Rule, apply, cat, nested, stack, undo

QKV = Rule(("*.query.weight", "*.key.weight", "*.value.weight"), "*.qkv.weight", cat)
FRAMES = Rule("frame.#", "frames", stack)


def tensors(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name.replace("__", "."): torch.randn(shape) for name, shape in shapes.items()}


def run(rules: list[Rule], source: Mapping[str, Tensor], model: Mapping[str, Tensor], dtype=None):
    return dict(apply(rules, source, model, dtype))


def test_a_plain_rule_renames_and_hands_on_the_tensor_itself() -> None:
    source = tensors(a=(2, 3))
    state = run([Rule("a", "b.c")], source, tensors(b__c=(2, 3)))
    assert state["b.c"] is source["a"]


def test_a_star_stands_for_one_part_of_a_name_and_for_the_same_on_both_sides() -> None:
    rules = [Rule("layer.*.ln.*", "blocks.*.norm.*")]
    source = tensors(layer__0__ln__weight=(2,), layer__11__ln__bias=(3,))
    model = tensors(blocks__0__norm__weight=(2,), blocks__11__norm__bias=(3,))
    assert run(rules, source, model).keys() == model.keys()
    with pytest.raises(ConversionError, match=r"unexpected tensor layer\.0\.x\.ln\.weight"):
        run(rules, tensors(layer__0__x__ln__weight=(2,)), model)


def test_two_stars_stand_for_several_parts() -> None:
    rules = [Rule("a", "a"), Rule("text.**", None)]
    assert run(rules, tensors(a=(1,), text__x__y=(2,)), tensors(a=(1,))).keys() == {"a"}


def test_a_dot_in_a_pattern_is_a_dot() -> None:
    with pytest.raises(ConversionError, match="unexpected tensor axb"):
        run([Rule("a.b", "c")], tensors(axb=(1,)), tensors(c=(1,)))


def test_several_tensors_become_one_in_the_order_of_the_rule() -> None:
    source = tensors(x__value__weight=(1, 2), x__query__weight=(1, 2), x__key__weight=(1, 2))
    weight = run([QKV], source, tensors(x__qkv__weight=(3, 2)))["x.qkv.weight"]
    expected = [source[f"x.{part}.weight"] for part in ("query", "key", "value")]
    assert torch.equal(weight, torch.cat(expected))


def test_numbered_tensors_are_stacked_in_the_order_of_their_numbers() -> None:
    source = {f"frame.{i}": torch.full((1, 1, 4), float(i)) for i in (10, 2, 0, 1, *range(3, 10))}
    frames = run([FRAMES], source, {"frames": torch.empty(11, 4)})["frames"]
    assert frames[:, 0].tolist() == list(range(11))


def test_a_gap_in_the_numbers_is_named() -> None:
    source = {f"frame.{i}": torch.zeros(1, 1, 4) for i in (0, 1, 3)}
    with pytest.raises(ConversionError, match=r"tensor frame\.2 is missing"):
        run([FRAMES], source, {"frames": torch.empty(4, 4)})


def test_a_number_too_many_is_named() -> None:
    source = {f"frame.{i}": torch.zeros(1, 1, 4) for i in range(3)}
    with pytest.raises(ConversionError, match=r"tensor frame\.2 is not part of a model"):
        run([FRAMES], source, {"frames": torch.empty(2, 4)})


def test_a_number_with_a_leading_zero_is_unexpected() -> None:
    source = {"frame.0": torch.zeros(1, 1, 4), "frame.01": torch.zeros(1, 1, 4)}
    with pytest.raises(ConversionError, match=r"unexpected tensor frame\.01"):
        run([FRAMES], source, {"frames": torch.empty(2, 4)})


def test_a_tensor_without_a_rule_is_named() -> None:
    with pytest.raises(ConversionError, match="unexpected tensor stray"):
        run([Rule("a", "b")], tensors(a=(1,), stray=(1,)), tensors(b=(1,)))


def test_a_tensor_with_two_rules_is_named_with_both() -> None:
    rules = [Rule("a.*", "b.*"), Rule("*.weight", "c.*")]
    with pytest.raises(ConversionError, match=r"tensor a\.weight matches two rules: a\.\* -> b"):
        run(rules, tensors(a__weight=(1,)), tensors(b__weight=(1,)))


def test_a_target_with_two_sources_is_named_with_both() -> None:
    rules = [Rule("new", "x"), Rule("old", "x")]
    with pytest.raises(ConversionError, match="tensors new and old are both meant for x"):
        run(rules, tensors(new=(1,), old=(1,)), tensors(x=(1,)))


def test_either_of_two_spellings_will_do() -> None:
    rules = [Rule("new", "x"), Rule("old", "x")]
    for name in ("new", "old"):
        assert run(rules, tensors(**{name: (1,)}), tensors(x=(1,))).keys() == {"x"}
    assert dict(undo(rules, tensors(x=(1,)))).keys() == {"new"}


def test_a_missing_tensor_is_named_as_the_source_would_name_it() -> None:
    with pytest.raises(ConversionError, match=r"tensor there\.2 is missing \(and 1 more\)"):
        run([Rule("there.*", "here.*")], {}, tensors(here__2=(1,), here__3=(1,)))


@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_a_missing_part_of_a_group_is_named(part: str) -> None:
    source = tensors(x__value__weight=(1, 2), x__query__weight=(1, 2), x__key__weight=(1, 2))
    del source[f"x.{part}.weight"]
    with pytest.raises(ConversionError, match=rf"tensor x\.{part}\.weight is missing"):
        run([QKV], source, tensors(x__qkv__weight=(3, 2)))


def test_a_tensor_of_a_layer_that_the_model_does_not_have_is_named() -> None:
    source = tensors(a__0=(1,), a__1=(1,))
    with pytest.raises(ConversionError, match=r"tensor a\.1 is not part of a model of this"):
        run([Rule("a.*", "b.*")], source, tensors(b__0=(1,)))


@pytest.mark.parametrize("shape", [(2, 2), (1, 3), (2,), (1, 1, 2)])
def test_a_misshapen_part_is_named_with_both_shapes(shape: tuple[int, ...]) -> None:
    source = tensors(x__value__weight=(1, 2), x__query__weight=(1, 2), x__key__weight=shape)
    with pytest.raises(ConversionError, match=r"tensor x\.key\.weight has shape .*expected \(1, 2"):
        run([QKV], source, tensors(x__qkv__weight=(3, 2)))


def test_integers_are_no_weights() -> None:
    with pytest.raises(ConversionError, match=r"tensor a holds torch\.int8"):
        run([Rule("a", "b")], {"a": torch.zeros(2, dtype=torch.int8)}, tensors(b=(2,)))


def test_the_model_may_stand_on_the_meta_device_and_the_dtype_is_the_asked_one() -> None:
    source = {"a": torch.ones(2, dtype=torch.float16)}
    model = {"b": torch.empty(2, device="meta")}
    assert run([Rule("a", "b")], source, model, torch.float64)["b"].dtype == torch.float64
    assert run([Rule("a", "b")], source, model)["b"].dtype == torch.float16


class Counting(Mapping[str, Tensor]):
    """A source that knows what was read, and when."""

    def __init__(self, data: dict[str, Tensor]) -> None:
        self.data, self.read = data, []

    def __getitem__(self, name: str) -> Tensor:
        self.read.append(name)
        return self.data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


def test_each_tensor_is_read_once_and_only_when_its_target_is_due() -> None:
    names = [f"{i}.{part}.weight" for i in range(3) for part in ("query", "key", "value")]
    source = Counting({name: torch.zeros(1, 2) for name in names})
    model = {f"{i}.qkv.weight": torch.empty(3, 2) for i in range(3)}
    for done, _ in enumerate(apply([QKV], source, model), start=1):
        assert len(source.read) == 3 * done
    assert sorted(source.read) == sorted(names)


def test_nothing_is_read_of_a_source_that_is_refused() -> None:
    source = Counting(tensors(a=(1,), b=(1,), stray=(1,)))
    with pytest.raises(ConversionError):
        run([Rule("a", "a"), Rule("b", "b")], source, tensors(a=(1,), b=(1,)))
    assert source.read == []


def test_a_dropped_tensor_is_never_read() -> None:
    source = Counting(tensors(a=(1,), buffer=(1,)))
    run([Rule("a", "a"), Rule("buffer", None)], source, tensors(a=(1,)))
    assert source.read == ["a"]


def test_the_way_back_of_an_unknown_tensor_is_an_error() -> None:
    with pytest.raises(ConversionError, match="no rule writes tensor stray"):
        dict(undo([Rule("a", "b")], tensors(stray=(1,))))


def test_nested_rules_stand_under_both_names() -> None:
    (rule,) = nested("there", "here", [QKV])
    assert str(rule).startswith("there.*.query.weight + there.*.key.weight")
    assert rule.target == "here.*.qkv.weight"
    (dropped,) = nested("there", "here", [Rule("x", None)])
    assert dropped.matches("there.x")
    assert dropped.target is None


def test_a_rule_that_cannot_work_is_refused_when_it_is_written() -> None:
    with pytest.raises(ValueError, match="stars differ"):
        Rule("a.*", "b")
    with pytest.raises(ValueError, match="need a layout"):
        Rule(("a", "b"), "c")
    with pytest.raises(ValueError, match="need a layout"):
        Rule("a.#", "c")


@given(
    layers=st.integers(1, 4),
    width=st.integers(1, 5),
    frames=st.integers(1, 12),
    seed=st.integers(0, 2**16),
)
@settings(deadline=None)
def test_there_and_back_is_where_it_began(layers: int, width: int, frames: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    names = ("query", "key", "value")
    source = {
        f"{layer}.{part}.weight": torch.randn(width, 3, generator=generator)
        for layer in range(layers)
        for part in names
    }
    source |= {f"frame.{i}": torch.randn(1, 1, width, generator=generator) for i in range(frames)}
    model = {f"{layer}.qkv.weight": torch.empty(3 * width, 3) for layer in range(layers)}
    model |= {"frames": torch.empty(frames, width)}
    state = run([QKV, FRAMES], source, model)
    back = dict(undo([QKV, FRAMES], state))
    assert back.keys() == source.keys()
    assert all(torch.equal(back[name], source[name]) for name in source)
