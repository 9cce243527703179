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


def test_formats_go_by_name_or_as_they_are() -> None:
    assert dtype_of("float16", CPU) == torch.float16
    assert dtype_of(torch.float64, CPU) == torch.float64


def test_names_that_are_none_are_one_line() -> None:
    with pytest.raises(GITError, match="dtype is 'half', expected auto or one of float32, "):
        dtype_of("half", CPU)
    with pytest.raises(GITError, match="device 'quantum' cannot be used here: "):
        usable_device("quantum")


def test_a_captioner_takes_auto_for_both() -> None:
    git = Captioner.from_pretrained("demo", dtype="auto", device="auto")
    weight = git.model.decoder.lm_head.bias
    assert weight.device.type == usable_device("auto").type
    assert weight.dtype == dtype_of("auto", weight.device)


@pytest.mark.slow
def test_a_compiled_encoder_sees_the_same() -> None:
    usual = Captioner.from_pretrained("demo")
    compiled = Captioner.from_pretrained("demo", compile=True)
    for size in (64, 96):
        pixels = torch.randn(2, 3, size, size)
        one, other = (git.model.encode(pixels) for git in (usual, compiled))
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
