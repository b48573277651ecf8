"""Which runs to make when not all can be: those that together leave least of the target's interval.

What a run teaches about the target is known before any is made (estimation.information: a prior, a law linearised
about it, a drift near the target). The choice is greedy twice, by what a run teaches for its cost and by what it
teaches at all, and the better of the two is taken: the first alone may fill a budget with cheap runs where one costly
one tells more, and for gains that shrink as runs are added the better of both is never far from the best choice
(Leskovec et al. 2007, KDD). Where the runs are too many to be weighed, the cheapest come first.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from analysis.estimation.design import FARTHER, LAWS
from analysis.estimation.information import Covariance, Prior, compute_optimal, posterior_mode
from analysis.laws import PowerSum

MOST = 400  # runs that are weighed one against another
LEAST_LOSSES = 4  # before the law that they show takes the place of the prior's
BY_WORTH = "those that leave least of the interval at the target for their cost"
CHEAP_FIRST = f"more than {MOST} runs: the cheapest first"


class Room(Protocol):
    """What is left to spend, as runs are chosen. Copied to try things on."""

    def cost(self, run: int) -> float:
        """What a run would cost after those chosen, in any unit; above 0."""

    def fits(self, run: int) -> bool:
        """Whether it can be chosen after them."""

    def take(self, run: int) -> None:
        """Choose it."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The runs to make, most informative for its cost first."""

    runs: list[int]  # rows of the candidates
    interval: float  # the target's after them relative to before, by the design's own account; NaN where not weighed
    rule: str


def choose(
    candidates: pd.DataFrame, room: Room, *, made: pd.DataFrame | None = None, compute: float | None = None
) -> Choice:
    """Choose under what is left.

    Args:
        candidates: N and D of runs that could be made.
        made: N, D and, where it is known, loss of runs that ended or are under way: they tell what they tell.
        compute: FLOPs of the target; by default ten times the largest run's.
    """
    made = candidates[:0].assign(loss=[]) if made is None else made
    everything = pd.concat([made[["N", "D"]], candidates[["N", "D"]]], ignore_index=True)
    if len(everything) > MOST or not len(candidates):
        return _cheapest(len(candidates), room)
    laws = [_covariance(law, made, everything, compute) for law in LAWS]
    for each in laws:
        each.condition(range(len(made)))
    found = [_greedy(laws, len(made), len(candidates), room, by_cost=by_cost) for by_cost in (True, False)]
    runs, interval = min(found, key=lambda choice: choice[1])
    return Choice(runs=runs, interval=interval, rule=BY_WORTH)


def _covariance(law: PowerSum, made: pd.DataFrame, everything: pd.DataFrame, compute: float | None) -> Covariance:
    """What the runs and the target have in common, about the law that the losses show or, before them, the prior's."""
    known = made[made.loss.notna()] if "loss" in made else made[:0]
    target = compute or FARTHER * float((6 * everything.N * everything.D).max())
    if len(known) >= LEAST_LOSSES:
        theta, prior = posterior_mode(law, known, target)
    else:  # of all runs' centre; the unit of the loss cancels
        prior = Prior.of(law, everything.assign(loss=1.0))
        theta, known = prior.mode(), everything
    return Covariance.of(law, theta, prior, everything, compute_optimal(law, theta, known, target))


def _greedy(laws: list[Covariance], known: int, count: int, room: Room, *, by_cost: bool) -> tuple[list[int], float]:
    """Runs one after another while any fits, and what they leave of the interval."""
    laws, room, left, chosen = copy.deepcopy(laws), copy.deepcopy(room), list(range(count)), list[int]()
    begin = _width(laws)
    while left := [run for run in left if room.fits(run)]:
        gain = np.mean([each.gain() for each in laws], axis=0)[known:]
        score = {run: gain[run] / (room.cost(run) if by_cost else 1.0) for run in left}
        best = max(left, key=score.__getitem__)
        room.take(best)
        left.remove(best)
        chosen.append(best)
        for each in laws:
            each.condition([known + best])
    return chosen, _width(laws) / begin


def _cheapest(count: int, room: Room) -> Choice:
    """The cheapest that fit."""
    room, chosen = copy.deepcopy(room), list[int]()
    for run in sorted(range(count), key=lambda i: (room.cost(i), i)):
        if room.fits(run):
            room.take(run)
            chosen.append(run)
    return Choice(runs=chosen, interval=float("nan"), rule=CHEAP_FIRST)


def _width(laws: list[Covariance]) -> float:
    return float(np.sqrt(np.mean([each.target_variance for each in laws])))
