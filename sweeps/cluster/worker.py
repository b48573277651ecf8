"""A worker: a Ray actor that imported torch once and runs one run after another in a thread of its own.

Workers are detached: they outlive their driver, and the next driver finds them by name. One that hears of no driver
for a while after its work is done ends itself.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import ray

ORPHAN_SECONDS = 60.0


class Worker:
    """The actor. ``start`` returns at once; ``poll`` tells what became of it."""

    def __init__(self) -> None:
        self._state: dict[str, Any] = {"state": "idle"}
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

    def start(self, job: dict[str, Any]) -> None:
        """Begin a job: {"entry": "module:function", "run_id", "rank", "size", "address", "payload"}."""
        self._heard = time.monotonic()
        assert self._state["state"] != "running", "a worker runs one job at a time"
        self._stop.clear()
        self._state = {"state": "running", "job": job, "progress": {}}
        threading.Thread(target=self._work, args=(job,), daemon=True).start()

    def poll(self) -> dict[str, Any]:
        """{"state": idle | running | done | stopped | busy | failed, "job", "progress", "result", "error", "fatal"}."""
        self._heard = time.monotonic()
        return self._state

    def clear(self) -> None:
        """Forget the finished job."""
        self._state = {"state": "idle"}

    def stop(self) -> None:
        """Ask the job to write its checkpoint and end."""
        self._stop.set()

    def _work(self, job: dict[str, Any]) -> None:
        module, function = job["entry"].split(":")

        def report(progress: dict[str, Any]) -> None:
            self._state = {"state": "running", "job": job, "progress": progress}

        try:
            body = getattr(importlib.import_module(module), function)
            outcome = {"state": "done", "result": body(job, report, self._stop.is_set)}
        except Exception as error:
            outcome = _outcome(error)
        self._state = {**outcome, "job": job}

    def _watch(self) -> None:
        while time.monotonic() - self._heard < ORPHAN_SECONDS or self._state["state"] == "running":
            time.sleep(1.0)
        os._exit(0)


def _outcome(error: Exception) -> dict[str, Any]:
    """What a driver needs to know of an exception: whether trying again makes sense, and one sentence."""
    kind = type(error).__name__
    if kind in ("StoppedError", "BusyError"):
        return {"state": kind.removesuffix("Error").lower(), "error": str(error)}
    if kind in ("StoreError", "DiskFullError") or isinstance(error, ValueError):
        return {"state": "failed", "error": str(error), "fatal": True}
    last = traceback.extract_tb(error.__traceback__)[-1]
    return {
        "state": "failed",
        "error": f"{kind}: {error} ({Path(last.filename).name}:{last.lineno})",
        "fatal": isinstance(error, MemoryError),
        "traceback": traceback.format_exc(),
    }


# ------------------------------------------------------------------------------------------------------- job bodies


def prepare(job: dict[str, Any], report: Any, stop: Any) -> dict[str, Any]:
    """Fetch and tokenize the text, make the evaluation's items, and choose the numerics by a short timing on one
    shape.
    """
    from gpt3core import spec as specs
    from gpt3core.data import shards, starter
    from gpt3core.evals import runner
    from gpt3core.evals.spec import EvalSpec
    from gpt3core.train import loop, timing

    run = specs.from_json(job["payload"]["spec"])
    loop.settle_process(job["payload"]["device"])
    data = shards.prepare(run.data)
    runner.check(run, specs.from_dict(EvalSpec, json.loads(job["payload"]["evals"])), data)
    chosen = timing.choose(run.model, run.precision, run.kernel, job["payload"]["device"])
    return {
        "numerics": vars(chosen),
        "data": {k: data.meta[k] for k in ("tokens", "bytes", "documents")},
        "licences": starter.licences() if run.data.corpus == starter.NAME else [],
    }


def train(job: dict[str, Any], report: Any, stop: Any) -> dict[str, Any] | None:
    """Train and evaluate one run."""
    from gpt3core import run as runs
    from gpt3core import spec as specs
    from gpt3core.evals.spec import EvalSpec
    from gpt3core.numerics import Numerics
    from gpt3core.parallel import mesh

    payload = job["payload"]
    suggested = Numerics(**payload["numerics"]) if payload["numerics"] else None
    with mesh.joined(job["rank"], job["size"], job["address"], payload["device"]) as here:
        return runs.run(
            specs.from_json(payload["spec"]),
            specs.from_dict(EvalSpec, json.loads(payload["evals"])),
            Path(payload["root"]),
            mesh=here,
            suggested=suggested,
            device=payload["device"],
            checkpoint_seconds=payload["checkpoint_seconds"],
            peak_flops=payload["peak_flops"],
            usd_per_hour=payload["usd_per_hour"],
            report=report,
            stop=stop,
        )
