"""The page without a browser: sessions, words, labels, and its HTML."""

import io
import math
import re
import socket
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import tiny_config, tiny_model

from git_model.captioner import Captioner, Label
from git_model.cli.main import main
from git_model.page import html as page_html
from git_model.page.actions import (
    MAX_ANSWERS,
    MAX_LABELS,
    MIN_FIT,
    PageSession,
    Ranking,
    Reply,
    SessionStore,
    encode,
    generate_reply,
    parse_labels,
    rank_labels,
    read_picture,
    word_attention,
)
from git_model.page.purpose import doubt_about
from git_model.page.questions import learned_questions, name_hint, question_hint
from git_model.page.samples import drawn_samples, folder_samples, random_drawing
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.shapes.clips import make_story
from git_model.shapes.questions import ask_about, ask_about_story
from git_model.shapes.texts import class_names, describe
from git_model.shapes.world import draw, make_close_up, make_world
from git_model.utils.errors import GITError

IMAGES = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.from_pretrained("demo")


def open_session(captioner: Captioner, data: bytes) -> PageSession:
    return encode(captioner, read_picture(captioner, data))


def session_of(captioner: Captioner, name: str = "five_shapes.png") -> PageSession:
    return open_session(captioner, (IMAGES / name).read_bytes())


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


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
    with pytest.raises(GITError, match="names"):
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
    with pytest.raises(GITError, match="choose or drop one first"):
        store.get("b")
    assert "b" not in store
    store.remove("a")
    with pytest.raises(GITError, match="choose or drop one first"):
        store.get("a")


def test_random_drawings_are_images_and_with_clips_also_clips(captioner: Captioner) -> None:
    def lengths(*, clips: bool) -> set[int]:
        rng = Random(0)
        files = [random_drawing(rng, clips=clips) for _ in range(20)]
        return {len(read_picture(captioner, data).frames) for data in files}

    assert lengths(clips=False) == {1}
    assert {1, 4} < lengths(clips=True)


def test_the_drawn_examples_are_of_the_models_world_and_have_their_right_captions(
    captioner: Captioner,
) -> None:
    shown = drawn_samples(clips=True).shown
    assert [sample.is_clip for sample in shown] == [False] * 5 + [True]
    pictures = [read_picture(captioner, sample.read()) for sample in shown]
    config = captioner.model.config
    assert [doubt_about(p.frames, config, shapes=True) for p in pictures] == [""] * 6
    assert [sample.text for sample in shown[:2]] == ["a red cross", "three blue stars"]
    assert not any(sample.is_clip for sample in drawn_samples(clips=False).shown)
    with pytest.raises(GITError, match="no such example"):
        drawn_samples(clips=False).read(6)


