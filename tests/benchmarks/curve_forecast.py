"""Final losses of unfinished runs on the routing curves of Clark et al. 2022.

``python -m tests.benchmarks.curve_forecast``

Prints the median and 90th percentile of the absolute relative error and the coverage of 90% intervals at 30, 50 and
70% of the run, beside the last value and a plain power law with a floor. "alone" is judged on the half of the runs
that its constants were not chosen on; "beside finished runs" sees only cheaper runs than the one it predicts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from analysis import laws
from analysis.estimation import curve_forecast, robust, solve
from analysis.estimation.curve_forecast import Curve
from tests.benchmarks.target import target

DATA = Path(__file__).parent / "data" / "clark2022_routing_curves.csv.gz"
ALONE, BESIDE = "alone, other half", "beside finished runs, cheaper"
STEPS, WARM_UP, PEAK = 250_000, 1_500, 2e-4


def schedule() -> np.ndarray:
    """Linear warm-up, then cosine to a tenth."""
    step = np.arange(1, STEPS + 1)
    cosine = 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * np.clip((step - WARM_UP) / (STEPS - WARM_UP), 0, 1)))
    return PEAK * np.minimum(step / WARM_UP, 1.0) * cosine


def load(column: str) -> list[tuple[int, Curve, float]]:
    """(id, curve, final loss) of every run."""
    table = pd.read_csv(DATA)
    lr, found = schedule(), []
    for run, rows in table[table.step > 0].dropna(subset=[column]).groupby("hyper_id"):
        curve = Curve(
            steps=rows.step.to_numpy(float),
            loss=rows[column].to_numpy(float),
            lr=lr,
            cost=float(rows.flops_per_step.iloc[0] * STEPS),
        )
        found.append((int(run), curve, float(curve.loss[-1])))
    return found


def power_law(curve: Curve) -> float:
    """E + A t^-p fitted to the curve so far, read off at its end."""
    found = solve.fit(laws.LOSS_OF_C_WITH_FLOOR, {"C": curve.steps}, curve.loss, rho=robust.LEAST_SQUARES)
    return float(found.predict({"C": np.array([float(len(curve.lr))])})[0])


def at(fraction: float, runs: list[tuple[int, Curve, float]], half: set[int]) -> dict[str, np.ndarray]:
    """By way: (runs, 3) of relative error, whether the 90% interval covers, and its half width."""
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for place, (_, curve, final) in enumerate(runs):
        seen = curve.until(fraction)
        cheaper = [(other, loss) for _, other, loss in runs if other.cost < curve.cost]
        rows.setdefault("last value", []).append((abs(seen.loss[-1] / final - 1), np.nan, np.nan))
        rows.setdefault("power law in steps", []).append((abs(power_law(seen) / final - 1), np.nan, np.nan))
        found = {"alone, all runs": curve_forecast.forecast_loss(seen, level=0.9)}
        if place not in half:
            found[ALONE] = found["alone, all runs"]
        if len(cheaper) >= curve_forecast.LEAST_FINISHED:
            found[BESIDE] = curve_forecast.forecast_loss(seen, cheaper, level=0.9)
        for name, f in found.items():
            inside = f.interval[0] <= final <= f.interval[1]
            width = (f.interval[1] - f.interval[0]) / 2 / final
            rows.setdefault(name, []).append((abs(f.loss / final - 1), float(inside), width))
    return {name: np.array(values) for name, values in rows.items()}


def main() -> None:
    """Print the tables."""
    half = set(np.random.RandomState(0).permutation(223)[:111])  # the one that the constants were chosen on
    medians: dict[tuple[str, float, str], float] = {}
    for column in ("loss_validation", "loss_c4"):
        runs = load(column)
        print(f"{column}: median / p90 of |error| in %, coverage of the 90% interval, median half width in %")
        for fraction in (0.3, 0.5, 0.7):
            for name, values in at(fraction, runs, half).items():
                error, inside, width = values.T
                median, tail = 100 * np.median(error), 100 * np.quantile(error, 0.9)
                covered, half_width = 100 * np.mean(inside), 100 * np.median(width)
                medians[column, fraction, name] = float(median)
                print(
                    f"  {fraction:.0%} {name:28s} n {len(error):3d}  {median:5.2f} / {tail:5.2f}   "
                    f"{covered:4.0f}%  {half_width:5.2f}"
                )
    for name, way in (("alone", ALONE), ("beside_finished", BESIDE)):
        value = medians["loss_validation", 0.5, way]
        target(f"curve_forecast_{name}_at_half_median_error_percent", value, "<=", 0.5)


if __name__ == "__main__":
    main()
