"""From settings to the runs that a law is fitted to: what is read, under which convention, and what the rules leave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.runs import conventions, foreign, rules, store, units
from analysis.runs.conventions import Compute, Convention, Parameters
from analysis.runs.rules import Rule
from analysis.runs.tidy import Runs
from analysis.settings import RunSettings
from gpt3core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Runs, and those of them that pass the rules."""

    runs: Runs
    convention: Convention
    everything: pd.DataFrame  # all runs as points: run_id, size, N, D, C, U, loss, ...
    table: pd.DataFrame  # those that passed the rules
    rules: list[Rule]
    rules_off: tuple[str, ...] = ()  # of settings.RULES


def select(settings: RunSettings, table: pd.DataFrame | None = None) -> Selection:
    """Read the runs that the settings name and apply the rules.

    Args:
        table: runs in memory, instead of ``settings.runs``.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    settings.check()
    return chosen(_read(settings, table), settings)


def chosen(runs: Runs, settings: RunSettings) -> Selection:
    """The same for runs that were read before."""
    asked = Parameters(settings.N) if settings.N else None, Compute(settings.C) if settings.C else None
    convention = conventions.chosen(runs.table, *asked)
    everything = conventions.points(runs.table, convention)
    floor = runs.min_tokens if settings.min_tokens is None else settings.min_tokens
    off = settings.rules_off
    table, applied = rules.apply(
        everything, min_tokens=floor, exclude=settings.exclude, precision=settings.precision, off=off
    )
    return Selection(runs=runs, convention=convention, everything=everything, table=table, rules=applied, rules_off=off)


def _read(settings: RunSettings, table: pd.DataFrame | None) -> Runs:
    """A table in memory, a table's file, or a store's sweep."""
    if table is not None:
        path = Path("table")
        if settings.sweep is not None:
            raise UsageError(f"sweep={settings.sweep}: a table has no sweeps: leave it out")
        return _foreign(foreign.named(table, settings.columns, path), path, settings)
    path = Path(settings.runs).expanduser().absolute() if settings.runs else store.default_root()
    if path.suffix and not path.is_dir():
        if settings.sweep is not None:
            raise UsageError(f"sweep={settings.sweep}: {path} is a table, which has no sweeps: leave it out")
        return _foreign(foreign.read(path, settings.columns), path, settings)
    return store.load(path, settings.sweep)


def _foreign(table: pd.DataFrame, path: Path, settings: RunSettings) -> Runs:
    """Anybody's table as runs, its units questioned."""
    notes = units.question(table, settings.columns, path, uses_c=settings.C in (None, Compute.EXACT))
    return foreign.runs_of(table, path, settings.exclude, notes)
