"""Figures of an explanation."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from test_captioner import exact_captioner, picture

from git_model import Captioner, DecodingOptions
from git_model.explain import figures
from git_model.explain.explanation import Explanation, explain
from git_model.utils.errors import GITError

IMAGES = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    options = DecodingOptions(num_beams=3, max_new_tokens=4, min_new_tokens=3)
    return explain(exact_captioner(), picture(1), options=options)


@pytest.fixture(scope="module")
def clip() -> Explanation:
    short = DecodingOptions(max_new_tokens=2)
    return explain(Captioner.from_pretrained("demo"), IMAGES / "one_acts_twice.gif", options=short)


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def rendered(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()
    return figure


def test_all_figures_are_saved_and_can_be_opened(explanation: Explanation, tmp_path: Path) -> None:
    figures.save_figures(explanation, tmp_path)
    tokens = [f"token-{n:02}.png" for n in range(1, len(explanation.generated) + 1)]
    names = [
        "beams.png", "encoder-heads.png", "logit-lens.png", "mask.png", "patches.png",
        "text-heads.png", *tokens, "tokens.png",
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        with Image.open(tmp_path / name) as image:
            assert image.convert("L").getextrema()[0] < 100  # not all is white


def test_a_clip_has_a_figure_of_its_frames_and_a_greedy_text_none_of_beams(
    clip: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    savefig = Figure.savefig

    def save_frames(figure: Figure, path: Path, **options: Any) -> None:
        """The others take seconds, and are drawn in the test above."""
        savefig(figure, path, **options) if path.stem == "frames" else path.touch()

    monkeypatch.setattr(Figure, "savefig", save_frames)
    figures.save_figures(clip, tmp_path)
    assert (tmp_path / "frames.png").stat().st_size > 0
    names = {path.name for path in tmp_path.iterdir()}
    assert "frames.png" in names
    assert "beams.png" not in names


def test_the_drawn_mask_is_that_of_the_explanation(explanation: Explanation) -> None:
    [axes] = figures.mask(explanation).axes
    kinds = axes.collections[0].get_array().reshape(explanation.mask.shape)
    n_image = explanation.n_image
    assert np.array_equal(kinds > 0, explanation.mask.numpy())
    assert set(np.unique(kinds[:, :n_image])) == {1}
    assert set(np.unique(kinds[:, n_image:])) == {0, 2}


@pytest.mark.parametrize(
    "draw", [figures.mask, figures.tokens, figures.logit_lens, figures.beams, figures.patches]
)
def test_no_two_texts_of_a_figure_overlap(explanation: Explanation, draw) -> None:
    figure = rendered(draw(explanation))
    renderer = figure.canvas.get_renderer()
    boxes = [
        text.get_window_extent(renderer).shrunk(0.9, 0.9)
        for text in figure.findobj(Text)
        if text.get_text().strip() and text.get_visible()
    ]
    assert len(boxes) > 0
    for n, box in enumerate(boxes):
        assert box.count_overlaps(boxes[n + 1 :]) == 0


def test_each_token_is_the_title_of_its_map(explanation: Explanation) -> None:
    titles = [axes.get_title().split("\n")[0] for axes in figures.tokens(explanation).axes]
    assert [title for title in titles if title] == [token.text for token in explanation.generated]


def test_the_logit_lens_shows_the_top_token_and_the_generated_one_is_bold(
    explanation: Explanation,
) -> None:
    figure = figures.logit_lens(explanation)
    best = [token.logit_lens[n][0] for n in range(2) for token in explanation.generated]
    cells = figure.axes[0].texts
    assert [cell.get_text().split("\n")[0] for cell in cells] == [top.text for top in best]
    for cell, top, token in zip(cells, best, [*explanation.generated] * 2, strict=True):
        assert (cell.get_fontweight() == "bold") == (top.token == token.token)


def test_the_shares_of_frames_are_those_of_the_explanation(clip: Explanation) -> None:
    cells = [cell.get_text() for cell in figures.frames(clip).axes[-1].texts]
    assert cells == [f"{share:.0%}" for share in clip.frame_shares().flatten().tolist()]


def test_a_cell_has_dark_letters_on_light_and_light_ones_on_dark(clip: Explanation) -> None:
    """The contrast that WCAG requires of text, 4.5 to 1."""
    for figure in (figures.frames(clip), figures.logit_lens(clip)):
        axes = figure.axes[-1]
        image = axes.images[0]
        for cell in axes.texts:
            column, row = (round(position) for position in cell.get_position())
            ground = _light(image.cmap(image.norm(image.get_array()[row, column]))[:3])
            letters = _light(mpl.colors.to_rgb(cell.get_color()))
            lighter, darker = max(ground, letters), min(ground, letters)
            assert (lighter + 0.05) / (darker + 0.05) > 4.4


def _light(colour: tuple[float, ...]) -> float:
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_branches_are_drawn_where_they_rank(explanation: Explanation) -> None:
    axes = figures.beams(explanation).axes[0]
    labels = {tuple(text.get_position()): text for text in axes.texts}
    for step, branches in enumerate(explanation.tree):
        for rank, branch in enumerate(branches):
            assert labels[step, rank].get_text() == branch.text
            assert (labels[step, rank].get_fontweight() == "bold") == branch.on_best_path


def test_each_branch_has_its_score(explanation: Explanation) -> None:
    scores = [branch.score for branches in explanation.tree for branch in branches]
    assert {f"{score:.2f}" for score in scores} <= set(texts_of(figures.beams(explanation)))


def test_each_head_has_its_matrix(explanation: Explanation) -> None:
    figure = figures.matrices(explanation.encoder_attention, "encoder")
    drawn = [axes.images[0].get_array() for axes in figure.axes]
    heads = explanation.encoder_attention.flatten(0, 1)
    assert len(drawn) == len(heads)
    for matrix, head in zip(drawn, heads, strict=True):
        assert np.array_equal(matrix, head.numpy())


def test_without_beams_there_is_no_tree_to_draw(clip: Explanation) -> None:
    with pytest.raises(GITError, match="expected beam search"):
        figures.beams(clip)


def test_a_token_with_signs_of_formulas_is_drawn_literally(explanation: Explanation) -> None:
    with mpl.rc_context({"text.parse_math": True}):
        figure = figures.logit_lens(_with_token_texts(explanation, "$x_$"))
        rendered(figure)
    assert "$x_$" in texts_of(figure)


def _with_token_texts(explanation: Explanation, text: str) -> Explanation:
    tokens = [dataclasses.replace(token, text=text) for token in explanation.generated]
    return dataclasses.replace(explanation, generated=tokens)


def test_drawing_leaves_the_callers_settings_alone(explanation: Explanation) -> None:
    before = dict(mpl.rcParams)
    figures.tokens(explanation)
    assert dict(mpl.rcParams) == before


def test_the_map_of_a_head_is_its_own(explanation: Explanation) -> None:
    """The grid of a token differs between heads as their weights do."""
    grid = np.asarray(figures.heads(explanation, 0).axes[0].images[0].get_array())
    cells = [grid[:96, n * 102 : n * 102 + 96] for n in range(3)]
    assert not np.array_equal(cells[0], cells[1])
    weights = explanation.patch_attention(layer=0, head=2)[0, 0]
    dimmed = (
        torch.tensor(cells[2].mean(-1) / 255).unfold(0, 48, 48).unfold(1, 48, 48).mean((-1, -2))
    )
    frame = np.asarray(explanation.frames[0].resize((96, 96))).mean(-1) / 255
    plain = torch.tensor(frame).unfold(0, 48, 48).unfold(1, 48, 48).mean((-1, -2))
    expected = 0.12 + 0.88 * weights / weights.max()
    torch.testing.assert_close((dimmed / plain).float(), expected.float(), atol=0.02, rtol=0.02)


def test_without_matplotlib_one_line_says_what_to_install(
    explanation: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(GITError, match=r"pip install 'git-model\[plot\]'"):
        figures.mask(explanation)
