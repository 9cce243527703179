"""Examples become samples, samples become batches."""

from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import bite, tiny_config, tiny_model

from git_model.data.collation import Collator, Sample, TextTarget, collate
from git_model.data.example import Annotation, Example
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.loss import batch_loss
from git_model.utils.errors import GITError

PAD, BOS, EOS = 0, 1, 2
WORDS = ["a", "red", "green", "star", "how", "many"]
TOKENIZER = Tokenizer.from_vocab(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])
CONFIG = tiny_config(style="huggingface")
MICROSOFT = replace(CONFIG, style="microsoft")
IMAGE = Image.new("RGB", (20, 16), "red")


def sample_of(*annotations: Annotation, seed: int = 0, config=CONFIG, **options: int) -> Sample:
    collator = Collator(tokenizer=TOKENIZER, config=config, **options)
    return collator.sample(Example("one.png", IMAGE, annotations), Random(seed))


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text)


# Texts


def test_every_caption_of_an_image_is_learned():
    captions = ("a red star", "a star")
    texts = sample_of(Annotation(captions)).texts
    assert texts == [TextTarget([BOS, *ids(text), EOS], 1) for text in captions]


@pytest.mark.parametrize("config", [CONFIG, MICROSOFT], ids=["huggingface", "microsoft"])
def test_of_a_questions_answers_one_is_drawn_as_often_as_it_was_given(config):
    annotation = Annotation(("red", "red", "green"), "how many")
    draws = [sample_of(annotation, seed=seed, config=config).texts for seed in range(300)]
    assert all(len(texts) == 1 and texts[0].n_prompt == 3 for texts in draws)
    n_red = sum(texts[0].tokens == [BOS, *ids("how many red"), EOS] for texts in draws)
    n_green = sum(texts[0].tokens == [BOS, *ids("how many green"), EOS] for texts in draws)
    assert n_red + n_green == 300
    assert 160 < n_red < 240


def test_a_clip_is_its_frames_in_order():
    frames = [Image.new("RGB", (20, 16), (grey,) * 3) for grey in (0, 120, 240)]
    example = Example("clip.gif", frames, (Annotation(("a star",)),))
    pixels = Collator(tokenizer=TOKENIZER, config=CONFIG).sample(example, Random(0)).pixels
    assert pixels.shape == (3, 3, 16, 16)
    means = pixels.mean(dim=(1, 2, 3))
    assert means[0] < means[1] < means[2]
    assert sample_of(Annotation(("a star",))).pixels.shape == (3, 16, 16)


def test_an_answer_too_long_is_cut_and_not_ended():
    [text] = sample_of(Annotation(("a red star",)), max_tokens=3).texts
    assert text.tokens == [BOS, *ids("a red")]


def test_a_question_too_long_is_refused():
    with pytest.raises(GITError, match="question that begins 'how many' has 3 tokens"):
        sample_of(Annotation(("red",), "how many"), max_tokens=3)


@pytest.mark.parametrize("config", [CONFIG, MICROSOFT], ids=["huggingface", "microsoft"])
def test_an_image_without_text_or_with_an_empty_question_is_refused(config):
    with pytest.raises(GITError, match=r"^one\.png: there is no text to learn"):
        sample_of(config=config)
    with pytest.raises(GITError, match=r"^one\.png: there is no answer to 'how many'"):
        sample_of(Annotation((), "how many"), config=config)
    with pytest.raises(GITError, match=r"^one\.png: the question ' ' is empty"):
        sample_of(Annotation(("red",), " "), config=config)


def test_at_most_max_texts_are_drawn_and_in_time_all_of_them():
    captions = ("a", "red", "star")
    drawn = set()
    for seed in range(50):
        texts = sample_of(Annotation(captions), seed=seed, max_texts=2).texts
        assert len({tuple(text.tokens) for text in texts}) == len(texts) == 2
        drawn |= {tuple(text.tokens[1:-1]) for text in texts}
    assert drawn == {tuple(ids(text)) for text in captions}


# Style microsoft: the original's cut of long texts


def original_get_data(prefix_ids, target_ids, max_text_len, cls_id, sep_id):
    """The original's `get_data` (generativeimage2text/train.py) on token ids: (input_ids,
    need_predict). Its tokenizer calls have truncation=True and max_length=max_text_len."""
    prefix_ids, target_ids = prefix_ids[:max_text_len], target_ids[:max_text_len]
    need_predict = [0] * len(prefix_ids) + [1] * len(target_ids)
    payload = prefix_ids + target_ids
    if len(payload) > max_text_len:
        payload = payload[-(max_text_len - 2) :]
        need_predict = need_predict[-(max_text_len - 2) :]
    input_ids = [cls_id, *payload, sep_id]
    need_predict = [0, *need_predict, 1]
    return input_ids, need_predict


texts_of_words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=15).map(" ".join)


