"""Coverage and bias of every interval on tables whose truth is known.

``python -m tests.benchmarks.known_truth [--short] [TABLE ...]``. Each table is drawn 60 times (``--short``: 10) from
Hoffmann et al.'s law, from Muennighoff et al.'s where text is repeated, with Gaussian seed noise on ln L. Everything
that ``python -m analysis.fit`` prints an interval for is held against the truth: the mean law and a new run one and two
decades beyond the data, compute-optimal and off the optimum; N* and D* there; the exponent a by budgets and by
L(N, D); alpha and beta. An interval that is not printed is counted beside the covered, not among them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import api
from analysis.estimation import uncertainty
from analysis.estimation.predict import Prediction
from analysis.study import Study
from tests.benchmarks.target import target

E, A, B, ALPHA, BETA = 1.69, 406.4, 410.7, 0.34, 0.28  # Hoffmann et al. 2022, approach 3
R_D, R_N = 15.4, 5.3  # Muennighoff et al. 2023
EXPONENT = BETA / (ALPHA + BETA)
DRAWS, SHORT = 60, 10
DECADES = (1.0, 2.0)
OVER_TRAINED = 8.0  # times the tokens per parameter that are best: a point off the optimum
NOMINAL = (0.90, 0.99)
BIAS = 0.05


def optimal_size(compute: float) -> float:
    """N* = G (C/6)^a, G = (alpha A / (beta B))^(1/(alpha + beta)) (Hoffmann et al. 2022, eq. 4)."""
    return float((ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (compute / 6) ** EXPONENT)


def true_loss(n: np.ndarray, d: np.ndarray, u: np.ndarray | None = None) -> np.ndarray:
    """L(N, D), and L(N, D, U) where only U of the tokens are unique (Muennighoff et al. 2023, eq. 5 to 7)."""
    if u is None:
        return np.asarray(E + A / n**ALPHA + B / d**BETA)
    u = np.minimum(u, d)
    best = (ALPHA * A / (BETA * B)) ** (1 / ALPHA) * u ** (BETA / ALPHA)  # parameters that U tokens can use
    kept = np.minimum(best, n)
    n_effective = kept * (1 + R_N * (1 - np.exp(-(n / kept - 1) / R_N)))
    d_effective = u * (1 + R_D * (1 - np.exp(-(d / u - 1) / R_D)))
    return np.asarray(E + A / n_effective**ALPHA + B / d_effective**BETA)


@dataclass(frozen=True, kw_only=True)
class Design:
    """How the runs of a table lie."""

    runs: Callable[[np.random.Generator], pd.DataFrame]  # N, D, and unique_tokens where text is repeated
    noise: float  # of ln L
    optimum: bool = True  # whether the runs tell which size is best


def budgets(rng: np.random.Generator, count: int = 5, sizes: int = 5) -> pd.DataFrame:
    """IsoFLOP curves over two decades whose sizes lie a factor of up to 1.6 off centre."""
    rows = []
    for compute in np.geomspace(1e19, 1e21, count):
        centre = optimal_size(compute) * np.exp(rng.uniform(-0.5, 0.5))
        n = centre * np.geomspace(1 / 4, 4, sizes)
        rows.append(pd.DataFrame({"N": n, "D": compute / (6 * n)}))
    return pd.concat(rows, ignore_index=True)


def grid(rng: np.random.Generator) -> pd.DataFrame:
    """Seven sizes at six ratios of tokens to parameters."""
    n = np.repeat(np.geomspace(2e7, 3e9, 7), 6)
    return pd.DataFrame({"N": n, "D": n * np.tile([3.0, 7.0, 17.0, 41.0, 97.0, 211.0], 7)})


def scattered(rng: np.random.Generator) -> pd.DataFrame:
    """Sixty runs of any size and ratio."""
    n = np.exp(rng.uniform(np.log(2e7), np.log(3e9), 60))
    return pd.DataFrame({"N": n, "D": n * np.exp(rng.uniform(np.log(3), np.log(200), 60))})


def one_ratio(rng: np.random.Generator) -> pd.DataFrame:
    """Fourteen sizes at twenty tokens a parameter."""
    n = np.geomspace(1e7, 3e9, 14)
    return pd.DataFrame({"N": n, "D": 20 * n})


def repeated(rng: np.random.Generator) -> pd.DataFrame:
    """IsoFLOP curves on 3B unique tokens: fresh at the cheap ones, up to a dozen epochs at the high-compute ones."""
    found = pd.concat([budgets(rng, 6, 7), grid(rng).query("D < 1e11")], ignore_index=True)
    return found.assign(unique_tokens=np.minimum(found.D, 3e9)).query("D < 38 * unique_tokens").reset_index(drop=True)


DESIGNS = {
    "budgets 0.3%": Design(runs=budgets, noise=0.003),
    "three budgets of three sizes 0.3%": Design(runs=lambda rng: budgets(rng, 3, 3), noise=0.003),
    "grid 0.2%": Design(runs=grid, noise=0.002),
    "grid 1%": Design(runs=grid, noise=0.01),
    "random 0.5%": Design(runs=scattered, noise=0.005),
    "one ratio 0.5%": Design(runs=one_ratio, noise=0.005, optimum=False),
    "repeated data 0.3%": Design(runs=repeated, noise=0.003),
}


def drawn(design: Design, seed: int) -> pd.DataFrame:
    """A table with its noise."""
    rng = np.random.default_rng(seed)
    table = design.runs(rng)
    unique = table.unique_tokens.to_numpy() if "unique_tokens" in table else None
    loss = true_loss(table.N.to_numpy(), table.D.to_numpy(), unique)
    return table.assign(loss=loss * np.exp(design.noise * rng.standard_normal(len(table))))


Judged = tuple[str, float, float, list[float] | None]  # what, estimate, truth, interval


def judged(design: Design, seed: int, bootstrap: int) -> Iterator[Judged]:
    """Everything with an interval in the study of one table."""
    table, rng = drawn(design, seed), np.random.default_rng(10_000 + seed)
    top = float((6 * table.N * table.D).max())
    compute = [top * 10**d for d in DECADES]
    sizes = np.array([optimal_size(c) / np.sqrt(OVER_TRAINED) for c in compute])
    points = pd.DataFrame({"N": sizes, "D": np.array(compute) / (6 * sizes)})
    study = api.fit(table, target_compute=compute, predict=points, bootstrap=bootstrap, seed=seed)
    for kind, predictions in (("optimal", study.predictions), ("off", study.predicted_points)):
        for p in predictions:
            distance = f"{p.decades:.0f} decade{'s' * (p.decades > 1.5)} out, {kind}"
            yield from _of_prediction(p, distance, design, rng, optimal=kind == "optimal")
    if design.optimum:
        yield from _exponents(study)


def _of_prediction(
    p: Prediction, distance: str, design: Design, rng: np.random.Generator, *, optimal: bool
) -> Iterator[Judged]:
    truth = float(true_loss(np.array(p.n), np.array(p.d)))
    yield f"mean law, {distance}", p.loss, truth, p.interval_mean
    yield (
        f"new run, {distance}",
        p.loss,
        truth * float(np.exp(design.noise * rng.standard_normal())),
        p.interval_new_run,
    )
    if optimal and design.optimum:
        best = optimal_size(p.compute)
        yield f"N*, {distance}", p.n, best, p.interval_n
        yield f"D*, {distance}", p.d, p.compute / (6 * best), p.interval_d


def _exponents(study: Study) -> Iterator[Judged]:
    again = study.laws["data_constrained"]  # the truth where text is repeated
    joint = again if again.fit.theta is not None else study.laws["chinchilla"]
    params, draws = joint.fit.params, joint.published
    for name, truth in (("alpha", ALPHA), ("beta", BETA), ("E", E)):
        yield name, params[name], truth, uncertainty.interval(draws[name]) if name in draws else None
    yield "a, L(N,D)", joint.a_and_b[0], EXPONENT, uncertainty.interval(joint.a_draws) if len(joint.a_draws) else None
    if study.minima.trusted and study.minima.draws is not None:
        yield "a, budgets", study.minima.exponent, EXPONENT, uncertainty.interval(study.minima.draws[:, 0])


def measured(names: list[str], draws: int, bootstrap: int = 200) -> pd.DataFrame:
    """Median ratio to the truth and coverage of each thing, a row a table and thing."""
    rows = [
        {
            "table": name,
            "what": what,
            "ratio": estimate / truth,
            "shown": interval is not None,
            "covered": np.nan if interval is None else float(interval[0] <= truth <= interval[1]),
            "width": np.nan if interval is None else interval[1] / interval[0] - 1,
        }
        for name in names
        for seed in range(draws)
        for what, estimate, truth, interval in judged(DESIGNS[name], seed, bootstrap)
    ]
    grouped = pd.DataFrame(rows).groupby(["table", "what"], sort=False)
    found = grouped.agg(
        median=("ratio", "median"),
        low=("ratio", lambda r: r.quantile(0.05)),
        high=("ratio", lambda r: r.quantile(0.95)),
        width=("width", "median"),
        covered=("covered", "mean"),
        shown=("shown", "mean"),
    )
    return found.assign(draws=grouped.size())


def main() -> None:
    """Print the table and the targets."""
    warnings.simplefilter("ignore")
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    draws = SHORT if "--short" in sys.argv else DRAWS
    names = [name for name in DESIGNS if not words or any(word in name for word in words)]
    found = measured(names, draws)
    print(found.round(3).to_string())
    for (name, what), row in found.iterrows():
        word = "_".join(f"{name}_{what}".replace(",", "").replace("%", "pct").split())
        if row.shown:
            target(f"coverage95_at_least_{word}", row.covered, ">=", NOMINAL[0])
            target(f"coverage95_at_most_{word}", row.covered, "<=", NOMINAL[1])
        if what.startswith("N*"):
            target(f"n_star_bias_{word}", abs(row["median"] - 1), "<=", BIAS)


if __name__ == "__main__":
    main()
