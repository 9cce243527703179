"""Why the model says what it says: where it looked for each word, and how each word came about.

The picture is read and the text written as always. Then the text is read once more in one pass,
under hooks that record (looks.py); that pass gives the same numbers as writing did.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from git_model.captioner import Caption, Captioner, ImageScene
from git_model.config import DecodingOptions, GITConfig
from git_model.explain.attention_maps import (
    AttentionMap,
    head_average,
    record_attention,
    record_hidden_states,
    rollout,
)
from git_model.explain.beam_tree import Branch, beam_tree
from git_model.preprocessing.inputs import ImageInput
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.preprocessing.video import Sampling
from git_model.utils.errors import GITError

GUESSES = 5  # that are kept of a distribution over words


class Guess(NamedTuple):
    """A token that might come next, and the model's probability of it."""

    text: str  # as the vocabulary spells it: "##s" goes on a word, "[SEP]" ends a text
    token: int
    probability: float


@dataclass(frozen=True)
class Word:
    """A token that was written.

    probability: of it, given the picture and all before it.
    runners_up: the likeliest others, best first.
    layers: for each decoder layer the best guesses, were its state the last: read off by the same
        output layer. Those of the last layer are the model's own.
    """

    text: str
    token: int
    probability: float
    runners_up: list[Guess]
    layers: list[list[Guess]]


@dataclass(frozen=True)
class Explanation:
    """A text about a picture or a clip, and where it came from.

    Letters: L decoder layers, H heads, W words written (the end token counts), F frames, N patches
    of a frame, T text tokens that were read (the last word is only written), I = F (1 + N) image
    tokens. Every word is predicted at the position before it; what that position saw is meant.

    frames: what the model saw, back from its pixels, cut to whole patches.
    indices: which frames of the file they are; None for a picture or frames that were given.
    grid: rows and columns of patches.
    caption: the text, its tokens and log-probabilities.
    question: that the text answers, if any.
    tokens: the T text tokens as the vocabulary spells them: start, question, words but the last.
    image_attention: (L, H, W, F, 1 + N), the class token before a frame's patches.
    text_attention: (L, H, W, T); together with `image_attention` it sums to 1.
    rollout: (W, F, rows, columns), the share of each patch in what the position has become,
        through all layers of decoder and encoder.
    mask: (I + T, I + T), True where a token (row) may look at another (column).
    tree: with beam search its steps, each with all branches that it weighed; else None.
    """

    frames: list[Image.Image]
    indices: list[int] | None
    grid: tuple[int, int]
    caption: Caption
    question: str | None
    tokens: list[str]
    words: list[Word]
    image_attention: Tensor
    text_attention: Tensor
    rollout: Tensor
    mask: Tensor
    tree: list[list[Branch]] | None

    @property
    def n_image(self) -> int:
        """Image tokens I."""
        return len(self.mask) - len(self.tokens)

    def patches(self, layer: int | None = None, head: int | None = None) -> Tensor:
        """(W, F, rows, columns): how much each word's position looked at each patch, averaged over
        layers and heads where none is named. What it gave to class tokens and text is left out."""
        weights = self.image_attention[..., 1:]
        weights = weights.mean(0, keepdim=True) if layer is None else weights[layer : layer + 1]
        weights = weights.mean(1) if head is None else weights[:, head]
        return weights[0].unflatten(-1, self.grid)

    def frame_shares(self) -> Tensor:
        """(W, F): each frame's share of what a word's position gave to the image, averaged over
        layers and heads; each row sums to 1."""
        shares = self.image_attention.sum(-1).mean((0, 1))
        return shares / shares.sum(-1, keepdim=True)


@torch.inference_mode()
def explain(
    git: Captioner,
    image: ImageInput,
    question: str | None = None,
    options: DecodingOptions | None = None,
    sampling: Sampling = "uniform",
) -> Explanation:
    """Write a caption, or the answer to a question, and record how it came about.

    Args:
        image: a path, a Pillow image, or `Frames` of a clip.
        options: how the text is chosen, by default as the checkpoint says. Of several texts the
            best is explained.
        sampling: which frames of a file to take, see `video.sample_indices`.

    Raises:
        GITError: the file cannot be read, no word was written, the model has no vocabulary, or its
            encoder was compiled.
    """
    options = options or git.model.config.decoding
    loaded = git.load(image, sampling)
    pixels = loaded.pixels
    scene, encoder, decoder = _see(git, pixels)
    caption, prompt = _write(git, scene, question, options)
    looks, hidden = _read(git, scene, [*prompt, *caption.tokens[:-1]])
    places = slice(len(prompt) - 1, None)  # where the words were predicted
    frames, grid = _frames(pixels, git.model.config)
    weights = torch.stack([look.weights[0] for look in looks])  # (L, H, T, I + T)
    to_image = weights[:, :, places, : scene.n_tokens].unflatten(-1, (len(frames), -1))
    rolled = _rolled(encoder, decoder, weights.mean(1))[places]
    spell = _speller(git.tokenizer)
    return Explanation(
        frames=frames,
        indices=loaded.frames,
        grid=grid,
        caption=caption,
        question=question,
        tokens=list(map(spell, [*prompt, *caption.tokens[:-1]])),
        words=_words(git, caption.tokens, hidden[:, places], spell),
        image_attention=to_image.cpu(),
        text_attention=weights[:, :, places, scene.n_tokens :].cpu(),
        rollout=rolled.unflatten(-1, grid).cpu(),
        mask=_whole_mask(scene.n_tokens, looks[0]).cpu(),
        tree=(
            beam_tree(git.model, scene, prompt, options, caption.tokens, spell)
            if options.num_beams > 1
            else None
        ),
    )


