"""Examples become lessons, lessons become batches."""

from random import Random

import pytest
import torch
from parity_models import bite
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import tiny_config, tiny_model

from git_model.data.collation import Line, Sample, batches_of, collate, sample_of
from git_model.data.example import Annotation, Example
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.loss import batch_loss
from git_model.utils.errors import GITError

PAD, BOS, EOS = 0, 1, 2
WORDS = Tokenizer.from_vocab(
    ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *["a", "red", "green", "star", "how", "many"]]
)
CONFIG = tiny_config(style="huggingface")
PICTURE = Image.new("RGB", (20, 16), "red")


def lesson(*targets: Annotation, seed: int = 0, **options: int) -> Sample:
    example = Example("one.png", PICTURE, targets)
    return sample_of(example, WORDS, CONFIG, rng=Random(seed), **options)


def ids(text: str) -> list[int]:
    return WORDS.encode(text)


def test_every_caption_of_a_picture_is_learned():
    captions = ("a red star", "a star")
    lines = lesson(Annotation(captions)).lines
    assert lines == [Line([BOS, *ids(text), EOS], 1) for text in captions]


def test_of_a_questions_answers_one_is_drawn_as_often_as_it_was_given():
    target = Annotation(("red", "red", "green"), "how many")
    drawn = [lesson(target, seed=seed).lines for seed in range(300)]
    assert all(len(lines) == 1 and lines[0].given == 3 for lines in drawn)
    red = sum(lines[0].tokens == [BOS, *ids("how many red"), EOS] for lines in drawn)
    assert 160 < red < 240


def test_a_clip_is_its_frames_one_after_the_other():
    example = Example("clip.gif", [PICTURE] * 3, (Annotation(("a star",)),))
    found = sample_of(example, WORDS, CONFIG, rng=Random(0))
    assert found.pixels.shape == (3, 3, 16, 16)
    assert lesson(Annotation(("a star",))).pixels.shape == (3, 16, 16)


def test_an_answer_too_long_is_cut_and_not_ended():
    [line] = lesson(Annotation(("a red star",)), max_tokens=3).lines
    assert line.tokens == [BOS, *ids("a red")]


def test_a_question_too_long_is_refused():
    with pytest.raises(GITError, match="question that begins 'how many' has 3 tokens"):
        lesson(Annotation(("red",), "how many"), max_tokens=3)


def test_a_picture_without_text_is_refused():
    with pytest.raises(GITError, match=r"one\.png: there is no text to learn"):
        lesson()
    with pytest.raises(GITError, match=r"one\.png: there is no answer to 'how many', expected one"):
        lesson(Annotation((), "how many"))


def test_no_more_texts_than_asked_for_are_drawn_all_of_them_in_time():
    captions = ("a", "red", "star")
    seen = set()
    for seed in range(50):
        lines = lesson(Annotation(captions), seed=seed, max_texts=2).lines
        assert len(lines) == 2
        seen |= {tuple(line.tokens[1:-1]) for line in lines}
    assert seen == {tuple(ids(text)) for text in captions}


def test_a_batch_predicts_answers_and_ends_and_nothing_else():
    first = lesson(Annotation(("a red star",)), Annotation(("red",), "how many"))
    second = lesson(Annotation(("star",)))
    batch = collate([first, second], PAD)
    assert batch.pixels.shape == (2, 3, 16, 16)
    assert batch.tokens.tolist() == [
        [BOS, *ids("a red star"), EOS],
        [BOS, *ids("how many red"), EOS],
        [BOS, *ids("star"), EOS, PAD, PAD],
        [PAD] * 5,
    ]
    wanted = [tokens[mask].tolist() for tokens, mask in zip(batch.tokens, batch.mask, strict=True)]
    assert wanted == [[*ids("a red star"), EOS], [*ids("red"), EOS], [*ids("star"), EOS], []]
    assert batch.n_predicted == 8


@given(
    st.lists(st.sampled_from([(3, 8, 8), (3, 8, 16), (2, 3, 8, 8)]), min_size=1), st.integers(1, 4)
)
def test_batches_hold_every_lesson_once_each_of_one_shape_and_none_too_large(shapes, size):
    lessons = [
        Sample(torch.full(shape, float(number)), [Line([BOS, 5, EOS], 1)])
        for number, shape in enumerate(shapes)
    ]
    batches = batches_of(lessons, PAD, size)
    assert all(len(batch.pixels) <= size for batch in batches)
    numbers = [int(one.flatten()[0]) for batch in batches for one in batch.pixels]
    assert sorted(numbers) == list(range(len(shapes)))
    for batch in batches:
        assert {tuple(one.shape) for one in batch.pixels} == {
            shapes[int(batch.pixels.flatten()[0])]
        }


def random_lessons(seed: int, counts: tuple[int, ...]) -> list[Sample]:
    rng = Random(seed)
    generator = torch.Generator().manual_seed(seed)
    return [
        Sample(
            torch.randn(3, 16, 16, generator=generator, dtype=torch.float64),
            [
                Line([BOS, *(rng.randrange(3, 40) for _ in range(rng.randrange(2, 9))), EOS],
                     rng.randrange(1, 3))
                for _ in range(count)
            ],
        )
        for count in counts
    ]  # fmt: skip


@pytest.mark.parametrize("style", ["huggingface", "microsoft"])
@pytest.mark.parametrize("counts", [(5, 5), (1, 4, 2), (3,)])
def test_texts_that_share_a_reading_give_the_gradients_of_texts_that_do_not(counts, style):
    model = tiny_model()
    bite(model, 1)
    lessons = random_lessons(0, counts)
    alone = [Sample(one.pixels, [line]) for one in lessons for line in one.lines]
    losses, gradients = [], []
    for some in (lessons, alone):
        batch = collate(some, PAD)
        model.zero_grad()
        loss = batch_loss(model, batch, label_smoothing=0.1, style=style) / batch.n_predicted
        loss.backward()
        losses.append(loss.item())
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
    assert losses[0] == pytest.approx(losses[1], abs=1e-10)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-10, rtol=0)
        assert gradient.abs().max() > 1e-6, name


def test_padding_changes_no_logits():
    model = tiny_model()
    lessons = random_lessons(3, (1, 1, 1, 1))
    batch = collate(lessons, PAD)
    together = model(batch.pixels, batch.tokens)
    for row, one in enumerate(lessons):
        alone = model(one.pixels[None], torch.tensor([one.lines[0].tokens]))
        torch.testing.assert_close(together[[row], : alone.shape[1]], alone, atol=1e-10, rtol=0)
