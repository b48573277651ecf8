"""What one trunk for many budgets saves on the laptop ladder, and whether the law moves. Minutes to an hour.

``python -m tests.benchmarks.trunk [budgets=[1e11,3.16e11,1e12,3.16e12]]``

Two sweeps of the laptop recipe on a local Ray in an empty store: with the cosine, and with warm-up, stable, decay,
whose shorter runs start from the longest of their size. Then two of these are trained alone, from their first step.
Printed: whether branches have the bits of the same run alone; the FLOPs and core-seconds of both sweeps; the lowest
loss of every budget and the law of both, with intervals.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from analysis import api
from analysis.runs import store
from gpt3core import costs
from gpt3core.numerics import Numerics
from gpt3core.run import run
from gpt3core.store import files
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir
from sweeps import line
from sweeps.planning import trunks
from tests.benchmarks.target import target
from tests.gpt3core.outcomes import weights

BUDGETS = "budgets=[1e11,3.16e11,1e12,3.16e12]"
ALONE = 2  # branches that are trained once more from their first step


def sweep(root: Path, name: str, *words: str) -> list[RunDir]:
    """Run a sweep to its end; its runs."""
    command = [sys.executable, "sweeps/sizes.py", f"name={name}", "evals.tasks=[]", *words]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"ISOFLOP_ROOT": str(root)}
    subprocess.run(command, env=environment, cwd=line.CODE, check=True, stdout=subprocess.DEVNULL)
    record = SweepDir(root, name).record()
    assert record is not None
    return [RunDir(root, run_id) for run_id in record.runs]


def same_bits(branch: RunDir, root: Path, alone: Path) -> bool:
    """Whether a branch has the weights and losses of the same run trained from its first step."""
    record = SweepDir(root, "wsd").record()
    assert record is not None
    spec = branch.spec()
    numerics = files.read_object(branch.path / "numerics.json")
    chosen = Numerics(precision=numerics["precision"], kernel=numerics["kernel"])
    open_root(alone, create=True)
    run(spec, record.evals, alone, suggested=chosen)
    tables = [RunDir(r, spec.run_id).evaluation(record.evals.eval_id) for r in (root, alone)]
    return weights(root, spec) == weights(alone, spec) and tables[0] is not None and tables[0].equals(tables[1])


def spent(runs: list[RunDir]) -> tuple[float, float]:
    """Training FLOPs and core-seconds that a sweep really took."""
    flops = seconds = 0.0
    for folder in runs:
        result, spec = folder.result(), folder.spec()
        assert result is not None
        first = int(result["trunk"].rpartition("@")[2]) if result["trunk"] else 0
        flops += costs.train_flops(spec.model, spec.tokens - first * spec.optim.batch_tokens)
        seconds += result["train_seconds"]
    return flops, seconds


def main() -> int:
    """The script."""
    words = sys.argv[1:] or [BUDGETS]
    with tempfile.TemporaryDirectory(prefix="isoflop-trunk-") as folder:
        root = Path(folder) / "root"
        swept = {name: sweep(root, name, *words, f"optim.schedule={name}") for name in ("cosine", "wsd")}
        planned = trunks.prefixes(folder.spec() for folder in swept["wsd"])
        branches = [f for f in swept["wsd"] if (f.result() or {}).get("trunk")]
        branches.sort(key=lambda f: costs.train_flops(f.spec().model, f.spec().tokens))
        equal = [same_bits(branch, root, Path(folder) / "alone") for branch in branches[:ALONE]]
        print(f"{len(branches)} of {len(swept['wsd'])} runs started from a longer one ({len(planned)} planned)")
        costs_of = {name: spent(runs) for name, runs in swept.items()}
        for name, (flops, seconds) in costs_of.items():
            print(f"{name:7s} {flops:.4g} training FLOPs, {seconds:,.0f} core-seconds")
        lowest = {name: store.load(root, name).table.groupby("budget_flops").loss.min() for name in swept}
        moved = lowest["wsd"] - lowest["cosine"]
        for budget, difference in moved.items():
            print(f"budget {budget:.3g}: lowest loss {lowest['cosine'][budget]:.4f} cosine, {difference:+.4f} wsd")
        laws = {name: api.fit(root, sweep=name).laws["compute_frontier"] for name in swept}
        moved_by = None
        if "alpha_C" in laws["cosine"].published and "alpha_C" in laws["wsd"].published:
            low, high = np.nanquantile(laws["cosine"].published["alpha_C"], [0.025, 0.975])
            alphas = {name: law.fit.params["alpha_C"] for name, law in laws.items()}
            print(f"alpha_C {alphas['cosine']:.4f} ({low:.4f} to {high:.4f}) cosine, {alphas['wsd']:.4f} wsd")
            moved_by = abs(alphas["wsd"] - alphas["cosine"]) / ((high - low) / 2)
        else:
            print("too few budgets with a minimum for a law of the minima: give more")
    target("branches_that_started_from_their_trunk", len(branches) / max(1, len(planned)), "==", 1)
    target("branches_with_the_bits_of_the_run_alone", sum(equal) / ALONE, "==", 1)
    target("flops_saved_share", 1 - costs_of["wsd"][0] / costs_of["cosine"][0], ">=", 0.1)
    target("law_moved_by_half_widths", moved_by, "<=", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
