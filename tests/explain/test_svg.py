"""The drawings of the report."""

import xml.etree.ElementTree as ET

import torch
from hypothesis import given
from hypothesis import strategies as st

from git_model.explain.beam_tree import Branch
from git_model.explain.svg import CELL, IMAGE_ROOM, mask_svg, tree_svg
from git_model.model.attention import prefix_mask


def area(svg: str, kind: str) -> float:
    """What all rectangles of a class cover."""
    return sum(
        float(one.get("width", 0)) * float(one.get("height", 0))
        for one in ET.fromstring(svg)
        if one.get("class") == kind
    )


@given(n_image=st.integers(1, 12), n_text=st.integers(1, 12))
def test_the_coloured_area_is_that_of_the_mask(n_image: int, n_text: int) -> None:
    if n_image * CELL > IMAGE_ROOM:
        n_image = IMAGE_ROOM // CELL
    mask = prefix_mask(n_image, n_text)
    svg = mask_svg(mask, ["word"] * n_text)
    cell = CELL**2
    assert area(svg, "image") == cell * mask[:, :n_image].sum()
    assert area(svg, "text") == cell * mask[:, n_image:].sum()
    assert area(svg, "blocked") == cell * mask.numel()


def test_another_mask_is_another_drawing() -> None:
    mask = prefix_mask(3, 3)
    before = mask_svg(mask, ["a", "b", "c"])
    mask[0, 5] = True  # as if the image saw text
    assert mask_svg(mask, ["a", "b", "c"]) != before


def test_many_image_tokens_share_the_room_of_some() -> None:
    few, many = (mask_svg(prefix_mask(n, 4), ["word"] * 4) for n in (10, 1200))
    assert ET.fromstring(few).get("width") == ET.fromstring(many).get("width")
    assert len(many) < 3 * len(few)


def test_names_are_text_not_markup() -> None:
    for svg in (
        mask_svg(prefix_mask(2, 2), ["<b>", "&"]),
        tree_svg([[Branch("<b>", [1], 0.5, -0.7, None, "kept", True)]]),
    ):
        texts = [one.text for one in ET.fromstring(svg).iter("text")]
        assert "<b>" in texts


def test_a_branch_is_joined_to_the_one_it_continues() -> None:
    a = Branch("a", [1], 0.5, -0.7, None, "kept", True)
    b = Branch("b", [2], 0.2, -1.6, None, "kept", False)
    c = Branch("c", [2, 3], 0.9, -1.7, 1, "ended", False)
    d = Branch("d", [1, 4], 0.1, -3.0, 0, "dropped", False)
    tree = [[a, b], [c, d]]
    root = ET.fromstring(tree_svg(tree))
    lines = {one.get("class"): one.get("d") for one in root.iter("path")}
    height = {one.text: float(one.get("y")) - 4 for one in root.iter("text") if one.text in "abcd"}
    assert set(lines) == {"ended", "dropped"}
    for kind, start, end in (("ended", "b", "c"), ("dropped", "a", "d")):
        from_, to = (float(place.split()[1]) for place in lines[kind][1:].split("L"))
        assert (from_, to) == (height[start], height[end])
    classes = {one.text: one.get("class") for one in root.iter("text")}
    assert classes["a"] == "chosen"
    assert classes["b"] == "kept"


def test_the_mask_may_be_of_any_kind_of_rows() -> None:
    mask = torch.eye(4, dtype=torch.bool)
    svg = mask_svg(mask, ["a", "b"])
    assert area(svg, "image") == area(svg, "text") == 2 * CELL**2
