"""What to run next: ``python -m analysis.design runs=PATH candidates=GRID.csv target_compute=1e24``.

runs=PATH            finished runs: a store or a table, as for analysis.fit (also columns.X=..., sweep=, N=, C=)
candidates=FILE      a row a run that could be made: columns N and D, and gpu_hours where cost is not FLOPs
running=FILE         runs in flight: their information counts, their outcome is not known yet
target=loss          the loss at target_compute; or n_star, the compute-optimal size there; or accuracy, which follows
                     the loss
target_compute=1e24  FLOPs (default: ten times the dearest run)
batch=4              how many to propose
stop=0.9             say that going on is not worth it when all candidates together would leave more of the interval
out=DIR              where design.json goes (default: not written)

The method. Near the fit the law is linear in its parameters, so what a run would teach about the target follows from a
Gaussian prior and the runs made, without its outcome. Two things keep the design from the textbook's error of buying
cheap corners: laws drift, so a run's misfit is correlated with its neighbours' and grows with its distance from the
target (a Brownian bridge pinned there, in ln N, ln D and ln D/N); and the score is information over cost plus what is
already spent, so that runs much cheaper than the bill so far count as nearly free. L(N,D) with free and with tied
exponents are averaged. Costs, drifts and the weight of the bill were chosen on the replays that
tests/benchmarks/design_replay.py prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import laws, predict, solve, stacking
from analysis.laws import Array, Law
from analysis.laws.base import Evaluated, PowerSum, log_variable
from gpt3core import cli

NOISE = 0.01  # of a run, in ln L
DISTANT = 0.005  # more noise for each factor e of compute between a run and the target
DISTANT_FIT = 0.01  # the same, as the fit weighs runs
DRIFT = {"N": 0.01, "D": 0.01, "M": 0.03}  # of the law, in ln L per square root of ln N, ln D and ln D/N
PRIOR_SHARES = (0.55, 0.2, 0.2)  # of the loss at the centre of the runs: E, A/N^alpha, B/D^beta ...
PRIOR_SPREADS = (0.5, 1.0, 1.0)  # ... and their standard deviations, in logarithms
EXPONENT, EXPONENT_SPREAD = 0.35, 0.3  # of alpha and beta
BILL = 3.0  # a candidate's cost counts from this times what is spent already
STOP = 0.9
FARTHER = 10.0  # times the dearest run: the target where none is given
LAWS: tuple[PowerSum, ...] = (laws.CHINCHILLA, laws.OVER_TRAINING)
TARGETS = ("loss", "n_star", "accuracy")


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One run to make."""

    index: int  # row of the candidates
    n: float
    d: float
    cost: float
    interval: float  # of the target after it and those before it, relative to now


@dataclass(frozen=True, kw_only=True)
class Design:
    """What to run next, best first."""

    proposals: list[Proposal]
    everything: float  # the target's interval after all candidates, relative to now
    worth: bool  # whether going on is worth its cost
    target: str
    compute: float


def propose(
    finished: pd.DataFrame,
    candidates: pd.DataFrame,
    *,
    compute: float,
    running: pd.DataFrame | None = None,
    batch: int = 1,
    target: str = "loss",
    stop: float = STOP,
    at: tuple[float, float] | None = None,
) -> Design:
    """The next runs, greedily, each knowing those before it.

    Args:
        finished: N, D, loss and cost of the runs made.
        candidates: N, D and cost of the runs that could be made, in the same unit (FLOPs, GPU-hours).
        running: N, D and cost of the runs in flight.
        compute: FLOPs of the target.
        target: of TARGETS.
        stop: going on is not worth it when all candidates together leave more than this of the interval.
        at: N and D of the target; by default the compute-optimal ones by the fit.

    Raises:
        ValueError: for an unknown target or fewer than two finished runs.
    """
    if target not in TARGETS:
        raise ValueError(f"target={target}: allowed are {', '.join(TARGETS)}")
    if len(finished) < 2:
        raise ValueError(f"{len(finished)} finished runs: two are needed before a next one can be proposed")
    columns = ["N", "D", "cost"]
    pending = finished[:0] if running is None else running
    everything = pd.concat([finished[columns], pending[columns], candidates[columns]], ignore_index=True)
    known = len(finished) + len(pending)
    covariances = []
    point = at
    for law in LAWS:
        theta, prior = _posterior_mode(law, finished, compute)
        point = at or _optimum(law, theta, finished, compute)
        covariances.append(_Covariance.of(law, theta, prior, everything, point, target))
    for covariance in covariances:
        covariance.condition(range(known))
    cost, spent = everything.cost.to_numpy(float), float(everything.cost[:known].sum())
    begin = _width(covariances)
    left = list(range(known, len(everything)))
    proposals = []
    for _ in range(min(batch, len(left))):
        gain = np.mean([c.gain() for c in covariances], axis=0)
        best = max(left, key=lambda i: gain[i] / (cost[i] + BILL * spent))
        left.remove(best)
        for covariance in covariances:
            covariance.condition([best])
        spent += cost[best]
        row = everything.iloc[best]
        proposals.append(
            Proposal(
                index=best - known,
                n=float(row.N),
                d=float(row.D),
                cost=float(row.cost),
                interval=_width(covariances) / begin,
            )
        )
    for covariance in covariances:
        covariance.condition(left)
    after = _width(covariances) / begin
    return Design(proposals=proposals, everything=after, worth=after < stop, target=target, compute=compute)


