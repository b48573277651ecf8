"""The scores of a family's next model from the scores of its smaller ones: many tasks, few sizes.

Each series (a task in a setting) is a local trend against log compute in the variance-stabilising arcsine scale, half
shrunk towards the median slope of its setting and damped. The interval comes from forecasting the larger known sizes
from the smaller ones in the same way. Every constant was chosen on the GPT-3 sizes up to 13B, by predicting 6.7B and
13B from the sizes below (tests/benchmarks/few_shot_forecast.py prints both sides).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.laws.base import Array
from analysis.reference.tables import gpt3_scores

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


def forecast_scores(
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
    found = forecast_scores(
        wide[models[:last]].to_numpy(float),
        compute[:last],
        float(compute[target]),
        pools=[f"{setting} {accuracy}" for setting, accuracy in zip(wide.setting, whole, strict=True)],
        kinds=kinds,
    )
    found["measured"] = wide[models[target]]
    return pd.concat([wide[["task", "category", "metric", "setting"]], found], axis=1)
