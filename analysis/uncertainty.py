"""Two kinds of interval: of the mean law (its parameters' doubt), and of a new run (what the user wants), which
widens with distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis import solve
from analysis.laws import Array, Data
from analysis.solve import Fit

LEVEL = 0.95


def interval(draws: Array, level: float = LEVEL) -> list[float]:
    """The central interval of bootstrap draws."""
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def bootstrap(fit: Fit, data: Data, loss: Array, *, draws: int, seed: int, delta: float) -> Array:
    """Parameters (draws, k) refitted to runs drawn with replacement, all draws at once."""
    n = len(loss)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(float)
    observed = np.broadcast_to(np.log(loss), (draws, n))
    return solve.refit(fit, data, observed, weights=counts, delta=delta)


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """One step of a rolling-origin test: fitted up to a compute, asked about a larger one."""

    fitted_to: float  # FLOPs of the largest budget fitted
    target: float  # FLOPs predicted
    decades: float
    predicted: float
    measured: float

    @property
    def miss(self) -> float:
        """ln measured - ln predicted."""
        return float(np.log(self.measured / self.predicted))


def backtest_power_law(compute: Array, loss: Array, shortest: int = 3) -> list[Backtest]:
    """Fit L = (C_c/C)^alpha to the cheapest budgets, predict every dearer one; for every cut with ``shortest``
    budgets below it.
    """
    found = []
    order = np.argsort(compute)
    c, y = np.log(compute[order]), np.log(loss[order])
    for cut in range(shortest, len(c)):
        slope, level = np.polyfit(c[:cut], y[:cut], 1)
        found += [
            Backtest(
                fitted_to=float(np.exp(c[cut - 1])),
                target=float(np.exp(c[j])),
                decades=float((c[j] - c[cut - 1]) / np.log(10)),
                predicted=float(np.exp(level + slope * c[j])),
                measured=float(np.exp(y[j])),
            )
            for j in range(cut, len(c))
        ]
    return found


@dataclass(frozen=True, kw_only=True)
class Widening:
    """The error of a new run at a distance, in ln L: sigma^2 = noise^2 + (per_decade * decades)^2, t-distributed."""

    noise: float
    per_decade: float
    tests: int

    def half_width(self, decades: float, of_mean: float = 0.0, level: float = LEVEL) -> float:
        """Half of the interval's width in ln L at so many decades beyond the data; infinite without backtests.

        Args:
            of_mean: standard deviation of the mean law itself there, from its bootstrap; it comes on top.
        """
        if self.tests == 0:
            return float("inf")
        quantile = stats.t.ppf((1 + level) / 2, df=self.tests)
        return float(quantile * np.sqrt(self.noise**2 + (self.per_decade * decades) ** 2 + of_mean**2))


def widening(backtests: list[Backtest], noise: float) -> Widening:
    """From the backtests' misses. Overlapping cuts are not independent: the degrees of freedom are the distinct
    targets.
    """
    if not backtests:
        return Widening(noise=noise, per_decade=float("nan"), tests=0)
    rates = [(abs(b.miss) ** 2 - noise**2) / b.decades**2 for b in backtests]
    return Widening(
        noise=noise,
        per_decade=float(np.sqrt(max(0.0, float(np.mean(rates))))),
        tests=len({round(b.target, -3) for b in backtests}),
    )
