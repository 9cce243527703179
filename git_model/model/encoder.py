"""The image encoder: a CLIP vision transformer that returns every token.

CLIP itself keeps only the class token of the last layer. GIT keeps all tokens, after the last norm
(paper, section 3.1; `VisualTransformer` with output_grid and grid_after_ln in the original).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from git_model.config import EncoderConfig
from git_model.model.attention import Attention
from git_model.model.layers import MLP
from git_model.utils.errors import GITError

MAX_PATCHES = 2**14  # per image: the time of attention grows with the square


class EncoderBlock(nn.Module):
    """A pre-norm transformer block: norm, sublayer, residual connection."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = Attention(config.width, config.heads, config.attention_dropout)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1 + N, D) -> (B, 1 + N, D)"""
        mixed, _ = self.attn(self.attn_norm(x))
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x))


class Encoder(nn.Module):
    """Pixels to image tokens: a class token, then one token per patch, row by row."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv2d(
            3, config.width, config.patch_size, config.patch_size, bias=False
        )
        self.class_token = nn.Parameter(torch.empty(config.width))
        self.position_embedding = nn.Parameter(torch.empty(1 + config.grid**2, config.width))
        self.pre_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.layers))
        self.post_norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, height, width) -> (B, 1 + N, D), N = patches in a row x patches in a column.

        Any size of at least one patch works. As in both references, pixels to the right of and
        below the last whole patch are cut off.

        Raises:
            GITError: the image is smaller than a patch, or has too many patches.
        """
        self._check_size(*pixels.shape[-2:])
        patches = self.patch_embedding(pixels)  # (B, D, rows, columns)
        rows, columns = patches.shape[-2:]
        class_token = self.class_token.expand(pixels.shape[0], 1, -1)
        x = torch.cat([class_token, patches.flatten(2).mT], dim=1)  # (B, 1 + N, D)
        x = self.pre_norm(x + self.positions(rows, columns))
        for block in self.blocks:
            x = block(x)
        return self.post_norm(x)

    def positions(self, rows: int, columns: int) -> Tensor:
        """(1 + rows * columns, D): the position embeddings, resized bicubically to another grid."""
        grid = self.config.grid
        if rows == columns == grid:
            return self.position_embedding
        plane = self.position_embedding[1:].mT.unflatten(1, (grid, grid))[None]
        plane = F.interpolate(plane, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([self.position_embedding[:1], plane[0].flatten(1).mT])

    def _check_size(self, height: int, width: int) -> None:
        patch = self.config.patch_size
        if min(height, width) < patch:
            raise GITError(
                f"pixels are {height} x {width}, expected at least one patch of {patch} x {patch}"
            )
        n_patches = (height // patch) * (width // patch)
        if n_patches > MAX_PATCHES:
            raise GITError(
                f"pixels are {height} x {width}, in {n_patches} patches, expected at most "
                f"{MAX_PATCHES}: use a smaller image"
            )
