"""Checks of a checkpoint alone, without a reference: its files, its weights and its vocabulary."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from git_model.checkpoints.native import (
    DIGESTS,
    digests_of,
    folder_of,
    is_checkpoint,
    read_digests,
)
from git_model.config import GITConfig
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.serialize import is_file
from weights_convert import microsoft
from weights_convert.hub import find_folder


@dataclass(frozen=True)
class Inspection:
    """The result of a check of the checkpoint alone.

    result: what was measured.
    problem: what is wrong; empty if nothing is.
    skipped: the reason why nothing could be checked, or empty.
    """

    subject: str
    stage: str
    result: str
    problem: str = ""
    skipped: str = ""

    @property
    def failed(self) -> bool:
        """Whether something is wrong."""
        return bool(self.problem)

    def __str__(self) -> str:
        verdict = f"not compared: {self.skipped}" if self.skipped else "ok"
        verdict = f"WRONG: {self.problem}" if self.failed else verdict
        return f"{self.subject:22} {self.stage:24} {self.result} {verdict}"


def inspect_files(source: str, revision: str | None = None) -> Iterator[Inspection]:
    """The sha256 of every file, compared with SHA256SUMS where the folder has one.

    Raises:
        GITError: SHA256SUMS is damaged, or a file cannot be read.
    """
    folder = checkpoint_folder(source, revision)
    digests = digests_of(folder)
    weights = microsoft.find_weights(folder)
    if weights is not None and weights.parent != folder:
        inner = digests_of(weights.parent)
        digests |= {f"{weights.parent.name}/{name}": digest for name, digest in inner.items()}
    stored = read_digests(folder) if is_file(folder / DIGESTS) else None
    skipped = f"no {DIGESTS}" if stored is None else ""
    for name, digest in digests.items():
        yield Inspection("sha256", name, digest, _difference(name, digest, stored), skipped)
    for name in sorted((stored or {}).keys() - digests.keys()):
        yield Inspection("sha256", name, "missing", f"{DIGESTS} lists it")


def _difference(name: str, digest: str, stored: Mapping[str, str] | None) -> str:
    if stored is None or stored.get(name) == digest:
        return ""
    return f"{DIGESTS} has {stored[name]}" if name in stored else f"{DIGESTS} does not list it"


def inspect_weights(model: GIT) -> Inspection:
    """Whether every weight is a finite number; the first tensor with another is named."""
    tensors = model.tensors()
    for name, tensor in tensors.items():
        n_wrong = int((~tensor.isfinite()).sum())
        if n_wrong:
            problem = f"tensor {name} has {n_wrong:,} weights that are NaN or infinite"
            return Inspection("weights", "finite", f"{len(tensors)} tensors", problem)
    return Inspection("weights", "finite", f"{len(tensors)} tensors")


def inspect_vocabulary(tokenizer: Tokenizer, config: GITConfig) -> Inspection:
    """Whether the model has a row for every token, and a token for each of its special ids."""
    size, vocabulary = config.decoder.vocab_size, tokenizer.vocabulary()
    result = f"{len(vocabulary)} tokens, vocab_size {size}"
    unreachable = sorted(index for index in vocabulary.values() if index >= size)
    if unreachable:
        problem = f"{len(unreachable)} ids are not below vocab_size, such as {unreachable[0]}"
        return Inspection("vocabulary", "ids", result, problem)
    token_of = {index: token for token, index in vocabulary.items()}
    special = {"bos_id": config.bos_id, "pad_id": config.pad_id}
    special |= {f"eos_ids[{n}]": index for n, index in enumerate(config.eos_ids)}
    for name, index in special.items():
        if index not in token_of:
            problem = f"{name} is {index}, which is no token of the vocabulary"
            return Inspection("vocabulary", "ids", result, problem)
    unnamed = sorted(set(range(size)) - token_of.keys() - set(config.decoding.suppress_tokens))
    if unnamed:
        result += f", {len(unnamed)} ids without a token, such as {unnamed[0]}"
    names = ", ".join(f"{name} {token_of[index]}" for name, index in special.items())
    return Inspection("vocabulary", "ids", f"{result}; {names}")


def checkpoint_folder(source: str, revision: str | None) -> Path:
    """The folder of a checkpoint of any format; a hub id is downloaded."""
    folder = folder_of(source)
    return folder if is_checkpoint(folder) else find_folder(source, revision)
