"""Trends of accuracy against compute and against loss, beside chance and the best trivial baseline.

There is one for each task and number of examples, and for the mean of the tasks.

Only a series whose span is clear of its binomial noise gets a trend; the rest is said to be at chance, flat, or not
measured, and cannot be predicted. A prediction chains compute -> loss -> accuracy and carries the doubt of each step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.laws import Array
from analysis.laws.accuracy import Bounded, fit_bounded

MEAN = "mean of tasks"
DRAWS = 2000
LEVEL = 0.95
SIGNIFICANT = 0.01  # of a series' test, before Bonferroni over the series of a sweep


@dataclass(frozen=True, kw_only=True)
class Trend:
    """One task at one number of examples."""

    task: str
    shots: int
    items: int
    chance: float
    baseline: float  # the larger of chance and the answers' own prior
    metric: str = ""
    runs: int = 0
    accuracy_small: float = float("nan")  # mean over the lowest-compute third of the runs
    accuracy_large: float = float("nan")  # mean over the highest-compute third
    accuracy_large_se: float = float("nan")
    logprob_per_decade: float = float("nan")  # of the right answer's mean log-probability, nats per decade of compute
    logprob_per_decade_se: float = float("nan")
    verdict: str = "not measured"  # rises | falls | flat above baseline | at chance | not measured
    slope: float | None = None  # of the bounded law per decade, where there is a trend
    slope_se: float | None = None
    by_compute: Bounded | None = None  # against log10 FLOPs
    by_loss: Bounded | None = None  # against minus the loss


def trends(evals: pd.DataFrame, table: pd.DataFrame) -> list[Trend]:
    """A trend, or the reason for none, for every task and number of examples, and for their mean.

    Args:
        evals: one row a run, task and number of examples: accuracy, items, chance, prior_accuracy, logprob, fits.
        table: run_id, C, loss of the runs that count.
    """
    if evals.empty:
        return []
    joined = evals.merge(table[["run_id", "C", "loss"]], on="run_id").sort_values(["C", "run_id"])
    joined = pd.concat([joined, _means(joined)], ignore_index=True)
    groups = list(joined.groupby(["task", "shots"], sort=False))
    return [_trend(str(task), int(str(shots)), group, SIGNIFICANT / len(groups)) for (task, shots), group in groups]


def _means(joined: pd.DataFrame) -> pd.DataFrame:
    """The mean over the tasks that every run measured at a number of examples, as a task of its own."""
    rows = []
    for shots, group in joined.groupby("shots", sort=False):
        whole = group.groupby("task").fits.all()
        tasks = group[group.task.isin(whole.index[whole])]
        if tasks.task.nunique() < 2:
            continue
        means = tasks.groupby(["run_id", "C", "loss"], sort=False, as_index=False).agg(
            accuracy=("accuracy", "mean"),
            logprob=("logprob", "mean"),
            chance=("chance", "mean"),
            prior_accuracy=("prior_accuracy", "mean"),
            items=("items", "sum"),
        )
        rows.append(means.assign(task=MEAN, shots=shots, metric="mean", fits=True))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=joined.columns)


def _trend(task: str, shots: int, group: pd.DataFrame, significant: float) -> Trend:
    """One series, its runs in the order of compute."""
    first = group.iloc[0]
    chance, baseline = float(first.chance), float(max(first.chance, first.prior_accuracy))
    common = Trend(task=task, shots=shots, items=int(first["items"]), chance=chance, baseline=baseline)
    if not group.fits.all():
        return common
    n = group["items"].to_numpy(float)
    hits = np.round(group.accuracy.to_numpy(float) * n)
    x = np.log10(group.C.to_numpy(float))
    third = max(1, len(group) // 3)
    large, large_n = hits[-third:].sum(), n[-third:].sum()
    share = (large + 1) / (large_n + 2)
    per_decade, per_decade_se = _line(x, group.logprob.to_numpy(float))
    measured = replace(
        common,
        metric=str(first.metric),
        runs=len(group),
        accuracy_small=float(hits[:third].sum() / n[:third].sum()),
        accuracy_large=float(large / large_n),
        accuracy_large_se=float(np.sqrt(share * (1 - share) / large_n)),
        logprob_per_decade=per_decade,
        logprob_per_decade_se=per_decade_se,
    )
    # all runs answer the same items, so they count once: the mean accuracy of the large runs on so many items
    large_items = int(n[-third:].mean())
    correct = round(measured.accuracy_large * large_items)
    above = stats.binomtest(correct, large_items, max(baseline, 1e-9), alternative="greater").pvalue < significant
    fitted = fit_bounded(x, hits, n, floor=chance)
    if fitted is None or fitted.p_value >= significant or not (fitted.slope < 0 or above):
        return replace(measured, verdict="flat above baseline" if above else "at chance")
    return replace(
        measured,
        verdict="rises" if fitted.slope > 0 else "falls",
        slope=fitted.slope,
        slope_se=fitted.slope_se,
        by_compute=fitted,
        by_loss=fit_bounded(-group.loss.to_numpy(float), hits, n, floor=chance),
    )


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What a run of some compute and loss would score."""

    task: str
    shots: int
    accuracy: float | None  # None where these runs do not tell
    interval_mean: list[float] | None  # of the trend
    interval_new_run: list[float] | None  # of a measured score on as many items
    reason: str = ""  # why there is none


def predict_accuracies(trends: list[Trend], ln_loss: float, sigma: float, seed: int = 0) -> list[Accuracy]:
    """Accuracies at a predicted loss: the chain's second step, with the loss's doubt drawn along.

    Args:
        sigma: scale of the new run's ln loss.
    """
    found = []
    rng = np.random.default_rng(seed)
    losses = np.exp(ln_loss + sigma * rng.standard_normal(DRAWS))
    for t in trends:
        if t.verdict == "not measured":
            continue
        if t.by_loss is None:
            reason = "not predictable from these runs: their span lies inside the noise"
            nothing: dict[str, Any] = {"accuracy": None, "interval_mean": None, "interval_new_run": None}
            found.append(Accuracy(task=t.task, shots=t.shots, reason=reason, **nothing))
            continue
        mean, new = t.by_loss.draws(-losses, t.items, rng)
        found.append(
            Accuracy(
                task=t.task,
                shots=t.shots,
                accuracy=float(t.by_loss.at(np.array(-np.exp(ln_loss)))),
                interval_mean=_central(mean),
                interval_new_run=_central(new),
            )
        )
    return found


def _central(draws: Array) -> list[float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and its standard error by least squares."""
    if len(x) < 3 or np.ptp(x) == 0:
        return float("nan"), float("nan")
    fitted = stats.linregress(x, y)
    return float(fitted.slope), float(fitted.stderr)


def shot_gains(evals: pd.DataFrame) -> list[dict[str, float | str]]:
    """What K examples bring over none, paired over runs: mean gains in accuracy and log-probability, with errors."""
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
