"""Training runs that tests can afford: a tiny model that learns the shapes world, in processes of
its own where they are to be killed, or several."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from parity_models import bite
from safetensors.torch import load_file
from tiny import tiny_config
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
    """A tiny model with random weights and the vocabulary of the shapes world, as a checkpoint."""
    words = named_tokenizer("shapes")
    ids = {"bos_id": 2, "eos_id": 3, "pad_id": 0}
    config = resized(tiny_config(frames=6), len(words), ids)
    decoder = {"dropout": dropout, "attention_dropout": dropout, "positions": 40}
    config = from_dict(type(config), _changed(config, decoder=decoder))
    state = bite(GIT(config), 0).state_dict()
    write_checkpoint(folder, config, state, {TOKENIZER: words.to_json()})
    return folder


def _changed(config: object, **tables: Table) -> Table:
    values = to_dict(config)
    return values | {name: values[name] | changes for name, changes in tables.items()}


def recipe_table(start: Path, **changes: Any) -> Table:
    """A recipe as a table; `learning={"average": 0.9}` changes one of its values."""
    table: Table = {
        "checkpoint": str(start),
        "steps": 8,
        "seed": 3,
        "data": {"kind": "shapes", "size": 64},
        "feed": {"batch_size": 6},
        "learning": {"encoder_lr": 2e-3, "decoder_lr": 2e-3},
        "compute": {"device": "cpu", "threads": 1},
        "reports": {"log_every": 1, "check_every": 100, "save_every": 100},
    }
    for name, value in changes.items():
        both = isinstance(table.get(name), dict) and isinstance(value, dict)
        table[name] = table[name] | value if both else value
    return table


def recipe_of(start: Path, **changes: Any) -> Recipe:
    """The same as a Recipe."""
    return from_dict(Recipe, recipe_table(start, **changes))


def write_recipe(path: Path, table: Table) -> Path:
    """A recipe's file; JSON, which is read as TOML is."""
    path.write_text(json.dumps(table))
    return path


def start_process(
    recipe: Path, out: Path, *options: str, rank: int = 0, count: int = 1, port: int = 0
) -> subprocess.Popen[str]:
    """`git-model train` in a process of its own, as torchrun would start it where count > 1."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    if count > 1:
        env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return subprocess.Popen(
        [sys.executable, "-m", "git_model", "train", str(recipe), "--out", str(out), *options],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_processes(recipes: list[Path], out: Path, *options: str) -> list[subprocess.Popen[str]]:
    """A process for each of the recipes, all of one run."""
    port = free_port()
    return [
        start_process(recipe, out, *options, rank=rank, count=len(recipes), port=port)
        for rank, recipe in enumerate(recipes)
    ]


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code and stderr of a process, once it ends."""
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def run_together(table: Table, out: Path, *options: str, count: int) -> None:
    """A whole run, on so many processes."""
    recipe = write_recipe(out.with_suffix(f".{count}.json"), table)
    for process in start_processes([recipe] * count, out, *options):
        code, errors = finished(process)
        assert code == 0, errors


def free_port() -> int:
    """Of this machine."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def log_of(out: Path) -> list[Table]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def losses_of(out: Path) -> list[float]:
    """Step by step."""
    return [line["loss"] for line in log_of(out) if "loss" in line]


def weights_of(out: Path) -> dict[str, Tensor]:
    """Of a run's checkpoint."""
    return load_file(out / CHECKPOINT / "model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    """Whether two runs ended with the very same bits."""
    left, right = weights_of(one), weights_of(other)
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)