@given(
    question=st.none() | texts_of_words,
    answer=texts_of_words | st.just(""),
    max_tokens=st.integers(3, 20),
)
def test_style_microsoft_cuts_long_texts_as_the_original_does(question, answer, max_tokens):
    sample = sample_of(Annotation((answer,), question), config=MICROSOFT, max_tokens=max_tokens)
    batch = collate([sample], PAD)
    input_ids, need_predict = original_get_data(
        ids(question or ""), ids(answer), max_tokens, BOS, EOS
    )
    assert batch.tokens.tolist() == [input_ids]
    assert batch.mask.int().tolist() == [need_predict]


@pytest.mark.parametrize(
    ("question", "text", "tokens", "n_prompt"),
    [
        (None, "a red green star", "a red green star", 1),
        (None, "a red green star how many", "a red green star", 1),  # loses its end, not [SEP]
        ("how many", "a red", "how many a red", 3),
        ("how many red", "a star", "a star", 1),  # above the limit: two tokens less than it
        ("how many red", "star", "how many red star", 4),
        ("how many red green", "star", "green star", 2),  # the rest of the question is the prompt
        ("how many red green a", "star", "green star", 2),  # the question loses its end before
        ("how many", "a red green star how", "green star", 1),
    ],
)
def test_style_microsoft_by_hand_with_a_limit_of_four(question, text, tokens, n_prompt):
    [target] = sample_of(Annotation((text,), question), config=MICROSOFT, max_tokens=4).texts
    assert target == TextTarget([BOS, *ids(tokens), EOS], n_prompt)


# Batches


def test_a_batch_predicts_answers_and_ends_and_nothing_else():
    first = sample_of(Annotation(("a red star",)), Annotation(("red",), "how many"))
    second = sample_of(Annotation(("star",)))
    batch = collate([first, second], PAD)
    assert batch.pixels.shape == (2, 3, 16, 16)
    assert batch.tokens.tolist() == [
        [BOS, *ids("a red star"), EOS],
        [BOS, *ids("how many red"), EOS],
        [BOS, *ids("star"), EOS, PAD, PAD],
        [PAD] * 5,
    ]
    targets = [row[mask].tolist() for row, mask in zip(batch.tokens, batch.mask, strict=True)]
    assert targets == [[*ids("a red star"), EOS], [*ids("red"), EOS], [*ids("star"), EOS], []]
    assert batch.n_predicted == 8


@given(
    shapes=st.lists(st.sampled_from([(3, 8, 8), (3, 8, 16), (2, 3, 8, 8)]), min_size=1),
    size=st.none() | st.integers(1, 4),
)
def test_batches_hold_every_sample_once_all_of_one_shape_and_none_too_large(shapes, size):
    samples = [
        Sample(torch.full(shape, float(number)), [TextTarget([BOS, 5, EOS], 1)])
        for number, shape in enumerate(shapes)
    ]
    batches = Collator(tokenizer=TOKENIZER, config=CONFIG, micro_batch=size).batches(samples)
    assert all(len(batch.pixels) <= (size or len(shapes)) for batch in batches)
    numbers = [int(pixels.flatten()[0]) for batch in batches for pixels in batch.pixels]
    assert sorted(numbers) == list(range(len(shapes)))
    for batch in batches:
        assert {tuple(pixels.shape) for pixels in batch.pixels} == {
            shapes[int(batch.pixels.flatten()[0])]
        }
    if size is None:
        assert len(batches) == len(set(shapes))


def test_no_samples_are_no_batches():
    assert Collator(tokenizer=TOKENIZER, config=CONFIG).batches([]) == []


def random_samples(seed: int, counts: tuple[int, ...]) -> list[Sample]:
    rng = Random(seed)
    generator = torch.Generator().manual_seed(seed)

    def random_text() -> TextTarget:
        words = [rng.randrange(3, 40) for _ in range(rng.randrange(2, 9))]
        return TextTarget([BOS, *words, EOS], rng.randrange(1, 3))

    return [
        Sample(
            torch.randn(3, 16, 16, generator=generator, dtype=torch.float64),
            [random_text() for _ in range(count)],
        )
        for count in counts
    ]


@pytest.mark.parametrize("style", ["huggingface", "microsoft"])
@pytest.mark.parametrize("counts", [(5, 5), (1, 4, 2), (3,)])
def test_texts_that_share_an_encoding_give_the_gradients_of_texts_that_do_not(counts, style):
    model = tiny_model()
    bite(model, 1)
    samples = random_samples(0, counts)
    single = [Sample(sample.pixels, [text]) for sample in samples for text in sample.texts]
    losses, gradients = [], []
    for group in (samples, single):
        batch = collate(group, PAD)
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
    samples = random_samples(3, (1, 1, 1, 1))
    batch = collate(samples, PAD)
    together = model(batch.pixels, batch.tokens)
    for row, sample in enumerate(samples):
        alone = model(sample.pixels[None], torch.tensor([sample.texts[0].tokens]))
        torch.testing.assert_close(together[[row], : alone.shape[1]], alone, atol=1e-10, rtol=0)
