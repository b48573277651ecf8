"""What to run next: the runs whose outcome would narrow a target's interval most for their cost.

What a run would teach about the target follows from the runs made, without its outcome (estimation.information for the
loss, size_information for N*, score_information for an accuracy). Two things keep the design from the textbook's error
of buying cheap corners: laws drift, so runs near the target tell more; and the score is information over cost plus
what is already spent, so that runs much cheaper than the bill so far count as nearly free. For a loss L(N,D) with free
and with tied exponents are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from analysis import laws
from analysis.accuracy.trends import Trend
from analysis.estimation import size_information, uncertainty
from analysis.estimation.choices import columns
from analysis.estimation.information import Covariance, compute_optimal, posterior_mode, residuals
from analysis.estimation.score_information import ScoreCovariance
from analysis.laws import Array, PowerSum
from gpt3core.errors import UsageError
from gpt3core.words import number_of

BILL = 3.0  # a candidate's cost counts from this times what is spent already
STOP = 0.9
# runs that the variances of estimation.information are worth before the runs' own surprise scales them: 95% intervals
# made so hold 97% of the targets of tests/benchmarks/design_replay.py
SCALE_RUNS = 5.0
TENTH = float(-np.log(0.9))  # how far ln(interval) falls when a tenth of it goes
FAR_SIGHT = 30  # runs that are looked ahead before it is said that none is worth its cost
SAME = 1e-6  # relative: N and D that differ by less are one run's
FARTHER = 10.0  # times the highest-compute run: the target where none is given
LAWS: tuple[PowerSum, ...] = (laws.CHINCHILLA, laws.OVER_TRAINING)
TARGETS = ("loss", "n_star", "accuracy:TASK")
NORMAL95 = float(special.ndtri(0.975))

Information = Covariance | ScoreCovariance


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
    centre: float  # ln L, ln N* or the accuracy that is expected at the target
    sigma: float  # its standard deviation now
    spent: float  # cost of the runs made and in flight
    price: float | None = None  # least cost of a tenth off the interval, of the runs looked ahead; None: not asked
    limit: float | None = None  # the most that a tenth off the interval may cost

    def interval(self, after: float = 1.0) -> tuple[float, float]:
        """The target's 95% interval by the design's own account, ``after`` times as wide as now."""
        half = NORMAL95 * self.sigma * after
        low, high = self.centre - half, self.centre + half
        if self.target.startswith("accuracy"):
            return max(0.0, low), min(1.0, high)
        return float(np.exp(low)), float(np.exp(high))


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
    trend: Trend | None = None,
    limit: float | None = None,
) -> Design:
    """The next runs, greedily, each knowing those before it.

    Args:
        finished: run_id, N, D, loss, loss_se and cost of runs; without a loss or a status of done they tell nothing.
        candidates: N, D and cost of runs that could be made, in the same unit (FLOPs, hours, USD). One that ended or is
            in flight (the same N and D, and the same seed where both say one) is not proposed again.
        running: N, D and cost of the runs in flight: they count as made, whatever their outcome will be.
        compute: FLOPs of the target.
        target: loss, n_star, or accuracy:TASK with its ``trend``.
        stop: going on is not worth it when all candidates together leave more than this of the interval.
        at: N and D of the target; by default the compute-optimal ones by the fit.
        limit: the most that a tenth off the interval may cost; by default cost has no say in whether to go on.

    Raises:
        UsageError: for an unknown target, a compute that is none, or fewer than two runs with a loss.
    """
    counts = _counts(finished, compute)
    data, pending = finished[counts], finished[:0] if running is None else running
    known = len(data) + len(pending)
    everything = pd.concat([part[["N", "D", "cost"]] for part in (data, pending, candidates)], ignore_index=True)
    information, centre = _information(data, everything, compute, target, at, trend)
    left = known + np.flatnonzero(~_made(candidates, finished) & ~_made(candidates, pending))
    spent = float(everything.cost[:known].sum() + finished[~counts].cost.sum())
    path, sigma, after = _look_ahead(information, everything, left.tolist(), known, spent, batch, limit)
    price = None if limit is None else _least_price(path)
    return Design(
        proposals=_affordable(path, batch, limit),
        everything=after,
        worth=after < stop and (limit is None or (price is not None and price <= limit)),
        target=target,
        compute=compute,
        centre=centre,
        sigma=sigma,
        spent=spent,
        price=price,
        limit=limit,
    )


def _counts(finished: pd.DataFrame, compute: float) -> NDArray[np.bool_]:
    """Which runs ended with a loss that counts, (n,); there must be two, and a target that is one."""
    if not 0 < compute < float("inf"):
        raise UsageError(f"target_compute={compute}: FLOPs, positive (like 1e24)")
    done = finished.status == "done" if "status" in finished else True
    counts = np.asarray(np.isfinite(finished.loss.to_numpy(float)) & done, bool)
    if counts.sum() < 2:
        raise UsageError(
            f"{number_of(int(counts.sum()), 'run')} ended with a loss: two are needed before a next one can be proposed"
        )
    return counts


def _made(candidates: pd.DataFrame, runs: pd.DataFrame) -> NDArray[np.bool_]:
    """Which candidates are among these runs, (n,)."""
    same = np.ones((len(candidates), len(runs)), bool)
    for name in ("N", "D"):
        same &= np.abs(runs[name].to_numpy(float) / candidates[name].to_numpy(float)[:, None] - 1) < SAME
    if "seed" in candidates and "seed" in runs:
        same &= runs.seed.to_numpy() == candidates.seed.to_numpy()[:, None]
    return np.asarray(same.any(1), bool)


def _information(
    data: pd.DataFrame,
    everything: pd.DataFrame,
    compute: float,
    target: str,
    at: tuple[float, float] | None,
    trend: Trend | None,
) -> tuple[Sequence[Information], float]:
    """What each law says of a run's worth, about its own optimum where no point is given; and the target's centre."""
    worth = np.ones(len(everything))
    worth[: len(data)] = uncertainty.measured(data)
    if target == "n_star":
        sizes = size_information.fit(laws.CHINCHILLA, data, compute, at)
        return [sizes.covariance(everything, worth)], sizes.ln_n
    if target != "loss" and trend is None:
        raise UsageError(f"target={target}: allowed are {', '.join(TARGETS)}")
    losses, expected, surprises = [], [], []
    for law in LAWS:
        theta, prior = posterior_mode(law, data, compute)
        point = at or compute_optimal(law, theta, data, compute)
        losses.append(Covariance.of(law, theta, prior, everything, point, worth))
        expected.append(_ln_loss(law, theta, everything, point))
        surprises.append(losses[-1].surprise(residuals(law, theta, prior, data)))
    scale = (SCALE_RUNS + float(np.mean(surprises))) / (SCALE_RUNS + len(data))
    losses = [Covariance(matrix=scale * c.matrix, noise=scale * c.noise) for c in losses]
    if trend is None:
        return losses, float(np.mean([ln_loss[-1] for ln_loss in expected]))
    by_loss = trend.by_loss
    assert by_loss is not None, "a trend is one against the loss"
    ended = np.arange(len(everything)) < len(data)
    scored = ended.copy()
    scored[ended] = data.run_id.isin(trend.run_ids)
    measured = np.log(data.loss.to_numpy(float))
    expected = [np.concatenate([measured, e[len(data) :]]) for e in expected]
    items = by_loss.items
    scores = [ScoreCovariance.of(c, by_loss, items, e, scored, ended) for c, e in zip(losses, expected, strict=True)]
    return scores, float(np.mean([by_loss.at(-np.exp(ln_loss[-1])) for ln_loss in expected]))


def _ln_loss(law: PowerSum, theta: Array, runs: pd.DataFrame, point: tuple[float, float]) -> Array:
    """ln L at every run and, last, at a point."""
    whole = pd.concat([runs[["N", "D"]], pd.DataFrame({"N": [point[0]], "D": [point[1]]})], ignore_index=True)
    return np.asarray(law.on(columns(whole))(theta[None])[0][0])


def _look_ahead(
    information: Sequence[Information],
    everything: pd.DataFrame,
    left: Sequence[int],
    known: int,
    spent: float,
    batch: int,
    limit: float | None,
) -> tuple[list[Proposal], float, float]:
    """The greedy path, the target's standard deviation now, and what all candidates together would leave of it."""
    for each in information:
        each.condition(range(known))
    sigma = _width(information)
    count = batch if limit is None else max(batch, FAR_SIGHT)
    path = _greedy(information, everything, left, known, spent, count, limit)
    for each in information:
        each.condition([i for i in left if i - known not in {p.index for p in path}])
    return path, sigma, _width(information) / sigma


