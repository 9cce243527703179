"""Devices, number formats (dtypes), and the maker of the CPU."""

from typing import Any, cast

import torch
from torch import Tensor

from git_model.utils.errors import GITError

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
# Empty in older versions of torch.
CPU: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
CPU_MAKER = str(CPU.get("cpu_name", "")).partition(" ")[0]  # such as "Intel"


def usable_device(device: str | torch.device) -> torch.device:
    """The device of this name; `auto` is a GPU if there is one.

    Raises:
        GITError: no tensor can be made on it.
    """
    if device == "auto":
        device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    name = f"device {str(device)!r} cannot be used here"
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError):
        raise GITError(f"{name}: no such device, expected cpu, cuda, cuda:1, mps or auto") from None
    try:
        probe = torch.zeros(1, device=target)
        probe.item()  # the device "meta" has no values
    except (RuntimeError, AssertionError, NotImplementedError):
        raise GITError(
            f"{name}: this machine has no such device, or this torch does not support it; "
            "expected cpu, or auto"
        ) from None
    return probe.device


def dtype_of(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The number format of this name; `auto` is bfloat16 on a device that computes in it, and
    float32 on others.

    Raises:
        GITError: there is no such number format for weights.
    """
    if name in DTYPES.values():
        return cast(torch.dtype, name)
    if name == "auto":
        return torch.bfloat16 if _computes_in_bfloat16(device) else torch.float32
    if name not in DTYPES:
        raise GITError(f"dtype is {str(name)!r}, expected auto or one of {', '.join(DTYPES)}")
    return DTYPES[name]


def on_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device. To a GPU it is copied from pinned memory, which this process's next
    work does not wait for."""
    target = torch.device(device)
    if target.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(target, non_blocking=True)
    return tensor.to(target)


def _computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cpu":
        return bool(CPU.get("avx512_bf16") or CPU.get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
