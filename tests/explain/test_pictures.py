"""Pictures of an explanation."""

import dataclasses
import sys
from pathlib import Path

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
from git_model.explain import pictures
from git_model.explain.explanation import Explanation, explain
from git_model.utils.errors import GITError

IMAGES = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture(scope="module")
def found() -> Explanation:
    options = DecodingOptions(num_beams=3, max_new_tokens=6, min_new_tokens=4)
    return explain(exact_captioner(), picture(1), options=options)


@pytest.fixture(scope="module")
def clip() -> Explanation:
    return explain(Captioner.from_pretrained("demo"), IMAGES / "one_acts_twice.gif")


def texts_of(figure: Figure) -> list[str]:
    return [one.get_text() for one in figure.findobj(Text) if one.get_text()]


def drawn(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()
    return figure


def test_all_pictures_are_saved_and_can_be_opened(found: Explanation, tmp_path: Path) -> None:
    pictures.save_pictures(found, tmp_path)
    words = [f"word-{n:02}.png" for n in range(1, len(found.words) + 1)]
    names = ["beams.png", "layers.png", "mask.png", "patches.png", *words, "words.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        with Image.open(tmp_path / name) as one:
            assert one.convert("L").getextrema()[0] < 100  # something is drawn on the white


def test_a_clip_has_a_picture_of_its_frames_and_a_greedy_text_none_of_beams(
    clip: Explanation, tmp_path: Path
) -> None:
    pictures.save_pictures(clip, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert "frames.png" in names
    assert "beams.png" not in names


def test_the_mask_is_drawn_as_it_is(found: Explanation) -> None:
    [axes] = pictures.mask(found).axes
    kinds = axes.collections[0].get_array().reshape(found.mask.shape)
    n_image = found.n_image
    assert np.array_equal(kinds > 0, found.mask.numpy())
    assert set(np.unique(kinds[:, :n_image])) == {1}
    assert set(np.unique(kinds[:, n_image:])) == {0, 2}


@pytest.mark.parametrize(
    "draw", [pictures.mask, pictures.words, pictures.layers, pictures.beams, pictures.patches]
)
def test_no_two_texts_of_a_picture_overlap(found: Explanation, draw) -> None:
    figure = drawn(draw(found))
    renderer = figure.canvas.get_renderer()
    boxes = [
        one.get_window_extent(renderer).shrunk(0.9, 0.9)
        for one in figure.findobj(Text)
        if one.get_text().strip() and one.get_visible()
    ]
    assert len(boxes) > 0
    for n, box in enumerate(boxes):
        assert box.count_overlaps(boxes[n + 1 :]) == 0


def test_each_word_stands_above_its_picture(found: Explanation) -> None:
    titles = [axes.get_title().split("\n")[0] for axes in pictures.words(found).axes]
    assert [title for title in titles if title] == [word.text for word in found.words]


def test_layers_show_the_best_guess_and_bold_is_the_written_word(found: Explanation) -> None:
    figure = pictures.layers(found)
    best = [word.layers[n][0] for n in range(2) for word in found.words]
    cells = figure.axes[0].texts
    assert [cell.get_text().split("\n")[0] for cell in cells] == [guess.text for guess in best]
    for cell, guess, word in zip(cells, best, [*found.words] * 2, strict=True):
        assert (cell.get_fontweight() == "bold") == (guess.token == word.token)


def test_shares_of_frames_are_written_as_they_are(clip: Explanation) -> None:
    cells = [one.get_text() for one in pictures.frames(clip).axes[-1].texts]
    assert cells == [f"{share:.0%}" for share in clip.frame_shares().flatten().tolist()]


def test_a_cell_has_dark_letters_on_light_and_light_ones_on_dark(clip: Explanation) -> None:
    """The contrast that WCAG asks of text, 4.5 to 1."""
    for figure in (pictures.frames(clip), pictures.layers(clip)):
        axes = figure.axes[-1]
        image = axes.images[0]
        for cell in axes.texts:
            column, row = (round(place) for place in cell.get_position())
            ground = _light(image.cmap(image.norm(image.get_array()[row, column]))[:3])
            letters = _light(mpl.colors.to_rgb(cell.get_color()))
            lighter, darker = max(ground, letters), min(ground, letters)
            assert (lighter + 0.05) / (darker + 0.05) > 4.4


def _light(colour: tuple[float, ...]) -> float:
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_branches_are_drawn_where_they_rank(found: Explanation) -> None:
    axes = pictures.beams(found).axes[0]
    places = {tuple(text.get_position()): text for text in axes.texts}
    for step, branches in enumerate(found.tree):
        for rank, branch in enumerate(branches):
            assert places[step, rank].get_text() == branch.text
            assert (places[step, rank].get_fontweight() == "bold") == branch.chosen


def test_without_beams_there_is_no_tree_to_draw(clip: Explanation) -> None:
    with pytest.raises(GITError, match="expected beam search"):
        pictures.beams(clip)


def test_a_word_with_signs_of_formulas_is_drawn_as_it_is(found: Explanation) -> None:
    with mpl.rc_context({"text.parse_math": True}):
        figure = pictures.layers(_renamed(found, "$x_$"))
        drawn(figure)
    assert "$x_$" in texts_of(figure)


def _renamed(found: Explanation, text: str) -> Explanation:
    words = [dataclasses.replace(word, text=text) for word in found.words]
    return dataclasses.replace(found, words=words)


def test_drawing_leaves_the_callers_settings_alone(found: Explanation) -> None:
    before = dict(mpl.rcParams)
    pictures.words(found)
    assert dict(mpl.rcParams) == before


def test_the_map_of_a_head_is_its_own(found: Explanation) -> None:
    """The grid of a word differs between heads as their weights do."""
    grid = np.asarray(pictures.heads(found, 0).axes[0].images[0].get_array())
    cells = [grid[:96, n * 102 : n * 102 + 96] for n in range(3)]
    assert not np.array_equal(cells[0], cells[1])
    weights = found.patches(layer=0, head=2)[0, 0]
    light = torch.tensor(cells[2].mean(-1) / 255).unfold(0, 48, 48).unfold(1, 48, 48).mean((-1, -2))
    whole = np.asarray(found.frames[0].resize((96, 96))).mean(-1) / 255
    plain = torch.tensor(whole).unfold(0, 48, 48).unfold(1, 48, 48).mean((-1, -2))
    expected = 0.12 + 0.88 * weights / weights.max()
    torch.testing.assert_close((light / plain).float(), expected.float(), atol=0.02, rtol=0.02)


def test_without_matplotlib_one_line_says_what_to_install(
    found: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(GITError, match=r"pip install 'git-model\[plot\]'"):
        pictures.mask(found)
