"""What workers do in the benchmark of the orchestrator: nothing, and they note when."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from sweeps.cluster.job import Assignment

Say = Callable[[Mapping[str, Any]], None]
TOGETHER_SECONDS = 120.0


def note(folder: Any, **told: Any) -> None:
    """Add a line to this process's own file."""
    files.append_line(folder / f"{os.getpid()}.jsonl", told)


def run(work: Assignment, report: Say, stop: Callable[[], bool]) -> dict[str, Any]:
    """A run without training: an evaluation and a result, durable, as every run leaves them."""
    began = time.time()
    folder = RunDir(work.job.root, work.run_id)
    folder.write_evaluation(work.job.evals.eval_id, {"task": ["held_out"], "loss": [4.0], "loss_se": [0.1]})
    folder.finish({"status": "done"})
    note(work.job.root / "noted", run_id=work.run_id, began=began, ended=time.time())
    return {}


def together(work: Assignment, report: Say, stop: Callable[[], bool]) -> dict[str, Any]:
    """A rank that waits until all ranks of all gangs have begun; rank 0 leaves the result."""
    noted = work.job.root / "noted"
    note(noted, run_id=work.run_id, rank=work.rank, began=time.time())
    deadline = time.monotonic() + TOGETHER_SECONDS
    while not (noted / "all").exists() and time.monotonic() < deadline and not stop():
        time.sleep(0.02)
    return run(work, report, stop) if work.rank == 0 else {}
