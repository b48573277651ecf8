"""What to run next, replayed on the models of Gadre et al. 2024: error at the target against FLOPs spent.

``python -m tests.benchmarks.design_replay [--replays 200] [--drop 0.0] [--peer 0]``. A problem is a training set and a
validation loss; the target is the 6.9B model at 20 tokens a parameter, the pool every run of at most a tenth of the
largest compute. A replay draws 4 to 6 of the twelve cheapest runs to begin with, gives every policy the same pool, and
one random order. After each run the law is fitted anew (the same fit for every policy) and its error at the target
noted. Pooled error: the mean over the six problems at equal shares of the pool's FLOPs. A policy has reached a level
when its pooled error stays below it to the end; the level is random order's error with the whole pool plus 0.5% or 1%.

Printed: FLOPs of each policy over those of random order, median over the replays with its 95% interval (bootstrap of
replays), and the median pooled error by share of FLOPs. --drop leaves that share of every replay's pool out; --peer N
runs N replays of simple-scaling-laws' suggest_runs too (minutes each).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import laws
from analysis.estimation import design, information
from tests.benchmarks.target import target

DATA = Path(__file__).parent / "data" / "gadre2024_models.csv"
LOSSES = ("loss_c4_val", "loss_openlm")
SHARES = np.geomspace(0.002, 1.0, 160)
LEVELS = (0.005, 0.01, 0.02)
PRINTED = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
OURS, RANDOM, PEERS = "isoflop", "random order", ("suggest_runs, per cost", "suggest_runs, in total")

Curves = dict[str, np.ndarray]

Policy = Callable[[pd.DataFrame, pd.DataFrame, np.random.Generator], int]
"""(finished, left) -> index label of the run to make next."""


class Problem:
    """Runs of one training set, judged by one loss."""

    def __init__(self, rows: pd.DataFrame, loss: str) -> None:
        table = rows[["N", "D"]].astype(float).assign(loss=rows[loss], M=rows.tok_mult, C=rows.flops.astype(float))
        table = table.dropna().sort_values("C", ignore_index=True).assign(cost=lambda t: t.C)
        self.target = table[(table.C > table.C.max() / 2) & (table.M == 20)].iloc[0]
        self.pool = table[table.C <= table.C.max() / 10].reset_index(drop=True)
        self.at = (float(self.target.N), float(self.target.D))
        self.compute = 6 * self.at[0] * self.at[1]
        self.prior = information.Prior.of(laws.CHINCHILLA, self.pool)

    def errors(self, order: list[int], begin: int) -> tuple[np.ndarray, np.ndarray]:
        """FLOPs spent and absolute error of ln L at the target after each run of an order."""
        seen = np.zeros((len(order) - begin + 1, len(self.pool)))
        for row in range(len(seen)):
            seen[row, order[: begin + row]] = 1.0
        theta = information.modes(laws.CHINCHILLA, self.prior, self.pool, self.compute, seen)
        predicted = laws.CHINCHILLA.on({"N": np.array([self.at[0]]), "D": np.array([self.at[1]])})(theta)[0][:, 0]
        return seen @ self.pool.C.to_numpy(), np.abs(predicted - np.log(self.target.loss))

    def order(self, start: list[int], pool: list[int], policy: Policy, rng: np.random.Generator) -> list[int]:
        """All runs of the pool in the order that a policy takes them."""
        taken = list(start)
        while len(taken) < len(start) + len(pool):
            left = self.pool.loc[[i for i in pool if i not in taken]]
            taken.append(policy(self.pool.loc[taken], left, rng))
        return taken


def ours(problem: Problem) -> Policy:
    """analysis.design, one run at a time."""

    def policy(finished: pd.DataFrame, left: pd.DataFrame, rng: np.random.Generator) -> int:
        found = design.propose(finished, left, compute=problem.compute, at=problem.at)
        return int(left.index[found.proposals[0].index])

    return policy


def by(*columns: str) -> Policy:
    """A fixed order."""
    return lambda finished, left, rng: int(left.sort_values(list(columns)).index[0])


def at_random(finished: pd.DataFrame, left: pd.DataFrame, rng: np.random.Generator) -> int:
    """Any."""
    return int(rng.choice(left.index))


def peer(problem: Problem, per_cost: bool) -> Policy:
    """simple-scaling-laws' suggest_runs among the pool's runs; where it cannot say, the cheapest run stands in."""
    import polars as pl
    import simple_scaling_laws
    from simple_scaling_laws import design as their_design
    from simple_scaling_laws.cost import cost_model

    def policy(finished: pd.DataFrame, left: pd.DataFrame, rng: np.random.Generator) -> int:
        runs = {"training_run_id": [f"r{i}" for i in finished.index], "test_set_id": ["t"] * len(finished)}
        columns = {
            "model_size__n_params": finished.N,
            "dataset_size__n_tokens": finished.D,
            "test_loss__ce": finished.loss,
        }
        candidates = np.column_stack([6 * left.N * left.D, left.N, left.D])
        try:
            frame = pl.DataFrame({**runs, **{name: values.to_numpy(float) for name, values in columns.items()}})
            model = simple_scaling_laws.fit(frame, n_draws=100, seed=0)
            their_design._candidates = lambda *_, **__: candidates
            cost = cost_model("power", k=6.0, a=1.0, b=1.0)
            found = simple_scaling_laws.suggest_runs(model, [problem.compute], cost, n=1, per_cost=per_cost)
            n, d = (float(found[name][0]) for name in ("model_size__n_params", "dataset_size__n_tokens"))
            return int(left.index[int(np.argmin(np.abs(np.log(left.N / n)) + np.abs(np.log(left.D / d))))])
        except ValueError:
            return int(left.C.idxmin())

    return policy


def replays(problem: Problem, count: int, drop: float) -> list[tuple[list[int], list[int]]]:
    """(runs to begin with, pool) of each replay."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        while True:
            start = rng.choice(12, rng.integers(4, 7), replace=False)
            if problem.pool.N[start].nunique() > 1 and problem.pool.M[start].nunique() > 1:
                break
        rest = np.setdiff1d(np.arange(len(problem.pool)), start)
        found.append(([*map(int, start)], [*map(int, rng.choice(rest, round(len(rest) * (1 - drop)), replace=False))]))
    return found


