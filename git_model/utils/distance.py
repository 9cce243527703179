"""How far two tensors are apart: the measure of every parity check."""

from torch import Tensor


def distance(result: Tensor, reference: Tensor) -> float:
    """The largest difference over the largest number of the reference."""
    return ((result - reference).abs().max() / reference.abs().max()).item()
