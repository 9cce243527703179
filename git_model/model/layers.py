"""The layers that both towers share: a linear layer, norms, activations, and the two-layer MLP."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from git_model.config import Activation, NormKind
from git_model.utils.kernels import linear


class Linear(nn.Linear):
    """`torch.nn.Linear` with a bias, and with the same result up to rounding. For few rows on a CPU
    it takes the fastest kernel (utils/kernels.py); in training it is `F.linear`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)

    def reset_parameters(self) -> None:
        """As in torch. On the meta device there are no values to draw, and to do nothing halves the
        time that opening a small model takes."""
        if not self.weight.is_meta:
            super().reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)"""
        return linear(x, self.weight, self.bias)


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's approximation of GELU, x sigmoid(1.702 x). It differs from `gelu` by up to 0.02."""
    return x * (1.702 * x).sigmoid_()


NORMS: dict[NormKind, type[nn.LayerNorm | nn.RMSNorm]] = {
    "layer": nn.LayerNorm,
    "rms": nn.RMSNorm,
}

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "silu": F.silu,
}


class MLP(nn.Module):
    """The feed-forward network of a transformer block: W2 activation(W1 x)."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.up = Linear(width, hidden)
        self.down = Linear(hidden, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return self.down(self.activation(self.up(x)))