def on_shares(spent: np.ndarray, error: np.ndarray) -> np.ndarray:
    """The error at each share of what the whole pool costs; before the first run is paid for, the first error."""
    at = np.searchsorted(spent / spent[-1], SHARES * (1 + 1e-9), side="right") - 1
    return error[np.maximum(at, 0)]


def reached(curves: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The share from which on each curve (replays, shares) stays at or below its level."""
    above = curves > level[:, None]
    last = np.where(above.any(1), above.shape[1] - 1 - above[:, ::-1].argmax(1), -1)
    return SHARES[np.minimum(last + 1, len(SHARES) - 1)]


def replayed(policies: dict[str, tuple[Callable[[Problem], Policy], int]], count: int, drop: float) -> Curves:
    """The error at each share, (replays, shares) pooled over problems, by policy."""
    models = pd.read_csv(DATA)
    problems = [Problem(rows, loss) for _, rows in models.groupby("dataset_name") for loss in LOSSES]
    print(f"{len(problems)} problems, {count} replays, {drop:.0%} of the pool dropped: FLOPs over {RANDOM}'s")
    found = {}
    for name, (policy, most) in policies.items():
        parts = []
        for problem in problems:
            rng = np.random.default_rng(1)
            rows = []
            for start, pool in replays(problem, count, drop)[:most]:
                order = problem.order(start, pool, policy(problem), rng)
                rows.append(on_shares(*problem.errors(order, len(start))))
            parts.append(rows)
        found[name] = np.mean(parts, axis=0)
    return found


def flops_ratios(curves: Curves, name: str, other: str, margin: float) -> np.ndarray:
    """FLOPs of one policy over those of another to come within a margin of what the whole pool gives, (replays,)."""
    most = min(len(curves[name]), len(curves[other]))
    level = curves[RANDOM][:most, -1] + margin
    return reached(curves[name][:most], level) / reached(curves[other][:most], level)


def main() -> None:
    """Run the replays and print."""
    warnings.simplefilter("ignore")
    settings = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    count, drop = int(settings.get("--replays", 200)), float(settings.get("--drop", 0))
    peers = int(settings.get("--peer", 0)) if importlib.util.find_spec("simple_scaling_laws") else 0
    policies: dict[str, tuple[Callable[[Problem], Policy], int]] = {
        RANDOM: (lambda p: at_random, count),
        OURS: (ours, count),
        "cheapest first": (lambda p: by("C"), count),
        "grid, by size": (lambda p: by("N", "D"), count),
        "grid, by tokens per parameter": (lambda p: by("M", "N"), count),
    }
    if peers:
        policies[PEERS[0]] = (lambda p: peer(p, True), peers)
        policies[PEERS[1]] = (lambda p: peer(p, False), peers)
    curves = replayed(policies, count, drop)
    rng = np.random.default_rng(0)
    for name, own in curves.items():
        cells = []
        for margin in LEVELS:
            ratio = flops_ratios(curves, name, RANDOM, margin)
            low, high = np.quantile(
                np.median(ratio[rng.integers(0, len(ratio), (400, len(ratio)))], axis=1), [0.025, 0.975]
            )
            cells.append(f"+{margin:.1%}: {np.median(ratio):.2f} ({low:.2f} to {high:.2f})")
        print(f"  {name:30s} n {len(own):3d}  " + "   ".join(cells))
    print("median pooled error, %, at a share of the pool's FLOPs of " + " ".join(f"{s:.0%}" for s in PRINTED))
    for name, own in curves.items():
        at = [np.median(own[:, np.searchsorted(SHARES, s * (1 - 1e-9))]) for s in PRINTED]
        print(f"  {name:30s} " + " ".join(f"{100 * v:5.1f}" for v in at))
    for margin in LEVELS[:2]:
        word = f"{100 * margin:g}".replace(".", "p")
        value = float(np.median(flops_ratios(curves, OURS, RANDOM, margin)))
        target(f"design_flops_over_random_within_{word}_percent", value, "<=", 0.5)
        best = [float(np.median(flops_ratios(curves, OURS, name, margin))) for name in PEERS if name in curves]
        target(f"design_flops_over_suggest_runs_within_{word}_percent", max(best) if best else None, "<=", 1.0)


if __name__ == "__main__":
    main()
