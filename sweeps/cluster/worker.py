"""A worker: a Ray actor that imported torch once and runs one run after another in a thread of its own.

Workers are detached: they outlive their driver, and the next driver finds them by name. One that hears of no driver
for a while after its work is done ends itself, and a gang's removes the placement group, which nobody else would.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from gpt3core.errors import COLLECTIVE, BusyError, PeerError, StoppedError, StoreError
from sweeps.cluster.job import Assignment, Progress, Report

WATCH_SECONDS = 1.0


class Worker:
    """The actor. ``start`` returns at once; ``poll`` tells what became of it."""

    def __init__(self, orphan_seconds: float, group: str = "", leader: str = "") -> None:
        """Wait for work.

        Args:
            orphan_seconds: of silence after which a worker without work ends.
            group: name of the gang's placement group.
            leader: name of the gang's rank 0, empty for that rank and for single workers.
        """
        self._group, self._leader, self._orphan_seconds = group, leader, orphan_seconds
        self._report = Report()
        self._stop = threading.Event()
        self._heard = time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def address(self) -> str:
        """A free ``host:port`` of this worker's node, for the ranks of a gang to meet at."""
        self._heard = time.monotonic()
        host = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((host, 0))
            return f"{host}:{probe.getsockname()[1]}"

    def start(self, assignment: Assignment, address: str = "") -> None:
        """Begin; a gang's ranks meet at the address, which Ray hands over once the leader has said it."""
        self._heard = time.monotonic()
        assignment = replace(assignment, address=address)
        assert self._report.state != "running", "a worker runs one run at a time"
        self._stop.clear()
        self._report = Report(state="running", assignment=assignment)
        threading.Thread(target=self._work, args=(assignment,), daemon=True).start()

    def poll(self) -> Report:
        """What became of it."""
        self._heard = time.monotonic()
        return self._report

    def clear(self) -> None:
        """Forget the finished run."""
        self._report = Report()

    def stop(self) -> None:
        """Ask the run to write its checkpoint and end."""
        self._stop.set()

    def _work(self, assignment: Assignment) -> None:
        def report(live: Mapping[str, Any]) -> None:
            self._report = Report(state="running", assignment=assignment, progress=Progress.of(live))

        ended = perform(assignment, report, self._stop.is_set)
        # blocks that are computed again refer to themselves: without this the next run would start beside their weights
        gc.collect()
        self._report = ended

    def _watch(self) -> None:
        while not self._orphaned():
            time.sleep(WATCH_SECONDS)
        if self._group:
            with contextlib.suppress(Exception):  # whatever Ray says, this process ends now
                ray.util.remove_placement_group(ray.util.get_placement_group(self._group))
        os._exit(0)

    def _orphaned(self) -> bool:
        """No driver has asked for long, and nothing is left to do, for this rank nor for its gang's rank 0."""
        if time.monotonic() - self._heard < self._orphan_seconds or self._report.state == "running":
            return False
        if not self._leader:
            return True
        try:
            ray.get_actor(self._leader)
        except ValueError:  # it is gone
            return True
        except ray.exceptions.RayError:  # the cluster does not answer now
            return False
        return False


def perform(assignment: Assignment, report: Callable[[Mapping[str, Any]], None], stop: Callable[[], bool]) -> Report:
    """Run the entry to its end, however it ends: a thread that died in silence would look busy for ever."""
    try:
        module, function = assignment.entry.split(":")
        result = getattr(importlib.import_module(module), function)(assignment, report, stop)
        return Report(state="done", assignment=assignment, result=result)
    except StoppedError as error:
        return Report(state="stopped", assignment=assignment, error=str(error))
    except BusyError as error:
        return Report(state="busy", assignment=assignment, error=str(error))
    except (StoreError, ValueError) as error:
        return Report(state="failed", assignment=assignment, error=str(error), fatal=True)
    except BaseException as error:
        kind, last = type(error).__name__, traceback.extract_tb(error.__traceback__)[-1]
        return Report(
            state="failed",
            assignment=assignment,
            error=f"{kind}: {error} ({Path(last.filename).name}:{last.lineno})",
            fatal=isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError",  # torch's, of a GPU
            collective=_of_a_collective(error),
            traceback=traceback.format_exc(),
        )


def _of_a_collective(error: BaseException) -> bool:
    """Whether a failure may only be the echo of another rank's, as the mesh says it or a library beside it."""
    return isinstance(error, PeerError) or (
        isinstance(error, RuntimeError | ConnectionError) and COLLECTIVE.search(str(error)) is not None
    )


# ------------------------------------------------------------------------------------------------------- job bodies


def prepare(
    assignment: Assignment, report: Callable[[Mapping[str, Any]], None], stop: Callable[[], bool]
) -> dict[str, Any]:
    """Fetch and tokenize the text, make the evaluation's items, and time the numerics on one shape."""
    from gpt3core.data import shards, starter
    from gpt3core.evals import runner
    from gpt3core.train import process, timing

    job = assignment.job
    process.settle_process(job.device, job.threads)
    data = shards.prepare(job.spec.data)
    runner.check(job.spec, job.evals, data)
    asked = job.spec.precision, job.spec.kernel
    chosen = timing.choose(job.spec.model, *asked, job.device, timing.excluded(job.spec))
    return {
        "numerics": vars(chosen),
        "data": {k: data.meta[k] for k in ("tokens", "bytes", "documents")},
        "licences": starter.licences() if job.spec.data.corpus == "starter" else [],
    }


def train(
    assignment: Assignment, report: Callable[[Mapping[str, Any]], None], stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """Train and evaluate one run."""
    return _run(assignment, report, stop)


def evaluate(
    assignment: Assignment, report: Callable[[Mapping[str, Any]], None], stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """Ask more of a run that is trained: its checkpoint is read once for all that is missing. Never trains."""
    from gpt3core.store.rundir import RunDir

    if RunDir(assignment.job.root, assignment.job.spec.run_id).sound_result() is None:
        raise StoreError(f"run {assignment.job.spec.run_id} is not trained, so nothing is measured of it")
    return _run(assignment, report, stop, in_parts=True)


def _run(
    assignment: Assignment,
    report: Callable[[Mapping[str, Any]], None],
    stop: Callable[[], bool],
    *,
    in_parts: bool = False,
) -> dict[str, Any] | None:
    from gpt3core import run as runs
    from gpt3core.parallel import mesh

    job = assignment.job
    place = assignment.rank, assignment.world_size, assignment.address
    with mesh.joined(*place, job.device, layout=job.layout) as here:
        return runs.run(
            job.spec,
            job.evals,
            job.root,
            mesh=here,
            threads=job.threads,
            suggested=job.numerics,
            device=job.device,
            checkpoint_seconds=job.checkpoint_seconds,
            prefix=job.prefix,
            keep=job.keep,
            peak_flops=job.peak_flops,
            usd_per_hour=job.usd_per_hour,
            report=report,
            stop=stop,
            in_parts=in_parts,
        )
