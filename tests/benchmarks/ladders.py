"""Simulated ladders of known kinds, each a family: what laws of N and D do not have, and what badly chosen runs do."""

from __future__ import annotations

import numpy as np
import pandas as pd

SEEDS = 3
KINDS = ("slope", "schedule", "shapes", "badly tuned size", "short", "badly tuned runs", "steepening")


def ladders() -> dict[str, pd.DataFrame]:
    """N, D and loss by name: ``kind seed``."""
    return {f"{kind}, {seed}": ladder(kind, seed) for kind in KINDS for seed in range(SEEDS)}


def ladder(kind: str, seed: int) -> pd.DataFrame:
    """One ladder: a sum of two powers, bent as its kind says, with noise.

    ``slope``, ``schedule`` and ``shapes`` hold many shapes in two and a half decades of compute: the slope changes, the
    runs above some compute ended their schedule otherwise, or every shape has a misfit of its own.
    """
    rng = np.random.default_rng([KINDS.index(kind), seed])
    alpha, beta, floor = rng.uniform(0.25, 0.45), rng.uniform(0.25, 0.45), rng.uniform(1.5, 2.2)
    top, noise = rng.uniform(18.5, 22), rng.choice([0.001, 0.003, 0.006])
    n, d = _design(kind, top, rng)
    c = 6 * n * d
    sizes = 0.4 * (n / 1e8) ** -alpha * rng.uniform(0.5, 1.5)
    loss = floor + sizes + 0.4 * (d / 2e9) ** -beta * rng.uniform(0.5, 1.5)
    beyond = np.log(c) - np.log(10) * (top - 1.4)
    if kind == "slope":
        loss *= np.exp(-rng.uniform(0.002, 0.01) * rng.choice([-1, 1]) * np.maximum(0, beyond))
    elif kind == "schedule":
        late = c > 10 ** (top - rng.uniform(0.6, 1.3))
        loss *= np.where(late, 1 + rng.uniform(0.01, 0.03) * rng.choice([-1, 1]), 1.0)
    elif kind == "shapes":
        loss *= np.exp(0.006 * rng.standard_normal(len(n)) + 0.006 * np.abs(rng.standard_normal(len(n))))
    elif kind == "badly tuned size":
        bins = np.searchsorted(np.quantile(n, np.linspace(0, 1, 9)), n)
        loss *= np.where(bins == rng.integers(5, 9), 1 + rng.uniform(0.01, 0.04), 1.0)
    elif kind == "badly tuned runs":
        bad = rng.uniform(size=len(n)) < rng.uniform(0.15, 0.35)
        loss *= np.where(bad, 1 + rng.exponential(0.05, len(n)), 1.0)
    elif kind == "steepening":
        loss *= np.exp(-rng.uniform(3e-4, 9e-4) * (np.log(c) - np.log(c.min())) ** 2)
    return pd.DataFrame({"N": n, "D": d, "loss": loss * np.exp(noise * rng.standard_normal(len(n)))})


def _design(kind: str, top: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """N and D of the runs: a cloud, or sizes around the middle of each budget."""
    if kind in ("slope", "schedule", "shapes", "badly tuned runs"):
        span, count = (3.2, rng.integers(60, 150)) if kind == "badly tuned runs" else (2.6, rng.integers(60, 200))
        c = 10 ** (top - span * rng.uniform(size=count) ** 1.2)
        n = np.sqrt(c / 120) * np.exp(0.8 * rng.standard_normal(count))
        return n, c / (6 * n)
    count, span = (rng.integers(4, 6), rng.uniform(1.6, 2.4)) if kind == "short" else (7, rng.uniform(2.6, 3.5))
    sizes = np.geomspace(0.3, 3, rng.integers(4, 7))
    c = np.repeat(10 ** np.linspace(top - span, top, count), len(sizes))
    n = np.sqrt(c / 120) * np.tile(sizes, count)
    return n, c / (6 * n)
