"""Trends of accuracy: per task and number of examples, against compute, beside chance and the best trivial baseline.

Only a series whose span is clear of its binomial noise gets a trend; the rest is said to be at chance, flat, or not
measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

SIGNIFICANT = 0.01  # of a series' test, before Bonferroni over the series of a sweep


@dataclass(frozen=True, kw_only=True)
class Trend:
    """One task at one number of examples."""

    task: str
    shots: int
    metric: str
    runs: int
    items: int
    chance: float
    baseline: float  # the larger of chance and the answers' own prior
    accuracy_small: float  # mean over the cheapest third of the runs
    accuracy_large: float  # mean over the dearest third
    accuracy_large_se: float
    logprob_per_decade: float  # slope of the right answer's mean log-probability, nats per decade of compute
    logprob_per_decade_se: float
    verdict: str  # rises | falls | flat above baseline | at chance | not measured
    slope: float | None = None  # of the logistic per decade, where there is a trend
    level: float | None = None  # its intercept at the geometric mean compute
    center: float | None = None  # that compute, FLOPs
    slope_se: float | None = None

    def accuracy(self, compute: float) -> float:
        """The fitted accuracy at a compute (only where there is a trend)."""
        assert self.slope is not None and self.level is not None and self.center is not None
        x = np.log10(compute / self.center)
        return float(self.chance + (1 - self.chance) * special.expit(self.level + self.slope * x))


def trends(evals: pd.DataFrame, table: pd.DataFrame, compute: str) -> list[Trend]:
    """A trend, or the reason for none, for every task and number of examples."""
    if evals.empty:
        return []
    joined = evals.merge(table[["run_id", compute]], on="run_id").sort_values([compute, "run_id"])
    groups = list(joined.groupby(["task", "shots"], sort=False))
    return [
        _trend(str(task), int(str(shots)), group, compute, SIGNIFICANT / len(groups)) for (task, shots), group in groups
    ]


def _trend(task: str, shots: int, group: pd.DataFrame, compute: str, significant: float) -> Trend:
    first = group.iloc[0]
    chance, baseline = float(first.chance), float(max(first.chance, first.prior_accuracy))
    empty: dict[str, Any] = {"accuracy_small": np.nan, "accuracy_large": np.nan, "accuracy_large_se": np.nan}
    common: dict[str, Any] = {
        "task": task,
        "shots": shots,
        "items": int(first["items"]),
        "chance": chance,
        "baseline": baseline,
    }
    if not group.fits.all():
        return Trend(
            **common,
            **empty,
            metric="",
            runs=0,
            logprob_per_decade=np.nan,
            logprob_per_decade_se=np.nan,
            verdict="not measured",
        )
    n = group["items"].to_numpy(float)
    hits = np.round(group.accuracy.to_numpy(float) * n)
    x = np.log10(group[compute].to_numpy(float))
    center = float(x.mean())
    third = max(1, len(group) // 3)
    large, large_n = hits[-third:].sum(), n[-third:].sum()
    slope_lp, slope_lp_se = _line(x, group.logprob.to_numpy(float))
    # all runs answer the same items, so they count once: the mean accuracy of the large runs on so many items
    large_items = int(n[-third:].mean())
    correct = round(float(large / large_n) * large_items)
    above = stats.binomtest(correct, large_items, max(baseline, 1e-9), alternative="greater").pvalue < significant
    fields: dict[str, Any] = {
        **common,
        "metric": str(first.metric),
        "runs": len(group),
        "accuracy_small": float(hits[:third].sum() / n[:third].sum()),
        "accuracy_large": float(large / large_n),
        "accuracy_large_se": float(np.sqrt((large + 1) / (large_n + 2) * (1 - (large + 1) / (large_n + 2)) / large_n)),
        "logprob_per_decade": slope_lp,
        "logprob_per_decade_se": slope_lp_se,
    }
    fitted = _logistic(x - center, hits, n, chance) if hits.sum() and len(np.unique(x)) > 2 else None
    if fitted is not None and fitted[3] < significant and (fitted[1] < 0 or above):
        level, slope, slope_se, _ = fitted
        verdict = "rises" if slope > 0 else "falls"
        return Trend(**fields, verdict=verdict, level=level, slope=slope, slope_se=slope_se, center=float(10**center))
    return Trend(**fields, verdict="flat above baseline" if above else "at chance")


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and its standard error by least squares."""
    if len(x) < 3 or np.ptp(x) == 0:
        return float("nan"), float("nan")
    fitted = stats.linregress(x, y)
    return float(fitted.slope), float(fitted.stderr)


