"""The scores of a family's next model from the scores of its smaller ones: many tasks, few sizes.

Each series (a task in a setting) is a local trend against log compute in the variance-stabilising arcsine scale, half
shrunk towards the median slope of its setting and damped. The interval comes from forecasting the larger known sizes
from the smaller ones in the same way. Every constant was chosen on the GPT-3 sizes up to 13B, by predicting 6.7B and
13B from the sizes below (tests/benchmarks/few_shot_forecast.py prints both sides).

``python -m analysis.forecast`` prints the forecast of GPT-3 175B from 125M to 13B beside table H.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import numpy as np
import pandas as pd

from analysis.laws.base import Array
from gpt3core import cli

RECENT = 0.5  # decades of compute over which a size's weight in its series' line falls by e
SHRINK = 0.5  # of a series' slope towards its pool's median: 0.4 to 0.7 do as well
DAMPING = 0.9  # of the slope beyond the data: 0.8 to 1 do as well
SLOPE_FLOOR = 0.1  # arcsine units per decade: the doubt of a series that has not moved yet
TAIL = 0.7  # quantiles are taken this much farther out than nominal: forward coverage of the plain ones fell short
NEAREST, FARTHEST = 0.45, 1.1  # calibration horizons, relative to the forecast's
SIZES_BELOW = 4  # of a calibration target
ACCURACIES = ("acc", "em")  # whole answers, right or wrong
OVERLAPS = ("f1", "f1a", "BLEU-mb", "BLEU-sb", "average")  # partial credit, also between 0 and 100
SYNTHETIC = ("arithmetic", "word_scrambling")  # categories whose answers are generated: they take off from zero


def forecast(
    scores: Array, compute: Array, target: float, *, pools: Sequence[str], kinds: Sequence[str], level: float = 0.9
) -> pd.DataFrame:
    """Scores at a target compute with their intervals.

    Args:
        scores: (series, sizes) in percent, the sizes in the order of compute.
        compute: (sizes,) training FLOPs, rising; at least five.
        target: FLOPs of the model to predict.
        pools: (series,) labels; a slope is shrunk towards the median of its pool.
        kinds: (series,) labels; errors are calibrated within a kind.

    Returns:
        One row a series: predicted, low, high, in percent.

    Raises:
        ValueError: when there are too few sizes to calibrate on.
    """
    x, pool, kind = np.log10(compute), np.asarray(pools), np.asarray(kinds)
    horizon = float(np.log10(target) - x[-1])
    pairs = _calibration_pairs(x, horizon)
    if not pairs:
        raise ValueError(
            f"{len(x)} sizes, none of them {NEAREST * horizon:.2f} to {FARTHEST * horizon:.2f} decades above an "
            f"earlier one: too few to calibrate a forecast {horizon:.2f} decades ahead"
        )
    z = _stabilised(scores)
    errors = []
    for origin, reached in pairs:
        centre, scale = _trend(z[:, : origin + 1], x[: origin + 1], x[reached] - x[origin], pool)
        errors.append((z[:, reached] - centre) / scale)
    centre, scale = _trend(z, x, horizon, pool)
    low, high = np.empty(len(z)), np.empty(len(z))
    tail = TAIL * (1 - level) / 2
    for name in np.unique(kind):
        chosen = kind == name
        below, above = np.quantile(np.concatenate([e[chosen] for e in errors]), [tail, 1 - tail])
        low[chosen] = centre[chosen] + min(below, 0.0) * scale[chosen]
        high[chosen] = centre[chosen] + max(above, 0.0) * scale[chosen]
    return pd.DataFrame({"predicted": _percent(centre), "low": _percent(low), "high": _percent(high)})


def _calibration_pairs(x: Array, horizon: float) -> list[tuple[int, int]]:
    """(last size fitted, size predicted) with a distance like the forecast's."""
    return [
        (origin, reached)
        for reached in range(SIZES_BELOW, len(x))
        for origin in range(1, reached)
        if NEAREST * horizon <= x[reached] - x[origin] <= FARTHEST * horizon
    ]


