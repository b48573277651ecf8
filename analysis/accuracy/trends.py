"""Trends of accuracy against compute and against loss, beside chance and the best trivial baseline.

There is one for each task and number of examples, and for the mean of the tasks that are measured at all of these.

Only a series whose span is clear of its binomial noise gets a trend; the rest is said to be at chance, below it, flat,
or not measured, and cannot be predicted. A prediction chains compute -> loss -> accuracy and carries the doubt of each
step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from analysis.estimation.backtest import TAILS
from analysis.laws import Array
from analysis.laws.accuracy import Bounded, fit_bounded, worth_of_scatter

MEAN = "mean of tasks"
BELOW = "below chance"  # what only a mistake brings about: see output.notes
DRAWS = 2000
LEVEL = 0.95
SIGNIFICANT = 0.01  # of a series' test, before Bonferroni over the series of a sweep
LEAST_RUNS = 3  # of a series
LEAST_SCATTER = 5  # runs of a series whose items nobody counted: its own scatter is then the noise


@dataclass(frozen=True, kw_only=True)
class Trend:
    """One task at one number of examples."""

    task: str
    shots: int
    items: int | None  # None where nobody says how many there are: then the scatter of the runs is the noise
    chance: float
    baseline: float  # the larger of chance and the answers' own prior
    metric: str = ""
    run_ids: tuple[str, ...] = ()  # that were scored, in the order of compute
    accuracy_small: float = float("nan")  # mean over the lowest-compute third of the runs
    accuracy_large: float = float("nan")  # mean over the highest-compute third
    accuracy_large_se: float = float("nan")  # of the items: all runs answer the same ones, so they count once
    logprob_per_decade: float = float("nan")  # of the right answer's mean log-probability, nats per decade of compute
    logprob_per_decade_se: float = float("nan")
    verdict: str = "not measured"  # rises | falls | flat above baseline | at chance | below chance | not measured
    reason: str = ""  # why it is not measured
    slope: float | None = None  # of the bounded law per decade, where there is a trend
    slope_se: float | None = None
    by_compute: Bounded | None = None  # against log10 FLOPs
    by_loss: Bounded | None = None  # against minus the loss

    @property
    def runs(self) -> int:
        """How many were scored."""
        return len(self.run_ids)


def trends(evals: pd.DataFrame, table: pd.DataFrame) -> list[Trend]:
    """A trend, or the reason for none, for every task and number of examples, and for their mean.

    Args:
        evals: one row a run, task and number of examples: accuracy, items (nan where they were not counted), chance,
            prior_accuracy, logprob, fits.
        table: run_id, C, loss of the runs that count; a loss may be missing.
    """
    if evals.empty:
        return []
    joined = evals.merge(table[["run_id", "C", "loss"]], on="run_id").sort_values(["C", "run_id"])
    means = _means(joined)
    joined = pd.concat([joined, means], ignore_index=True) if len(means) else joined
    groups = list(joined.groupby(["task", "shots"], sort=False))
    return [_trend(str(task), int(str(shots)), group, SIGNIFICANT / len(groups)) for (task, shots), group in groups]


@dataclass(frozen=True, kw_only=True)
class Averaged:
    """Which tasks the mean of tasks is of: the same ones at every number of examples at which it is shown."""

    tasks: list[str]
    shots: list[int]
    left_out: list[str]  # tasks that some run did not measure at one of these
    without: list[int]  # numbers of examples at which too few of these tasks are measured


def averaged(evals: pd.DataFrame) -> Averaged | None:
    """The tasks and numbers of examples that every run measured, as many cells as there are; None without two tasks."""
    runs = evals.run_id.nunique()
    counts = evals[evals.fits.astype(bool)].groupby(["task", "shots"], sort=False).run_id.nunique()
    whole: dict[int, set[str]] = {int(k): set() for k in sorted(evals.shots.unique())}
    for row in counts[counts == runs].reset_index().itertuples():
        whole[int(str(row.shots))].add(str(row.task))
    shots = sorted(whole, key=lambda k: (-len(whole[k]), k))
    candidates = [(set.intersection(*(whole[k] for k in shots[:n])), shots[:n]) for n in range(1, len(shots) + 1)]
    candidates = [(common, kept) for common, kept in candidates if len(common) > 1]
    if not candidates:
        return None
    common, kept = max(candidates, key=lambda c: (len(c[0]) * len(c[1]), len(c[1])))
    every = [str(task) for task in dict.fromkeys(evals.task)]
    return Averaged(
        tasks=[task for task in every if task in common],
        shots=sorted(kept),
        left_out=[task for task in every if task not in common],
        without=sorted(set(whole) - set(kept)),
    )


def _means(joined: pd.DataFrame) -> pd.DataFrame:
    """The mean over the tasks that every run measured at every number of examples shown, as a task of its own."""
    found = averaged(joined)
    if found is None:
        return pd.DataFrame()
    tasks = joined[joined.task.isin(found.tasks) & joined.shots.isin(found.shots)]
    means = tasks.groupby(["run_id", "C", "loss", "shots"], sort=False, as_index=False, dropna=False).agg(
        accuracy=("accuracy", "mean"),
        logprob=("logprob", "mean"),
        chance=("chance", "mean"),
        prior_accuracy=("prior_accuracy", "mean"),
        items=("items", lambda items: items.sum(skipna=False)),
    )
    return means.assign(task=MEAN, metric="mean", fits=True)


def _trend(task: str, shots: int, group: pd.DataFrame, significant: float) -> Trend:
    """One series, its runs in the order of compute."""
    first = group.iloc[0]
    chance, baseline = float(first.chance), float(max(first.chance, first.prior_accuracy))
    counted = None if group["items"].isna().any() else int(first["items"])
    common = Trend(task=task, shots=shots, items=counted, chance=chance, baseline=baseline, run_ids=tuple(group.run_id))
    if not group.fits.all():
        return replace(common, reason="does not fit n_ctx")
    if len(group) < (least := LEAST_RUNS if counted is not None else LEAST_SCATTER):
        return replace(common, reason=f"{len(group)} runs, {least} are needed")
    x, accuracy = np.log10(group.C.to_numpy(float)), group.accuracy.to_numpy(float)
    if counted is None:
        n = np.full(len(group), worth_of_scatter(x, accuracy, floor=chance))
        hits = accuracy * n
    else:
        n = group["items"].to_numpy(float)
        hits = np.round(accuracy * n)
    third = max(1, len(group) // 3)
    small, large = hits[:third].sum() / n[:third].sum(), hits[-third:].sum() / n[-third:].sum()
    per_decade, per_decade_se = _line(x, group.logprob.to_numpy(float))
    large_items = max(1, int(n[-third:].mean()))  # all runs answer the same items, so these count once
    correct = round(large * large_items)
    share = (correct + 1) / (large_items + 2)
    measured = replace(
        common,
        metric=str(first.metric),
        accuracy_small=float(small),
        accuracy_large=float(large),
        accuracy_large_se=float(np.sqrt(share * (1 - share) / large_items)),
        logprob_per_decade=per_decade,
        logprob_per_decade_se=per_decade_se,
    )
    above = special.bdtrc(correct - 1, large_items, max(baseline, 1e-9)) < significant  # one-sided binomial test
    fitted = fit_bounded(x, hits, n, floor=chance, significant=significant)
    if special.bdtr(correct, large_items, chance) < significant:
        return replace(measured, verdict=BELOW)
    if fitted is None or not (fitted.slope < 0 or above):
        return replace(measured, verdict="flat above baseline" if above else "at chance")
    losses = group.loss.to_numpy(float)
    return replace(
        measured,
        verdict="rises" if fitted.slope > 0 else "falls",
        slope=fitted.slope,
        slope_se=fitted.slope_se,
        by_compute=fitted,
        by_loss=fit_bounded(-losses, hits, n, floor=chance) if np.isfinite(losses).all() else None,
    )


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What a run of some compute, or of some compute and loss, would score."""

    task: str
    shots: int
    accuracy: float | None  # None where these runs do not tell
    interval_mean: list[float] | None  # of the trend
    interval_new_run: list[float] | None  # of a measured score on as many items
    reason: str = ""  # why there is none
    compute: float = float("nan")  # FLOPs


