"""Are the laptop recipe's rules near the best? Loss of a few cells with one rule changed at a time.

  python tests/benchmarks/hyperparameter_rules.py        about five minutes on two cores; the store is ISOFLOP_ROOT

Through the real sweep. Prints, for each changed rule, its loss minus the rule's loss in each cell; another seed is a
change too, and tells the noise. The target: no change is better in every cell by more than the seeds differ.
"""

from __future__ import annotations

import subprocess
import sys

from analysis.runs import store as runs
from gpt3core.store.rundir import default_root
from sweeps import line
from tests.benchmarks.target import target

CELLS = "widths_at={3.16e11: [24, 32], 1e12: [64]}"
BUDGETS = "budgets=[3.16e11,1e12]"
RULE, SEED = "the rule", "another seed"
CHANGES = {
    RULE: [],
    SEED: ["seed=1"],
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
            changed = differences(losses, change)
            print(f"{change:20s}" + "".join(f"{difference:+18.4f}" for difference in changed), flush=True)
    noise = max(map(abs, differences(losses, SEED)))
    gain = max(-max(differences(losses, change)) for change in CHANGES if change not in (RULE, SEED))
    target("gain_of_a_changed_rule_in_its_worst_cell", gain, "<=", noise)
    return 0


def differences(losses: dict[str, dict[tuple[str, float], float]], change: str) -> list[float]:
    """A change's loss minus the rule's, cell by cell."""
    return [losses[change][cell] - loss for cell, loss in losses[RULE].items()]


if __name__ == "__main__":
    sys.exit(main())
