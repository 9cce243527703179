"""Why the model generates a text: the attention behind each token, and its alternatives.

The image is encoded and the text is generated as usual. Then one pass over the generated text, with
forward hooks (attention_maps.py), records the attention and the hidden states; its logits are those
of the search.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from git_model.captioner import Caption, Captioner, ImageScene
from git_model.config import DecodingOptions, EncoderConfig, GITConfig
from git_model.explain.attention_maps import (
    AttentionMap,
    head_average,
    record_attention,
    record_hidden_states,
    rollout,
)
from git_model.explain.beam_tree import Branch, beam_tree
from git_model.explain.occlusion import occlusion
from git_model.model.attention import Attention, prefix_mask
from git_model.model.git import GIT
from git_model.preprocessing.image import denormalize
from git_model.preprocessing.inputs import ImageInput
from git_model.preprocessing.sampling import ReadOptions, Sampling
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.errors import GITError

TOP_K = 5  # tokens of each distribution that are kept
MAX_MATRIX = 100  # rows of an attention matrix that are kept


class TopToken(NamedTuple):
    """One of the most probable next tokens, and its probability."""

    text: str  # as the vocabulary spells it: "##s" continues a word, "[SEP]" ends a text
    token: int
    probability: float


@dataclass(frozen=True)
class GeneratedToken:
    """A token of the generated text.

    probability: p(token | image, all tokens before it).
    alternatives: the most probable other tokens, best first.
    logit_lens: for each decoder layer the most probable tokens if its output were that of the last
        layer: its hidden state passed through `lm_head` (nostalgebraist 2020), in a pre-norm
        decoder first through the final norm. For the last layer they are the model's own.
    """

    text: str
    token: int
    probability: float
    alternatives: list[TopToken]
    logit_lens: list[list[TopToken]]


@dataclass(frozen=True)
class Explanation:
    """A text about an image or a clip, and the attention and distributions behind it.

    Letters: L decoder layers, H heads, G generated tokens (with the end token), F frames, N patches
    of a frame (or positions of an encoder's feature map), P tokens of a frame before its patches (1
    with CLIP's class token, 0 with SigLIP), T input tokens of the decoder's pass (without the last
    generated token), I = F (P + N) image tokens. A token is predicted at the position before it, so
    the attention of a generated token is that of this position.

    frames: the model's input, converted back from pixels and cut to whole patches.
    frame_indices: the indices of the frames in their file; None for an image or for `Frames`.
    grid: rows and columns of patches.
    caption: the text, its tokens and log-probabilities.
    question: the question that the text answers, if any.
    input_tokens: T tokens as the vocabulary spells them: start, question, generated tokens except
        the last.
    image_attention: (L, H, G, F, P + N).
    text_attention: (L, H, G, T); together with `image_attention` it sums to 1.
    rollout: (G, F, rows, columns), attention rollout from each patch through all layers of encoder
        and decoder; with an encoder of another library through the decoder only.
    occlusion: (G, F, rows, columns), by how many nats log p of a generated token falls when a patch
        is blank; None if it was not measured.
    encoder_attention: (encoder layers, encoder heads, P + N, P + N), what the tokens of the first
        frame attend to in the encoder. More than `MAX_MATRIX` tokens are averaged to that number.
        With an encoder of another library there are no layers.
    text_matrix: (L, H, T, T), the attention of each text token to each text token.
    mask: (I + T, I + T), True where a token (row) may attend to another (column).
    tree: the branches of each step of a beam search; None for greedy search and sampling.
    purpose: what the model was made for, in a line; "" if its checkpoint does not say.
    image_warning: see `Captioner.image_warning`.
    """

    frames: list[Image.Image]
    frame_indices: list[int] | None
    grid: tuple[int, int]
    caption: Caption
    question: str | None
    input_tokens: list[str]
    generated: list[GeneratedToken]
    image_attention: Tensor
    text_attention: Tensor
    rollout: Tensor
    occlusion: Tensor | None
    encoder_attention: Tensor
    text_matrix: Tensor
    mask: Tensor
    tree: list[list[Branch]] | None
    purpose: str = ""
    image_warning: str | None = None

    @property
    def n_image(self) -> int:
        """Image tokens I."""
        return len(self.mask) - len(self.input_tokens)

    @property
    def n_prefix(self) -> int:
        """Tokens of a frame before its patches, P."""
        return self.image_attention.shape[-1] - self.grid[0] * self.grid[1]

    def patch_attention(self, layer: int | None = None, head: int | None = None) -> Tensor:
        """(G, F, rows, columns): the attention of each generated token to each patch.

        Args:
            layer, head: counted from 0; None averages over all. Attention to class tokens and to
                text is left out, so the sum over patches is below 1.
        """
        weights = self.image_attention[..., self.n_prefix :]
        weights = weights.mean(0, keepdim=True) if layer is None else weights[layer : layer + 1]
        weights = weights.mean(1) if head is None else weights[:, head]
        return weights[0].unflatten(-1, self.grid)

    def frame_shares(self) -> Tensor:
        """(G, F): each frame's share of a generated token's attention to the clip, averaged over
        layers and heads; each row sums to 1."""
        attention = self.image_attention.sum(-1).mean((0, 1))
        return attention / attention.sum(-1, keepdim=True)


@torch.inference_mode()
def explain(
    captioner: Captioner,
    image: ImageInput,
    question: str | None = None,
    options: DecodingOptions | None = None,
    sampling: Sampling | ReadOptions = "uniform",
    *,
    occlude: bool = False,
) -> Explanation:
    """Generate a caption, or the answer to a question, and record what explains it.

    Args:
        image: as in `Captioner.load`.
        question: explain the answer to this question; None: a caption.
        options: by default those of the checkpoint. If there are several texts, the best one is
            explained.
        sampling: which frames of a file to take, see `sampling.ReadOptions`.
        occlude: also measure occlusion; the encoder runs once more for each patch.

    Raises:
        GITError: the file cannot be read, no token was generated, the model has no vocabulary or is
            an exported one, its encoder was compiled, or its image tokens form no grid.
    """
    _require_layers(captioner.model)
    options = options or captioner.model.config.decoding
    loaded = captioner.load(image, sampling)
    scene, encoder_maps, decoder_maps = _see(captioner, loaded.pixels)
    encoder_averages = [average for average, _ in encoder_maps]
    caption, prompt = _generate(captioner, scene, question, options)
    input_ids = [*prompt, *caption.tokens[:-1]]
    text_maps, hidden = _one_pass(captioner, scene, input_ids)
    predicting = slice(len(prompt) - 1, None)  # the positions that predict the generated tokens
    n_prefix = getattr(captioner.model.encoder, "n_prefix", 0)
    n_patches = encoder_averages[0].shape[-1] - n_prefix
    grid = _grid(captioner.model.config, n_patches, loaded.pixels)
    frames = _frames(loaded.pixels, captioner.model.config, grid)
    weights = torch.stack([attention.weights[0] for attention in text_maps])  # (L, H, T, I + T)
    to_image = weights[:, :, predicting, : scene.n_tokens].unflatten(-1, (len(frames), -1))
    token_rollout = _token_rollout(encoder_averages, decoder_maps, weights.mean(1))[predicting]
    token_text = _token_texts(captioner.tokenizer)
    return Explanation(
        frames=frames,
        frame_indices=loaded.frames if loaded.pixels.ndim == 4 else None,
        grid=grid,
        caption=caption,
        question=question,
        input_tokens=list(map(token_text, input_ids)),
        generated=_generated_tokens(captioner, caption.tokens, hidden[:, predicting], token_text),
        image_attention=to_image.cpu(),
        text_attention=weights[:, :, predicting, scene.n_tokens :].cpu(),
        rollout=token_rollout[..., n_prefix:].unflatten(-1, grid).cpu(),
        occlusion=_occlusion(captioner, loaded.pixels, grid, prompt, caption) if occlude else None,
        encoder_attention=_stacked([matrices for _, matrices in encoder_maps]),
        text_matrix=weights[..., scene.n_tokens :].cpu(),
        mask=_full_mask(captioner.model.config, scene.n_tokens, text_maps[0]).cpu(),
        tree=_beam_tree(captioner, scene, prompt, options, caption, token_text),
        purpose=captioner.purpose,
        image_warning=captioner.image_warning(loaded),
    )


def _require_layers(model: GIT) -> None:
    if any(parameter.is_meta for parameter in model.parameters()):
        raise GITError(
            "explain records what happens inside the layers, which an exported model does not "
            "show: name the checkpoint that it was exported from"
        )


def _occlusion(
    captioner: Captioner,
    pixels: Tensor,
    grid: tuple[int, int],
    prompt: Sequence[int],
    caption: Caption,
) -> Tensor:
    pixels = pixels.to(captioner.device, captioner.model.dtype)
    return occlusion(captioner.model, pixels, grid, prompt, caption.tokens)


def _beam_tree(
    captioner: Captioner,
    scene: ImageScene,
    prompt: list[int],
    options: DecodingOptions,
    caption: Caption,
    token_text: Callable[[int], str],
) -> list[list[Branch]] | None:
    if options.num_beams == 1:
        return None
    return beam_tree(captioner.model, scene, prompt, options, caption.tokens, token_text)


def _average_and_matrices(attention: AttentionMap) -> tuple[Tensor, Tensor]:
    """A layer's attention averaged over heads, and each head's matrix for the first frame."""
    matrices = attention.weights[0].cpu()  # (H, P + N, P + N)
    if matrices.shape[-1] > MAX_MATRIX:
        matrices = F.adaptive_avg_pool2d(matrices, MAX_MATRIX)
    return head_average(attention), matrices


def _stacked(matrices: Sequence[Tensor | None]) -> Tensor:
    own = [matrix for matrix in matrices if matrix is not None]
    return torch.stack(own) if own else torch.empty(0, 0, 0, 0)


def _see(
    captioner: Captioner, pixels: Tensor
) -> tuple[ImageScene, list[tuple[Tensor, Tensor | None]], list[Tensor]]:
    """Encode the image; also the attention of each encoder layer, averaged over heads
    (F, P + N, P + N) and head by head, and of each decoder layer but the last (I, I), averaged:
    in the last the image tokens have keys and values, but no output. An encoder of another library
    counts as a layer in which each token attends to itself."""
    model = captioner.model
    n_layers = sum(isinstance(module, Attention) for module in model.encoder.modules())
    with (
        record_attention(model.encoder, _average_and_matrices) as encoder_maps,
        record_attention(model.decoder, head_average) as decoder_maps,
    ):
        scene = ImageScene(captioner.encode(pixels[None]).layers)
    if len(encoder_maps) != n_layers:
        raise GITError(
            "the encoder was compiled, and hooks do not run in it: open the model without compile"
        )
    if n_layers == 0:
        n_frames = 1 if pixels.ndim == 3 else len(pixels)
        itself = torch.eye(scene.n_tokens // n_frames, device=model.device)
        return scene, [(itself.expand(n_frames, -1, -1), None)], [w[0] for w in decoder_maps]
    return scene, list(encoder_maps), [weights[0] for weights in decoder_maps]


def _generate(
    captioner: Captioner, scene: ImageScene, question: str | None, options: DecodingOptions
) -> tuple[Caption, list[int]]:
    """The best text, and its prompt."""
    if question is None:
        caption = captioner.caption(scene, options)
    else:
        caption = captioner.ask(scene, question, options)
    if not caption.tokens:
        raise GITError("no token was generated, so there is nothing to explain: allow more tokens")
    return caption, captioner.prompt(question)


def _one_pass(
    captioner: Captioner, scene: ImageScene, input_ids: Sequence[int]
) -> tuple[list[AttentionMap], Tensor]:
    """Run a text through the decoder in one pass: each layer's attention, and the layers' outputs
    (L, T, D)."""
    model = captioner.model
    tokens = torch.tensor([input_ids], device=model.device)
    with (
        record_attention(model.decoder, lambda attention: attention) as maps,
        record_hidden_states(model.decoder.blocks) as hidden,
    ):
        model(scene, tokens)
    return maps, torch.cat(hidden)


def _grid(config: GITConfig, n_patches: int, pixels: Tensor) -> tuple[int, int]:
    """The rows and columns of a frame's patches. With an encoder of another library they follow
    from the number of tokens and the image's aspect ratio.

    Raises:
        GITError: there is no such grid.
    """
    height, width = pixels.shape[-2:]
    if isinstance(config.encoder, EncoderConfig):
        return height // config.encoder.patch_size, width // config.encoder.patch_size
    rows = max(1, round((n_patches * height / width) ** 0.5))
    if n_patches < 1 or n_patches % rows:
        raise GITError(
            f"the encoder's {n_patches} tokens of an image of {height} x {width} pixels are no "
            "grid of positions, so attention to them cannot be drawn on the image"
        )
    return rows, n_patches // rows


def _frames(pixels: Tensor, config: GITConfig, grid: tuple[int, int]) -> list[Image.Image]:
    """The images behind pixels (…, 3, height, width), cut to whole patches as the encoder does."""
    height, width = pixels.shape[-2:]
    if isinstance(config.encoder, EncoderConfig):
        height, width = (side * config.encoder.patch_size for side in grid)
    return denormalize(pixels[..., :height, :width], config.preprocess)


def _token_rollout(encoder: Sequence[Tensor], decoder: Sequence[Tensor], text: Tensor) -> Tensor:
    """(T, F, P + N): attention rollout from each of the encoder's first tokens to each text token.

    Args:
        encoder, decoder: as from `_see`.
        text: (L, T, I + T), the attention of the text tokens.
    """
    lower = [
        torch.cat([F.pad(image, (0, text.shape[1])), rows])  # image tokens never attend to text
        for image, rows in zip(decoder, text[:-1], strict=True)
    ]
    to_image = rollout([*lower, text[-1]])[:, : -text.shape[1]]
    per_frame = to_image.unflatten(-1, (len(encoder[0]), -1))
    return torch.einsum("tfi,fip->tfp", per_frame, rollout(encoder))


def _full_mask(config: GITConfig, n_image: int, text_map: AttentionMap) -> Tensor:
    """(I + T, I + T): the text rows as the recorded pass had them; the image rows without text,
    since the image is encoded before it."""
    n_text, n_tokens = text_map.weights.shape[-2:]
    mask = torch.zeros(n_tokens, n_tokens, dtype=torch.bool)
    mask[:n_image, :n_image] = prefix_mask(n_image, 0, config.decoder.mask)
    mask[n_image:] = torch.ones(n_text, n_tokens) if text_map.mask is None else text_map.mask
    return mask


def _generated_tokens(
    captioner: Captioner, tokens: Sequence[int], hidden: Tensor, token_text: Callable[[int], str]
) -> list[GeneratedToken]:
    """The generated tokens with their distributions.

    Args:
        hidden: (L, G, D), each decoder layer's output at the positions that predict the tokens.
    """
    decoder = captioner.model.decoder
    probs = decoder.lm_head(decoder.final_norm(hidden)).float().softmax(-1)  # (L, G, V)
    generated = []
    for token, layers in zip(tokens, probs.unbind(1), strict=True):
        top = _top_tokens(layers[-1], TOP_K + 1, token_text)
        generated.append(
            GeneratedToken(
                text=token_text(token),
                token=token,
                probability=layers[-1][token].item(),
                alternatives=[other for other in top if other.token != token][:TOP_K],
                logit_lens=[_top_tokens(layer, TOP_K, token_text) for layer in layers],
            )
        )
    return generated


def _top_tokens(probs: Tensor, k: int, token_text: Callable[[int], str]) -> list[TopToken]:
    """The k most probable tokens of a distribution (V,), best first."""
    top = probs.topk(min(k, len(probs)))
    return [
        TopToken(token_text(token), token, probability)
        for probability, token in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]


def _token_texts(tokenizer: Tokenizer) -> Callable[[int], str]:
    """A function from an id to its token. A model may have more ids than its vocabulary has
    tokens."""
    texts = {index: token for token, index in tokenizer.vocabulary().items()}
    return lambda index: texts.get(index, f"[{index}]")
