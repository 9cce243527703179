"""The image encoder: a vision transformer of CLIP or SigLIP that returns every token.

CLIP itself keeps only the class token of the last layer. GIT keeps all tokens, after the last norm
(paper, section 3.1; `VisualTransformer` with output_grid and grid_after_ln in the original).

SigLIP's encoder (Zhai et al. 2023; Tschannen et al. 2025) has no class token and no norm before the
blocks, but its patch embedding has a bias. GIT does not use its pooling head, so that is left out.
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
        """(B, I, D) -> (B, I, D)"""
        mixed, _ = self.attn(self.attn_norm(x))
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x))


class Encoder(nn.Module):
    """Pixels to image tokens: with kind "clip" a class token, then one token per patch, row by
    row."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        is_clip, width, patch = config.kind == "clip", config.width, config.patch_size
        self.n_prefix = int(is_clip)  # tokens before those of the patches
        self.patch_embedding = nn.Conv2d(3, width, patch, patch, bias=not is_clip)
        self.class_token = nn.Parameter(torch.empty(width)) if is_clip else None
        self.position_embedding = nn.Parameter(torch.empty(self.n_prefix + config.grid**2, width))
        self.pre_norm = nn.LayerNorm(width, eps=config.norm_eps) if is_clip else nn.Identity()
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.layers))
        self.post_norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, height, width) -> (B, I, D), where I = rows x columns of patches, plus 1 for the
        class token of CLIP.

        Any size of at least one patch works. As in both references, pixels to the right of the last
        whole patch, and below it, are cut off.

        Raises:
            GITError: the image is smaller than a patch, or has too many patches.
        """
        self._check_size(*pixels.shape[-2:])
        patches = self.patch_embedding(pixels)  # (B, D, rows, columns)
        rows, columns = patches.shape[-2:]
        x = patches.flatten(2).mT
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(pixels.shape[0], 1, -1), x], dim=1)
        x = self.pre_norm(x + self.positions(rows, columns))
        for block in self.blocks:
            x = block(x)
        return self.post_norm(x)

    def positions(self, rows: int, columns: int) -> Tensor:
        """(I, D): the position embeddings; those of the patches are interpolated bicubically if the
        grid is another one."""
        grid = self.config.grid
        if rows == columns == grid:
            return self.position_embedding
        prefix = self.position_embedding[: self.n_prefix]
        plane = self.position_embedding[self.n_prefix :].mT.unflatten(1, (grid, grid))[None]
        plane = F.interpolate(plane, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([prefix, plane[0].flatten(1).mT])

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
