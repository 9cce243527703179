"""Self-critical sequence training: REINFORCE on the CIDEr-D of sampled captions.

For an image, k captions are drawn from the model. The gradient of the expected reward is estimated
by -(r - b) * grad log p(caption), where r is the caption's CIDEr-D and b is a baseline that does
not depend on the caption, so that it lowers the variance and does not change the expectation
(Rennie et al. 2017). Here the image is encoded once, with its gradient: the k samples, the greedy
caption of the baseline and the k rows of the gradient pass all use this scene.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from git_model.config import DecodingOptions
from git_model.data.collation import Batch
from git_model.data.example import Source, Stream
from git_model.evaluation.metrics import DocumentFrequencies, cider_d_scores, split_words
from git_model.evaluation.predictions import read_references
from git_model.evaluation.run import evaluation_mode, open_examples
from git_model.generation.generate import generate
from git_model.model.git import GIT, Scene
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.loss import LossOutput, at_least_float32, predicted, scene_of
from git_model.training.recipe import ScstConfig
from git_model.utils.errors import GITError

Words = list[str]


@dataclass(frozen=True)
class Scst:
    """The loss of a batch of images with captions; its unit is an image.

    Dropout is off, so that samples come from the distribution whose gradient is taken. Images
    without a reference have loss 0.

    Attributes:
        frequencies: the document frequencies of the reward.
    """

    config: ScstConfig
    tokenizer: Tokenizer
    frequencies: DocumentFrequencies

    def units(self, batch: Batch) -> int:
        """The number of images."""
        return len(batch.pixels)

    def __call__(self, model: GIT, batch: Batch) -> LossOutput:
        """The sum over images of the mean over samples of -(r - b) * log p.

        Raises:
            GITError: the batch has questions.
        """
        references = self.references(batch)
        with evaluation_mode(model):
            scene = scene_of(model, batch)
            rows = self._sample(model, scene, self.config.samples)
            rewards = self.rewards(rows, references)  # (B, k)
            sums = {"reward": 100 * rewards.mean(1).sum()}
            if self.config.baseline == "mean":
                baseline = _mean_of_others(rewards)
            else:
                greedy = self._sample(model, scene, None)
                baseline = self.rewards(greedy, references)  # (B, 1)
                sums["greedy_reward"] = 100 * baseline.sum()
            logprobs = sequence_logprobs(model, scene, [row for k in rows for row in k])
        advantage = (rewards - baseline).to(logprobs)
        return LossOutput(-(advantage * logprobs.view_as(advantage)).mean(1).sum(), sums)

    def rewards(
        self, rows: Sequence[Sequence[Sequence[int]]], references: Sequence[Sequence[Words]]
    ) -> Tensor:
        """CIDEr-D (B, k), from 0 to 10, of each sample of each image; 0 without a reference."""
        texts = [self.tokenizer.decode(row) for samples in rows for row in samples]
        k = len(rows[0])
        expected = [words for words in references for _ in range(k)]
        scores = cider_d_scores(
            split_words(texts), [words or [[]] for words in expected], self.frequencies
        )
        values = [score if words else 0.0 for score, words in zip(scores, expected, strict=True)]
        return torch.tensor(values, dtype=torch.float64).view(-1, k)

    def _sample(self, model: GIT, scene: Scene, samples: int | None) -> list[list[list[int]]]:
        """Captions of each image as token ids: `samples` random ones, or with None the greedy
        one."""
        limit = self.config.max_new_tokens
        options = DecodingOptions(max_new_tokens=limit)
        if samples is not None:
            seed = int(torch.randint(2**31, ()))  # follows from the seed of the step
            options = DecodingOptions(
                max_new_tokens=limit, do_sample=True, num_return_sequences=samples, seed=seed
            )
        prompts = [[model.config.bos_id]] * len(scene)
        generations = generate(model, scene, prompts, options)
        return [[text.tokens for text in texts] for texts in generations]

    def references(self, batch: Batch) -> list[list[Words]]:
        """The words of each image's captions."""
        has_text = batch.mask.any(1)
        if (has_text & ~batch.mask[:, 1]).any():
            raise GITError(
                "loss scst is for captions, but the data has questions: leave these out, or use "
                "another loss"
            )
        rows = [
            tokens[mask].tolist() for tokens, mask in zip(batch.tokens, batch.mask, strict=True)
        ]
        texts = split_words([self.tokenizer.decode(row) for row in rows])
        n = len(rows) // len(batch.pixels)
        real = has_text.tolist()
        return [
            [texts[row] for row in range(first, first + n) if real[row]]
            for first in range(0, len(rows), n)
        ]


def sequence_logprobs(model: GIT, scene: Scene, texts: Sequence[Sequence[int]]) -> Tensor:
    """log p(text | image) (R,) of generated texts, with gradient; R a multiple of the images.

    Args:
        texts: token ids without the start token.
    """
    config, device = model.config, model.device
    length = 1 + max(map(len, texts))
    rows = [[config.bos_id, *text] + [config.pad_id] * (length - 1 - len(text)) for text in texts]
    n_tokens = torch.tensor([len(text) for text in texts], device=device)
    column = torch.arange(length, device=device)
    mask = (column >= 1) & (column <= n_tokens[:, None])
    batch = Batch(torch.empty(0, device=device), torch.tensor(rows, device=device), mask)
    logits, target = predicted(model, batch, scene)
    logprobs = -F.cross_entropy(at_least_float32(logits), target, reduction="none")
    row_of = torch.arange(len(texts), device=device).repeat_interleave(n_tokens)
    return logprobs.new_zeros(len(texts)).index_add(0, row_of, logprobs)


def document_frequencies(config: ScstConfig, source: Source | Stream) -> DocumentFrequencies:
    """The document frequencies of the reward, from a file or from the first training examples.

    Raises:
        GITError: the file cannot be read, or there are fewer than two images with captions.
    """
    frequencies = DocumentFrequencies.of(map(split_words, _captions(config, source)))
    if frequencies.n_images < 2:
        where = config.references or "the training data"
        raise GITError(
            f"{where}: {frequencies.n_images} images with captions, expected at least 2: CIDEr-D "
            "weighs n-grams by the number of images that have them"
        )
    return frequencies


def _captions(config: ScstConfig, source: Source | Stream) -> Iterable[Sequence[str]]:
    """The captions of each image."""
    if config.references is not None:
        yield from read_references(Path(config.references)).values()
        return
    for open_example in islice(open_examples(source), config.counted):
        try:
            annotations = open_example().annotations
        except GITError:
            continue  # the loader reports it when a step needs it
        texts = [text for note in annotations if note.question is None for text in note.texts]
        if texts:
            yield texts


def _mean_of_others(rewards: Tensor) -> Tensor:
    """(B, k): for each sample the mean reward of the image's other samples."""
    k = rewards.shape[1]
    return (rewards.sum(1, keepdim=True) - rewards) / (k - 1)
