"""A model whose encoder and decoder steps run through torch.compile.

A compiled step has a text cache of fixed length, whose unused end is masked, so that one piece of
compiled code serves every step; on a GPU it is recorded as a CUDA graph.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from git_model.generation.padded_session import PaddedSession, pure_step
from git_model.generation.session import Session, TextSession
from git_model.model.attention import KeyValue
from git_model.model.decoder import TextDecoder
from git_model.model.git import GIT, Scene
from git_model.utils.compiling import compile_in_place

CAPACITY = 64  # tokens of the text cache at first; it doubles when it is full


class CompiledGIT(GIT):
    """A GIT that compiles its encoder and its decoder's steps, see `compile_parts`."""

    steps: "StaticSteps | None" = None

    def compile_parts(self) -> None:
        """Let the encoder and the decoder's step run compiled from their first call on."""
        compile_in_place(self.encoder, "the encoder")
        self.steps = StaticSteps(self.decoder)
        self.steps.compile()

    @torch.inference_mode()
    def session(self, scene: Scene | None) -> TextSession:
        """Texts in progress about the images of a scene."""
        if scene is None or self.steps is None:
            return Session(self, scene)
        on_gpu = scene.layers[0].key.is_cuda
        return PaddedSession(self.steps, scene, self.decoder.check_length, keeps_shape=on_gpu)


class StaticSteps:
    """A `StepFunction` over a text cache of fixed length C, (L, 2, B, N, H, C, d). One token of
    each text runs `module`; more, as in a prompt, run it uncompiled, for their number varies.

    A step writes into the cache that it got and returns the same tensor.
    """

    def __init__(self, decoder: TextDecoder) -> None:
        self.module = StaticStep(decoder).eval()

    def compile(self) -> None:
        """Let `module` run compiled from its first call on."""
        compile_in_place(self.module, "the decoder's step", cuda_graphs=True)

    @torch.inference_mode()
    def __call__(
        self, tokens: Tensor, token_mask: Tensor, image: Sequence[KeyValue], past: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `StepFunction`."""
        n_new, n_past = tokens.shape[-1], token_mask.shape[-1] - tokens.shape[-1]
        if n_past == 0:
            logits, new = self.module.forward(tokens, token_mask, image, past)
            return logits, _enlarged(new, max(CAPACITY, 2 * n_new))
        if n_past + n_new > past.shape[-2]:
            past = _enlarged(past, 2 * (n_past + n_new))
        unused = (0, past.shape[-2] - n_past)
        mask = torch.cat([F.pad(token_mask[..., :n_past], unused), token_mask[..., n_past:]], -1)
        if past.is_cuda:
            torch.compiler.cudagraph_mark_step_begin()  # the outputs of the last step were copied
        run = self.module if n_new == 1 else self.module.forward
        logits, new = run(tokens, mask, image, past)
        past[..., n_past : n_past + n_new, :] = new
        return logits, past


def _enlarged(past: Tensor, capacity: int) -> Tensor:
    """A longer text cache; the positions without a token yet are 0."""
    return F.pad(past, (0, 0, 0, capacity - past.shape[-2]))


class StaticStep(nn.Module):
    """A step of N texts of each of B images, whose inputs keep their shapes from step to step.

    tokens (B, N, T), T = 1 when compiled; token_mask (B, N, C + T), False where the cache holds no
    token yet; image, the layers of a scene; past (L, 2, B, N, H, C, d) -> logits (B, N, V) of the
    token after the last, and the keys and values of `tokens`, (L, 2, B, N, H, T, d).
    """

    def __init__(self, decoder: TextDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, tokens: Tensor, token_mask: Tensor, image: Sequence[KeyValue], past: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The logits of the next token, and the keys and values of these."""
        logits, present = pure_step(self.decoder, tokens, token_mask, image, past)
        return logits, present[..., -tokens.shape[-1] :, :]