def _see(git: Captioner, pixels: Tensor) -> tuple[ImageScene, list[Tensor], list[Tensor]]:
    """Read the picture; with it each encoder layer's weights (F, 1 + N, 1 + N) and each decoder
    layer's (I, I), but for the last, which has no output for the image; heads are averaged."""
    model = git.model
    with (
        record_attention(model.encoder, head_average) as encoder,
        record_attention(model.decoder, head_average) as decoder,
    ):
        scene = ImageScene(git.see_pixels(pixels[None]).layers)
    if len(encoder) != len(model.encoder.blocks):
        raise GITError(
            "the encoder was compiled, and hooks do not reach into it: open the model without "
            "compile"
        )
    return scene, encoder, [weights[0] for weights in decoder]


def _write(
    git: Captioner, scene: ImageScene, question: str | None, options: DecodingOptions
) -> tuple[Caption, list[int]]:
    """The best text, and the prompt that it stands behind."""
    best = git.caption(scene, options) if question is None else git.ask(scene, question, options)
    if not best.tokens:
        raise GITError("no word was written, so there is nothing to explain: allow more tokens")
    return best, git.prompt(question)


def _read(
    git: Captioner, scene: ImageScene, text: Sequence[int]
) -> tuple[list[AttentionMap], Tensor]:
    """Read a text in one pass: each layer's look, and its output as (L, T, D)."""
    model = git.model
    tokens = torch.tensor([text], device=model.device)
    with (
        record_attention(model.decoder, lambda look: look) as looks,
        record_hidden_states(model.decoder.blocks) as outputs,
    ):
        model(scene, tokens)
    return looks, torch.cat(outputs)


def _frames(pixels: Tensor, config: GITConfig) -> tuple[list[Image.Image], tuple[int, int]]:
    """The pictures that pixels (…, 3, height, width) came from, cut to whole patches as the encoder
    does, and the grid of these."""
    usual, patch = config.preprocess, config.encoder.patch_size
    rows, columns = (side // patch for side in pixels.shape[-2:])
    mean, std = (torch.tensor(values)[:, None, None] for values in (usual.mean, usual.std))
    values = (pixels.float().cpu() * std + mean) / usual.rescale
    shades = values.round().clamp(0, 255).byte()[..., : rows * patch, : columns * patch]
    clip = shades[None] if pixels.ndim == 3 else shades
    return [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in clip], (rows, columns)


def _rolled(encoder: Sequence[Tensor], decoder: Sequence[Tensor], text: Tensor) -> Tensor:
    """(T, F, N): the share of each patch, before the encoder, in what a text token has become.

    Args:
        encoder, decoder: as from `_see`.
        text: (L, T, I + T), the weights of the text's own rows.
    """
    lower = [
        torch.cat([F.pad(image, (0, text.shape[1])), rows])  # image tokens never see text
        for image, rows in zip(decoder, text[:-1], strict=True)
    ]
    to_image = rollout([*lower, text[-1]])[:, : -text.shape[1]]
    by_frame = to_image.unflatten(-1, (len(encoder[0]), -1))
    return torch.einsum("tfi,fip->tfp", by_frame, rollout(encoder))[..., 1:]


def _whole_mask(n_image: int, look: AttentionMap) -> Tensor:
    """(I + T, I + T): the text's rows as its pass had them; those of the image, which was read
    before, without text and without a mask."""
    n_text, n_tokens = look.weights.shape[-2:]
    mask = torch.zeros(n_tokens, n_tokens, dtype=torch.bool)
    mask[:n_image, :n_image] = True
    mask[n_image:] = torch.ones(n_text, n_tokens) if look.mask is None else look.mask
    return mask


def _words(
    git: Captioner, tokens: Sequence[int], hidden: Tensor, spell: Callable[[int], str]
) -> list[Word]:
    """The words written, with what the model had in mind.

    Args:
        hidden: (L, W, D), each decoder layer's output where the words were predicted.
    """
    probabilities = git.model.decoder.lm_head(hidden).float().softmax(-1)  # (L, W, V)
    found = []
    for token, layers in zip(tokens, probabilities.unbind(1), strict=True):
        last = layers[-1]
        others = [guess for guess in _guesses(last, GUESSES + 1, spell) if guess.token != token]
        found.append(
            Word(
                text=spell(token),
                token=token,
                probability=last[token].item(),
                runners_up=others[:GUESSES],
                layers=[_guesses(layer, GUESSES, spell) for layer in layers],
            )
        )
    return found


def _guesses(probabilities: Tensor, n: int, spell: Callable[[int], str]) -> list[Guess]:
    """The n likeliest tokens of a distribution (V,), best first."""
    best = probabilities.topk(min(n, len(probabilities)))
    return [
        Guess(spell(token), token, probability)
        for probability, token in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def _speller(tokenizer: Tokenizer) -> Callable[[int], str]:
    """Ids to tokens; a model may know more ids than its vocabulary has names."""
    names = {index: token for token, index in tokenizer.vocabulary().items()}
    return lambda index: names.get(index, f"[{index}]")