def test_the_examples_of_a_folder_are_its_pictures(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "broken.png", "notes.txt", "c.gif"):
        (tmp_path / name).write_bytes(b"no picture")
    sideways = Image.new("RGB", (8, 4))
    sideways.getexif()[0x0112] = 6
    sideways.save(tmp_path / "a.JPG", "JPEG", exif=sideways.getexif())
    Image.new("RGB", (300, 20)).save(tmp_path / "b.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "folder.png").mkdir()
    samples = folder_samples(tmp_path, tiny_config())
    assert [(sample.name, sample.thumbnail.size) for sample in samples.shown] == [
        ("a.JPG", (4, 8)),
        ("b.png", (128, 9)),
    ]
    assert samples.read(1) == (tmp_path / "b.png").read_bytes()
    files = {path.read_bytes() for path in tmp_path.glob("*.*") if path.is_file()}
    assert samples.random(Random(0)) in files
    (tmp_path / "b.png").unlink()
    with pytest.raises(GITError, match=r"b\.png: No such file"):
        samples.read(1)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(GITError, match="expected at least one"):
        folder_samples(tmp_path, tiny_config())
    with pytest.raises(GITError, match="expected a folder"):
        folder_samples(tmp_path / "missing", tiny_config())


def test_a_picture_is_shown_upright(captioner: Captioner) -> None:
    image = Image.new("RGB", (60, 30), "red")
    image.paste("blue", (0, 0, 30, 30))
    image.getexif()[0x0112] = 6  # to be rotated clockwise: the left half is the upper one
    picture = read_picture(captioner, file_of(image, "PNG", exif=image.getexif()))
    [preview] = picture.previews
    assert preview.size == (30, 60)
    assert preview.getpixel((15, 5)) == (0, 0, 255)
    assert preview.getpixel((15, 55)) == (255, 0, 0)


def test_a_picture_of_16_bits_is_shown_in_its_brightness(captioner: Captioner) -> None:
    grey = Image.new("I;16", (20, 20), 128 * 257)
    [preview] = read_picture(captioner, file_of(grey)).previews
    assert preview.getpixel((3, 3)) == (128, 128, 128)


def test_pictures_from_outside_the_shapes_world_are_doubted(captioner: Captioner) -> None:
    config, rng = captioner.model.config, Random(3)

    def doubt(image: Image.Image) -> str:
        return doubt_about([image.convert("RGB")], config, shapes=True)

    worlds = [make_world(rng), make_close_up(rng), make_world(rng, "held_out")]
    assert [doubt(draw(world)) for world in worlds] == [""] * 3
    assert doubt(Image.open(io.BytesIO(file_of(draw(worlds[1]), "JPEG", quality=90)))) == ""
    assert "640 x 480 pixels, more than 64 x 64" in doubt(Image.new("RGB", (640, 480), (200,) * 3))
    assert "65 x 10 pixels" in doubt(Image.new("RGB", (65, 10), (200,) * 3))
    assert "not a drawing" in doubt(Image.radial_gradient("L").resize((64, 64)))
    assert "not a drawing" in doubt(Image.new("RGB", (64, 64), "white"))
    photo = Image.radial_gradient("L").convert("RGB")
    assert doubt_about([photo], tiny_config(), shapes=False) == ""  # made for any size
    assert doubt_about([draw(worlds[0]), Image.new("RGB", (64, 64))], config, shapes=True)


def test_a_right_class_fits_and_without_it_none_does(captioner: Captioner) -> None:
    """Over close-ups, the images that have classes: the model is wrong about one in a hundred."""
    rng, names = Random(11), class_names()
    fits, misses = [], []
    for _ in range(12):
        world = make_close_up(rng, "held_out")
        session = open_session(captioner, file_of(draw(world)))
        right = describe(world)
        wrong = rng.sample([name for name in names if name != right], 5)
        fits.append(rank_labels(captioner, session, ",".join([right, *wrong])).none_fits)
        misses.append(rank_labels(captioner, session, ",".join(wrong)).none_fits)
    assert sum(fits) == 0
    assert sum(misses) >= 11  # a class of another shade may be nearly right


def test_how_well_a_class_fits_is_its_probability_relative_to_the_caption(
    captioner: Captioner,
) -> None:
    session = session_of(captioner)
    ranking = rank_labels(captioner, session, "a red star, a blue star")
    scene = captioner.see(IMAGES / "five_shapes.png")
    best = max(text.logprob for text in captioner.score(scene, ["a red star", "a blue star"]))
    assert ranking.fit == pytest.approx(math.exp(best - captioner.caption(scene).logprob), rel=1e-4)
    assert ranking.fit < MIN_FIT
    assert "None of these" in page_html.bars(ranking, session)
    own = rank_labels(captioner, session, "two green stars and three purple triangles, a red star")
    assert own.fit == pytest.approx(1)
    assert "None of these" not in page_html.bars(own, session)


def test_a_doubt_stands_above_the_caption_and_beside_answers_and_classes_without_numbers(
    captioner: Captioner,
) -> None:
    picture = read_picture(captioner, file_of(Image.new("RGB", (640, 480), "red")))
    for doubt in ("", "it has 640 x 480 pixels"):
        session = encode(captioner, picture, doubt)
        caption = generate_reply(captioner, session).text
        generate_reply(captioner, session, "is there a red star?")
        ranking = rank_labels(captioner, session, f"{caption}, a red star")
        parts = [
            page_html.caption(session),
            page_html.answers(session),
            page_html.bars(ranking, session),
        ]
        assert doubt in parts[0].lower()
        assert parts[0].find("Not made for this picture") < parts[0].find('class="words')
        assert [("Not made for this picture" in part) for part in parts] == [bool(doubt)] * 3
        visible = [part.partition("<details>")[0] for part in (*parts, page_html.details(session))]
        numbers = [part for part in visible if " %<" in part or "Confidence" in part]
        assert bool(numbers) is not bool(doubt)


def label_ranking(logprob: float, caption_logprob: float, n_tokens: int) -> Ranking:
    labels = [Label("dog", 1.0, logprob), Label("pizza", 0.0, logprob - 8)]
    return Ranking(labels, Reply(None, "rosette", [], caption_logprob, 3, 0.0), n_tokens, 0.0)


def test_a_name_that_is_improbable_itself_does_not_fit_even_beside_an_improbable_caption() -> None:
    """Figures of a small model for emoji on a photo: "dog" is only 5 times less probable than its
    own caption, but its two tokens have a probability of 0.0375 each."""
    ranking = label_ranking(-6.5622, -5.04, 2)
    assert ranking.fit == pytest.approx(0.218, abs=0.001)
    assert ranking.confidence == pytest.approx(0.0376, abs=1e-4)
    assert ranking.none_fits
    assert not label_ranking(-5.9, -5.04, 2).none_fits  # 0.0523 each


def test_where_no_name_fits_no_share_is_shown(captioner: Captioner) -> None:
    session = session_of(captioner)
    shown = page_html.bars(label_ranking(-20.0, -1.0, 2), session, "The model does not know “dog”.")
    visible = shown.partition("<details>")[0]
    assert "%" not in visible.replace("width: 100.00%", "").replace("width: 0.00%", "")
    assert 'class="bars none"' in visible
    assert "the least improbable comes first" in visible
    assert "does not know “dog”" in visible
    fitting = page_html.bars(label_ranking(-0.1, -0.1, 2), session)
    assert "100.0 %" in fitting
    assert "Among these names only" in fitting


def test_the_page_states_what_a_model_was_made_for_or_that_its_checkpoint_does_not_say(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "flowers" / "checkpoint"
    folder.mkdir(parents=True)
    assert page_html.short_name(str(folder)) == "flowers/checkpoint"
    assert page_html.short_name("microsoft/git-base-coco") == "microsoft/git-base-coco"
    assert "does not say what it was made for" in page_html.heading("x", "", shapes=False)
    made = page_html.heading("x", "captions of stamps", shapes=False, max_side=96)
    assert "Made for captions of stamps; pictures of at most 96 x 96 pixels." in made
    demo = page_html.heading("demo", "", shapes=True, max_side=64)
    assert "drawings of at most 64 x 64 pixels" in demo


def test_every_question_of_the_shapes_world_is_learned_and_others_get_a_hint(
    captioner: Captioner,
) -> None:
    rng, tokenizer = Random(99), captioner.tokenizer

    def hint(question: str) -> str:
        return question_hint(question, tokenizer, shapes=True)

    asked = [question.text for _ in range(40) for question in ask_about(make_world(rng), rng, 7)]
    asked += [
        question.text for _ in range(40) for question in ask_about_story(make_story(rng), rng, 5)
    ]
    shown = learned_questions(clips=False) + learned_questions(clips=True)
    assert len(shown) == 19
    assert [question for question in asked + shown if hint(question)] == []
    assert hint("Is there an orange star") == ""
    no_kind = "Not a kind of question that this model learned"
    assert hint("is it red?") == f"{no_kind}: it does not know the word “it”."
    assert hint("which things are red?") == f"{no_kind}."


def test_words_that_a_vocabulary_does_not_have_are_named() -> None:
    vocabulary = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "what", "cat", "q", "##z", "##s"]
    tokenizer = Tokenizer.from_vocab(vocabulary)
    assert question_hint("What cats?", tokenizer, shapes=False) == ""
    hint = question_hint("what qzz, qzz or é1?", tokenizer, shapes=False)
    assert hint.endswith("it does not know the words “qzz”, “or”, “é”.")
    names = ["cat", *(f"x{letter}" for letter in "abcdefg")]
    assert name_hint(names, tokenizer, shapes=False).endswith("“xe” and 2 more.")


def test_the_alternatives_of_a_word_sum_to_all(captioner: Captioner) -> None:
    session = session_of(captioner)
    generate_reply(captioner, session)
    result = word_attention(captioner, session, 0, 2)
    assert result.first.text == "stars"
    visible = page_html.attention_details(result).partition("<details>")[0]
    shares = re.findall(r"([<>]?) ?([\d.]+) %</span>", visible)
    assert len(shares) == 5
    assert "all other words" in visible
    assert sum(float(share) for _, share in shares) == pytest.approx(100, abs=0.6)
    assert page_html._token("##s") == "“…s”"
    assert page_html._token("[SEP]") == "(end of the text)"


def test_a_wrong_file_is_named_by_its_own_name(captioner: Captioner) -> None:
    with pytest.raises(GITError) as refusal:
        read_picture(captioner, b"hello", "my\nnotes.jpg")
    assert str(refusal.value).startswith(r"my\nnotes.jpg: neither an image nor a whole video")
    assert "Pillow" not in str(refusal.value)


def test_with_a_model_of_images_nothing_is_said_about_clips() -> None:
    parts = [
        page_html.file_chooser(100, (".png",), clips=False),
        page_html.no_image(clips=False, has_samples=True),
        page_html.no_image(clips=False, has_samples=False),
        page_html.heading("x", "", shapes=False),
    ]
    assert [part for part in parts if "clip" in part or "video" in part] == []
    assert "video/*" in page_html.file_chooser(100, (".png",), clips=True)


def test_html_in_texts_stays_text(captioner: Captioner) -> None:
    session, bad = session_of(captioner), "<script>alert(1)</script>"
    generate_reply(captioner, session)
    generate_reply(captioner, session, bad, hint=bad)
    session.doubt = bad
    parts = [page_html.notice(bad), page_html.heading(bad, bad, shapes=False)]
    parts += [page_html.answers(session), page_html.caption(session)]
    parts.append(page_html.bars(rank_labels(captioner, session, f"{bad}, a star"), session))
    assert [part for part in parts if "<script" in part or "&lt;script" not in part] == []


def test_answers_come_latest_first_and_labels_most_probable_first(captioner: Captioner) -> None:
    session = session_of(captioner)
    for question in (None, "is there a star?", "is there a cross?"):
        generate_reply(captioner, session, question)
    answers = page_html.answers(session)
    assert answers.index("a cross?") < answers.index("a star?")
    ranking = rank_labels(captioner, session, ",".join(f"a star {n}" for n in range(25)))
    assert "5 more are not shown" in page_html.bars(ranking, session)


def test_a_text_without_words_is_shown_as_empty(captioner: Captioner) -> None:
    empty = Reply(None, "", [], 0.0, 1, 0.0)
    session = session_of(captioner)
    session.add_reply(empty)
    assert "The model answered with an empty text." in page_html.caption(session)


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


def test_with_a_model_of_images_a_bad_file_is_refused_without_a_word_about_videos() -> None:
    captioner = Captioner(tiny_model(frames=0), None)
    with pytest.raises(GITError) as refusal:
        read_picture(captioner, b"hello")
    expected = "the file: not an image, expected JPEG, PNG or a similar format"
    assert str(refusal.value).lower() == expected.lower()


def test_an_error_keeps_the_name_of_its_file_and_begins_with_a_capital_else() -> None:
    assert ">bad.heic: no image" in page_html.notice("bad.heic: no image")
    assert ">scan: no image" in page_html.notice("scan: no image")
    assert ">There is no picture" in page_html.notice("there is no picture")
