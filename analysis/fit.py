"""Fit scaling laws to a sweep: ``python -m analysis.fit runs=ROOT``.

runs=ROOT            the store (default: ISOFLOP_ROOT or ~/.isoflop/runs)
sweep=NAME           which sweep of it (default: the one last driven)
out=DIR              where fit.json, runs.parquet and law.md go (default: ROOT/sweeps/NAME/fit)
N=nonembedding       or total;  C=exact or 6nd: the conventions of the laws
target_compute=[1e14]  FLOPs to predict (default: ten times the largest budget)
min_tokens=4e5       rule short-run (default: the recipe's)
bootstrap=1000 seed=0 delta=1e-3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpt3core import cli


@dataclass
class Settings:
    """What can be given as key=value."""

    runs: str | None = None
    sweep: str | None = None
    out: str | None = None
    N: str = "nonembedding"
    C: str = "exact"
    target_compute: list[float] = field(default_factory=list)
    min_tokens: float | None = None
    bootstrap: int = 1000
    seed: int = 0
    delta: float = 1e-3


def settings(argv: Sequence[str]) -> Settings:
    """Parse and check ``key=value`` words.

    Raises:
        UsageError: for unknown keys and impossible values.
    """
    from omegaconf import OmegaConf

    words, _ = cli.split(argv, ("--help",))
    given = OmegaConf.to_object(cli.merge(Settings(), words))
    assert isinstance(given, Settings)
    for name, allowed in (("N", ("nonembedding", "total")), ("C", ("exact", "6nd"))):
        if getattr(given, name) not in allowed:
            raise cli.UsageError(f"{name}={getattr(given, name)}: allowed are {', '.join(allowed)}")
    if given.bootstrap < 1 or not given.delta > 0:
        raise cli.UsageError(f"bootstrap={given.bootstrap}, delta={given.delta}: both must be positive")
    if any(not c > 0 for c in given.target_compute):
        raise cli.UsageError(f"target_compute={given.target_compute}: FLOPs, positive (like 1e14)")
    return given


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    given = settings(argv)

    from analysis import report

    study, folder = analyse(given)
    out = Path(given.out).expanduser().absolute() if given.out else folder / "fit"
    report.write(study, out)
    _print(study)
    print(f"written: {out}/fit.json, runs.parquet, law.md")
    print(f"next: python -m dashboards.report runs={study.runs.root} sweep={study.runs.sweep}")
    return 0


def analyse(given: Settings):  # type: ignore[no-untyped-def]
    """The study that the settings ask for, and the sweep's folder."""
    from analysis import runs as tables
    from analysis.study import Options, study
    from gpt3core.store.rundir import default_root

    root = Path(given.runs).expanduser().absolute() if given.runs else default_root()
    loaded = tables.load(root, given.sweep)
    options = Options(
        size=given.N,
        compute=given.C,
        delta=given.delta,
        bootstrap=given.bootstrap,
        seed=given.seed,
        min_tokens=given.min_tokens,
        target_compute=tuple(given.target_compute),
    )
    return study(loaded, options), root / "sweeps" / loaded.sweep


def _print(study) -> None:  # type: ignore[no-untyped-def]
    from rich.console import Console
    from rich.table import Table

    from analysis import report
    from analysis.runs import sweeps

    console = Console(width=None if Console().is_terminal else 150, highlight=False)
    others = [name for name in sweeps(study.runs.root) if name != study.runs.sweep]
    console.print(
        f"sweep {study.runs.sweep}: {len(study.table)} of {len(study.runs.table)} runs fitted, store {study.runs.root}"
        + (f"; other sweeps there: {', '.join(others)} (sweep=NAME)" if others else "")
    )
    for title, header, rows in report.tables(study):
        if rows:
            table = Table(title=title, title_justify="left")
            for name in header:
                table.add_column(name, overflow="fold")
            for row in rows:
                table.add_row(*row)
            console.print(table)
    for note in study.notes:
        console.print(f"{note.severity}: {note.message} [{note.code}]", markup=False)


if __name__ == "__main__":
    cli.run(main)
