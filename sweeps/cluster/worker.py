"""A worker: a Ray actor that imported torch once and runs one run after another in a thread of its own.

The call that gives it a run is answered at the run's end, so that its driver need not ask; calls are asynchronous, and
one that waits holds up no other. Workers are detached: they outlive their driver, and the next driver finds them by
name. One that hears of no driver for a while after its work is done ends itself, and a gang's removes the placement
group, which nobody else would.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from gpt3core import pulse
from gpt3core.errors import COLLECTIVE, BusyError, PeerError, StoppedError, StoreError
from sweeps.cluster import causes
from sweeps.cluster.causes import Cause
from sweeps.cluster.job import Assignment, Progress, Report

WATCH_SECONDS = 1.0
CHECKPOINT_SECONDS = 25.0  # that a worker that is sent SIGTERM takes for it at most: Slurm kills after 30
LISTEN_SECONDS = 600.0  # a driver that listens for an end is answered after so long at the latest, and asks again
PRELOAD = ("gpt3core.run",)  # what ``train`` and ``prepare`` need, imported at birth


def _signals() -> list[int]:
    """A descriptor that can be read once a signal has come to a worker, if this is one.

    Python's handlers, Ray's of SIGTERM too, run in the main thread, which never comes back from Ray's C++. All that it
    does of ours is the import of this module, and only it may ask for this.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or ray._private.worker.global_worker.mode != ray.WORKER_MODE:
        return []
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    return [heard]


SIGNALS = _signals()


class Worker:
    """The actor. ``run`` and ``ended`` are answered when its run has ended, all else at once."""

    def __init__(self, orphan_seconds: float, entry: str = "", group: str = "", leader: str = "") -> None:
        """Import what its work needs, and wait for it.

        Args:
            orphan_seconds: of silence after which a worker without work ends.
            entry: ``module:function`` of its first run; a ``PRELOAD`` of the module is imported now.
            group: name of the gang's placement group.
            leader: name of the gang's rank 0, empty for that rank and for single workers.
        """
        self._group, self._leader, self._orphan_seconds = group, leader, orphan_seconds
        self._report = Report()
        self._work: Assignment | None = None
        self._over: Future[Report] = Future()
        self._stopping = ""  # the run that is asked to end, perhaps before it is here
        self._settled = False  # a run has ended
        preload(entry)  # a minute from a slow disk
        self._heard = time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def address(self) -> str:
        """A free ``host:port`` of this worker's node, for the ranks of a gang to meet at."""
        self._heard = time.monotonic()
        host = ray.util.get_node_ip_address()
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
            return f"[{host}]:{probe.getsockname()[1]}" if ":" in host else f"{host}:{probe.getsockname()[1]}"

    async def run(self, assignment: Assignment, address: str = "") -> Report:
        """Do this and tell its end; a gang's ranks meet at the address, which Ray hands over once the leader has it."""
        self._heard = time.monotonic()
        assert self._report.state != "running", "a worker runs one run at a time"
        self._work, self._over, self._report = replace(assignment, address=address), Future(), Report(state="running")
        threading.Thread(target=self._perform, args=(self._work,), daemon=True).start()
        return await self.ended()

    async def ended(self) -> Report:
        """The end of the run that it has, or that it still runs after LISTEN_SECONDS; "idle" where it has none."""
        self._heard = time.monotonic()
        if self._work is not None:
            await asyncio.wait({asyncio.wrap_future(self._over)}, timeout=LISTEN_SECONDS)
        return self._report

    def poll(self) -> Report:
        """How far it is: little, for it is asked often."""
        self._heard = time.monotonic()
        said = Report(state=self._report.state, progress=self._report.progress)
        return replace(said, beats=pulse.HERE.beats, doing=pulse.HERE.doing)

    def work(self) -> Assignment | None:
        """What it has, for a driver that finds it; None once its end was taken note of."""
        self._heard = time.monotonic()
        return self._work

    def clear(self, run_id: str) -> None:
        """The end of that run was taken note of."""
        self._heard = time.monotonic()
        if self._work is not None and self._work.run_id == run_id and self._report.state != "running":
            self._work, self._report = None, Report()
            if self._stopping == run_id:  # it came after the end, and is of no later attempt
                self._stopping = ""

    def stop(self, run_id: str) -> None:
        """Ask a run to write its checkpoint and end. Of a worker that is being born this call may overtake ``run``."""
        self._stopping = run_id

    def _terminate(self) -> None:
        """A batch system whose time is over sends SIGTERM: the run writes a checkpoint, then this process ends."""
        if self._work is not None and self._report.state == "running":
            self.stop(self._work.run_id)
            with contextlib.suppress(TimeoutError):
                self._over.result(timeout=CHECKPOINT_SECONDS)
            time.sleep(WATCH_SECONDS)  # the end is told
        os._exit(1)

    def _perform(self, assignment: Assignment) -> None:
        def report(live: Mapping[str, Any]) -> None:
            self._report = Report(state="running", progress=Progress.of(live))

        ended = perform(assignment, report, lambda: self._stopping == assignment.run_id)
        with contextlib.suppress(Exception):  # of a device that is broken, say: the end is told whatever happens
            free_memory()
        if not self._settled:  # what the first run imported stays as well
            self._settled = True
            gc.freeze()
        self._stopping = ""
        self._heard = time.monotonic()  # its driver may have been paused, or asks many in turns
        self._report = ended
        self._over.set_result(ended)

    def _watch(self) -> None:
        while not self._orphaned():
            heard, _, _ = select.select(SIGNALS, [], [], WATCH_SECONDS)
            if any(signal.SIGTERM in os.read(each, 16) for each in heard):
                self._terminate()
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


