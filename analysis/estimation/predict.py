"""What a larger run would reach: the ensemble's loss with both intervals, at given points or compute-optimal ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import special

from analysis.estimation import backtest, uncertainty
from analysis.estimation.choices import choice_ln_loss
from analysis.estimation.ensemble import FREEDOM_USED, Ensemble
from analysis.laws import Array
from gpt3core.errors import UsageError

QUANTILE = float(special.stdtrit(backtest.TAILS, (1 + uncertainty.LEVEL) / 2))  # intervals are so many sigmas
HEAVY = 0.95  # of the weight: choices beyond it do not widen the spread that is shown
ON_A_LINE = 3  # parameters that runs along one line tell
LEAST_FREEDOM = 3  # points beyond the parameters of L(N, D), below which resamples say too little to be shown
UNMEASURED = "unmeasured"  # column of points, and what the prediction has of it
DRAWS_SHARE, LEAST_DRAWS = 4, 20  # of the bootstrap, for each of the ensemble's choices


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a run would reach."""

    compute: float
    n: float
    d: float
    ln_loss: float  # of the weighted mean of the choices
    sigma: float  # scale of a new run's ln loss, t-distributed; of the mean law's where that is all the data support
    interval_mean: list[float] | None  # of the loss by the mean law and the choice of it; None where runs do not tell
    interval_new_run: list[float] | None  # of one new run's loss; None where the data do not support it
    decades: float  # beyond the highest-compute run; negative: below the lowest-compute one
    by_choice: dict[str, float] = field(default_factory=dict)
    interval_n: list[float] | None = None  # of N*, where the point is a compute-optimal one that the runs tell of
    interval_d: list[float] | None = None  # of D* there
    unmeasured: float | None = None  # best D/N at the highest compute, where no run is near it: then N* has none
    weights: dict[str, float] = field(default_factory=dict)  # of these choices, summing to one
    optimal: bool = False  # of the size that is best at its compute
    name: str = ""  # of the published model that it is, or is at the compute of

    @property
    def loss(self) -> float:
        """Nats per token."""
        return float(np.exp(self.ln_loss))

    @property
    def what(self) -> str:
        """Which model it is of."""
        if not self.optimal:
            return self.name or "as given"
        return f"best at C of {self.name}" if self.name else "best at C"

    @property
    def spread(self) -> list[float]:
        """The lowest and highest loss of the heaviest choices, those that hold HEAVY of the weight together."""
        heaviest = sorted(self.by_choice, key=lambda name: -self.weights.get(name, 1.0))
        held = np.cumsum([self.weights.get(name, 1.0) for name in heaviest])
        counted = [self.by_choice[name] for name in heaviest[: 1 + int(np.searchsorted(held, HEAVY * (1 - 1e-9)))]]
        return [min(counted), max(counted)]


