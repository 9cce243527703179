"""The page without a browser: visits, words, labels, and what is written as HTML."""

import socket
import sys
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from git_model.captioner import Captioner
from git_model.cli.main import main
from git_model.page import html as page_html
from git_model.page.actions import (
    LABELS,
    QUESTIONS,
    Visits,
    labels_in,
    look_back,
    rank,
    read,
    say,
    shapes_picture,
)
from git_model.utils.errors import GITError

IMAGES = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture(scope="module")
def git() -> Captioner:
    return Captioner.from_pretrained("demo")


def visit_of(git: Captioner, name: str = "five_shapes.png"):
    return read(git, (IMAGES / name).read_bytes())


def test_a_visit_says_what_the_captioner_says(git: Captioner) -> None:
    visit, question = visit_of(git), "what is at the top left?"
    scene = git.see(IMAGES / "five_shapes.png")
    said = say(git, visit)
    assert said.text == git.caption(scene).text == " ".join(word.text for word in said.words)
    assert say(git, visit, question).text == git.ask(scene, question).text
    assert list(visit.said) == [0, 1]
    labels = git.classify(scene, ["a red star", "a blue star"])
    assert rank(git, visit, "a red star\na blue star").labels == labels


def test_a_picture_is_read_once_for_all_that_is_said(git: Captioner, monkeypatch) -> None:
    visit = visit_of(git)
    monkeypatch.setattr(git.model, "see", None)
    say(git, visit)
    say(git, visit, "is there a star?")
    rank(git, visit, "a red star, a blue star")


def test_a_clip_shows_its_frames_and_where_in_them_the_model_looked(git: Captioner) -> None:
    visit = visit_of(git, "both_act.gif")
    said = say(git, visit)
    gaze = look_back(git, visit, 0, 3)
    assert len(visit.pictures) == len(gaze.frames) == len(gaze.shares) > 1
    assert gaze.word == said.words[3]
    assert gaze.shares.sum().item() == pytest.approx(1)
    assert 0 < gaze.picture_share < 1


def test_the_model_looks_at_what_it_names(git: Captioner) -> None:
    visit = visit_of(git)
    say(git, visit, "what is at the top left?")
    assert look_back(git, visit, 0, 2).shares.argmax() == 0  # the star there


def test_each_word_has_the_tokens_that_made_it(git: Captioner) -> None:
    said = say(git, visit_of(git, "both_act.gif"))
    assert [len(word.tokens) for word in said.words if word.text == "right,"] == [2]
    places = [place for word in said.words for place in word.tokens]
    assert places == list(range(len(places)))


@pytest.mark.parametrize(("number", "word"), [(3, 0), (0, 99), (0, -1)])
def test_a_word_that_is_not_there_is_refused(git: Captioner, number: int, word: int) -> None:
    visit = visit_of(git)
    say(git, visit)
    with pytest.raises(GITError, match="no longer kept"):
        look_back(git, visit, number, word)


def test_only_the_latest_answers_are_kept_and_always_the_caption(git: Captioner) -> None:
    visit = visit_of(git)
    said = say(git, visit)
    for _ in range(QUESTIONS + 2):
        visit.keep(said)
    assert list(visit.said) == [0, *range(3, QUESTIONS + 3)]


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_what_is_no_picture_gives_one_line_without_a_path(git: Captioner, data: bytes) -> None:
    with pytest.raises(GITError) as error:
        read(git, data)
    assert str(error.value).startswith("the file")
    assert "\n" not in str(error.value)
    assert "/tmp" not in str(error.value)


def test_too_many_pixels_are_refused(git: Captioner, monkeypatch) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(GITError, match="too many pixels"):
        visit_of(git)


@pytest.mark.parametrize("text", ["", " ,\n,", ",".join(map(str, range(LABELS + 1)))])
def test_no_labels_and_too_many_are_refused(git: Captioner, text: str) -> None:
    with pytest.raises(GITError, match="labels"):
        rank(git, visit_of(git), text)


@given(st.lists(st.text(st.characters(exclude_characters=",\n")).map(str.strip)), st.data())
def test_labels_come_apart_at_commas_and_line_ends(labels: list[str], data: st.DataObject) -> None:
    marks = [data.draw(st.sampled_from([",", "\n", " , ", ",\n"])) for _ in labels]
    text = "".join(label + mark for label, mark in zip(labels, marks, strict=True))
    assert labels_in(text) == list(dict.fromkeys(label for label in labels if label))


def test_sessions_see_only_their_own_visit_and_the_oldest_makes_room(git: Captioner) -> None:
    visits, one, two = Visits(most=2), visit_of(git), visit_of(git, "two_shapes.png")
    visits.put("a", one)
    visits.put("b", two)
    assert (visits.get("b"), visits.get("a")) == (two, one)
    visits.put("c", two)
    assert len(visits) == 2
    with pytest.raises(GITError, match="drop one first"):
        visits.get("b")
    visits.forget("a")
    with pytest.raises(GITError, match="drop one first"):
        visits.get("a")


def test_pictures_and_clips_of_shapes_can_be_drawn(git: Captioner) -> None:
    assert len(read(git, shapes_picture(Random(0), clip=False)).pictures) == 1
    assert len(read(git, shapes_picture(Random(0), clip=True)).pictures) > 1


def test_html_in_texts_stays_text(git: Captioner) -> None:
    visit, bad = visit_of(git), "<script>alert(1)</script>"
    say(git, visit)
    say(git, visit, bad)
    parts = [page_html.notice(bad), page_html.heading(bad), page_html.answers(visit)]
    parts.append(page_html.bars(rank(git, visit, f"{bad}, a star")))
    assert [part for part in parts if "<script" in part or "&lt;script" not in part] == []


def test_answers_come_latest_first_and_bars_likeliest_first(git: Captioner) -> None:
    visit = visit_of(git)
    for question in (None, "is there a star?", "is there a cross?"):
        say(git, visit, question)
    answers = page_html.answers(visit)
    assert answers.index("a cross?") < answers.index("a star?")
    ranking = rank(git, visit, ",".join(f"a star {n}" for n in range(25)))
    assert "5 more not shown" in page_html.bars(ranking)


def test_a_text_without_words_is_shown_as_such(git: Captioner) -> None:
    visit = visit_of(git)
    said = say(git, visit)
    empty = type(said)(None, "", [], 1.0, 0.0)
    assert "(no words)" in page_html.caption(empty)


def test_a_port_that_is_taken_ends_the_command_in_one_line() -> None:
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(main, ["page", "--port", str(port)])
    assert result.exit_code == 1
    assert f"127.0.0.1:{port}: " in result.stderr
    assert "another --port" in result.stderr
    assert "Traceback" not in result.output


def test_without_gradio_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "git_model.page.layout", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = CliRunner().invoke(main, ["page"])
    assert result.exit_code == 1
    assert "pip install 'git-model[page]'" in result.stderr
