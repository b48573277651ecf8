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

The method. What a run would teach about the target follows from the runs made, without its outcome
(analysis.information). Two things keep the design from the textbook's error of buying cheap corners: laws drift, so
runs near the target tell more; and the score is information over cost plus what is already spent, so that runs much
cheaper than the bill so far count as nearly free. L(N,D) with free and with tied exponents are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import laws
from analysis.information import Covariance, optimum, posterior_mode
from analysis.laws import PowerSum
from gpt3core import cli
from gpt3core.errors import UsageError

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
        theta, prior = posterior_mode(law, finished, compute)
        point = at or optimum(law, theta, finished, compute)
        covariances.append(Covariance.of(law, theta, prior, everything, point, target))
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


def _width(covariances: Sequence[Covariance]) -> float:
    return float(np.sqrt(np.mean([c.target_variance for c in covariances])))


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
    given = cli.settings(Settings(), argv)
    if given.candidates is None:
        raise UsageError("candidates=FILE is needed: a table of runs that could be made, columns N and D")
    if given.batch < 1 or not 0 < given.stop < 1:
        raise UsageError(f"batch={given.batch}, stop={given.stop}: batch is at least 1, stop lies between 0 and 1")
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
    asked = conventions.Parameters(given.N) if given.N else None, conventions.Compute(given.C) if given.C else None
    n, c = conventions.chosen(loaded.table, *asked)
    points = conventions.points(loaded.table, n, c)
    kept, _ = rules.apply(points, min_tokens=loaded.min_tokens)
    return _with_cost(kept)


def _candidates(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    from analysis import tables

    path = path.expanduser().absolute()
    raw = tables.read_points(path, columns)
    points = tables.check_points(raw, path)
    if points.N.isna().any():
        raise UsageError(f"{path}: a candidate needs N and D")
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
