"""Which of a grid's runs to take next, from the results so far: pure, and quick enough for every finished run.

The first runs are the smallest, a middle and the largest size of the two cheapest budgets; after them analysis.design
chooses as many as there is room for, jointly: each with those in flight and those before it taken as made, whatever
their outcome will be. It ends when the FLOPs that the sweep may spend are spent, or nothing left would narrow the
target's interval enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.estimation import design
from gpt3core import costs
from gpt3core.spec import RunSpec
from sweeps.planning.recipe import Recipe

FIRST_BUDGETS = 2
MOST_CANDIDATES = 2000  # a proposal weighs pairs of them: seconds beside the loop, and a few hundred megabytes
LEAST_RESULTS = 4  # before the law is asked
LATE = 1.05  # of the time until a sweep's end that one of its last runs may take
EARLY_SHARE = 0.05  # at most, of what may be spent, on more runs of the first budgets while the law waits for results


@dataclass(frozen=True, kw_only=True)
class Next:
    """What to do now."""

    run_ids: tuple[str, ...] = ()  # take these runs
    over: str = ""  # take no more, for this reason; empty while results are awaited


def next_runs(
    recipe: Recipe,
    runs: Mapping[str, RunSpec],
    *,
    losses: Mapping[str, float],
    taken: Set[str],
    under_way: Mapping[str, float],
    seconds: Callable[[RunSpec], float],
    slots: int = 1,
) -> Next:
    """The runs to take, at most ``slots`` of them, or that there are no more.

    Args:
        runs: the whole grid.
        losses: of runs that ended with one.
        taken: runs started, finished or failed: their FLOPs are spent.
        under_way: those of them that may still end with a loss, with the seconds that they still take; failed and
            diverged runs tell nothing.
        seconds: estimate of a run's device time, the cost that is weighed.
        slots: runs that could start now.
    """
    flops = {run_id: costs.train_flops(run.model, run.tokens) for run_id, run in runs.items()}
    most = recipe.adaptive_share * sum(flops.values())
    spent = sum(flops[run_id] for run_id in taken)
    left = [run_id for run_id in runs if run_id not in taken]
    if not left:
        return Next(over="every run of the grid is taken")
    first = [run_id for run_id in _first(runs) if run_id not in taken]
    early = _early(runs, flops, most) if first or len(losses) < LEAST_RESULTS else []
    begin = (first + [run_id for run_id in early if run_id not in taken and run_id not in first])[:slots]
    if begin:
        return Next(run_ids=tuple(begin))
    affordable = [run_id for run_id in left if spent + flops[run_id] <= most]
    if not affordable:
        return Next(over=f"the runs left cost more than what remains of {most:.3g} FLOPs (adaptive_share)")
    if len(losses) < LEAST_RESULTS:
        return Next() if under_way else Next(over=f"{len(losses)} runs ended with a loss, {LEAST_RESULTS} are needed")
    affordable = _thinned(affordable, flops)
    chosen, found = choose(
        _table([runs[i] for i in losses], seconds).assign(loss=[losses[i] for i in losses]),
        _table([runs[i] for i in affordable], seconds).assign(flops=[flops[i] for i in affordable]),
        _table([runs[i] for i in under_way], seconds).assign(left=[left / 3600 for left in under_way.values()]),
        compute=recipe.adaptive_target or design.FARTHER * max(flops.values()),
        slots=slots,
        rest=most - spent,
    )
    if not found.worth:
        percent = f"{found.everything:.0%}"
        return Next(over=f"all runs left together would narrow the interval to {percent} of what it is: not worth it")
    return Next(run_ids=tuple(affordable[k] for k in chosen))


def choose(
    finished: pd.DataFrame,
    candidates: pd.DataFrame,
    running: pd.DataFrame,
    *,
    compute: float,
    slots: int,
    rest: float,
) -> tuple[list[int], design.Design]:
    """The rows of the candidates to start on free slots, and whether that is worth it, by a design of all of them.

    What remains to be spent is planned to its end once it keeps all slots busy for less than the longest run takes:
    all of that plan will run, and with the longest first the sweep ends sooner. The plan changes with every result, so
    from then on no run is taken that would go on when all others have ended.

    Args:
        finished, candidates, running: as for ``design.propose``, costs in time; of candidates their ``flops`` too, of
            running ones what is ``left`` of their cost.
        rest: FLOPs that may be spent.
    """
    cost, flops = candidates.cost.to_numpy(float), candidates.flops.to_numpy(float)
    work = min(1.0, rest / float(flops.sum())) * float(cost.sum()) + float(running.left.sum())
    every = slots + len(running)
    last = every > 1 and work <= every * float(cost.max())
    words: dict[str, Any] = {"compute": compute, "running": running}
    found = design.propose(finished, candidates, batch=0 if last else slots, **words)
    proposals, ready = found.proposals, np.arange(len(cost))
    if last:
        ready = _in_time(finished, candidates, running, work, every)
        proposals = design.propose(finished, candidates.iloc[ready], batch=len(ready), **words).proposals
    chosen = []
    for k in (int(ready[proposal.index]) for proposal in proposals):
        if flops[k] <= rest:
            rest -= flops[k]
            chosen.append(k)
    return (sorted(chosen, key=lambda k: (-cost[k], k)) if last else chosen)[:slots], found


def _in_time(
    finished: pd.DataFrame, candidates: pd.DataFrame, running: pd.DataFrame, work: float, slots: int
) -> NDArray[np.intp]:
    """The candidates that end with those under way, or by when busy slots had done it all; the shortest at least.

    All, where nothing is under way: a sweep that begins, or goes on with more to spend.

    Args:
        work: time of all runs that is still to be spent.
    """
    cost = candidates.cost.to_numpy(float)
    if not len(running):
        return np.arange(len(cost))
    spent = float(finished.cost.sum() + running.cost.sum() - running.left.sum())
    longest = max(float(table.cost.max()) for table in (finished, candidates, running) if len(table))
    ends = max((work + spent) / slots, longest) - spent / slots
    return np.flatnonzero(cost <= max(LATE * ends, *running.left, float(cost.min())))


def _first(runs: Mapping[str, RunSpec]) -> list[str]:
    """The smallest, a middle and the largest size of each of the cheapest budgets."""
    found = []
    for by_size in _cheapest(runs):
        found += [by_size[k] for k in sorted({0, len(by_size) // 2, len(by_size) - 1})]
    return found


def _cheapest(runs: Mapping[str, RunSpec]) -> list[list[str]]:
    """The runs of each of the cheapest budgets, by size."""
    budgets = sorted({run.budget_flops or 0.0 for run in runs.values()})[:FIRST_BUDGETS]
    sizes = {run_id: costs.params(run.model).total for run_id, run in runs.items()}
    return [
        [i for _, i in sorted((sizes[i], i) for i, run in runs.items() if (run.budget_flops or 0.0) == budget)]
        for budget in budgets
    ]


def _early(runs: Mapping[str, RunSpec], flops: Mapping[str, float], most: float) -> list[str]:
    """Further runs of the cheapest budgets, which cost next to nothing, for workers that would have none."""
    others = [run_id for by_size in _cheapest(runs) for run_id in by_size]
    return _within(others, flops, EARLY_SHARE * most)


def _within(run_ids: list[str], flops: Mapping[str, float], most: float) -> list[str]:
    """Those that may be taken, one after another, before so many FLOPs are spent."""
    found: list[str] = []
    for run_id in run_ids:
        if flops[run_id] <= most:
            most -= flops[run_id]
            found.append(run_id)
    return found


def _thinned(run_ids: list[str], flops: Mapping[str, float]) -> list[str]:
    """No more candidates than can be weighed, of all costs."""
    if len(run_ids) <= MOST_CANDIDATES:
        return run_ids
    by_cost = sorted(run_ids, key=lambda run_id: (flops[run_id], run_id))
    return [by_cost[i] for i in np.linspace(0, len(by_cost) - 1, MOST_CANDIDATES).astype(int)]


def _table(runs: list[RunSpec], seconds: Callable[[RunSpec], float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "N": np.array([costs.params(run.model).nonembedding for run in runs], float),
            "D": np.array([run.tokens for run in runs], float),
            "seed": np.array([run.seed for run in runs], int),  # another seed of a run that ended is another run
            "cost": np.array([seconds(run) / 3600 for run in runs], float),
        }
    )