def _logistic(x: np.ndarray, hits: np.ndarray, n: np.ndarray, floor: float) -> tuple[float, float, float, float]:
    """Binomial fit of floor + (1-floor) expit(level + slope x): level, slope, its error, and the p-value against a
    constant.

    All runs answer the same items, which share their difficulty; what is left between runs beyond the binomial noise
    is taken as overdispersion (never below 1), so that a few odd runs do not make a trend.
    """

    def negative(theta: np.ndarray) -> float:
        p = np.clip(
            floor + (1 - floor) * special.expit(theta[0] + (theta[1] * x if len(theta) > 1 else 0.0)), 1e-12, 1 - 1e-12
        )
        return float(-(hits * np.log(p) + (n - hits) * np.log1p(-p)).sum())

    start = special.logit(np.clip((hits.sum() / n.sum() - floor) / (1 - floor), 0.01, 0.99))
    flat = optimize.minimize(negative, [start], method="BFGS")
    full = optimize.minimize(negative, [start, 0.0], method="BFGS")
    p = np.clip(floor + (1 - floor) * special.expit(full.x[0] + full.x[1] * x), 1e-9, 1 - 1e-9)
    dispersion = max(1.0, float(((hits - n * p) ** 2 / (n * p * (1 - p))).sum() / max(1, len(x) - 2)))
    statistic = 2 * (flat.fun - full.fun) / dispersion
    sigmoid = special.expit(full.x[0] + full.x[1] * x)
    weight = (
        n * ((1 - floor) * sigmoid * (1 - sigmoid)) ** 2 / (p * (1 - p))
    )  # Fisher information of the linear predictor
    spread = (weight * x**2).sum() - (weight * x).sum() ** 2 / weight.sum()
    error = float(np.sqrt(dispersion / spread)) if spread > 0 else float("inf")
    p_value = float(stats.f.sf(max(statistic, 0.0), 1, max(1, len(x) - 2)))
    return float(full.x[0]), float(full.x[1]), error, p_value


def shot_gains(evals: pd.DataFrame) -> list[dict[str, float | str]]:
    """What K examples bring over none: paired over runs, the mean gain in accuracy and log-probability with its
    standard error.
    """
    if evals.empty:
        return []
    found: list[dict[str, float | str]] = []
    measured = evals[evals.fits]
    for task, group in measured.groupby("task", sort=False):
        accuracy = group.pivot_table(index="run_id", columns="shots", values="accuracy")
        logprob = group.pivot_table(index="run_id", columns="shots", values="logprob")
        for shots in [k for k in accuracy.columns if int(k) > 0 and 0 in accuracy.columns]:
            gain, nats = accuracy[shots] - accuracy[0], logprob[shots] - logprob[0]
            runs = max(1, len(gain))
            found.append(
                {
                    "task": str(task),
                    "shots": int(shots),
                    "accuracy_gain": float(gain.mean()),
                    "accuracy_gain_se": float(gain.std(ddof=1) / np.sqrt(runs)) if runs > 1 else float("nan"),
                    "logprob_gain": float(nats.mean()),
                    "logprob_gain_se": float(nats.std(ddof=1) / np.sqrt(runs)) if runs > 1 else float("nan"),
                }
            )
    return found