def _width(covariances: Sequence[_Covariance]) -> float:
    return float(np.sqrt(np.mean([c.target_variance for c in covariances])))


# ------------------------------------------------------------------------------------------------------ prior and fit


def _posterior_mode(law: PowerSum, runs: pd.DataFrame, compute: float) -> tuple[Array, Prior]:
    """The fit that the design is linearised at, and its prior."""
    prior = Prior.of(law, runs)
    return modes(law, prior, runs, compute, np.ones((1, len(runs))))[0], prior


def modes(law: PowerSum, prior: Prior, runs: pd.DataFrame, compute: float, seen: Array) -> Array:
    """Least squares of ln L under a prior, runs far from the target weighing less; one fit a row of ``seen``, (P, k).

    Args:
        seen: (P, n) weights, zero for runs that a fit does not see.
    """
    distance = np.log(compute / (6 * runs.N * runs.D).to_numpy(float))
    weights = seen / (NOISE**2 + (DISTANT_FIT * distance) ** 2)
    found = solve.minimise(
        prior.with_data(law.on(stacking.columns(runs))),
        np.concatenate([np.log(runs.loss.to_numpy(float)), prior.mean]),
        np.tile(prior.mode(), (len(seen), 1)),
        function=solve.LEAST_SQUARES,
        weights=np.hstack([weights, np.tile(prior.spread**-2, (len(seen), 1))]),
    )
    return found.theta


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Gaussian on the logarithms of a law's terms at the centre of the runs, and of its exponents."""

    terms: Array  # (3, k): ln of each term at the centre is terms @ theta
    exponents: tuple[int, ...]  # columns of theta
    mean: Array  # (3 + exponents,)
    spread: Array

    @staticmethod
    def of(law: PowerSum, runs: pd.DataFrame) -> Prior:
        """Weakly informed: the loss shared out at the centre of the runs, exponents about 0.35."""
        centre = {name: np.exp(np.log(runs[[name]].to_numpy(float)).mean(0)) for name in ("N", "D")}
        terms = np.zeros((len(law.terms), law.size))
        for j, factors in enumerate(law.terms):
            for column, name in factors:
                terms[j, column] = 1.0 if name is None else -float(log_variable(centre, name)[0])
        exponents = tuple(sorted({column for factors in law.terms for column, name in factors if name is not None}))
        scale = float(np.median(runs.loss))
        tied = len(exponents) == 1  # eta is half of alpha = beta
        return Prior(
            terms=terms,
            exponents=exponents,
            mean=np.concatenate(
                [
                    np.log(scale * np.array(PRIOR_SHARES)),
                    np.full(len(exponents), np.log(EXPONENT / 2 if tied else EXPONENT)),
                ]
            ),
            spread=np.concatenate([PRIOR_SPREADS, np.full(len(exponents), EXPONENT_SPREAD)]),
        )

    def mode(self) -> Array:
        """theta at the prior's mean."""
        theta = np.zeros(self.terms.shape[1])
        theta[list(self.exponents)] = np.exp(self.mean[len(self.terms) :])
        others = [c for c in range(len(theta)) if c not in self.exponents]
        right = self.mean[: len(self.terms)] - self.terms @ theta
        theta[others] = np.linalg.solve(self.terms[:, others], right)
        return theta

    def jacobian(self, theta: Array) -> Array:
        """d (terms, ln exponents) / d theta, (3 + exponents, k)."""
        rows = np.zeros((len(self.exponents), len(theta)))
        for i, column in enumerate(self.exponents):
            rows[i, column] = 1 / theta[column]
        return np.vstack([self.terms, rows])

    def with_data(self, evaluate: Evaluated) -> Evaluated:
        """The law with the prior's coordinates as further rows of data."""

        def both(theta: Array) -> tuple[Array, Array]:
            value, gradient = evaluate(theta)
            with np.errstate(all="ignore"):
                ln_exponents = np.log(theta[:, list(self.exponents)])
            rows = np.stack([self.jacobian(row) for row in theta])  # (P, rows, k)
            own = np.hstack([theta @ self.terms.T, ln_exponents])
            return np.hstack([value, own]), np.concatenate([gradient, rows.transpose(0, 2, 1)], axis=2)

        return both


