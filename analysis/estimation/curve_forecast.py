"""The final loss of an unfinished run, from its curve so far and its learning-rate schedule.

Alone, a curve is L(t) = E + A S(t)^-1/2 + B sqrt(lr(t)/lr_peak), S the sum of the learning rates up to t: power-law
progress plus the part that the schedule's decay will still bring. The form follows Tissue et al. 2024 (arXiv
2408.11029) and Luo et al. 2025 (arXiv 2503.12811), whose terms linear in the rate under-predict a cosine's last drop;
it is linear in E, A and B, and their priors carry what a third of a curve cannot tell. Beside finished runs of the
same schedule, a regression of their remaining drops on level and slope is four times as close.

Constants were chosen on half of the routing curves of Clark et al. 2022 and tested on the other half, printed by
tests/benchmarks/curve_forecast.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from analysis.laws.base import Array

SLOPE_PRIOR = (0.593, 0.12)  # A, nats x (sum of rates)^1/2: the mean of Luo et al.'s fits of 25M to 400M models
DECAY_PRIOR = (0.18, 0.07)  # B, nats
NOISE = 0.0007  # of a curve's points, relative
EARLY = 0.003  # relative error of the form at 4% of the run; it falls as 1/t
REMAINING = 0.06  # of the drop still to come: error of the form
LATE = 0.35  # of the curve so far: where its slope begins to be taken
RIDGE = 1e-3
LEAST_FINISHED = 8
LEAST_POINTS = 4
FASTER = 1.5  # a finished run this much cheaper is what a larger run will really have
FLOOR = 4e-4  # standard error of ln L that no regression undercuts


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A run's loss curve and its planned schedule."""

    steps: Array  # (n,) where the loss was taken, rising, the first after the warm-up
    loss: Array  # (n,) nats per token
    lr: Array  # (total,) learning rate of every step of the whole run
    cost: float = float("nan")  # FLOPs of the whole run

    def until(self, fraction: float) -> Curve:
        """The part of the curve that a run has after this fraction of its steps."""
        seen = self.steps <= fraction * len(self.lr)
        return Curve(steps=self.steps[seen], loss=self.loss[seen], lr=self.lr, cost=self.cost)


@dataclass(frozen=True, kw_only=True)
class FinalLoss:
    """A forecast with its central interval at the level asked for."""

    loss: float
    interval: tuple[float, float]
    method: str  # alone | finished runs
    beside: tuple[int, ...] = ()  # which of the finished runs


def forecast_loss(curve: Curve, finished: Sequence[tuple[Curve, float]] = (), *, level: float = 0.95) -> FinalLoss:
    """The loss at the end of the schedule.

    Args:
        curve: of the unfinished run so far.
        finished: curves and final losses of runs with the same schedule as a fraction of their length; used where
            there are LEAST_FINISHED of them.

    Raises:
        ValueError: when the curve has too few points.
    """
    if len(curve.steps) < LEAST_POINTS:
        raise ValueError(f"a curve of {len(curve.steps)} points: {LEAST_POINTS} are needed for a forecast")
    if len(finished) >= LEAST_FINISHED:
        return _beside(curve, finished, level)
    return _alone(curve, level)


def forecast_held_out(
    curve: Curve, finished: Sequence[tuple[Curve, float]], *, level: float = 0.95
) -> tuple[float, float, float]:
    """The held-out loss at the end: its central interval's low end, the forecast, and the high end.

    The forecast of the training loss, shifted by what finished runs have between the two and widened by how much that
    differs between them.

    Args:
        finished: at least two runs' curves, and their held-out losses at the end.
    """
    training = forecast_loss(curve, [(other, float(other.loss[-1])) for other, _ in finished], level=level)
    gaps = np.log([loss / other.loss[-1] for other, loss in finished])
    spread = special.stdtrit(len(gaps) - 1, (1 + level) / 2) * gaps.std(ddof=1) * np.sqrt(1 + 1 / len(gaps))
    centre = np.log(training.loss) + gaps.mean()
    down, up = (np.hypot(np.log(training.loss / end), spread) for end in training.interval)
    return float(np.exp(centre - down)), float(np.exp(centre)), float(np.exp(centre + up))


