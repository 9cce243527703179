"""Occlusion: what a blank patch costs each token."""

from pathlib import Path

import pytest
import torch
from test_captioner import exact_captioner, log_p, picture

from git_model import Captioner, DecodingOptions
from git_model.explain.explanation import explain
from git_model.explain.occlusion import occlusion

IMAGES = Path(__file__).parents[2] / "examples" / "images"
LONG = DecodingOptions(min_new_tokens=3, max_new_tokens=5)


def test_a_drop_is_the_difference_of_two_scores() -> None:
    captioner = exact_captioner()
    explanation = explain(captioner, picture(1), "word5 word6", LONG, occlude=True)
    pixels = captioner.preprocess([picture(1)]).double()
    prompt, tokens = captioner.prompt("word5 word6"), explanation.caption.tokens
    side = captioner.model.config.encoder.patch_size
    rows, columns = explanation.grid
    assert explanation.occlusion is not None
    assert explanation.occlusion.shape == (len(tokens), 1, rows, columns)
    whole = log_p(captioner, pixels, prompt, tokens)
    for row in range(rows):
        for column in range(columns):
            blank = pixels.clone()
            for y in range(row * side, (row + 1) * side):
                blank[..., y, column * side : (column + 1) * side] = 0
            expected = torch.tensor(whole) - torch.tensor(log_p(captioner, blank, prompt, tokens))
            actual = explanation.occlusion[:, 0, row, column].float()
            torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    assert explanation.occlusion.abs().max() > 0.1


def test_occlusion_is_measured_on_demand_only() -> None:
    assert explain(exact_captioner(), picture(1), options=LONG).occlusion is None


def test_the_colour_of_a_shape_depends_on_its_patch() -> None:
    explanation = explain(
        Captioner.from_pretrained("demo"), IMAGES / "two_shapes.png", occlude=True
    )
    words = [token.text for token in explanation.generated]
    assert explanation.occlusion is not None
    decisive = explanation.occlusion[:, 0].flatten(1).argmax(1)
    assert decisive[words.index("blue")] == 4  # the middle
    assert decisive[words.index("green")] == 5  # the right
    assert explanation.occlusion[words.index("blue")].max() > 3


@pytest.mark.parametrize("frame", [0, 2])
def test_a_patch_of_a_clip_is_blank_in_its_own_frame_only(frame: int) -> None:
    captioner = Captioner.from_pretrained("demo")
    pixels = captioner.load(IMAGES / "one_acts_twice.gif").pixels[:3]
    prompt, tokens = captioner.prompt(None), captioner.tokenizer.encode("a pink circle")
    drops = occlusion(captioner.model, pixels, (3, 3), prompt, tokens)
    assert drops.shape == (3, 3, 3, 3)
    blank = pixels.clone()
    blank[frame, :, :21, :21] = 0
    expected = [
        a - b
        for a, b in zip(
            log_p(captioner, pixels[None], prompt, tokens),
            log_p(captioner, blank[None], prompt, tokens),
            strict=True,
        )
    ]
    assert drops[:, frame, 0, 0].tolist() == pytest.approx(expected, abs=1e-4)
