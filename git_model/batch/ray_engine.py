"""Captions of a data set on a cluster: a pipeline of Ray Data from files to Parquet.

Ray spreads the loading of images over processes, and the captioning over a pool of actors, each
with a model. It repeats the work of a lost machine. Unlike a run of `run.py`, an interrupted run
cannot be continued. Needs the extra `ray`.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from git_model.batch.caption_filters import RecordEditor
from git_model.batch.captioning import (
    BatchCaptioner,
    InputDataset,
    group_by_image,
    one_shape_batches,
)
from git_model.batch.distinct_inputs import DistinctInputs, each_once
from git_model.batch.items import AnyInput, OutputRecord
from git_model.batch.journal import Outcome
from git_model.batch.loop import BatchOptions
from git_model.batch.sink_tables import arrow_table, read_parquet
from git_model.captioner import Captioner
from git_model.config import GITConfig
from git_model.utils.atomic import new_folder
from git_model.utils.errors import GITError

Columns = dict[str, Any]  # a batch in Ray: a list of values under each name


class LoadStep:
    """The first step: from files to pixels."""

    def __init__(self, config: GITConfig, options: BatchOptions, folder: Path) -> None:
        self._dataset = InputDataset(config, options.reading, folder)

    def __call__(self, columns: Columns) -> Columns:
        """{"group": …} -> {"loaded": …}"""
        return {"loaded": [self._dataset[group] for group in columns["group"]]}


class CaptionStep:
    """The second step: an actor with a model, made by Ray in a process of its own."""

    def __init__(
        self, open_model: Callable[[], Captioner], options: BatchOptions, editor: RecordEditor
    ) -> None:
        self._captioner = BatchCaptioner(open_model(), options.decoding, editor)
        self._batch_size = options.batch_size

    def __call__(self, columns: Columns) -> Any:
        """{"loaded": …} -> an Arrow table with a row for each input, in their order."""
        batches = one_shape_batches(columns["loaded"], self._batch_size)
        outcomes = dict(pair for batch in batches for pair in self._captioner.outcomes(batch))
        order = [item for loaded in columns["loaded"] for item in loaded.inputs]
        records = [_record(item, outcomes[item]) for item in order]
        return arrow_table(records, multiple=self._captioner.editor.multiple)


def _record(item: AnyInput, outcome: Outcome) -> OutputRecord:
    return outcome.record or item.fields | {"error": outcome.failure}


def caption_with_ray(
    config: GITConfig,
    open_model: Callable[[], Captioner],
    inputs: Iterable[AnyInput],
    out: Path,
    options: BatchOptions,
    editor: RecordEditor,
    *,
    gpu: bool = False,
) -> Iterator[OutputRecord]:
    """Caption all inputs into a new folder of Parquet files, in their order.

    Args:
        config: the model's.
        open_model: opens it, in each actor.
        gpu: use one actor for each GPU of the cluster, instead of one for every four CPUs.

    Returns:
        the records that were written; those of inputs that failed have an `error`.

    Raises:
        GITError: Ray is missing or fails, or the folder cannot be written.
    """
    old = ("*.parquet",) if options.mode == "overwrite" else ()
    with _ray(out) as ray, new_folder(out, replaces=old) as folder:
        resources = ray.cluster_resources()
        n_actors = resources.get("GPU", 0) if gpu else resources["CPU"] // 4
        groups = group_by_image(each_once(DistinctInputs(inputs)))
        rows = ray.data.from_items([{"group": group} for group in groups])
        rows = rows.map_batches(
            LoadStep(config, options, out.absolute()), batch_size=options.batch_size
        )
        rows = rows.map_batches(
            CaptionStep,
            fn_constructor_args=(open_model, options, editor),
            batch_size=4 * options.batch_size,  # of several shapes
            compute=ray.data.ActorPoolStrategy(size=max(1, int(n_actors))),
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