def _greedy(
    information: Sequence[Information],
    everything: pd.DataFrame,
    left: Sequence[int],
    known: int,
    spent: float,
    count: int,
    limit: float | None,
) -> list[Proposal]:
    """The best runs for their cost among those left, one after another; what is known is conditioned on them.

    With a limit on the cost of a tenth off the interval, runs within it come first while there are any.
    """
    cost, begin, open_rows = everything.cost.to_numpy(float), _width(information), list(left)
    proposals = []
    for _ in range(min(count, len(open_rows))):
        gain = np.mean([each.gain() for each in information], axis=0)  # of ln variance: twice that of ln interval
        score = {i: gain[i] / (cost[i] + BILL * spent) for i in open_rows}
        within = [i for i in open_rows if limit is None or cost[i] * TENTH <= limit * gain[i] / 2]
        best = max(within or open_rows, key=score.__getitem__)
        open_rows.remove(best)
        for each in information:
            each.condition([best])
        spent += cost[best]
        row = everything.iloc[best]
        width = _width(information) / begin
        proposals.append(
            Proposal(index=best - known, n=float(row.N), d=float(row.D), cost=float(row.cost), interval=width)
        )
    return proposals


def _least_price(path: Sequence[Proposal]) -> float | None:
    """The least cost of a tenth off the interval over the beginnings of a path; None where nothing is narrowed."""
    costs = np.cumsum([p.cost for p in path])
    found = [c * TENTH / -np.log(p.interval) for c, p in zip(costs, path, strict=True) if p.interval < 1]
    return float(min(found)) if found else None


def _affordable(path: Sequence[Proposal], batch: int, limit: float | None) -> list[Proposal]:
    """The first of a path, without last ones that are not worth their cost after those before them."""
    chosen = list(path[:batch])
    before = [1.0, *(p.interval for p in chosen)]
    good = [
        limit is None or p.cost * TENTH <= limit * np.log(b / p.interval) for b, p in zip(before, chosen, strict=False)
    ]
    while chosen and any(good) and not good[len(chosen) - 1]:
        chosen.pop()
    return chosen


def _width(information: Sequence[Information]) -> float:
    return float(np.sqrt(np.mean([each.target_variance for each in information])))