UNTOLD = "not predictable from these runs: their span lies inside the noise"


def predict_accuracies(trends: list[Trend], ln_loss: float, sigma: float, seed: int = 0) -> list[Accuracy]:
    """Accuracies at a predicted loss: the chain's second step, with the loss's doubt drawn along.

    Args:
        sigma: scale of the new run's ln loss, t-distributed as its interval is.
    """
    rng = np.random.default_rng(seed)
    x = -np.exp(ln_loss + sigma * rng.standard_t(TAILS, DRAWS))
    return [_at(t, t.by_loss, -float(np.exp(ln_loss)), x, rng) for t in trends if t.verdict != "not measured"]


def at_compute(trends: list[Trend], compute: float, seed: int = 0) -> list[Accuracy]:
    """Accuracies at a compute by their trends against it alone: where no loss is known to go through."""
    rng, at = np.random.default_rng(seed), float(np.log10(compute))
    found = [_at(t, t.by_compute, at, np.full(DRAWS, at), rng) for t in trends if t.verdict != "not measured"]
    return [replace(a, compute=compute) for a in found]


def _at(trend: Trend, law: Bounded | None, at: float, draws: Array, rng: np.random.Generator) -> Accuracy:
    """A trend's score at a point; ``draws`` carry the doubt about where that is."""
    common: dict[str, Any] = {"task": trend.task, "shots": trend.shots}
    if law is None:
        return Accuracy(accuracy=None, interval_mean=None, interval_new_run=None, reason=UNTOLD, **common)
    mean, new = law.draws(draws, rng)
    return Accuracy(
        accuracy=float(law.at(np.array(at))),
        interval_mean=_central(mean),
        interval_new_run=_central(new),
        **common,
    )


def _central(draws: Array) -> list[float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and its standard error by least squares."""
    if len(x) < 3 or np.ptp(x) == 0 or not np.isfinite(y).all():
        return float("nan"), float("nan")
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0]))


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
