"""Which of a grid's runs to take next, from the results so far: pure, and quick enough for every finished run.

The first runs are the smallest, a middle and the largest size of the two cheapest budgets; after them analysis.design
proposes one run at a time, those in flight counted as known, until the FLOPs that the sweep may spend are spent or
nothing left would narrow the target's interval enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.estimation import design
from gpt3core import costs
from gpt3core.spec import RunSpec
from sweeps.planning.recipe import Recipe

FIRST_BUDGETS = 2
LEAST_RESULTS = 4  # before the law is asked


@dataclass(frozen=True, kw_only=True)
class Next:
    """What to do now."""

    run_id: str | None = None  # take this run
    over: str = ""  # take no more, for this reason; empty while results are awaited


def next_run(
    recipe: Recipe,
    runs: Mapping[str, RunSpec],
    *,
    losses: Mapping[str, float],
    taken: Set[str],
    under_way: Set[str],
    seconds: Callable[[RunSpec], float],
) -> Next:
    """The run to take, or that there is none.

    Args:
        runs: the whole grid.
        losses: of runs that ended with one.
        taken: runs started, finished or failed: their FLOPs are spent.
        under_way: those of them that may still end with a loss; failed and diverged runs tell nothing.
        seconds: estimate of a run's device time, the cost that is weighed.
    """
    flops = {run_id: costs.train_flops(run.model, run.tokens) for run_id, run in runs.items()}
    most = recipe.adaptive_share * sum(flops.values())
    spent = sum(flops[run_id] for run_id in taken)
    left = [run_id for run_id in runs if run_id not in taken]
    if not left:
        return Next(over="every run of the grid is taken")
    first = next((run_id for run_id in _first(runs) if run_id not in taken), None)
    if first is not None:
        return Next(run_id=first)
    affordable = [run_id for run_id in left if spent + flops[run_id] <= most]
    if not affordable:
        return Next(over=f"the runs left cost more than what remains of {most:.3g} FLOPs (adaptive_share)")
    if len(losses) < LEAST_RESULTS:
        return Next() if under_way else Next(over=f"{len(losses)} runs ended with a loss, {LEAST_RESULTS} are needed")
    finished = _table([runs[i] for i in losses], seconds).assign(loss=[losses[i] for i in losses])
    found = design.propose(
        finished,
        _table([runs[i] for i in affordable], seconds),
        compute=recipe.adaptive_target or design.FARTHER * max(flops.values()),
        running=_table([runs[i] for i in sorted(under_way)], seconds),
    )
    if not found.worth:
        percent = f"{found.everything:.0%}"
        return Next(over=f"all runs left together would narrow the interval to {percent} of what it is: not worth it")
    return Next(run_id=affordable[found.proposals[0].index])


def _first(runs: Mapping[str, RunSpec]) -> list[str]:
    """The smallest, a middle and the largest size of each of the cheapest budgets."""
    budgets = sorted({run.budget_flops or 0.0 for run in runs.values()})[:FIRST_BUDGETS]
    found = []
    for budget in budgets:
        by_size = sorted(
            (costs.params(run.model).total, i) for i, run in runs.items() if (run.budget_flops or 0.0) == budget
        )
        found += [by_size[k][1] for k in sorted({0, len(by_size) // 2, len(by_size) - 1})]
    return found


def _table(runs: list[RunSpec], seconds: Callable[[RunSpec], float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "N": np.array([costs.params(run.model).nonembedding for run in runs], float),
            "D": np.array([run.tokens for run in runs], float),
            "seed": np.array([run.seed for run in runs], int),  # another seed of a run that ended is another run
            "cost": np.array([seconds(run) / 3600 for run in runs], float),
        }
    )