def _optimum(law: Law, theta: Array, runs: pd.DataFrame, compute: float) -> tuple[float, float]:
    """N and D where the law is lowest along 6ND = compute."""
    sizes = np.geomspace(runs.N.min() / predict.REACH, runs.N.max() * predict.REACH, predict.GRID)
    values = law.on({"N": sizes, "D": compute / (6 * sizes)})(theta[None])[0][0]
    n = float(sizes[int(np.argmin(values))])
    return n, compute / (6 * n)


# --------------------------------------------------------------------------------------------------------- covariance


@dataclass(kw_only=True)
class _Covariance:
    """Of ln L at every run and of the target, under one law; the target is the last row."""

    matrix: Array
    noise: Array  # independent variance of a run
    seen: list[int] = field(default_factory=list)

    @staticmethod
    def of(
        law: PowerSum, theta: Array, prior: Prior, runs: pd.DataFrame, point: tuple[float, float], target: str
    ) -> _Covariance:
        n, d = runs.N.to_numpy(float), runs.D.to_numpy(float)
        data = {"N": np.append(n, point[0]), "D": np.append(d, point[1])}
        gradient = law.on(data)(theta[None])[1][0].T  # (runs + 1, k)
        if target == "n_star":
            gradient[-1] = _of_optimum(law, theta, runs, 6 * point[0] * point[1])
        whitened = gradient @ np.linalg.inv(prior.jacobian(theta)) * prior.spread
        matrix = whitened @ whitened.T
        for name, drift in DRIFT.items():
            at = {"N": data["N"], "D": data["D"], "M": data["D"] / data["N"]}[name]
            matrix += drift**2 * _pinned(np.log(at / at[-1]))
        distance = np.log(6 * point[0] * point[1] / (6 * n * d))
        return _Covariance(matrix=matrix, noise=NOISE**2 + (DISTANT * distance) ** 2)

    @property
    def target_variance(self) -> float:
        """Of the target, given what was conditioned on."""
        return float(max(self.matrix[-1, -1], 1e-300))

    def condition(self, rows: Sequence[int] | range) -> None:
        """Take runs as measured, whatever their outcome."""
        chosen = list(rows)
        if not chosen:
            return
        block = self.matrix[np.ix_(chosen, chosen)] + np.diag(self.noise[chosen])
        self.matrix = self.matrix - self.matrix[:, chosen] @ np.linalg.solve(block, self.matrix[chosen])

    def gain(self) -> Array:
        """What measuring each run would take off the logarithm of the target's variance, (runs,)."""
        with_target = self.matrix[:-1, -1] ** 2
        alone = np.diag(self.matrix)[:-1] + self.noise
        return np.asarray(-np.log1p(-np.minimum(with_target / (alone * self.target_variance), 1 - 1e-12)))


def _pinned(x: Array) -> Array:
    """Covariance of a two-sided Brownian motion that is zero at x = 0."""
    same = np.sign(x)[:, None] == np.sign(x)[None]
    return np.where(same, np.minimum(np.abs(x)[:, None], np.abs(x)[None]), 0.0)


def _of_optimum(law: Law, theta: Array, runs: pd.DataFrame, compute: float) -> Array:
    """d ln N* / d theta, by central differences of the minimum along the budget, (k,)."""
    found = np.empty(len(theta))
    centre = np.log(_optimum(law, theta, runs, compute)[0])
    x = centre + np.linspace(-1.5, 1.5, 61)
    data = {"N": np.exp(x), "D": compute / (6 * np.exp(x))}
    for j in range(len(theta)):
        step = np.zeros(len(theta))
        step[j] = 1e-3
        low, high = (np.polyfit(x - centre, law.on(data)((theta + sign * step)[None])[0][0], 4) for sign in (-1, 1))
        minima = []
        for quartic in (low, high):
            fine = np.linspace(-1.5, 1.5, 60001)
            minima.append(fine[int(np.argmin(np.polyval(quartic, fine)))])
        found[j] = (minima[1] - minima[0]) / 2e-3
    return found


