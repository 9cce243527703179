"""The losses by name, against their formulas written out."""

import copy
import dataclasses

import own_objects
import pytest
import torch
from runs import log_of, losses_of, recipe_of, recipe_table, start_folder
from tiny import bite, tiny_config
from torch.nn import functional as F

from git_model.checkpoints.loading import open_model
from git_model.checkpoints.native import write_checkpoint
from git_model.data.collation import Batch
from git_model.evaluation.metrics import DocumentFrequencies, cider_d_scores, split_words
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.loop import train
from git_model.training.loss import CrossEntropy, LossModule, LossOutput, batch_loss, units_of
from git_model.training.losses import (
    Contrastive,
    Distillation,
    open_teacher,
    own_loss,
    require_loss,
)
from git_model.training.recipe import PythonLossConfig, Recipe, ScstConfig
from git_model.training.scst import Scst, document_frequencies, sequence_logprobs
from git_model.utils.errors import GITError
from git_model.utils.serialize import from_dict

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"w{n}" for n in range(36))]
TOKENIZER = Tokenizer.from_vocab(WORDS)


def model_of(seed: int = 0, dropout: float = 0.0) -> GIT:
    torch.manual_seed(seed)
    config = tiny_config()
    decoder = dataclasses.replace(config.decoder, dropout=dropout, attention_dropout=dropout)
    return bite(GIT(dataclasses.replace(config, decoder=decoder)), seed).double().train()


def batch_of(n_images: int = 2, texts: int = 2, length: int = 5, seed: int = 1) -> Batch:
    """Captions of random words, the last of each image shorter."""
    torch.manual_seed(seed)
    rows = n_images * texts
    tokens = torch.randint(4, 40, (rows, length))
    tokens[:, 0], tokens[:, -1] = 1, 2
    mask = (torch.arange(length) > 0).repeat(rows, 1)
    tokens[texts - 1 :: texts, -2:] = torch.tensor([2, 0])
    mask[texts - 1 :: texts, -1] = False
    return Batch(torch.randn(n_images, 3, 16, 16).double(), tokens, mask)


def gradients(model: GIT) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def scst(model: GIT, batch: Batch, **settings) -> Scst:
    config = ScstConfig(**{"samples": 3, "max_new_tokens": 4, **settings})
    rows = [row[mask].tolist() for row, mask in zip(batch.tokens, batch.mask, strict=True)]
    texts = split_words([TOKENIZER.decode(row) for row in rows])
    n = len(rows) // len(batch.pixels)
    references = [texts[first : first + n] for first in range(0, len(rows), n)]
    references += [[["w1", "w2"]], [["w3"]]]  # images of the rest of the data
    return Scst(config, TOKENIZER, DocumentFrequencies.of(references))


def references_of(batch: Batch) -> list[list[list[str]]]:
    rows = [row[mask].tolist() for row, mask in zip(batch.tokens, batch.mask, strict=True)]
    texts = split_words([TOKENIZER.decode(row) for row in rows])
    return [texts[:2], texts[2:]]


@pytest.mark.parametrize("baseline", ["mean", "greedy"])
def test_scst_has_the_gradients_of_reinforce_written_by_hand(monkeypatch, baseline) -> None:
    """Every sample by itself: its image encoded again, its tokens one forward pass, its reward from
    the metric."""
    model, batch = model_of(), batch_of()
    loss = scst(model, batch, baseline=baseline)
    references = references_of(batch)
    samples = [  # near the references, so that rewards differ
        [batch.tokens[0, 1:].tolist(), [*batch.tokens[0, 1:3].tolist(), 2], [9, 2]],
        [batch.tokens[3, 1:4].tolist(), [8, 9, 7, 6], batch.tokens[2, 1:].tolist()],
    ]
    greedy = [[batch.tokens[0, 1:4].tolist()], [batch.tokens[3, 1:3].tolist()]]
    monkeypatch.setattr(Scst, "_sample", lambda _s, _m, _scene, k: samples if k else greedy)
    torch.manual_seed(0)
    output = loss(model, batch)
    output.total.backward()
    result = gradients(model)

    def reward(image: int, tokens: list[int]) -> float:
        words = split_words([TOKENIZER.decode(tokens)])
        return cider_d_scores(words, [references[image]], loss.frequencies)[0]

    model.zero_grad()
    model.eval()
    rewards, expected = [], 0.0
    for image in range(2):
        own = [reward(image, tokens) for tokens in samples[image]]
        rewards += own
        for number, tokens in enumerate(samples[image]):
            others = own[:number] + own[number + 1 :]
            base = reward(image, greedy[image][0]) if baseline == "greedy" else sum(others) / 2
            logits = model(batch.pixels[image : image + 1], torch.tensor([[1, *tokens]]))[0]
            logprob = sum(
                logits[place].log_softmax(-1)[token] for place, token in enumerate(tokens)
            )
            expected = expected - (own[number] - base) * logprob / 3
    expected.backward()
    assert max(rewards) > 1 > min(rewards)
    assert output.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert output.sums["reward"].item() == pytest.approx(100 * sum(rewards) / 3, rel=1e-5)
    assert result.keys() == gradients(model).keys()
    for name, gradient in gradients(model).items():
        assert torch.allclose(result[name], gradient, rtol=1e-7, atol=1e-9), name


