"""A sweep of stub runs on a cluster that it has not for itself.

python -m tests.cluster.shared_sweep ROOT NAME REPLICAS SECONDS SETTING...        a driver; the cluster is RAY_ADDRESS
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.cluster.job import Assignment
from sweeps.planning import grid, recipe


def body(work: Assignment, report: Callable[[Mapping[str, Any]], None], stop: Callable[[], bool]) -> dict[str, Any]:
    """What a worker runs in place of training: as long as the store's file says, and it notes when."""
    began, root = time.time(), work.job.root
    report({"phase": "training", "step": 0, "steps": 1, "loss": None, "tokens_per_second": 0.0})
    time.sleep(float((root / "seconds").read_text()))
    if work.rank == 0:
        run = RunDir(root, work.run_id)
        run.write_evaluation(work.job.evals.eval_id, {"task": ["held_out"], "loss": [4.0], "loss_se": [0.1]})
        run.finish({"status": "done"})
        files.append_line(root / "done.jsonl", {"run_id": work.run_id, "began": began, "ended": time.time()})
    return {}


def drive(root: Path, name: str, replicas: int, seconds: float, settings: list[str]) -> int:
    """Be the sweep's driver until every run is settled."""
    from sweeps.cluster.launcher import Launcher
    from sweeps.driving import driver, progress, taking

    sizes = ["recipe=smoke", "budgets=[1e10]", "widths=[8]", f"replicas={replicas}", f"name={name}"]
    chosen = recipe.load([*sizes, *settings])
    cells = grid.build(chosen, "0" * 64)
    sweep = SweepDir(root, name)
    files.make_folder(root)
    (root / "seconds").write_text(str(seconds))
    with sweep.owned():
        taken = taking.take(chosen, cells, sweep)
        launcher = Launcher(driver.namespace(root, name))
        try:
            entry = "tests.cluster.shared_sweep:body"
            outcome = driver.Driver(chosen, taken, launcher, progress.display(), entry=entry).drive()
        finally:
            launcher.close()
    return 0 if len(outcome.done) == replicas else 1


if __name__ == "__main__":
    root, name, replicas, seconds, *settings = sys.argv[1:]
    sys.exit(drive(Path(root), name, int(replicas), float(seconds), settings))
