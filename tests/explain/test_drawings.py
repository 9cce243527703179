"""Drawings without matplotlib: overlays, mask, beam tree."""

import base64
import io
import xml.etree.ElementTree as ET

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from git_model.explain.beam_tree import Branch
from git_model.explain.drawings import (
    CELL,
    MAX_IMAGE_BLOCK,
    MIN_BRIGHTNESS,
    contact_sheet,
    data_url,
    mask_svg,
    overlay,
    tree_svg,
    upscaled,
)
from git_model.model.attention import prefix_mask

GREY = Image.new("RGB", (6, 4), (200, 100, 50))


def test_the_brightest_patch_keeps_its_colours_and_others_are_dimmed() -> None:
    image = np.asarray(overlay(GREY, torch.tensor([[0.0, 0.2, 0.4], [0.1, 0.0, 0.0]]), 0.4))
    assert image.shape == (4, 6, 3)
    assert image[0, 4].tolist() == [200, 100, 50]
    assert image[0, 0].tolist() == [round(MIN_BRIGHTNESS * shade) for shade in (200, 100, 50)]
    assert image[0, 2].tolist() == [
        round((1 + MIN_BRIGHTNESS) / 2 * shade) for shade in (200, 100, 50)
    ]
    assert (image[2:, 0] > image[2:, 5]).all()


def test_a_patch_has_one_brightness() -> None:
    image = np.asarray(overlay(GREY, torch.tensor([[1.0, 0.5, 0.0]]), 1.0))
    for columns in (slice(0, 2), slice(2, 4), slice(4, 6)):
        assert len(np.unique(image[:, columns].reshape(-1, 3), axis=0)) == 1


def test_a_map_of_zeros_is_dark_everywhere() -> None:
    assert np.asarray(overlay(GREY, torch.zeros(2, 3), 0.0)).max() == round(200 * MIN_BRIGHTNESS)


@given(side=st.integers(1, 300))
def test_an_upscaled_frame_repeats_whole_pixels(side: int) -> None:
    frame = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    large = upscaled(frame, side)
    assert max(large.size) >= side
    assert large.width % 3 == large.height % 2 == 0
    assert large.resize(frame.size, Image.Resampling.NEAREST).tobytes() == frame.tobytes()


def test_a_contact_sheet_has_three_frames_a_row_and_one_scale_for_all() -> None:
    maps = torch.zeros(4, 2, 3)
    maps[3, 1, 2] = 0.5
    maps[0, 0, 0] = 0.25
    sheet = np.asarray(contact_sheet([GREY] * 4, maps, 12))
    assert sheet.shape == (8 + 2 + 8, 3 * 12 + 4, 4)  # patches of 4 pixels, gaps of 2
    assert sheet[17, 11].tolist() == [200, 100, 50, 255]
    assert sheet[0, 0, :3].tolist() == [
        round((1 + MIN_BRIGHTNESS) / 2 * shade) for shade in (200, 100, 50)
    ]
    assert sheet[17, 20].tolist() == [0, 0, 0, 0]  # there is no fifth frame


def test_a_data_url_holds_the_image() -> None:
    kind, data = data_url(GREY).split(",")
    assert kind == "data:image/png;base64"
    decoded = Image.open(io.BytesIO(base64.b64decode(data)))
    assert decoded.tobytes() == GREY.tobytes()


def area(svg: str, kind: str) -> float:
    """The area of all rectangles of a class."""
    return sum(
        float(rect.get("width", 0)) * float(rect.get("height", 0))
        for rect in ET.fromstring(svg)
        if rect.get("class") == kind
    )


@given(n_image=st.integers(1, 12), n_text=st.integers(1, 12))
def test_the_coloured_area_is_that_of_the_mask(n_image: int, n_text: int) -> None:
    if n_image * CELL > MAX_IMAGE_BLOCK:
        n_image = MAX_IMAGE_BLOCK // CELL
    mask = prefix_mask(n_image, n_text)
    svg = mask_svg(mask, ["word"] * n_text)
    cell = CELL**2
    assert area(svg, "image") == cell * mask[:, :n_image].sum()
    assert area(svg, "text") == cell * mask[:, n_image:].sum()
    assert area(svg, "masked") == cell * mask.numel()


def test_another_mask_is_another_drawing() -> None:
    mask = prefix_mask(3, 3)
    before = mask_svg(mask, ["a", "b", "c"])
    mask[0, 5] = True  # as if the image attended to text
    assert mask_svg(mask, ["a", "b", "c"]) != before


def test_many_image_tokens_take_no_more_space_than_ten() -> None:
    few, many = (mask_svg(prefix_mask(n, 4), ["word"] * 4) for n in (10, 1200))
    assert ET.fromstring(few).get("width") == ET.fromstring(many).get("width")
    assert len(many) < 3 * len(few)


def test_tokens_are_text_not_markup() -> None:
    for svg in (
        mask_svg(prefix_mask(2, 2), ["<b>", "&"]),
        tree_svg([[Branch("<b>", [1], 0.5, -0.7, None, "kept", True)]]),
    ):
        texts = [element.text for element in ET.fromstring(svg).iter("text")]
        assert "<b>" in texts


def test_a_branch_is_linked_to_its_parent() -> None:
    a = Branch("a", [1], 0.5, -0.7, None, "kept", True)
    b = Branch("b", [2], 0.2, -1.6, None, "kept", False)
    c = Branch("c", [2, 3], 0.9, -1.7, 1, "finished", False)
    d = Branch("d", [1, 4], 0.1, -3.0, 0, "pruned", False)
    tree = [[a, b], [c, d]]
    root = ET.fromstring(tree_svg(tree))
    lines = {path.get("class"): path.get("d") for path in root.iter("path")}
    heights = {
        label.text: float(label.get("y")) - 4 for label in root.iter("text") if label.text in "abcd"
    }
    assert set(lines) == {"finished", "pruned"}
    for kind, start, end in (("finished", "b", "c"), ("pruned", "a", "d")):
        y_start, y_end = (float(point.split()[1]) for point in lines[kind][1:].split("L"))
        assert (y_start, y_end) == (heights[start], heights[end])
    classes = {label.text: label.get("class") for label in root.iter("text")}
    assert classes["a"] == "best"
    assert classes["b"] == "kept"


def test_any_mask_can_be_drawn() -> None:
    mask = torch.eye(4, dtype=torch.bool)
    svg = mask_svg(mask, ["a", "b"])
    assert area(svg, "image") == area(svg, "text") == 2 * CELL**2
