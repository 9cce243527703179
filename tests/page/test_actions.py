"""The page without a browser: sessions, words, labels, and its HTML."""

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
    MAX_ANSWERS,
    MAX_LABELS,
    Reply,
    SessionStore,
    generate_reply,
    open_session,
    parse_labels,
    random_shapes,
    rank_labels,
    word_attention,
)
from git_model.utils.errors import GITError

IMAGES = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.from_pretrained("demo")


def session_of(captioner: Captioner, name: str = "five_shapes.png"):
    return open_session(captioner, (IMAGES / name).read_bytes())


def test_a_session_replies_what_the_captioner_replies(captioner: Captioner) -> None:
    session, question = session_of(captioner), "what is at the top left?"
    scene = captioner.see(IMAGES / "five_shapes.png")
    reply = generate_reply(captioner, session)
    assert (
        reply.text == captioner.caption(scene).text == " ".join(word.text for word in reply.words)
    )
    assert generate_reply(captioner, session, question).text == captioner.ask(scene, question).text
    assert list(session.replies) == [0, 1]
    labels = captioner.classify(scene, ["a red star", "a blue star"])
    assert rank_labels(captioner, session, "a red star\na blue star").labels == labels


def test_an_image_is_encoded_once_for_all_replies(captioner: Captioner, monkeypatch) -> None:
    session = session_of(captioner)
    monkeypatch.setattr(captioner.model, "see", None)
    generate_reply(captioner, session)
    generate_reply(captioner, session, "is there a star?")
    rank_labels(captioner, session, "a red star, a blue star")


def test_a_clip_has_its_frames_and_their_attention(captioner: Captioner) -> None:
    session = session_of(captioner, "both_act.gif")
    reply = generate_reply(captioner, session)
    attention = word_attention(captioner, session, 0, 3)
    assert len(session.previews) == len(attention.frames) == len(attention.shares) > 1
    assert attention.word == reply.words[3]
    assert attention.shares.sum().item() == pytest.approx(1)
    assert 0 < attention.image_share < 1


def test_the_model_attends_to_what_it_names(captioner: Captioner) -> None:
    session = session_of(captioner)
    generate_reply(captioner, session, "what is at the top left?")
    assert word_attention(captioner, session, 0, 2).shares.argmax() == 0  # the star there


def test_each_word_has_its_tokens(captioner: Captioner) -> None:
    reply = generate_reply(captioner, session_of(captioner, "both_act.gif"))
    assert [len(word.tokens) for word in reply.words if word.text == "right,"] == [2]
    tokens = [token for word in reply.words for token in word.tokens]
    assert tokens == list(range(len(tokens)))


@pytest.mark.parametrize(("number", "word"), [(3, 0), (0, 99), (0, -1)])
def test_a_missing_word_is_refused(captioner: Captioner, number: int, word: int) -> None:
    session = session_of(captioner)
    generate_reply(captioner, session)
    with pytest.raises(GITError, match="no longer kept"):
        word_attention(captioner, session, number, word)


def test_the_latest_answers_and_the_caption_are_kept(captioner: Captioner) -> None:
    session = session_of(captioner)
    reply = generate_reply(captioner, session)
    for _ in range(MAX_ANSWERS + 2):
        session.add_reply(reply)
    assert list(session.replies) == [0, *range(3, MAX_ANSWERS + 3)]


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_a_file_that_is_no_image_gives_one_line_without_a_path(
    captioner: Captioner, data: bytes
) -> None:
    with pytest.raises(GITError) as error:
        open_session(captioner, data)
    assert str(error.value).startswith("the file")
    assert "\n" not in str(error.value)
    assert "/tmp" not in str(error.value)


def test_too_many_pixels_are_refused(captioner: Captioner, monkeypatch) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(GITError, match="too many pixels"):
        session_of(captioner)


@pytest.mark.parametrize("text", ["", " ,\n,", ",".join(map(str, range(MAX_LABELS + 1)))])
def test_no_labels_and_too_many_are_refused(captioner: Captioner, text: str) -> None:
    with pytest.raises(GITError, match="labels"):
        rank_labels(captioner, session_of(captioner), text)


@given(st.lists(st.text(st.characters(exclude_characters=",\n")).map(str.strip)), st.data())
def test_labels_are_separated_by_commas_and_line_ends(
    labels: list[str], data: st.DataObject
) -> None:
    marks = [data.draw(st.sampled_from([",", "\n", " , ", ",\n"])) for _ in labels]
    text = "".join(label + mark for label, mark in zip(labels, marks, strict=True))
    assert parse_labels(text) == list(dict.fromkeys(label for label in labels if label))


def test_each_page_has_its_own_session_and_the_least_recently_used_is_dropped(
    captioner: Captioner,
) -> None:
    store, first, second = (
        SessionStore(max_sessions=2),
        session_of(captioner),
        session_of(captioner, "two_shapes.png"),
    )
    store.put("a", first)
    store.put("b", second)
    assert (store.get("b"), store.get("a")) == (second, first)
    store.put("c", second)
    assert len(store) == 2
    with pytest.raises(GITError, match="drop one first"):
        store.get("b")
    store.remove("a")
    with pytest.raises(GITError, match="drop one first"):
        store.get("a")


def test_images_and_clips_of_shapes_can_be_drawn(captioner: Captioner) -> None:
    assert len(open_session(captioner, random_shapes(Random(0), clip=False)).previews) == 1
    assert len(open_session(captioner, random_shapes(Random(0), clip=True)).previews) > 1


def test_html_in_texts_stays_text(captioner: Captioner) -> None:
    session, bad = session_of(captioner), "<script>alert(1)</script>"
    generate_reply(captioner, session)
    generate_reply(captioner, session, bad)
    parts = [page_html.notice(bad), page_html.heading(bad), page_html.answers(session)]
    parts.append(page_html.bars(rank_labels(captioner, session, f"{bad}, a star")))
    assert [part for part in parts if "<script" in part or "&lt;script" not in part] == []


def test_answers_come_latest_first_and_labels_most_probable_first(captioner: Captioner) -> None:
    session = session_of(captioner)
    for question in (None, "is there a star?", "is there a cross?"):
        generate_reply(captioner, session, question)
    answers = page_html.answers(session)
    assert answers.index("a cross?") < answers.index("a star?")
    ranking = rank_labels(captioner, session, ",".join(f"a star {n}" for n in range(25)))
    assert "5 more not shown" in page_html.bars(ranking)


def test_a_text_without_words_is_shown_as_empty() -> None:
    empty = Reply(None, "", [], 1.0, 0.0)
    assert "(empty)" in page_html.caption(empty)


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
