"""One small model with weights that bite, exported for every engine once for all tests."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from commands import WORDS, run
from exports import write_variant
from tiny import bite, tiny_config

from git_model import GIT
from git_model.checkpoints.native import TOKENIZER, write_checkpoint
from git_model.preprocessing.tokenizer import Tokenizer

VARIANTS = [("onnx", "float16"), ("onnx", "int8"), ("openvino", "float32"), ("openvino", "int8")]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process of the test run at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def small_model() -> GIT:
    """A video model whose texts end now and then, its settings away from their defaults. Its two
    decoder layers let image tokens attend to each other in the first."""
    config = tiny_config(frames=3)
    encoder = replace(config.encoder, layers=1, activation="gelu_tanh", norm_eps=0.01)
    decoder = replace(config.decoder, layers=2, activation="quick_gelu", norm_eps=0.02)
    config = replace(config, encoder=encoder, decoder=decoder)
    model = bite(GIT(config).double(), seed=8).float().eval()
    return model.requires_grad_(requires_grad=False)


def write_source(folder: Path) -> None:
    model = small_model()
    files = {TOKENIZER: Tokenizer.from_vocab(WORDS).to_json()}
    write_checkpoint(folder, model.config, model.tensors(), files)


def write_variants(root: Path) -> None:
    """The ONNX graphs in float32 by the command; the others from these, which saves time."""
    whole = root / "onnx-float32"
    run("export", root / "source", whole)
    for engine, dtype in VARIANTS:
        write_variant(whole, root / f"{engine}-{dtype}", engine, dtype)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder with `source` and ENGINE-DTYPE for each variant; the tests leave it as it is."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "exports"
    with locked(root.with_name("exports.lock")):
        if not (root / "done").exists():
            root.mkdir()
            write_source(root / "source")
            write_variants(root)
            (root / "done").touch()
    return root
