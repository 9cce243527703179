"""Training runs that tests can afford: a tiny model on the shapes world, in this process or in
child processes, which tests can kill."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from forked import Forked, git_model
from safetensors.torch import load_file
from tiny import bite, tiny_config
from torch import Tensor

from git_model.checkpoints.native import TOKENIZER, write_checkpoint
from git_model.model.git import GIT
from git_model.training.initialization import named_tokenizer, resized
from git_model.training.loop import CHECKPOINT
from git_model.training.recipe import Recipe
from git_model.training.reports import LOG
from git_model.utils.serialize import from_dict, to_dict

Table = dict[str, Any]


def start_folder(folder: Path, *, dropout: float = 0.0) -> Path:
    """A tiny model with random weights and the vocabulary of the shapes world, as a checkpoint.

    Of one layer each: the tests train some hundred times.
    """
    tokenizer = named_tokenizer("shapes")
    ids = {"bos_id": 2, "eos_id": 3, "pad_id": 0}
    config = resized(tiny_config(frames=6), len(tokenizer), ids)
    decoder = {"dropout": dropout, "attention_dropout": dropout, "positions": 40, "layers": 1}
    config = from_dict(type(config), _changed(config, encoder={"layers": 1}, decoder=decoder))
    state = bite(GIT(config), 0).tensors()
    write_checkpoint(folder, config, state, {TOKENIZER: tokenizer.to_json()})
    return folder


def _changed(config: object, **tables: Table) -> Table:
    values = to_dict(config)
    return values | {name: values[name] | changes for name, changes in tables.items()}


def recipe_table(start: Path, **changes: Any) -> Table:
    """A recipe as a table; `learning={"ema": 0.9}` changes one of its values."""
    table: Table = {
        "checkpoint": str(start),
        "steps": 8,
        "seed": 3,
        "data": {"kind": "shapes", "size": 64},
        "loader": {"batch_size": 6},
        "learning": {"encoder_lr": 2e-3, "decoder_lr": 2e-3},
        "compute": {"device": "cpu", "threads": 1},
        "reports": {"log_every": 1, "check_every": 100, "save_every": 100},
    }
    for name, value in changes.items():
        merge = isinstance(table.get(name), dict) and isinstance(value, dict)
        table[name] = table[name] | value if merge else value
    return table


def recipe_of(start: Path, **changes: Any) -> Recipe:
    """The same as a Recipe."""
    return from_dict(Recipe, recipe_table(start, **changes))


def write_recipe(path: Path, table: Table) -> Path:
    """A recipe as a JSON file."""
    path.write_text(json.dumps(table))
    return path


def start_process(
    recipe: Path,
    out: Path,
    *options: str,
    rank: int = 0,
    count: int = 1,
    port: int = 0,
    run: Callable[..., None] = git_model,
) -> Forked:
    """`git-model train` as a child process, started as torchrun would where count > 1."""
    environment = {}
    if count > 1:
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return Forked(run, "train", recipe, "--out", out, *options, **environment)


def start_processes(recipes: list[Path], out: Path, *options: str) -> list[Forked]:
    """One run with a process for each recipe."""
    port = free_port()
    return [
        start_process(recipe, out, *options, rank=rank, count=len(recipes), port=port)
        for rank, recipe in enumerate(recipes)
    ]


def finished(process: Forked) -> tuple[int, str]:
    """The exit code and stderr of a process; waits for its end."""
    _, errors = process.communicate()
    return process.wait(), errors


def run_together(table: Table, out: Path, *options: str, count: int) -> None:
    """A complete run on `count` processes."""
    recipe = write_recipe(out.with_suffix(f".{count}.json"), table)
    for process in start_processes([recipe] * count, out, *options):
        code, errors = finished(process)
        assert code == 0, errors


def free_port() -> int:
    """A free TCP port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def log_of(out: Path) -> list[Table]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def losses_of(out: Path) -> list[float]:
    """The logged losses, step by step."""
    return [line["loss"] for line in log_of(out) if "loss" in line]


def weights_of(out: Path) -> dict[str, Tensor]:
    """The tensors of a run's checkpoint."""
    return load_file(out / CHECKPOINT / "model.safetensors")


def same_weights(left: Path, right: Path) -> bool:
    """Whether two runs ended with the same bits."""
    tensors, others = weights_of(left), weights_of(right)
    assert tensors.keys() == others.keys()
    return all(torch.equal(tensors[name], others[name]) for name in tensors)
