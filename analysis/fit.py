"""Fit scaling laws: ``python -m analysis.fit runs=PATH``.

runs=PATH            a store (default: ISOFLOP_ROOT or ~/.isoflop/runs), or a CSV, Parquet or JSON-lines file with a run
                     a row: columns N, D and loss; C where it is known; unique_tokens, loss_se, seed, status as given
columns.N=params     a file's own names and units: columns.D=tokens_billion*1e9, columns.loss=val_loss, columns.C=...
sweep=NAME           which sweep of a store (default: the one last driven)
out=DIR              where the files go (default: ROOT/sweeps/NAME/fit, or ./NAME-fit for a file)
law=all              or one law, which then predicts alone: chinchilla, kaplan_nd, compute_frontier, ...
loss_function=huber  or least_squares, soft_l1, cauchy;  delta=1e-3: of ln L, where they turn
N=nonembedding       or total;  C=exact, 6nd or kaplan: the conventions of the laws
target_compute=[1e24]  FLOPs to predict (default: ten times the dearest run);  target=gpt3-175b: a published model's
predict=POINTS.csv   one prediction a row, in the file's order: columns N and D, or C (same columns.X=...)
exclude=[NAME]       runs to leave out;  min_tokens=4e5: rule short-run (default: the recipe's)
bootstrap=1000 seed=0 figures=true

Writes fit.json, runs.parquet, bootstrap.parquet, law.md and figures/ (HTML; SVG where kaleido and a browser are).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpt3core import cli
from gpt3core.errors import UsageError

COUNTS = ("nonembedding", "total", "given")
COMPUTES = ("exact", "6nd", "kaplan")


@dataclass
class Settings:
    """What can be given as key=value."""

    runs: str | None = None
    sweep: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    out: str | None = None
    law: str = "all"
    loss_function: str = "huber"
    delta: float = 1e-3
    N: str | None = None
    C: str | None = None
    target_compute: list[float] = field(default_factory=list)
    target: str | None = None
    predict: str | None = None
    exclude: list[str] = field(default_factory=list)
    min_tokens: float | None = None
    bootstrap: int = 1000
    seed: int = 0
    figures: bool = True


def settings(argv: Sequence[str]) -> Settings:
    """Parse and check ``key=value`` words.

    Raises:
        UsageError: for unknown keys and impossible values.
    """
    given = cli.settings(Settings(), argv)
    for name, allowed in (("N", COUNTS), ("C", COMPUTES)):
        value = getattr(given, name)
        if value is not None and value not in allowed:
            raise UsageError(f"{name}={value}: allowed are {', '.join(allowed)}")
    if given.bootstrap < 1 or not given.delta > 0:
        raise UsageError(f"bootstrap={given.bootstrap}, delta={given.delta}: both must be positive")
    if any(not c > 0 for c in given.target_compute):
        raise UsageError(f"target_compute={given.target_compute}: FLOPs, positive (like 1e14)")
    return given


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    given = settings(argv)

    from analysis import report

    study, folder = analyse(given)
    out = Path(given.out).expanduser().absolute() if given.out else folder
    report.write(study, out)
    _print(study)
    print(f"written: {out}/fit.json, runs.parquet, bootstrap.parquet, law.md")
    if given.figures:
        # the one place where the arrow turns: what draws lies above what fits, and the command is above both
        from dashboards import report as pages

        pages.write(study, out / "figures")
        pages.write_svg(study, out / "figures")
        print(f"figures: {out / 'figures' / 'index.html'}")
    return 0


def analyse(given: Settings):  # type: ignore[no-untyped-def]
    """The study that the settings ask for, and the folder for its files.

    Raises:
        UsageError, StoreError: in one sentence, before anything is written.
    """
    from analysis import laws, solve, tables
    from analysis.conventions import Compute, Parameters
    from analysis.study import Options, study

    if given.law not in ("all", *laws.LAWS):
        raise UsageError(
            f"law={given.law}{cli.nearest(given.law, tuple(laws.LAWS))}: allowed are all, {', '.join(laws.LAWS)}"
        )
    loaded = source(given)
    folder = loaded.source / "sweeps" / loaded.name / "fit" if loaded.store else Path.cwd() / f"{loaded.name}-fit"
    points = tables.points(Path(given.predict).expanduser().absolute(), given.columns) if given.predict else None
    targets = tuple(given.target_compute) + ((_published(given.target),) if given.target else ())
    options = Options(
        size=Parameters(given.N) if given.N else None,
        compute=Compute(given.C) if given.C else None,
        law=given.law,
        loss=solve.Loss(name=given.loss_function, delta=given.delta),
        bootstrap=given.bootstrap,
        seed=given.seed,
        min_tokens=given.min_tokens,
        exclude=tuple(given.exclude),
        target_compute=targets,
    )
    return study(loaded, options, points), folder


def source(given: Settings):  # type: ignore[no-untyped-def]
    """The runs that the settings name: a store's sweep, or a table."""
    from analysis import runs
    from gpt3core.store.rundir import default_root

    path = Path(given.runs).expanduser().absolute() if given.runs else default_root()
    if path.suffix and not path.is_dir():
        return runs.read_table(path, given.columns, given.exclude)
    return runs.load(path, given.sweep)


def _published(name: str) -> float:
    """Training FLOPs of a published model (Brown et al. 2020, table D.1)."""
    from analysis.forecast import gpt3_models

    models = gpt3_models().set_index("size").train_flops
    if name not in models.index:
        raise UsageError(f"target={name}{cli.nearest(name, tuple(models.index))}: known are {', '.join(models.index)}")
    return float(models[name])


def _print(study) -> None:  # type: ignore[no-untyped-def]
    from rich.console import Console
    from rich.table import Table

    from analysis import text
    from gpt3core.store import sweepdir

    console = Console(width=None if Console().is_terminal else 150, highlight=False)
    runs = study.runs
    others = [name for name in sweepdir.names(runs.source) if name != runs.name] if runs.store else []
    console.print(
        f"{'sweep ' if runs.store else ''}{runs.name}: {len(study.table)} of {len(study.everything)} runs fitted, "
        f"from {runs.source}" + (f"; other sweeps there: {', '.join(others)} (sweep=NAME)" if others else "")
    )
    for title, header, rows in text.tables(study):
        if rows:
            table = Table(title=title, title_justify="left")
            for name in header:
                table.add_column(name, overflow="fold")
            for row in rows:
                table.add_row(*map(str, row))
            console.print(table)
    for note in study.notes:
        console.print(f"{note.severity}: {note.message} [{note.code}]", markup=False)


if __name__ == "__main__":
    cli.run(main)
