"""A sweep of stub runs through the real driver, launcher and store: what the killers kill.

  python -m tests.reliability.stub_sweep ROOT RUNS        a driver; the cluster is RAY_ADDRESS

A stub sleeps a little in place of training and leaves a real evaluation and a real result. Each notes when it began
and when it ended, so that a run that was done twice is seen.
"""

from __future__ import annotations

import os
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.cluster.job import Assignment
from sweeps.planning import grid, recipe
from sweeps.planning.grid import Grid
from sweeps.planning.recipe import Recipe

NAME = "stubs"
SECONDS = 0.2, 0.8  # that a stub takes


def asked(runs: int) -> tuple[Recipe, Grid]:
    """The recipe of so many stub runs, and its runs."""
    words = ["recipe=smoke", f"name={NAME}", "budgets=[1e10]", "widths=[8]", f"replicas={runs}"]
    chosen = recipe.load(words)
    cells = grid.build(chosen, "0" * 64)
    assert len(cells.runs) == runs, (len(cells.runs), runs)
    return chosen, cells


def measured(run_id: str) -> float:
    """What a stub leaves as its loss: a number that belongs to its run."""
    return 3.0 + zlib.crc32(run_id.encode()) / 2**32


def body(work: Assignment, report: Callable[[Mapping[str, Any]], None], stop: Callable[[], bool]) -> dict[str, Any]:
    """What a worker runs in place of training."""
    began, root = time.time(), work.job.root
    report({"phase": "training", "step": 0, "steps": 1, "loss": None, "tokens_per_second": 0.0})
    shortest, longest = SECONDS
    time.sleep(shortest + (longest - shortest) * (zlib.crc32(work.run_id.encode()) % 1000) / 1000)
    run = RunDir(root, work.run_id)
    table = {"task": ["held_out"], "loss": [measured(work.run_id)], "loss_se": [0.1]}
    run.write_evaluation(work.job.evals.eval_id, table)
    run.finish({"status": "done"})
    times = {"run_id": work.run_id, "pid": os.getpid(), "began": began, "ended": time.time()}
    files.append_line(root / "done.jsonl", times)
    return {}


def drive(root: Path, runs: int) -> int:
    """Be the sweep's driver until every run is settled."""
    from sweeps.cluster.launcher import Launcher
    from sweeps.driving import driver, progress, taking

    chosen, cells = asked(runs)
    sweep = SweepDir(root, chosen.name)
    with sweep.owned():
        taken = taking.take(chosen, cells, sweep)
        launcher = Launcher(driver.namespace(root, chosen.name))
        try:
            entry = "tests.reliability.stub_sweep:body"
            outcome = driver.Driver(chosen, taken, launcher, progress.display(), entry=entry).drive()
        finally:
            launcher.close()
    print(f"{len(outcome.done)} done, {len(outcome.failed)} failed", flush=True)
    return 0 if len(outcome.done) == runs else 1


if __name__ == "__main__":
    sys.exit(drive(Path(sys.argv[1]), int(sys.argv[2])))
