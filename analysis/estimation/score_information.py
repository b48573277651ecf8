"""What a run would teach about a task's accuracy: through the loss at the target, and through the trend over the loss.

A new run narrows the loss as for any target, and is scored itself, so that it adds a point to the trend. Both are
taken as normal about what is known now, and as independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.estimation.information import Covariance
from analysis.laws import Array
from analysis.laws.accuracy import Bounded

STEP = 1e-4  # of a difference quotient, in nats


@dataclass(kw_only=True)
class ScoreCovariance:
    """Of the accuracy at the target; the same to the design as the covariance of a loss."""

    loss: Covariance  # of ln L at every run and at the target
    by_loss: float  # d accuracy / d ln L at the target
    by_trend: Array  # (2,): d accuracy / d (level, slope) at the target
    trend: Array  # (2, 2): covariance of level and slope
    points: Array  # (runs, 2): a run's score tells about level + slope z ...
    precision: Array  # (runs,): ... with this precision; zero for runs that no score is to come of

    @staticmethod
    def of(
        loss: Covariance,
        trend: Bounded,
        items: float,
        ln_loss: Array,
        scored: NDArray[np.bool_],
        ended: NDArray[np.bool_],
    ) -> ScoreCovariance:
        """Before the runs are measured.

        Args:
            trend: accuracy against minus the loss.
            ln_loss: measured or expected at every run and expected at the target, which is last, (runs + 1,).
            scored: which runs the trend was fitted to, (runs,).
            ended: which have ended, (runs,): of those without a score none is to come.
        """
        x = -np.exp(ln_loss)
        p, z = trend.at(x), x - trend.center
        level = (trend.at(x + STEP) - trend.at(x - STEP)) / (2 * STEP * trend.slope)  # d accuracy / d level
        weight = items * level**2 / np.clip(p * (1 - p), 1e-9, None) / trend.dispersion
        points = np.stack([np.ones(len(z)), z], 1)
        seen = points[:-1][scored]
        return ScoreCovariance(
            loss=loss,
            by_loss=float(level[-1] * trend.slope * x[-1]),
            by_trend=level[-1] * points[-1],
            trend=np.asarray(
                np.linalg.pinv(seen.T @ (weight[:-1][scored, None] * seen)), float
            ),  # of binomial scores, as in the fit
            points=points[:-1],
            precision=np.where(ended, 0.0, weight[:-1]),
        )

    @property
    def target_variance(self) -> float:
        """Of the accuracy, given what was conditioned on."""
        return self.by_loss**2 * self.loss.target_variance + float(self.by_trend @ self.trend @ self.by_trend)

    def condition(self, rows: Sequence[int] | range) -> None:
        """Take runs as trained and scored, whatever their outcome."""
        chosen = list(rows)
        if not chosen:
            return
        self.loss.condition(chosen)
        told = self.points[chosen].T @ (self.precision[chosen, None] * self.points[chosen])
        self.trend = self.trend @ np.linalg.inv(np.eye(2) + told @ self.trend)

    def gain(self) -> Array:
        """What each run would take off the logarithm of the target's variance, (runs,)."""
        loss = self.by_loss**2 * self.loss.target_variance * np.exp(-self.loss.gain())
        along = self.points @ self.trend @ self.by_trend
        own = np.einsum("ij,jk,ik->i", self.points, self.trend, self.points)
        trend = self.by_trend @ self.trend @ self.by_trend - self.precision * along**2 / (1 + self.precision * own)
        return np.asarray(np.log(self.target_variance / (loss + trend)))