def _alone(curve: Curve, level: float) -> FinalLoss:
    """Bayesian linear regression on the curve's own points."""
    total = len(curve.lr)
    summed = np.cumsum(curve.lr)
    at = np.clip(curve.steps.astype(int), 1, total) - 1

    def design(index: Array) -> Array:
        return np.stack([np.ones(len(index)), summed[index] ** -0.5, np.sqrt(curve.lr[index] / curve.lr.max())], 1)

    now = curve.loss[-1]
    spread = now * np.sqrt(NOISE**2 + (EARLY * 0.04 * total / curve.steps) ** 2)
    rows = design(at) / spread[:, None]
    precision = np.diag([0.0, SLOPE_PRIOR[1] ** -2, DECAY_PRIOR[1] ** -2])
    mean = np.array([0.0, SLOPE_PRIOR[0], DECAY_PRIOR[0]])
    hessian = rows.T @ rows + precision
    solution = np.linalg.solve(hessian, rows.T @ (curve.loss / spread) + precision @ mean)
    end = design(np.array([total - 1]))[0]
    loss = float(end @ solution)
    variance = end @ np.linalg.solve(hessian, end) + (NOISE * now) ** 2 + (REMAINING * max(now - loss, 0.0)) ** 2
    half = special.ndtri((1 + level) / 2) * np.sqrt(variance)
    return FinalLoss(loss=loss, interval=(float(loss - half), float(loss + half)), method="alone")


def _beside(curve: Curve, finished: Sequence[tuple[Curve, float]], level: float) -> FinalLoss:
    """Ridge regression of the finished runs' drops of ln L still to come on level and slope at this point."""
    fraction = curve.steps[-1] / len(curve.lr)
    so_far = [other.until(fraction) for other, _ in finished]
    beside = tuple(i for i, other in enumerate(so_far) if len(other.steps) >= LEAST_POINTS)
    kept = [(so_far[i], finished[i][1]) for i in beside]
    if len(kept) < LEAST_FINISHED:
        return _alone(curve, level)
    features = np.array([_features(other) for other, _ in kept])
    drops = np.array([np.log(other.loss[-1] / final) for other, final in kept])
    fitted = _Ridge(features, drops)
    spread = np.sqrt(np.mean(fitted.left_out**2))
    spread = max(spread, _forward_error(features, drops, np.array([other.cost for other, _ in kept])), FLOOR)
    drop, leverage = fitted.predict(_features(curve))
    half = special.stdtrit(max(1, len(kept) - 3), (1 + level) / 2) * spread * np.sqrt(1 + leverage)
    centre = float(np.log(curve.loss[-1]) - drop)
    return FinalLoss(
        loss=float(np.exp(centre)),
        interval=(float(np.exp(centre - half)), float(np.exp(centre + half))),
        method="finished runs",
        beside=beside,
    )


def _features(curve: Curve) -> Array:
    """ln L now, and minus its slope against ln t over the later part of the curve."""
    late = curve.steps >= LATE * curve.steps[-1]
    slope = np.polyfit(np.log(curve.steps[late]), np.log(curve.loss[late]), 1)[0] if late.sum() > 1 else 0.0
    return np.array([np.log(curve.loss[-1]), -slope])


class _Ridge:
    """Least squares on standardised features, the slopes slightly shrunk."""

    def __init__(self, features: Array, values: Array) -> None:
        self.mean, self.scale = features.mean(0), np.maximum(features.std(0), 1e-12)
        rows = self._rows(features)
        self.inverse = np.linalg.inv(rows.T @ rows + np.diag([0.0, *[RIDGE * len(rows)] * features.shape[1]]))
        self.solution = self.inverse @ rows.T @ values
        hat = np.clip(np.einsum("ij,jk,ik->i", rows, self.inverse, rows), 0.0, 0.9)
        self.left_out = (values - rows @ self.solution) / (1 - hat)

    def _rows(self, features: Array) -> Array:
        return np.hstack([np.ones((len(features), 1)), (features - self.mean) / self.scale])

    def predict(self, features: Array) -> tuple[float, float]:
        """The value at one point and its leverage."""
        row = self._rows(features[None])[0]
        return float(row @ self.solution), float(row @ self.inverse @ row)


def _forward_error(features: Array, drops: Array, cost: Array) -> float:
    """Root mean square error of predicting the highest-compute third of the runs from clearly cheaper ones."""
    errors = []
    for i in np.argsort(cost)[-(len(cost) // 3) :]:
        cheaper = cost * FASTER <= cost[i]
        if cheaper.sum() >= 6:
            drop, leverage = _Ridge(features[cheaper], drops[cheaper]).predict(features[i])
            errors.append((drops[i] - drop) / np.sqrt(1 + leverage))
    return float(np.sqrt(np.mean(np.square(errors)))) if len(errors) >= 3 else 0.0
