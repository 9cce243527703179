"""The image encoder: a CLIP vision transformer that hands out every token.

CLIP itself keeps only the class token of the last layer; GIT reads all of them, after the last
norm (paper, section 3.1; `VisualTransformer` with output_grid and grid_after_ln in the original).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from git_model.attention import Attention
from git_model.config import EncoderConfig
from git_model.mlp import MLP
from git_model.settings import GITError

MOST_PATCHES = 2**14  # of a picture: attention takes as long as their square


class EncoderBlock(nn.Module):
    """A pre-norm transformer block: normalise, transform, add."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = Attention(config.width, config.heads, config.attention_dropout)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1 + N, D) -> (B, 1 + N, D)"""
        seen, _ = self.attn(self.attn_norm(x))
        x = x + seen
        return x + self.mlp(self.mlp_norm(x))


class Encoder(nn.Module):
    """Pixels to image tokens: a class token, then one token a patch, row by row."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.patch = nn.Conv2d(3, config.width, config.patch_size, config.patch_size, bias=False)
        self.class_token = nn.Parameter(torch.empty(config.width))
        self.position = nn.Parameter(torch.empty(1 + config.grid**2, config.width))
        self.pre_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.layers))
        self.post_norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, height, width) -> (B, 1 + N, D), N = patches in a row x patches in a column.

        Any size of at least one patch will do. As in both references, pixels right of and below
        the last whole patch are not seen.
        """
        if min(pixels.shape[-2:]) < self.config.patch_size:
            raise GITError(
                f"pixels are {pixels.shape[-2]} x {pixels.shape[-1]}, expected at least one patch "
                f"of {self.config.patch_size} x {self.config.patch_size}"
            )
        n_patches = math.prod(side // self.config.patch_size for side in pixels.shape[-2:])
        if n_patches > MOST_PATCHES:
            raise GITError(
                f"pixels are {pixels.shape[-2]} x {pixels.shape[-1]}, in {n_patches} patches, "
                f"expected at most {MOST_PATCHES}: show the model a smaller picture"
            )
        patches = self.patch(pixels)  # (B, D, rows, columns)
        rows, columns = patches.shape[-2:]
        first = self.class_token.expand(len(pixels), 1, -1)
        x = torch.cat([first, patches.flatten(2).mT], dim=1)  # (B, 1 + N, D)
        x = self.pre_norm(x + self.positions(rows, columns))
        for block in self.blocks:
            x = block(x)
        return self.post_norm(x)

    def positions(self, rows: int, columns: int) -> Tensor:
        """(1 + rows * columns, D): the trained positions, stretched bicubically to another grid."""
        grid = self.config.grid
        if rows == columns == grid:
            return self.position
        plane = self.position[1:].mT.unflatten(1, (grid, grid))[None]  # (1, D, grid, grid)
        plane = F.interpolate(plane, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([self.position[:1], plane[0].flatten(1).mT])
