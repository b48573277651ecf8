"""Scores of a larger GPT-3 from those of the smaller ones (Brown et al. 2020, table H.1), beside simple ways.

``python -m tests.benchmarks.few_shot_forecast``. First the sizes that every choice was made on: 6.7B and 13B from the
sizes below them. Then 175B from 125M to 13B, which nothing was chosen on. Mean absolute error in points over the 126
series of accuracies and exact matches, by setting, and coverage and mean width of the 90% interval.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize

from analysis.accuracy.score_forecast import ACCURACIES, forecast_gpt3
from analysis.reference.tables import gpt3_scores
from tests.benchmarks.target import target

PAIRS = ((5, 5), (5, 6), (6, 6), (7, 7))  # how many sizes are known, which is predicted


def ways(scores: np.ndarray, x: np.ndarray, target: float) -> dict[str, np.ndarray]:
    """Persistence, a line through all sizes and through the last four, a logistic; all in log compute."""

    def line(last: int) -> np.ndarray:
        return np.clip([np.polyval(np.polyfit(x[-last:], row[-last:], 1), target) for row in scores], 0, 100)

    return {
        "persistence": scores[:, -1],
        "line, all sizes": line(len(x)),
        "line, last four": line(min(4, len(x))),
        "logistic, 0 to 100": np.array([_logistic(row / 100, x, target, free=False) for row in scores]),
        "logistic, free ceiling": np.array([_logistic(row / 100, x, target, free=True) for row in scores]),
    }


def _logistic(y: np.ndarray, x: np.ndarray, target: float, *, free: bool) -> float:
    def curve(theta: np.ndarray, at: np.ndarray) -> np.ndarray:
        ceiling = 1 / (1 + np.exp(-theta[2])) if free else 1.0
        return ceiling / (1 + np.exp(-np.clip(theta[1] * (at - x.mean()) - theta[0], -50, 50)))

    start = np.array([-np.log(max(y.mean(), 1e-3) / (1 - min(y.mean(), 0.999))), 1.0, *([2.0] if free else [])])
    found = optimize.least_squares(lambda theta: curve(theta, x) - y, start)
    return float(100 * curve(found.x, np.array(target)))


def main() -> None:
    """Print the tables."""
    wide, compute = gpt3_scores()
    wide = wide[wide.metric.isin(ACCURACIES)].reset_index(drop=True)
    sizes = [name for name in wide.columns if str(name).startswith("GPT-3")]
    values, x = wide[sizes].to_numpy(float), np.log10(compute)
    for known, size in PAIRS:
        print(f"\n{sizes[size]} from {sizes[0][6:]} to {sizes[known - 1][6:]}: points, all (few, one, zero)")
        found = forecast_gpt3(last=known, target=size)
        found = found[found.metric.isin(ACCURACIES)].reset_index(drop=True)
        every = {"isoflop": found.predicted.to_numpy(), **ways(values[:, :known], x[:known], float(x[size]))}
        for name, predicted in every.items():
            error = np.abs(predicted - values[:, size])
            by = [
                error[(wide.setting == setting).to_numpy()].mean() for setting in ("few-shot", "one-shot", "zero-shot")
            ]
            print(f"  {name:24s} {error.mean():5.2f} ({by[0]:5.2f}, {by[1]:5.2f}, {by[2]:5.2f})")
        inside = ((found.low <= found.measured) & (found.measured <= found.high)).mean()
        print(f"  90% interval covers {inside:.1%}, mean width {np.mean(found.high - found.low):.1f}")
    error = float(np.abs(found.predicted - found.measured).mean())  # of the last pair: 175B from 125M to 13B
    target("few_shot_mean_error_points", error, "<", 8.98)
    target("few_shot_coverage_at_least", float(inside), ">=", 0.80)
    target("few_shot_coverage_at_most", float(inside), "<=", 0.97)


if __name__ == "__main__":
    main()