def preload(entry: str) -> None:
    """Import what an entry needs. It stays, so no later look for garbage goes through it (40 ms for pandas and ray).

    A module that cannot be imported is no matter here: the run that needs it says so.
    """
    with contextlib.suppress(Exception):
        module = importlib.import_module(entry.partition(":")[0]) if entry else None
        for name in getattr(module, "PRELOAD", ()):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def free_memory() -> None:
    """Give back what a run held, on the GPU and to the system, before the next one begins beside it."""
    gc.collect()  # blocks that are computed again refer to themselves
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # a libc that is not GNU's
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def perform(assignment: Assignment, report: Callable[[Mapping[str, Any]], None], stop: Callable[[], bool]) -> Report:
    """Run the entry to its end, however it ends: a thread that died in silence would look busy for ever.

    A run whose own thread waits for a rank that does not come ends too: the thread is left behind, for the process of a
    failed run is ended.
    """
    ended: queue.SimpleQueue[Report] = queue.SimpleQueue()

    def hangs(said: str, rank: int | None) -> None:
        sentence = f"{said}: all ranks are ended, and the run goes on from its checkpoint"
        ended.put(Report(state="failed", assignment=assignment, error=sentence, cause=Cause.HANG, blames=rank))

    pulse.HERE.begin(hangs)
    work = threading.Thread(target=lambda: ended.put(_performed(assignment, report, stop)), daemon=True)
    work.start()
    first = ended.get()
    pulse.HERE.begin(None)
    return first


def _performed(assignment: Assignment, report: Callable[[Mapping[str, Any]], None], stop: Callable[[], bool]) -> Report:
    try:
        module, function = assignment.entry.split(":")
        result = getattr(importlib.import_module(module), function)(assignment, report, stop)
        return Report(state="done", assignment=assignment, result=result)
    except StoppedError as error:
        return Report(state="stopped", assignment=assignment, error=str(error))
    except BusyError as error:
        return Report(state="busy", assignment=assignment, error=str(error))
    except (StoreError, ValueError) as error:
        return Report(state="failed", assignment=assignment, error=str(error), fatal=True, cause=Cause.USER)
    except BaseException as error:
        kind, last = type(error).__name__, traceback.extract_tb(error.__traceback__)[-1]
        echo = _of_a_collective(error)
        return Report(
            state="failed",
            assignment=assignment,
            error=f"{kind}: {error} ({Path(last.filename).name}:{last.lineno})",
            collective=echo,
            cause=Cause.PEER if echo else causes.of_error(error),
            traceback=traceback.format_exc(),
        )