def test_the_gradient_of_scst_is_on_average_that_of_the_expected_reward() -> None:
    """Captions of one token, all of which can be listed: E[r] = sum over tokens of p(token) r."""
    model, batch = model_of(), batch_of(n_images=1, length=3)
    likely = model.eval()(batch.pixels, torch.tensor([[1]]))[0, 0, 4:].argmax() + 4
    batch.tokens[0, 1] = likely
    loss = scst(model, batch, samples=400, max_new_tokens=1)
    target = model.decoder.lm_head.bias
    tokens = [[token] for token in range(40)]
    words = split_words([TOKENIZER.decode(row) for row in tokens])
    texts = split_words([TOKENIZER.decode(row.tolist()) for row in batch.tokens])
    rewards = torch.tensor(cider_d_scores(words, [texts] * 40, loss.frequencies)).double()
    logits = model(batch.pixels, torch.tensor([[1]]))[0, 0]
    (exact,) = torch.autograd.grad(-(logits.softmax(-1) * rewards).sum(), target)
    torch.manual_seed(3)
    total = torch.zeros_like(exact)
    for _ in range(20):
        (estimate,) = torch.autograd.grad(loss(model, batch).total, target)
        total += estimate / 20
    assert exact.norm() > 0
    assert (total - exact).norm() < 0.25 * exact.norm()


def test_samples_follow_from_the_seed_of_the_step_and_have_no_dropout(monkeypatch) -> None:
    model, batch = model_of(dropout=0.3), batch_of()
    samples = []

    def rewards(_self, rows, _references):
        samples.append(rows)
        return torch.rand(2, 3)

    monkeypatch.setattr(Scst, "rewards", rewards)
    for seed, mode in ((5, True), (5, False), (6, True)):
        torch.manual_seed(seed)
        scst(model.train(mode), batch)(model, batch)
        assert model.training == mode
    assert samples[0] == samples[1] != samples[2]
    assert [len(rows) for rows in samples[0]] == [3, 3]