def mean_share(draws: int) -> int:
    """Bootstrap draws for each choice, of those asked for."""
    return max(LEAST_DRAWS, draws // DRAWS_SHARE)


def predict(ensemble: Ensemble, points: pd.DataFrame, thetas: list[Array]) -> list[Prediction]:
    """A prediction a point, in their order.

    Args:
        points: N, D, C, U; where N and D are estimates all that optimal_size.optimal_points gives.
        thetas: parameters of the ensemble's choices under resamples: see optimal_size.choice_draws.

    Raises:
        UsageError: for a point that no law here speaks of.
    """
    ln_loss, each = ensemble.ln_loss(points)
    if not np.all(np.isfinite(ln_loss)):
        row = 1 + int(np.flatnonzero(~np.isfinite(ln_loss))[0])
        raise UsageError(f"point {row}: no law here speaks of it (text repeated too often?); leave it out")
    informed, half = ensemble.informed(points), ensemble.half_width(points, uncertainty.LEVEL)
    enough = not few_points(ensemble)
    spans, weights, decades = (
        mean_intervals(ensemble, points, thetas),
        ensemble.weights(points),
        ensemble.decades(points),
    )
    found, names, wider = [], [choice.name for choice in ensemble.choices], few_runs(ensemble)
    for i, centre in enumerate(ln_loss):
        there = np.isfinite(each[i])
        share = there * weights[i] / weights[i][there].sum()
        below, above = max(centre - spans[i, 0], 0.0), max(spans[i, 1] - centre, 0.0)
        mean = [centre - wider * below, centre + wider * above] if np.isfinite(wider) else [np.nan, np.nan]
        new = _no_surer(mean, centre, half[i])
        found.append(
            Prediction(
                compute=float(points.C.iloc[i]),
                n=float(points.N.iloc[i]),
                d=float(points.D.iloc[i]),
                ln_loss=float(centre),
                sigma=float(new[1] - new[0]) / 2 / QUANTILE,
                interval_mean=np.exp(mean).tolist() if informed[i] and enough else None,
                interval_new_run=np.exp(new).tolist() if np.isfinite(half[i]) else None,
                decades=float(decades[i]),
                by_choice={n: float(np.exp(v)) for n, v in zip(names, each[i], strict=True) if np.isfinite(v)},
                interval_n=_interval(points, "N", i),
                interval_d=_interval(points, "D", i),
                unmeasured=_value(points, UNMEASURED, i),
                weights={n: float(w) for n, w, ok in zip(names, share, there, strict=True) if ok},
            )
        )
    return found


def _no_surer(mean: list[float], centre: float, half: float) -> list[float]:
    """The interval of a new run in ln L, which is never surer than the mean law; the mean's where there is none."""
    if not np.isfinite(half):
        return mean
    return [np.fmin(mean[0], centre - half), np.fmax(mean[1], centre + half)]


def _interval(points: pd.DataFrame, name: str, row: int) -> list[float] | None:
    """Of N* or D* at a point, if it has one."""
    low, high = (_value(points, f"{name}_{end}", row) for end in ("low", "high"))
    return None if low is None or high is None else [low, high]


def _value(points: pd.DataFrame, name: str, row: int) -> float | None:
    """A point's own, if it has one."""
    value = float(points[name].iloc[row]) if name in points else np.nan
    return value if np.isfinite(value) else None


def count_points(ensemble: Ensemble) -> int:
    """How many points of N and D the runs are of: seeds of one are no more."""
    return len(np.unique(uncertainty.clusters(ensemble.runs, "run")))


def least_points(ensemble: Ensemble) -> int:
    """How many of them an interval of the mean law, and of the best size, takes."""
    return FREEDOM_USED + LEAST_FREEDOM if ensemble.missing is None else ON_A_LINE + 1


def few_points(ensemble: Ensemble) -> bool:
    """Whether there are fewer: then resamples, which tell too little, only hold the interval of a new run open."""
    return count_points(ensemble) < least_points(ensemble)


def few_runs(ensemble: Ensemble) -> float:
    """By how much the resamples of runs that vary along one line say too little of the mean law; one for other runs.

    n points tell a level, a coefficient and an exponent there, and are few: resamples scatter by sqrt((n - 3)/n) of
    what they should, and an interval has the tails of a t distribution with the n - 3 degrees of freedom left over;
    infinite where none is.
    """
    if ensemble.missing is None:
        return 1.0
    points = count_points(ensemble)
    freedom = points - ON_A_LINE
    if freedom < 1:
        return np.inf
    tail = (1 + uncertainty.LEVEL) / 2
    return float(np.sqrt(points / freedom) * special.stdtrit(freedom, tail) / special.ndtri(tail))


def mean_intervals(ensemble: Ensemble, points: pd.DataFrame, thetas: list[Array]) -> Array:
    """95% of ln L by the mean law, (n, 2): over the resamples of runs, and over the choices by their weights."""
    pairs = zip(ensemble.choices, thetas, strict=True)
    each = np.stack([choice_ln_loss(choice, theta, points) for choice, theta in pairs])  # (choices, draws, n)
    weights = ensemble.weights(points)
    shares = np.broadcast_to(weights.T[:, None], each.shape) / each.shape[1]
    return np.array(
        [uncertainty.weighted_interval(each[:, :, i].ravel(), shares[:, :, i].ravel()) for i in range(len(points))]
    ).reshape(-1, 2)
