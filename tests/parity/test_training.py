"""A fine-tuning run has, step by step, the loss of the same run with Transformers.

Both start from a checkpoint that Transformers wrote. Theirs is the loop that its users write: its
model, a row with a copy of the picture for every text, torch's AdamW, clipping and schedule. Only
the cross-entropy is torch's own on their logits, in float64: the loss that their model returns
rounds the logits to float32 first, which a test to 1e-8 would see.
"""

from collections.abc import Callable

import pytest
import torch
from parity_models import config_of
from runs import recipe_of
from tiny import bite
from torch import nn
from torch.nn import functional as F
from transformers import GitForCausalLM

from git_model.data.collation import Batch, Sample, TextTarget, collate
from git_model.training.loop import Trainer
from git_model.training.optimizer import schedule
from git_model.training.recipe import Recipe
from git_model.utils.distributed import ProcessGroup

STEPS = 20
LEARNING = {"encoder_lr": 1e-4, "decoder_lr": 5e-4, "warmup_steps": 5, "weight_decay": 0.1}


def batches_of(size: int, frames: int | None, seed: int) -> list[list[Batch]]:
    """For each step a batch of two pictures, or clips, with one to three texts each."""
    generator = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    def text() -> TextTarget:
        words = torch.randint(3, 50, (number(2, 8),), generator=generator).tolist()
        return TextTarget([1, *words, 2], number(1, 3))

    def sample() -> Sample:
        shape = (3, size, size) if frames is None else (frames, 3, size, size)
        pixels = torch.randn(shape, generator=generator, dtype=torch.float64)
        return Sample(pixels, [text() for _ in range(number(1, 4))])

    return [[collate([sample(), sample()], pad_id=0)] for _ in range(STEPS)]


def their_groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """The usual rule: no decay of biases, norms and embeddings; a rate for the encoder."""
    groups = []
    for name, parameter in model.named_parameters():
        added = "embedding" in name and "patch" not in name
        learning = recipe.learning
        rate = learning.encoder_lr if "image_encoder" in name else learning.decoder_lr
        decay = 0.0 if added or parameter.ndim < 2 else learning.weight_decay
        groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
    return groups


def their_step(model: nn.Module, recipe: Recipe) -> Callable[[Batch], float]:
    """One step of a loop around Transformers' model."""
    optimizer = torch.optim.AdamW(their_groups(model, recipe), betas=recipe.learning.betas)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: schedule(n + 1, recipe))

    def step(batch: Batch) -> float:
        real = batch.tokens.ne(0)
        rows = len(batch.tokens) // len(batch.pixels)
        keep = real.any(1)  # theirs has no rows without a text
        tokens, mask = batch.tokens[keep], batch.mask[keep]
        pixels = batch.pixels.repeat_interleave(rows, dim=0)[keep]
        out = model(input_ids=tokens, pixel_values=pixels, attention_mask=real[keep].long())
        logits = out.logits[:, -tokens.shape[1] :]
        loss = F.cross_entropy(logits[:, :-1][mask[:, 1:]], tokens[:, 1:][mask[:, 1:]])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.learning.max_grad_norm)
        optimizer.step()
        scheduler.step()
        return loss.item()

    return step


@pytest.mark.parametrize(
    ("seed", "frames", "tied"),
    [
        (0, None, False),
        pytest.param(1, None, True, marks=pytest.mark.slow),
        pytest.param(4, 2, False, marks=pytest.mark.slow),
        (3, 6, True),
    ],
)
def test_twenty_steps_of_fine_tuning_have_the_same_losses(tmp_path, seed, frames, tied):
    config = config_of(
        seed, num_image_with_embedding=frames, tie_word_embeddings=tied,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, vision_attention_dropout=0.0,
    )  # fmt: skip
    start = tmp_path / "start"
    bite(GitForCausalLM(config), seed).save_pretrained(start)
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *map(str, range(4, config.vocab_size))]
    (start / "vocab.txt").write_text("\n".join(words))
    theirs = GitForCausalLM.from_pretrained(start, attn_implementation="eager").double()
    # The eager attention of their encoder rounds to float32 in between; this one does not.
    theirs.config.vision_config._attn_implementation = "sdpa"
    recipe = recipe_of(start, steps=STEPS, learning=LEARNING)
    ours = Trainer(recipe, ProcessGroup(torch.device("cpu")))
    ours.model.double()
    step = their_step(theirs.train(), recipe)
    losses = [
        (ours.step(number, batches).loss, step(batches[0]))
        for number, batches in enumerate(
            batches_of(config.vision_config.image_size, frames, seed), 1
        )
    ]
    for number, (our_loss, their_loss) in enumerate(losses, 1):
        assert our_loss == pytest.approx(their_loss, abs=1e-8), f"step {number}"
    assert losses[-1][0] < losses[0][0] - 0.1
