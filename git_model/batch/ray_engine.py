"""The same captions on a cluster: a pipeline of Ray Data from files to Parquet.

Ray spreads the reading of pictures over processes, and the captions over a pool of actors that have
a model each; what a lost machine had is done again. Unlike a run of `run.py` it does not go
on where it was ended. Needs the extra `ray`.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from git_model.batch.captioning import Author
from git_model.batch.inputs import Input, Refused
from git_model.batch.loop import BatchOptions
from git_model.batch.pipeline import Reader, batches, by_picture
from git_model.batch.records import Editor, Record, about
from git_model.batch.sink_tables import arrow_table, read_parquet
from git_model.captioner import Captioner
from git_model.config import GITConfig
from git_model.utils.atomic import new_folder
from git_model.utils.errors import GITError

Columns = dict[str, Any]  # a batch in Ray: a list of values under each name


class Looking:
    """The first step: from files to pixels."""

    def __init__(self, config: GITConfig, options: BatchOptions) -> None:
        self._reader = Reader(config, options.sampling)

    def __call__(self, batch: Columns) -> Columns:
        """{"asked": …} -> {"look": …}"""
        return {"look": [self._reader[asked] for asked in batch["asked"]]}


class Writing:
    """The second step: an actor with a model, made by Ray in a process of its own."""

    def __init__(
        self, open_model: Callable[[], Captioner], options: BatchOptions, editor: Editor
    ) -> None:
        self._author = Author(open_model(), options.decoding, editor)
        self._size = options.batch_size

    def __call__(self, batch: Columns) -> Any:
        """{"look": …} -> an Arrow table with a row for each input, in their order."""
        parts = batches(batch["look"], self._size)
        found = dict(pair for part in parts for pair in self._author.outcomes(part))
        order = [item for look in batch["look"] for item in look.asked]
        records = [found[item].record or _failed(item, found[item].failure) for item in order]
        return arrow_table(records, several=self._author.editor.several)


def _failed(item: Input | Refused, reason: str | None) -> Record:
    return about(item) | {"error": reason}


def write_with_ray(
    config: GITConfig,
    open_model: Callable[[], Captioner],
    inputs: Iterable[Input | Refused],
    out: Path,
    options: BatchOptions,
    editor: Editor,
    *,
    gpu: bool = False,
) -> Iterator[Record]:
    """Write about all inputs, into a new folder of Parquet files, in their order.

    Args:
        config: the model's.
        open_model: opens it, in each actor.
        gpu: an actor for each GPU of the cluster; else one for every four CPUs.

    Returns:
        the records that were written; those of inputs that failed have an `error`.

    Raises:
        GITError: Ray is missing or fails, or the folder cannot be written.
    """
    old = ("*.parquet",) if options.mode == "overwrite" else ()
    with _ray(out) as ray, new_folder(out, replaces=old) as folder:
        resources = ray.cluster_resources()
        actors = resources.get("GPU", 0) if gpu else resources["CPU"] // 4
        rows = ray.data.from_items([{"asked": asked} for asked in by_picture(inputs)])
        rows = rows.map_batches(Looking(config, options), batch_size=options.batch_size)
        rows = rows.map_batches(
            Writing,
            fn_constructor_args=(open_model, options, editor),
            batch_size=4 * options.batch_size,  # of several shapes
            compute=ray.data.ActorPoolStrategy(size=max(1, int(actors))),
            num_gpus=int(gpu),
        )
        rows.write_parquet(str(folder))
    return (record for path in sorted(out.glob("*.parquet")) for record in read_parquet(path))


@contextmanager
def _ray(out: Path) -> Iterator[Any]:
    """Ray: the cluster that RAY_ADDRESS names, or this machine."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise GITError(f"{out}: a cluster needs Ray: pip install 'git-model[ray]'") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    try:
        yield ray
    except ray.exceptions.RayError as error:
        raise GITError(f"{out}: Ray failed: {str(error).splitlines()[-1]}") from None
    finally:
        ray.shutdown()
