"""Occlusion: how much less probable each generated token becomes when one patch is blank.

Attention shows which tokens a layer uses. Occlusion changes the image and measures the effect, so
it shows what the prediction depends on. Source: Zeiler and Fergus 2014, Visualizing and
Understanding Convolutional Networks, section 4.2, with a grey square.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from git_model.model.git import GIT

BATCH_SIZE = 16  # images with a blank patch that are encoded together


@torch.inference_mode()
def occlusion(
    model: GIT, pixels: Tensor, grid: tuple[int, int], prompt: Sequence[int], tokens: Sequence[int]
) -> Tensor:
    """The decrease of log p of each token when a patch is blank.

    A blank patch has the value 0 after preprocessing: the mean colour of the model's images. The
    encoder runs once more for each patch.

    Args:
        pixels: of an image (3, height, width) or a clip (F, 3, height, width).
        grid: the rows and columns of a frame's patches.
        prompt: the tokens before the text, at least the start token.
        tokens: the G tokens of the text.

    Returns:
        (G, F, rows, columns), in nats, on the CPU; below 0 where a token becomes more probable.
    """
    clip = pixels[None] if pixels.ndim == 3 else pixels
    rows, columns = grid
    sides = clip.shape[-2] // rows, clip.shape[-1] // columns
    patches = [(f, r, c) for f in range(len(clip)) for r in range(rows) for c in range(columns)]
    logprobs = [_logprobs(model, pixels[None], prompt, tokens)]
    for start in range(0, len(patches), BATCH_SIZE):
        blanks = [_blank(clip, patch, sides) for patch in patches[start : start + BATCH_SIZE]]
        batch = torch.stack(blanks).reshape(-1, *pixels.shape)
        logprobs.append(_logprobs(model, batch, prompt, tokens))
    whole, *blanked = logprobs
    drops = whole - torch.cat(blanked)  # (patches, G)
    return drops.T.unflatten(1, (len(clip), rows, columns))


def _blank(clip: Tensor, patch: tuple[int, int, int], sides: tuple[int, int]) -> Tensor:
    """The frames, with one patch (height, width) of one frame blank."""
    frame, row, column = patch
    blank = clip.clone()
    height, width = sides
    blank[frame, :, row * height : (row + 1) * height, column * width : (column + 1) * width] = 0
    return blank


def _logprobs(model: GIT, pixels: Tensor, prompt: Sequence[int], tokens: Sequence[int]) -> Tensor:
    """(B, G): log p of each token, given each image and all tokens before it."""
    ids = torch.tensor([[*prompt, *tokens]], device=model.device).expand(len(pixels), -1)
    logits = model(model.see(pixels), ids[:, :-1])[:, len(prompt) - 1 :]
    targets = ids[:, len(prompt) :, None]
    return logits.float().log_softmax(-1).gather(-1, targets)[..., 0].cpu()