def _trend(z: Array, x: Array, horizon: float, pool: Array) -> tuple[Array, Array]:
    """Centre and scale of the forecast so many decades beyond the last size, (series,) each, in arcsine units."""
    weight = np.exp((x - x[-1]) / RECENT)
    weight /= weight.sum()
    from_mean = x - weight @ x
    slope = (z - (z @ weight)[:, None]) @ (weight * from_mean) / (weight @ from_mean**2)
    fitted = z @ weight + slope * from_mean[-1]
    common = np.empty(len(z))
    for name in np.unique(pool):
        common[pool == name] = np.median(slope[pool == name])
    start = (z[:, -1] + fitted) / 2
    centre = start + DAMPING * horizon * ((1 - SHRINK) * slope + SHRINK * common)
    return centre, horizon * np.sqrt(slope**2 + SLOPE_FLOOR**2)


def _stabilised(percent: Array) -> Array:
    return np.asarray(np.arcsin(np.sqrt(np.clip(percent, 0, 100) / 100)))


def _percent(z: Array) -> Array:
    return np.asarray(100 * np.sin(np.clip(z, 0, np.pi / 2)) ** 2)


def reference(name: str) -> pd.DataFrame:
    """A published table that the package ships; see analysis/reference/SOURCES.md."""
    with resources.as_file(resources.files("analysis") / "reference" / name) as path:
        return pd.read_csv(path)


def gpt3_models() -> pd.DataFrame:
    """The eight GPT-3 models: model, size (as in target=), params, train_tokens, train_flops."""
    return reference("gpt3_models.csv")


def gpt3_scores() -> tuple[pd.DataFrame, Array]:
    """Table H.1 of Brown et al. 2020: one row a series (task, category, metric, setting, K), one column a size; and
    the sizes' training FLOPs (table D.1). Test-server scores, which exist for 175B alone, are not among them.
    """
    models, scores = gpt3_models(), reference("gpt3_table_H1.csv")
    scores = scores[scores.split != "test_server"]
    key = ["task", "category", "metric", "setting"]
    wide = scores.pivot_table(index=key, columns="model", values="value", sort=False)[list(models.model)]
    return wide.reset_index(), models.train_flops.to_numpy(float)


def forecast_gpt3(last: int = 7, target: int = 7) -> pd.DataFrame:
    """Predict one GPT-3 size from the ``last`` smallest ones, for every series of table H.1 between 0 and 100.

    Args:
        last: how many sizes are known, smallest first; seven are 125M to 13B.
        target: index of the size to predict, 0 to 7; seven is 175B.
    """
    wide, compute = gpt3_scores()
    wide = wide[wide.metric.isin(ACCURACIES + OVERLAPS)].reset_index(drop=True)
    models = [name for name in wide.columns if str(name).startswith("GPT-3")]
    whole = wide.metric.isin(ACCURACIES)
    kinds = [
        "overlap" if not w else "synthetic" if c in SYNTHETIC else "natural"
        for w, c in zip(whole, wide.category, strict=True)
    ]
    found = forecast(
        wide[models[:last]].to_numpy(float),
        compute[:last],
        float(compute[target]),
        pools=[f"{setting} {accuracy}" for setting, accuracy in zip(wide.setting, whole, strict=True)],
        kinds=kinds,
    )
    found["measured"] = wide[models[target]]
    return pd.concat([wide[["task", "category", "metric", "setting"]], found], axis=1)


def main(argv: Sequence[str]) -> int:
    """Print the forecast of GPT-3 175B."""
    from rich.console import Console
    from rich.table import Table

    if "--help" in argv:
        print(__doc__)
        return 0
    cli.split(argv, ("--help",))
    table = Table(title="GPT-3 175B from 125M to 13B: percent (90% interval) | measured", title_justify="left")
    for name in ("task", "metric", "zero-shot", "one-shot", "few-shot"):
        table.add_column(name)
    found = forecast_gpt3()
    for (task, metric), rows in found.groupby(["task", "metric"], sort=False):
        cells = {
            r.setting: f"{r.predicted:.0f} ({r.low:.0f} to {r.high:.0f}) | {r.measured:.0f}" for r in rows.itertuples()
        }
        table.add_row(str(task), str(metric), *(cells.get(s, "-") for s in ("zero-shot", "one-shot", "few-shot")))
    Console(width=None if Console().is_terminal else 120).print(table)
    judged = found[found.metric.isin(ACCURACIES)]
    error = (judged.predicted - judged.measured).abs().mean()
    inside = ((judged.low <= judged.measured) & (judged.measured <= judged.high)).mean()
    print(f"{len(judged)} accuracies and exact matches: mean absolute error {error:.2f} points, {inside:.0%} inside")
    return 0


if __name__ == "__main__":
    cli.run(main)
