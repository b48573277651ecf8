"""What a worker runs in the cluster tests instead of training: it holds its place until told to go on."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from sweeps.cluster.job import Assignment

Say = Callable[[Mapping[str, Any]], None]
Asked = Callable[[], bool]


def hold(work: Assignment, report: Say, stop: Asked) -> dict[str, Any]:
    """Note where and with whom it runs, wait for the file ``release``, and leave a result (rank 0)."""
    root = work.job.root
    place = {
        "node": work.node,
        "pid": os.getpid(),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "start": time.time(),
    }
    files.make_folder(root / "started")
    (root / "started" / f"{work.run_id}-{work.rank}").touch()
    report({"phase": "training", "step": 0, "steps": 1, "loss": None, "tokens_per_second": 0.0})
    deadline = time.monotonic() + 120
    while not (root / "release").exists() and not (root / f"release-{work.run_id}").exists():
        if stop() or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    place["end"] = time.time()
    files.make_folder(root / "places")
    files.write_json(root / "places" / f"{work.run_id}-{work.rank}.json", {**place, "size": work.world_size})
    if work.rank == 0 and work.run_id == work.job.spec.run_id:
        run = RunDir(root, work.run_id)
        run.write_evaluation(work.job.evals.eval_id, {"task": ["held_out"], "loss": [4.0], "loss_se": [0.1]})
        run.finish({"status": "done"})
    return {}


def crash(work: Assignment, report: Say, stop: Asked) -> dict[str, Any]:
    """Die the first time, as a worker does whose node is lost; succeed the second time."""
    marker = work.job.root / f"crashed-{work.run_id}"
    if not marker.exists():
        marker.touch()
        os._exit(1)
    return hold(work, report, stop)


def leave(work: Assignment, report: Say, stop: Asked) -> dict[str, Any]:
    """End by SystemExit, as a library may."""
    sys.exit("a library gave up")


def break_up(work: Assignment, report: Say, stop: Asked) -> dict[str, Any]:
    """Rank 1 finds a damaged file; rank 0 sees its connection close at once, and rank 1 says why a little later."""
    if work.rank == 0:
        raise RuntimeError("[/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3465")
    time.sleep(0.3)
    raise ValueError("train.npy is damaged")


def noted(work: Assignment, report: Say, stop: Asked) -> dict[str, Any] | None:
    """Train, for good, once it is noted which process this is and where."""
    from sweeps.cluster import worker

    files.make_folder(work.job.root / "pids")
    (work.job.root / "pids" / f"{work.run_id}-{work.rank}").write_text(f"{os.getpid()} {work.node} {work.world_size}")
    return worker.train(work, report, stop)


def one_ahead(work: Assignment, report: Say, stop: Asked) -> dict[str, Any] | None:
    """The same, but in its third step each waits to be stopped, or for the file ``release``; not who is there first.

    That one leaves the file ``ahead``, those that wait ``waits``.
    """
    root, steps = work.job.root, itertools.count(1)

    def asked() -> bool:
        if next(steps) == 3:
            try:
                (root / "ahead").touch(exist_ok=False)
            except FileExistsError:
                (root / "waits").touch()
                while not stop() and not (root / "release").exists():
                    time.sleep(0.05)
        return stop()

    return noted(work, report, asked)


def nap(work: Assignment, report: Say, stop: Asked) -> dict[str, Any]:
    """A short run."""
    time.sleep(0.3)
    return {}


def short_of_memory(work: Assignment, report: Say, stop: Asked) -> dict[str, Any] | None:
    """Train, but ask for more memory than there is, in the first step, where the micro-batch was halved too seldom.

    The file ``enough`` says how often that is.
    """
    import torch

    from sweeps.cluster import worker

    short = work.job.halvings < int((work.job.root / "enough").read_text())

    def asked() -> bool:
        if short:
            torch.empty(1 << 50, dtype=torch.uint8)  # torch's allocator refuses it
        return stop()

    return worker.train(work, report, asked)
