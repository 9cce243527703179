"""The two-layer network after each attention, in both towers."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from git_model.config import Activation
from git_model.linear import Linear


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's approximation of GELU; it differs from `gelu` by up to 0.02, so it is not optional."""
    return x * (1.702 * x).sigmoid_()


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "quick_gelu": quick_gelu,
}


class MLP(nn.Module):
    """Up to `hidden` numbers a token, an activation, and down again."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.up = Linear(width, hidden)
        self.down = Linear(hidden, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return self.down(self.activation(self.up(x)))