def test_logprobs_of_sequences_are_those_of_one_row_at_a_time() -> None:
    model, batch = model_of(), batch_of()
    texts = [[5, 6, 2], [7, 2], [8, 9, 10, 11]] * 2
    together = sequence_logprobs(model, model.see(batch.pixels), texts)
    for row, text in enumerate(texts):
        scene = model.see(batch.pixels[row // 3 : row // 3 + 1])
        assert together[row].item() == pytest.approx(
            sequence_logprobs(model, scene, [text]).item(), rel=1e-5
        )


def test_images_without_a_caption_have_no_gradient_under_scst() -> None:
    model, batch = model_of(), batch_of()
    mask = batch.mask.clone()
    mask[:] = False
    output = scst(model, batch)(model, dataclasses.replace(batch, mask=mask))
    assert output.total.item() == 0


def test_scst_refuses_questions() -> None:
    model, batch = model_of(), batch_of()
    mask = batch.mask.clone()
    mask[0, 1] = False  # the first word is the question's
    with pytest.raises(GITError, match="loss scst is for captions, but the data has questions"):
        scst(model, batch)(model, dataclasses.replace(batch, mask=mask))


def test_document_frequencies_need_two_images(tmp_path) -> None:
    file = tmp_path / "references.jsonl"
    file.write_text('{"key": "1", "answers": ["a dog"]}\n')
    with pytest.raises(GITError, match="1 images with captions, expected at least 2"):
        document_frequencies(ScstConfig(references=str(file)), [])
    file.write_text(
        '{"key": "1", "answers": ["a dog", "dog"]}\n{"key": "2", "answers": ["a cat"]}\n'
    )
    frequencies = document_frequencies(ScstConfig(references=str(file)), [])
    assert (frequencies.n_images, frequencies.images["a",], frequencies.images["dog",]) == (2, 2, 1)


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_distillation_is_cross_entropy_and_the_divergence_from_the_teacher(weight) -> None:
    model, teacher, batch = model_of(0), model_of(1).eval(), batch_of()
    output = Distillation(teacher, weight, 2.0)(model, batch)
    inputs = batch.tokens[:, :-1]
    place = batch.mask[:, 1:]
    logits, others = (m(batch.pixels, inputs)[place] for m in (model, teacher))
    p, q = (others / 2).softmax(-1), (logits / 2).softmax(-1)
    divergence = 4 * (p * (p / q).log()).sum()
    entropy = F.cross_entropy(logits, batch.tokens[:, 1:][place], reduction="sum")
    expected = (1 - weight) * entropy + weight * divergence
    assert output.total.item() == pytest.approx(expected.item(), rel=1e-5)
    output.total.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_teacher_that_is_the_model_has_no_divergence() -> None:
    model, batch = model_of(), batch_of()
    output = Distillation(copy.deepcopy(model).eval(), 1.0, 3.0)(model, batch)
    assert output.total.item() == pytest.approx(0, abs=1e-5)


def test_contrastive_is_cross_entropy_and_info_nce_in_both_directions() -> None:
    model, batch = model_of(), batch_of(n_images=3, texts=1)
    output = Contrastive(weight=0.5, temperature=0.2)(model, batch)
    images = model.projector(model.encode(batch.pixels)).mean(1)
    ends = [int(row.nonzero().max()) for row in batch.mask]
    texts = torch.stack(
        [model.decoder(batch.tokens[n : n + 1, : end + 1])[0, -1] for n, end in enumerate(ends)]
    )
    cosine = F.cosine_similarity(texts[:, None], images[None], dim=-1) / 0.2
    diagonal = torch.arange(3)
    contrast = (F.cross_entropy(cosine, diagonal) + F.cross_entropy(cosine.T, diagonal)) / 2
    expected = batch_loss(model, batch) + 0.5 * contrast * batch.n_predicted
    assert output.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert output.sums["contrastive"].item() == pytest.approx(
        contrast.item() * batch.n_predicted, rel=1e-5
    )


def test_several_texts_of_an_image_are_all_its_own() -> None:
    loss = Contrastive(weight=1.0, temperature=1.0)
    images = torch.eye(2)
    texts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    value = loss.contrast(images, texts, torch.tensor([0, 0, 1]))
    to_image = torch.log(torch.tensor(1 + torch.e**-1))
    to_first = torch.log(torch.tensor((2 * torch.e + 1) / (2 * torch.e)))
    to_second = torch.log(torch.tensor((torch.e + 2) / torch.e))
    assert value.item() == pytest.approx(((to_image + (to_first + to_second) / 2) / 2).item())


def test_a_batch_of_padding_has_no_contrastive_loss() -> None:
    model, batch = model_of(), batch_of()
    batch = dataclasses.replace(batch, mask=torch.zeros_like(batch.mask))
    assert Contrastive(1.0, 0.1)(model, batch).total.item() == 0


def nothing(_model, _batch):
    return torch.tensor(1.0)


def several(model, batch):
    return model.see(batch.pixels).layers[0].key


def not_a_number(model, batch):
    return batch_loss(model, batch) * float("nan")


def test_a_loss_counts_its_own_units() -> None:
    batch = batch_of()
    assert units_of(CrossEntropy(), batch) == batch.n_predicted == 14
    assert units_of(own_objects.PerImage(), batch) == 2


def test_a_function_or_a_class_is_bound_to_its_arguments() -> None:
    model, batch = model_of(), batch_of()
    plain = own_objects.squared(model, batch).item()
    for name in ("squared", "PerImage"):
        config = PythonLossConfig(loss=f"own_objects.{name}", arguments={"scale": 2.0})
        output = own_loss(config)(model, batch)
        total = output.total if isinstance(output, LossOutput) else output
        assert total.item() == pytest.approx(2 * plain)
    with pytest.raises(
        GITError, match=r"own_objects\.PerImage, which cannot be called so: .*speed"
    ):
        own_loss(PythonLossConfig(loss="own_objects.PerImage", arguments={"speed": 2.0}))
    for name, arguments in (("squared", {"speed": 2.0}), ("no_source", {})):
        message = rf"own_objects\.{name}, which cannot be called with"
        with pytest.raises(GITError, match=message):
            own_loss(PythonLossConfig(loss=f"own_objects.{name}", arguments=arguments))
    with pytest.raises(GITError, match=r"collections\.deque, which cannot be called so: maxlen"):
        own_loss(PythonLossConfig(loss="collections.deque", arguments={"maxlen": -1}))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nothing, "nothing does not depend on the model's weights"),
        (several, r"several gives shape \(2, 3, 5, 8\), expected one number"),
        (lambda _model, _batch: 3.0, "gives 3.0, expected one number"),
    ],
)
def test_what_is_no_loss_is_one_line(loss, message) -> None:
    with pytest.raises(GITError, match=message):
        LossModule(model_of(), loss)(batch_of())


