"""What to run next: the runs whose outcome would narrow a target's interval most for their cost.

What a run would teach about the target follows from the runs made, without its outcome (estimation.information). Two
things keep the design from the textbook's error of buying cheap corners: laws drift, so runs near the target tell
more; and the score is information over cost plus what is already spent, so that runs much cheaper than the bill so far
count as nearly free. L(N,D) with free and with tied exponents are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import laws
from analysis.estimation.information import Covariance, compute_optimal, posterior_mode
from analysis.laws import PowerSum
from gpt3core.errors import UsageError

BILL = 3.0  # a candidate's cost counts from this times what is spent already
STOP = 0.9
SAME = 1e-6  # relative: N and D that differ by less are one run's
FARTHER = 10.0  # times the highest-compute run: the target where none is given
LAWS: tuple[PowerSum, ...] = (laws.CHINCHILLA, laws.OVER_TRAINING)
TARGETS = ("loss", "n_star", "accuracy")


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One run to make."""

    index: int  # row of the candidates
    n: float
    d: float
    cost: float
    interval: float  # of the target after it and those before it, relative to now


@dataclass(frozen=True, kw_only=True)
class Design:
    """What to run next, best first."""

    proposals: list[Proposal]
    everything: float  # the target's interval after all candidates, relative to now
    worth: bool  # whether going on is worth its cost
    target: str
    compute: float


def propose(
    finished: pd.DataFrame,
    candidates: pd.DataFrame,
    *,
    compute: float,
    running: pd.DataFrame | None = None,
    batch: int = 1,
    target: str = "loss",
    stop: float = STOP,
    at: tuple[float, float] | None = None,
) -> Design:
    """The next runs, greedily, each knowing those before it.

    Args:
        finished: N, D, loss and cost of the runs that ended. Those without a loss, or whose ``status`` is not done,
            tell nothing and are not proposed again; what they cost is spent all the same.
        candidates: N, D and cost of the runs that could be made, in the same unit (FLOPs, GPU-hours).
        running: N, D and cost of the runs in flight: they count as made, whatever their outcome will be.
        compute: FLOPs of the target.
        target: of TARGETS.
        stop: going on is not worth it when all candidates together leave more than this of the interval.
        at: N and D of the target; by default the compute-optimal ones by the fit.

    Raises:
        UsageError: for an unknown target, a compute that is none, or fewer than two runs with a loss.
    """
    if not 0 < compute < np.inf:
        raise UsageError(f"compute={compute}: FLOPs, positive (like 1e24)")
    if target not in TARGETS:
        raise UsageError(f"target={target}: allowed are {', '.join(TARGETS)}")
    counts = _counts(finished)
    data, lost = finished[counts], finished[~counts]
    if len(data) < 2:
        raise UsageError(f"{len(data)} runs ended with a loss: two are needed before a next one can be proposed")
    pending = data[:0] if running is None else running
    known = len(data) + len(pending)
    everything = pd.concat([part[["N", "D", "cost"]] for part in (data, pending, candidates)], ignore_index=True)
    covariances = _covariances(data, everything, compute, target, at)
    for covariance in covariances:
        covariance.condition(range(known))
    left = [known + i for i in range(len(candidates)) if not _same_run(candidates.iloc[i], lost)]
    begin, spent = _width(covariances), float(everything.cost[:known].sum() + lost.cost.sum())
    proposals = _greedy(covariances, everything, left, known, spent, batch)
    for covariance in covariances:
        covariance.condition([i for i in left if i - known not in {p.index for p in proposals}])
    after = _width(covariances) / begin
    return Design(proposals=proposals, everything=after, worth=after < stop, target=target, compute=compute)


def _counts(finished: pd.DataFrame) -> NDArray[np.bool_]:
    """Which runs ended with a loss that counts, (n,)."""
    done = finished.status == "done" if "status" in finished else True
    return np.asarray(np.isfinite(finished.loss.to_numpy(float)) & done, bool)


def _same_run(candidate: pd.Series, runs: pd.DataFrame) -> bool:
    """Whether a candidate is one of these runs."""
    same = (runs.N / candidate.N - 1).abs().lt(SAME) & (runs.D / candidate.D - 1).abs().lt(SAME)
    return bool(same.any())


def _covariances(
    data: pd.DataFrame, everything: pd.DataFrame, compute: float, target: str, at: tuple[float, float] | None
) -> list[Covariance]:
    """One a law, about the law's own optimum where no point is given."""
    found: list[Covariance] = []
    for law in LAWS:
        theta, prior = posterior_mode(law, data, compute)
        point = at or compute_optimal(law, theta, data, compute)
        found.append(Covariance.of(law, theta, prior, everything, point, target))
    return found


def _greedy(
    covariances: Sequence[Covariance],
    everything: pd.DataFrame,
    left: Sequence[int],
    known: int,
    spent: float,
    batch: int,
) -> list[Proposal]:
    """The best runs for their cost among those left, one after another; the covariances are conditioned on them."""
    cost, begin, open_rows = everything.cost.to_numpy(float), _width(covariances), list(left)
    proposals = []
    for _ in range(min(batch, len(open_rows))):
        gain = np.mean([c.gain() for c in covariances], axis=0)
        score = {i: gain[i] / (cost[i] + BILL * spent) for i in open_rows}
        best = max(open_rows, key=score.__getitem__)
        open_rows.remove(best)
        for covariance in covariances:
            covariance.condition([best])
        spent += cost[best]
        row = everything.iloc[best]
        width = _width(covariances) / begin
        proposals.append(
            Proposal(index=best - known, n=float(row.N), d=float(row.D), cost=float(row.cost), interval=width)
        )
    return proposals


def _width(covariances: Sequence[Covariance]) -> float:
    return float(np.sqrt(np.mean([c.target_variance for c in covariances])))