def _of_a_collective(error: BaseException) -> bool:
    """Whether a failure may only be the echo of another rank's, as the mesh says it or a library beside it."""
    return isinstance(error, PeerError) or (
        isinstance(error, RuntimeError | ConnectionError) and COLLECTIVE.search(str(error)) is not None
    )


def given_gpu(visible: int) -> int:
    """The number of this worker's GPU among so many that its process sees: all of a node's where Ray hides none.

    Ray does not where ``RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES`` is set, as some operators of clusters do.
    """
    given = ray.get_runtime_context().get_accelerator_ids().get("GPU") or [""]
    seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(visible)))
    numbers = {name: number for number, name in enumerate(seen.split(","))}
    return numbers.get(given[0], 0)


# ------------------------------------------------------------------------------------------------------- job bodies


def prepare(
    assignment: Assignment, report: Callable[[Mapping[str, Any]], None], stop: Callable[[], bool]
) -> dict[str, Any]:
    """Fetch and tokenize the text, make the evaluation's items, and time the numerics on one shape."""
    from gpt3core.data import shards, starter
    from gpt3core.evals import runner
    from gpt3core.train import timing

    job = assignment.job
    _settle(assignment)
    data = shards.prepare(job.spec.data)
    runner.check(job.spec, job.evals, data)
    asked = job.spec.precision, job.spec.kernel
    chosen = timing.choose(job.spec.model, *asked, job.device, timing.excluded(job.spec))
    return {
        "numerics": vars(chosen),
        "data": {k: data.total(k) for k in ("tokens", "bytes", "documents")},
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
    from gpt3core.store import places
    from gpt3core.store.rundir import RunDir

    folder = RunDir(places.local(assignment.job.root), assignment.job.spec.run_id)
    folder.refresh()
    if folder.sound_result() is None:
        raise StoreError(f"run {assignment.job.spec.run_id} is not trained, so nothing is measured of it")
    return _run(assignment, report, stop, in_parts=True)


def _settle(assignment: Assignment) -> None:
    """Settle this process, and take its GPU, before anything of the work is done."""
    import torch

    from gpt3core.train import process

    job = assignment.job
    process.settle_process(job.device, job.threads)
    if job.device == "cuda":
        process.take_gpu(given_gpu(torch.cuda.device_count()), assignment.shape.gpus)


def _run(
    assignment: Assignment,
    report: Callable[[Mapping[str, Any]], None],
    stop: Callable[[], bool],
    *,
    in_parts: bool = False,
) -> dict[str, Any] | None:
    from gpt3core import run as runs
    from gpt3core.parallel import mesh
    from gpt3core.store import places

    job = assignment.job
    place = assignment.rank, assignment.world_size, assignment.address
    _settle(assignment)
    with mesh.joined(*place, job.device, layout=job.layout, hang_seconds=job.hang_seconds) as here:
        return runs.run(
            job.spec,
            job.evals,
            places.local(job.root),
            mesh=here,
            threads=job.threads,
            suggested=job.numerics,
            device=job.device,
            checkpoint_seconds=job.checkpoint_seconds,
            prefix=job.prefix,
            keep=job.keep,
            halvings=job.halvings,
            peak_flops=job.peak_flops,
            usd_per_hour=job.usd_per_hour,
            share=assignment.shape.gpus or 1.0,
            report=report,
            stop=stop,
            in_parts=in_parts,
        )