# ------------------------------------------------------------------------------------------------------------ command


@dataclass
class Settings:
    """What can be given as key=value."""

    runs: str | None = None
    sweep: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    candidates: str | None = None
    running: str | None = None
    target: str = "loss"
    target_compute: float | None = None
    batch: int = 4
    stop: float = STOP
    N: str | None = None
    C: str | None = None
    out: str | None = None


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    from omegaconf import OmegaConf

    words, _ = cli.split(argv, ("--help",))
    given: Any = OmegaConf.to_object(cli.merge(Settings(), words))
    if given.candidates is None:
        raise cli.UsageError("candidates=FILE is needed: a table of runs that could be made, columns N and D")
    if given.batch < 1 or not 0 < given.stop < 1:
        raise cli.UsageError(f"batch={given.batch}, stop={given.stop}: batch is at least 1, stop lies between 0 and 1")
    finished = _finished(given)
    candidates = _candidates(Path(given.candidates), given.columns)
    running = _candidates(Path(given.running), given.columns) if given.running else None
    _same_unit([candidates, finished, *([running] if running is not None else [])])
    compute = given.target_compute or FARTHER * float(finished.C.max())
    found = propose(
        finished, candidates, compute=compute, running=running, batch=given.batch, target=given.target, stop=given.stop
    )
    _print(found, candidates.cost_unit.iloc[0])
    if given.out:
        from gpt3core.store import files

        out = files.make_folder(Path(given.out).expanduser().absolute())
        document = {**vars(found), "proposals": [vars(p) for p in found.proposals]}
        files.write_json(out / "design.json", document)
        print(f"written: {out / 'design.json'}")
    return 0


def _finished(given: Settings) -> pd.DataFrame:
    from analysis import conventions, rules
    from analysis import fit as fits

    settings = fits.Settings(runs=given.runs, sweep=given.sweep, columns=given.columns)
    loaded = fits.source(settings)
    n, c = conventions.available(loaded.table)[0]
    n, c = conventions.Parameters(given.N or n), conventions.Compute(given.C or c)
    points = conventions.points(loaded.table, n, c)
    kept, _ = rules.apply(points, min_tokens=loaded.min_tokens)
    return _with_cost(kept)


def _candidates(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    from analysis import tables

    raw = tables.read(path.expanduser().absolute(), columns)
    points = tables.points(path.expanduser().absolute(), columns)
    if points.N.isna().any():
        raise cli.UsageError(f"{path}: a candidate needs N and D")
    return _with_cost(points.assign(**({"gpu_hours": raw.gpu_hours} if "gpu_hours" in raw else {})))


def _with_cost(table: pd.DataFrame) -> pd.DataFrame:
    """Cost in GPU-hours where every run has them, else in FLOPs."""
    known = "gpu_hours" in table and bool((table.gpu_hours > 0).all())
    return table.assign(cost=table.gpu_hours if known else table.C, cost_unit="GPU-hours" if known else "FLOPs")


def _same_unit(parts: list[pd.DataFrame]) -> None:
    """Costs in GPU-hours only where all have them."""
    if len({part.cost_unit.iloc[0] for part in parts if len(part)}) > 1:
        for part in parts:
            part["cost"], part["cost_unit"] = part.C, "FLOPs"


def _print(found: Design, unit: str) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"What to run next, for the {found.target} at C={found.compute:.3g}"
    table = Table(title=title, title_justify="left")
    for name in ("candidate", "N", "D", f"cost, {unit}", "interval after it"):
        table.add_column(name)
    for p in found.proposals:
        table.add_row(str(p.index + 1), f"{p.n:.3g}", f"{p.d:.3g}", f"{p.cost:.3g}", f"{p.interval:.0%} of now")
    Console(width=None if Console().is_terminal else 110).print(table)
    every = f"all candidates together would narrow the interval to {found.everything:.0%} of what it is now"
    print(f"{every}: {'go on' if found.worth else 'further runs are not worth their cost'}")


if __name__ == "__main__":
    cli.run(main)
