"""Constants of the intervals chosen with one family of tables left out, and what they do on it."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pandas as pd

from analysis.estimation import backtest
from analysis.estimation.backtest import GROWTH, Growth
from analysis.estimation.ensemble import Ensemble
from tests.benchmarks.target import target

LEVEL = 0.95
COVER = (0.85, 0.99)  # what a nominal 95% has to cover, family by family
TRIED = tuple(
    Growth(prior_pace=pace, prior_worth=worth)
    for pace, worth in itertools.product((0.006, 0.007, 0.008, 0.009, 0.01, 0.012), (2.0, 4.0, 8.0, 16.0))
)
PREFIX = "growth "

Predicted = tuple[np.ndarray, np.ndarray, np.ndarray]


def intervals(found: Ensemble, above: pd.DataFrame) -> dict[str, Predicted]:
    """The same prediction under all constants tried: ln L, centre, low and high, by the constants' number."""
    centre, _ = found.ln_loss(above)
    kind = found.anywhere
    named = {}
    for index, growth in enumerate(TRIED):
        calibration = backtest.calibrate(kind.tests, kind.weights, kind.calibration.noise, growth)
        half = calibration.half_width(found.decades(above), found.span, LEVEL)
        half = np.where(found.informed(above), half, np.inf)
        named[f"{PREFIX}{index}"] = (centre, centre - half, centre + half)
    return named


def report(by_family: pd.DataFrame, ours: str, peer: str) -> None:
    """Choose, print family by family, and say what reaches the targets.

    Args:
        by_family: error, cover, width and score by (family, method); the methods hold those of ``intervals``.
    """
    families = by_family.index.get_level_values("family").unique()
    others = [m for m in by_family.index.get_level_values("method").unique() if not m.startswith((PREFIX, ours))]
    peers = [m for m in others if m.startswith(peer) and "new-run" in m] or others
    costs = pd.DataFrame({f: _costs(by_family.loc[f], peers[0]) for f in families})  # (constants, families)
    rows = {}
    for name in families:
        best = int(costs.drop(columns=name).mean(axis=1).argmin())
        here, chosen = by_family.loc[name], by_family.loc[name, f"{PREFIX}{best}"]
        rows[name] = {
            "error %": 100 * chosen.error,
            "of the best peer": chosen.error / here.loc[others].error.min(),
            "cover %": 100 * chosen.cover,
            f"{peers[0]} %": 100 * here.loc[peers[0]].cover,
            "score over its": chosen.score / here.loc[peers[0]].score,
            "constants": ", ".join(f"{k} {v:.3g}" for k, v in dataclasses.asdict(TRIED[best]).items()),
        }
    table = pd.DataFrame(rows).T
    print("each family with constants chosen on all others\n" + table.to_string(float_format=lambda x: f"{x:.2f}"))
    print(f"in use: {GROWTH}; best on all families: {TRIED[int(costs.mean(axis=1).argmin())]}")
    for name, row in rows.items():
        slug = name.replace("simulated, ", "simulated_").replace(" ", "_")
        target(f"left_out_coverage95_at_least_{slug}", row["cover %"] / 100, ">=", COVER[0])
        target(f"left_out_coverage95_at_most_{slug}", row["cover %"] / 100, "<=", COVER[1])
        target(f"left_out_error_over_best_{slug}", float(row["of the best peer"]), "<=", 1.0)
        target(
            f"left_out_score_over_peer_{slug}", float(row["score over its"]) if peer in peers[0] else None, "<=", 1.0
        )


def _costs(here: pd.DataFrame, peer: str) -> list[float]:
    """What is minimised: log interval score relative to the peer's, and coverage outside the targets."""
    found = []
    for index in range(len(TRIED)):
        row = here.loc[f"{PREFIX}{index}"]
        outside = max(0.0, COVER[0] - row.cover) / 0.15 + max(0.0, row.cover - COVER[1]) / 0.04
        found.append(max(-1.0, float(np.log(row.score / here.loc[peer].score))) + 1.5 * outside)
    return found
