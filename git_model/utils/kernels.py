"""Matrix products with few rows, as fast as a CPU allows.

Generation is bound by reading weights: each step multiplies one row per text or beam by every
matrix of the decoder. How fast the usual x W^T reads them depends on the processor's maker, because
torch calls Intel's library MKL. So a kernel is chosen per maker from measurements
(`python benchmarks/few_rows.py` measures this machine). Other processors, training, and compiled or
exported graphs take the usual product.

In bfloat16 a weight may also be kept a second time, in the order in which the library's innermost
loop reads it (`pack_weights`). This takes twice the memory and is up to twice as fast.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from git_model.utils.devices import CPU_MAKER

BLOCK = 64  # outputs
# oneDNN is the other library that torch ships. Its operators are private and may disappear.
ONEDNN = torch.ops.mkldnn
HAS_ONEDNN = torch.backends.mkldnn.is_available() and all(
    hasattr(ONEDNN, name)
    for name in ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
)

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]  # (rows, I), (O, I), (O,) -> (rows, O)


class PackedWeight(NamedTuple):
    """A copy of a weight in oneDNN's own order, with the weight's version and fingerprint."""

    copy: Tensor
    version: int
    fingerprint: float

    def is_fresh(self, weight: Tensor) -> bool:
        """Whether the weight has not been written since, as far as torch counts."""
        return _version_of(weight) == self.version


def _fingerprint(weight: Tensor) -> float:
    """A sum over some hundred values. A write through `.data`, as when an adapter is merged,
    changes it; torch does not count such a write."""
    return float(weight.detach().flatten()[:: max(1, weight.numel() // 499)].double().sum())


def _version_of(weight: Tensor) -> int:
    """Grows with each write; torch counts no writes to tensors made in inference mode."""
    return 0 if weight.is_inference() else weight._version


def pack_weights(module: nn.Module) -> None:
    """Keep a second, reordered copy of every linear weight if that was measured to be faster: in
    bfloat16 on an AMD processor. `linear` uses the copy outside of training."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and can_be_packed(layer.weight):
            copy = reordered(layer.weight.detach())
            version, fingerprint = _version_of(layer.weight), _fingerprint(layer.weight)
            packed = PackedWeight(copy, version, fingerprint)
            layer.weight.packed = packed  # type: ignore[attr-defined]


def drop_stale_copies(module: nn.Module) -> None:
    """Drop the second copy of every weight that has been written since, in any way."""
    if torch.compiler.is_compiling():
        return
    for layer in module.modules():
        if not isinstance(layer, nn.Linear):
            continue
        packed: PackedWeight | None = getattr(layer.weight, "packed", None)
        if packed is not None and packed.fingerprint != _fingerprint(layer.weight):
            del layer.weight.packed  # type: ignore[attr-defined]


def can_be_packed(weight: Tensor) -> bool:
    """Whether `pack_weights` keeps a copy of this weight on this machine."""
    if CPU_MAKER != "AMD" or not HAS_ONEDNN:
        return False
    is_bfloat16 = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    return is_bfloat16 and bool(ONEDNN._is_mkldnn_bf16_supported())


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T + b, as `torch.nn.functional.linear`: (..., I) -> (..., O), the weight (O, I)."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.numel() == 0:
        return F.linear(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])  # (rows, I)
    packed: PackedWeight | None = getattr(weight, "packed", None)
    if packed is not None and packed.is_fresh(weight):
        product = onednn(flat, packed.copy, bias)
    else:
        maker = CPU_MAKER if x.device.type == "cpu" else x.device.type
        product = fastest(flat.shape[0], x.dtype, maker)(flat, weight, bias)
    return product.reshape(*x.shape[:-1], -1)


def fastest(rows: int, dtype: torch.dtype, maker: str) -> Kernel:
    """The fastest kernel for this number of rows on a processor of this maker, with one or two
    threads."""
    if dtype == torch.float32 and maker == "Intel":
        if 4 <= rows <= 12:
            return blocked
        return transposed if 12 < rows <= 64 else F.linear
    if dtype == torch.float32 and maker == "AMD":
        if rows == 2:
            return transposed
        return onednn if HAS_ONEDNN else F.linear
    if dtype == torch.bfloat16 and maker == "Intel":
        return transposed if 2 <= rows <= 512 else F.linear
    return F.linear


def transposed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(W x^T)^T: a library reorders the right operand first, and x is small."""
    rows = x.shape[0]
    if rows in (1, 3):  # padded, because two and four rows are faster
        x = F.pad(x, (0, 0, 0, 1))
    return torch.addmm(bias[:, None], weight, x.T).T[:rows]


def reordered(weight: Tensor) -> Tensor:
    """The weight in the order that `onednn` reads fastest."""
    return ONEDNN._reorder_linear_weight(weight, 1)


def onednn(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T + b by oneDNN; this operator has no gradient."""
    return ONEDNN._linear_pointwise(x, weight, bias, "none", [], "")


def blocked(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Many products with a block of outputs each, for which a library does not reorder W."""
    n_blocks = weight.shape[0] // BLOCK
    whole = n_blocks * BLOCK
    blocks = torch.baddbmm(
        bias[:whole].unflatten(0, (n_blocks, 1, BLOCK)),
        x.expand(n_blocks, -1, -1),
        weight[:whole].unflatten(0, (n_blocks, BLOCK)).mT,
    )  # (blocks, rows, BLOCK)
    rest = F.linear(x, weight[whole:], bias[whole:])
    return torch.cat([blocks.transpose(0, 1).flatten(1), rest], dim=1)
