"""Which runs of a sweep to make when not all fit: what each rule leaves of the prediction's error, on known laws.

  python -m tests.benchmarks.limited_choice         a minute

The laptop recipe's grid and a wider one, of which a share of all device-seconds may be spent. The rules: ours
(analysis.estimation.within_budget, which knows no loss beforehand), the cheapest first, the longest first (the order in
which a sweep starts runs when all fit), the highest budgets in whole. Losses are of laws drawn at random with 1% noise;
the error is that of the law fitted to what was run, at the best size for ten times the largest run's FLOPs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import median

import numpy as np
import pandas as pd

from analysis.estimation import design, within_budget
from gpt3core import costs
from sweeps.planning import estimate, grid, recipe
from sweeps.planning.limits import Cost, Left
from tests.benchmarks.target import target

SHARES = (0.1, 0.2, 0.4, 0.6)
DRAWS = 40
NOISE = 0.01
WIDER = "[1e10,3.16e10,1e11,3.16e11,1e12,3.16e12,1e13,3.16e13,1e14]"
RULES = ("ours", "cheapest", "longest", "highest")


def table(*words: str) -> pd.DataFrame:
    """The runs of a recipe: N, D, cost in device-seconds."""
    chosen = recipe.load(["recipe=laptop", "min_tokens=1e5", *words])
    rows = [
        {
            "N": float(costs.params(run.model).nonembedding),
            "D": float(run.tokens),
            "cost": estimate.seconds(run, workers=1, gpus=0, plan=chosen.plan),
            "budget": run.budget_flops,
        }
        for run in grid.build(chosen, "0" * 64).runs
    ]
    return pd.DataFrame(rows)


def taken(rule: str, runs: pd.DataFrame, share: float) -> list[int]:
    """The runs that a rule makes of a share of all cost."""
    left = Left(
        seconds=runs.cost.tolist(), rates=[Cost(1.0, 0.0)] * len(runs), left=Cost(share * float(runs.cost.sum()))
    )
    if rule == "ours":
        return within_budget.choose(runs, left).runs
    key = {"cheapest": runs.cost, "longest": -runs.cost, "highest": -runs.budget * 1e6 + runs.cost}[rule]
    found = []
    for run in np.argsort(key.to_numpy(), kind="stable"):
        if left.fits(int(run)):
            left.take(int(run))
            found.append(int(run))
    return found


def errors(runs: pd.DataFrame, chosen: Sequence[Sequence[int]], seed: int) -> list[float]:
    """|ln(predicted / true loss)| at the target, after each choice."""
    rng = np.random.default_rng(seed)
    alpha, beta = rng.uniform(0.25, 0.5, 2)
    n0, d0 = np.exp(np.log(runs[["N", "D"]]).mean())
    e, a, b = rng.dirichlet([3, 1.5, 1.5]) * 5

    def loss(n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return np.asarray(e + a * (n / n0) ** -alpha + b * (d / d0) ** -beta)

    compute = 10 * float((6 * runs.N * runs.D).max())
    n = np.geomspace(1e2, 1e10, 4000)
    truth = float(np.log(loss(n, compute / (6 * n)).min()))
    measured = runs.assign(loss=loss(runs.N.to_numpy(), runs.D.to_numpy()) * np.exp(rng.normal(0, NOISE, len(runs))))
    return [abs(design.propose(measured.iloc[rows], runs, compute=compute).centre - truth) for rows in chosen]


def main() -> int:
    """The script."""
    against: dict[str, list[float]] = {rule: [] for rule in RULES[1:]}
    for name, words in (("laptop", ()), ("wider", (f"budgets={WIDER}",))):
        runs = table(*words)
        for share in SHARES:
            chosen = [taken(rule, runs, share) for rule in RULES]
            able = [i for i, rows in enumerate(chosen) if len(rows) >= 2]
            found = np.array([errors(runs, [chosen[i] for i in able], seed) for seed in range(DRAWS)])
            middle = dict(zip([RULES[i] for i in able], np.median(found, 0), strict=True))
            for rule in against:
                if rule in middle:
                    against[rule].append(middle["ours"] / middle[rule])
            words_ = ", ".join(f"{rule} {100 * error:.2f}%" for rule, error in middle.items())
            print(f"{name:7} {len(runs)} runs, {share:.0%} of the cost ({len(chosen[0])} runs by ours): {words_}")
    for rule, ratios in against.items():
        target(f"error_over_{rule}_first", median(ratios), "<=", 1.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