def test_a_loss_with_weights_of_its_own_is_refused() -> None:
    with pytest.raises(GITError, match="has weights to train, expected none"):
        require_loss(torch.nn.Linear(2, 2))
    with pytest.raises(GITError, match=r"the loss is builtins\.int, expected a function"):
        require_loss(3)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return start_folder(tmp_path_factory.mktemp("start") / "start")


CAPTIONS = {"tasks": ["captions"], "size": 8}


@pytest.mark.parametrize(
    "loss",
    [
        {"kind": "scst", "samples": 2, "max_new_tokens": 3, "counted": 4},
        {"kind": "scst", "samples": 1, "max_new_tokens": 3, "baseline": "greedy", "counted": 4},
        {"kind": "distillation", "teacher": "START"},
        {"kind": "contrastive"},
    ],
    ids=lambda loss: f"{loss['kind']} {loss.get('baseline', '')}",
)
def test_a_recipe_names_its_loss_and_logs_its_parts(tmp_path, start, loss) -> None:
    loss = {name: str(start) if value == "START" else value for name, value in loss.items()}
    table = recipe_table(start, steps=2, data=CAPTIONS, loader={"batch_size": 2}) | {"loss": loss}
    train(from_dict(Recipe, table), tmp_path / "run")
    assert len(losses_of(tmp_path / "run")) == 2
    names = {"scst": "reward", "distillation": "divergence", "contrastive": "contrastive"}
    assert names[loss["kind"]] in log_of(tmp_path / "run")[0]


def test_scst_has_no_dropout_where_a_block_is_computed_again(tmp_path) -> None:
    start = start_folder(tmp_path / "start", dropout=0.3)
    loss = {"kind": "scst", "samples": 8, "max_new_tokens": 6, "counted": 4}
    for name in (False, True):
        compute = {"activation_checkpointing": name}
        changes = {"steps": 3, "data": CAPTIONS, "loader": {"batch_size": 2}, "compute": compute}
        recipe = from_dict(Recipe, recipe_table(start, **changes) | {"loss": loss})
        train(recipe, tmp_path / str(name))
    norms = [[line["grad_norm"] for line in log_of(tmp_path / n)] for n in ("False", "True")]
    assert max(norms[0]) > 0
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_a_teacher_that_does_not_fit_is_refused(tmp_path, start) -> None:
    table = recipe_table(start) | {"loss": {"kind": "distillation", "teacher": "demo"}}
    with pytest.raises(GITError, match="teacher demo "):
        train(from_dict(Recipe, table), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("decoder", "changes", "message"),
    [
        ({"vocab_size": 8}, {}, r"teacher \S+ has vocab_size \d+, expected the model's: \d+"),
        ({}, {"bos_id": 1}, "has bos_id 1, expected the model's: 2"),
        ({"positions": -1}, {}, "has 39 positions of text, expected at least 40"),
        ({}, {"frames": 2}, "has 2 temporal embeddings, expected at least 6"),
    ],
)
def test_a_teacher_with_the_models_vocabulary_must_fit_in_all_else(
    tmp_path, start, decoder, changes, message
) -> None:
    model, tokenizer = open_model(str(start))
    config = model.config
    sizes = {name: getattr(config.decoder, name) + n for name, n in decoder.items()}
    other = dataclasses.replace(config.decoder, **sizes)
    config = dataclasses.replace(config, decoder=other, **changes)
    files = {"tokenizer.json": tokenizer.to_json()}
    write_checkpoint(tmp_path / "teacher", config, GIT(config).tensors(), files)
    with pytest.raises(GITError, match=message):
        open_teacher(str(tmp_path / "teacher"), model, tokenizer, 40)


def test_a_loss_of_ones_own_that_gives_nan_is_named(tmp_path, start) -> None:
    recipe = recipe_of(start, steps=2)
    with pytest.raises(GITError, match=r"step 1: the loss is nan .*check the loss .*not_a_number"):
        train(recipe, tmp_path / "run", loss=not_a_number)
