"""Devices and number formats by their names."""

import pytest
import torch

from git_model import Captioner
from git_model.utils import devices
from git_model.utils.devices import dtype_of, usable_device
from git_model.utils.errors import GITError

CPU = torch.device("cpu")


def test_auto_is_a_device_that_can_be_used() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.backends.mps.is_available():
        assert usable_device("auto").type == expected
    torch.empty(1, device=usable_device("auto"))


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, torch.float32),
        ({"avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ],
)
def test_auto_is_bfloat16_only_where_the_processor_computes_in_it(
    capabilities: dict[str, bool], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "CPU", capabilities)
    assert dtype_of("auto", CPU) == expected


def test_a_dtype_may_be_a_name_or_torchs_own() -> None:
    assert dtype_of("float16", CPU) == torch.float16
    assert dtype_of(torch.float64, CPU) == torch.float64


def test_unknown_names_are_one_line() -> None:
    with pytest.raises(GITError, match="dtype is 'half', expected auto or one of float32, "):
        dtype_of("half", CPU)
    with pytest.raises(GITError, match="device 'quantum' cannot be used here: "):
        usable_device("quantum")


def test_a_captioner_takes_auto_for_both() -> None:
    captioner = Captioner.from_pretrained("demo", dtype="auto", device="auto")
    assert captioner.device.type == usable_device("auto").type
    assert captioner.model.dtype == dtype_of("auto", captioner.device)


@pytest.mark.slow
def test_a_compiled_encoder_gives_the_same_tokens() -> None:
    eager = Captioner.from_pretrained("demo").model
    compiled = Captioner.from_pretrained("demo", compile=True).model
    for size in (64, 96):
        pixels = torch.randn(2, 3, size, size)
        tokens, expected = compiled.encode(pixels), eager.encode(pixels)
        torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-5)
