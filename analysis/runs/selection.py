"""From settings to the runs that a law is fitted to: what is read, under which convention, and what the rules leave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.runs import conventions, foreign, rules, store
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


def select(settings: RunSettings, table: pd.DataFrame | None = None) -> Selection:
    """Read the runs that the settings name and apply the rules.

    Args:
        table: runs in memory, instead of ``settings.runs``.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    settings.check()
    return chosen(read(settings, table), settings)


def chosen(runs: Runs, settings: RunSettings) -> Selection:
    """The same for runs that were read before."""
    asked = Parameters(settings.N) if settings.N else None, Compute(settings.C) if settings.C else None
    convention = conventions.chosen(runs.table, *asked)
    everything = conventions.points(runs.table, convention)
    floor = runs.min_tokens if settings.min_tokens is None else settings.min_tokens
    table, applied = rules.apply(everything, min_tokens=floor, exclude=settings.exclude, precision=settings.precision)
    return Selection(runs=runs, convention=convention, everything=everything, table=table, rules=applied)


def read(settings: RunSettings, table: pd.DataFrame | None = None, called: Path = Path("table")) -> Runs:
    """A table in memory (``called`` so in errors), a table's file, or a store's sweep."""
    if table is not None:
        path = called
        if settings.sweep is not None:
            raise UsageError(f"sweep={settings.sweep}: a table has no sweeps: leave it out")
        return foreign.runs_of(foreign.named(table, settings.columns, path), path, settings.exclude)
    path = Path(settings.runs).expanduser().absolute() if settings.runs else store.default_root()
    if path.suffix and not path.is_dir():
        if settings.sweep is not None:
            raise UsageError(f"sweep={settings.sweep}: {path} is a table, which has no sweeps: leave it out")
        return foreign.read_table(path, settings.columns, settings.exclude)
    return store.load(path, settings.sweep)
