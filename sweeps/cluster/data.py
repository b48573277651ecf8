"""The tasks of data preparation on a Ray cluster, through Ray Data: a row a task, the same functions as on one machine.

The folder that is filled must be one that all nodes see, as a store is.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from gpt3core.data.prepare import task as tasks_of
from gpt3core.data.prepare.task import Spread, Task
from gpt3core.errors import StoreError
from sweeps.cluster.connect import Connection
from sweeps.cluster.pool import python_path

NAMESPACE = "isoflop-data"


def on_cluster(workers: int | None, *, address: str | None = None) -> Spread:
    """Do tasks on a cluster, or on a local Ray: ``workers`` at a time, None for as many as there are cores.

    Raises:
        StoreError: when nothing answers at the address.
    """
    connected: list[Connection] = []  # at the first task: a folder that is whole needs no cluster

    def spread(tasks: Sequence[Task]) -> Iterator[Task]:
        if not tasks:
            return
        if not connected:
            connected.append(Connection(NAMESPACE, address))
            atexit.register(connected[0].close)
        yield from _mapped(tasks, workers)

    return spread


def _mapped(tasks: Sequence[Task], workers: int | None) -> Iterator[Task]:
    """Each task when it is done, in whatever order."""
    import ray
    from ray.data import DataContext, TaskPoolStrategy

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the command says how far it is
    DataContext.get_current().enable_progress_bars = False
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": python_path()}
    rows = ray.data.range(len(tasks), override_num_blocks=len(tasks)).map(
        lambda row: _row(tasks[row["id"]], row["id"]),
        num_cpus=1,
        compute=TaskPoolStrategy(size=None if workers is None else min(workers, len(tasks))),
        runtime_env={"env_vars": variables},
    )
    for row in rows.iter_rows():
        if row["said"]:
            raise (StoreError if row["store"] else ValueError)(row["said"])
        yield tasks[row["id"]]


def _row(task: Task, number: int) -> dict[str, Any]:
    """What became of a task: an error of one sentence stays one on its way through Ray."""
    said, store = "", False
    try:
        tasks_of.do(task)
    except (ValueError, StoreError) as error:
        said, store = str(error), isinstance(error, StoreError)
    return {"id": number, "said": said, "store": store}
