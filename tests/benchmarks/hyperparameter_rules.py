"""Are the laptop recipe's rules near the best? Losses with one rule changed at a time, through the real sweep.

  python tests/benchmarks/hyperparameter_rules.py        about five minutes on two cores; the store is ISOFLOP_ROOT

Prints, for each changed rule, its loss minus the rule's loss in each cell. Seeds differ by about 0.005 (printed as a
change too).
"""

from __future__ import annotations

import subprocess
import sys

from analysis.runs import store as runs
from gpt3core.store.rundir import default_root
from sweeps import line

CELLS = "widths_at={3.16e11: [24, 32], 1e12: [64]}"
BUDGETS = "budgets=[3.16e11,1e12]"
CHANGES = {
    "the rule": [],
    "another seed": ["seed=1"],
    "learning rate / 2": ["optim.lr_times_width=0.3", "optim.lr_max=0.006"],
    "learning rate x 2": ["optim.lr_times_width=1.2", "optim.lr_max=0.024"],
    "batch / 2": ["optim.batch_tokens_at_1m=384", "optim.batch_tokens_min=128"],
    "batch x 2": ["optim.batch_tokens_at_1m=1536"],
    "warm-up 5%": ["optim.warmup_fraction=0.05"],
    "warm-up 35%": ["optim.warmup_fraction=0.35"],
    "band 8": ["model.band=8"],
    "band 32": ["model.band=32"],
}


def main() -> int:
    """The script."""
    losses = {}
    for number, (change, settings) in enumerate(CHANGES.items()):
        name = f"rules-{number}"
        words = ["recipe=laptop", f"name={name}", BUDGETS, CELLS, "evals.tasks=[]", *settings]
        subprocess.run([sys.executable, "sweeps/sizes.py", *words], cwd=line.CODE, check=True, capture_output=True)
        table = runs.load(default_root(), name).table
        losses[change] = {(r.size, r.budget_flops): r.loss for r in table.itertuples()}
        if number == 0:
            print(f"{'':20s}" + "".join(f"{size} at {budget:.3g}".rjust(18) for size, budget in losses[change]))
            print(f"{change:20s}" + "".join(f"{loss:18.4f}" for loss in losses[change].values()), flush=True)
        else:
            cells = (losses[change][cell] - loss for cell, loss in losses["the rule"].items())
            print(f"{change:20s}" + "".join(f"{difference:+18.4f}" for difference in cells), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
