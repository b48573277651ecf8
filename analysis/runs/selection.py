"""From settings to the runs that a law is fitted to: what is read, under which convention, and what the rules leave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.runs import conventions, domains, foreign, reading, rules, scores, store, units
from analysis.runs.conventions import COUNTED, Compute, Convention, Parameters
from analysis.runs.rules import Rule
from analysis.runs.scores import Asked
from analysis.runs.tidy import Runs
from analysis.settings import RunSettings
from gpt3core.errors import UsageError
from gpt3core.store.places import is_table

PRUNED = "stopped by the sweep before its end, for no loss of it could change the law (prune.by_value); it has none"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Runs, and those of them that pass the rules."""

    runs: Runs
    convention: Convention
    everything: pd.DataFrame  # all runs as points: run_id, size, N, D, C, U, loss, ...
    table: pd.DataFrame  # those that passed the rules
    rules: list[Rule]
    rules_off: tuple[str, ...] = ()  # of settings.RULES


def select(settings: RunSettings, table: pd.DataFrame | None = None, asked: Asked | None = None) -> Selection:
    """Read the runs that the settings name and apply the rules.

    Args:
        table: runs in memory, instead of ``settings.runs``.
        asked: which columns of a table are accuracies.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    settings.check()
    return chosen(read(settings, table, asked), settings)


def chosen(runs: Runs, settings: RunSettings) -> Selection:
    """The same for runs that were read before."""
    asked = Parameters(settings.N) if settings.N else None, Compute(settings.C) if settings.C else None
    named = () if runs.store else settings.columns  # a store's runs name their own: these are of points
    convention = conventions.chosen(runs.table, *asked, named=named)
    everything = conventions.points(runs.table, convention)
    floor = runs.min_tokens if settings.min_tokens is None else settings.min_tokens
    off = settings.rules_off
    table, applied = rules.apply(
        everything,
        min_tokens=floor,
        exclude=settings.exclude,
        window=(settings.min_compute, settings.max_compute),
        precision=settings.precision,
        off=off,
    )
    if runs.pruned:
        applied = [Rule(name="pruned", meaning=PRUNED, excluded=sorted(runs.pruned)), *applied]
    return Selection(runs=runs, convention=convention, everything=everything, table=table, rules=applied, rules_off=off)


def read(
    settings: RunSettings,
    table: pd.DataFrame | None = None,
    asked: Asked | None = None,
    called: Path = Path("table"),
) -> Runs:
    """A table in memory (``called`` so in errors), a table's file, or a store's sweep."""
    asked = asked or Asked()
    if settings.domain is not None and not _is_store(settings, table):
        raise UsageError(
            f"domain={settings.domain}: a table's domain is a column of it: columns.loss=loss.{settings.domain}"
        )
    if table is not None:
        path = called
        if settings.sweep is not None:
            raise UsageError(f"sweep={settings.sweep}: a table has no sweeps: leave it out")
        return _foreign(table, path, settings, asked)
    path = _place(settings)
    if not _is_store(settings, table):
        if settings.sweep is not None:
            raise UsageError(f"sweep={settings.sweep}: {path} is a table, which has no sweeps: leave it out")
        return _foreign(reading.load(path), path, settings, asked)
    if asked.scores:
        raise UsageError(f"scores=[{asked.scores[0]}]: a store's runs have their own evaluations: leave it out")
    found = store.load(path, settings.sweep)
    return found if settings.domain is None else domains.of(found, settings.domain)


def _place(settings: RunSettings) -> Path:
    return store.place(settings.runs) if settings.runs else store.default_root()


def _is_store(settings: RunSettings, table: pd.DataFrame | None) -> bool:
    return table is None and not is_table(_place(settings))


def _foreign(raw: pd.DataFrame, path: Path, settings: RunSettings, asked: Asked) -> Runs:
    """Anybody's table as runs, its units questioned; a column named for N counts what N= says that it does."""
    table = foreign.named(raw, settings.columns, path)
    count = COUNTED[Parameters(settings.N)] if settings.N else "N"
    if "N" in settings.columns and count not in settings.columns:
        table[count] = table.N
    raw = foreign.headed(raw, path)
    unread = scores.unread(raw, asked, [foreign.source_of(table, str(name)) for name in table])
    if not asked.scores and "loss" not in table and unread:
        raise UsageError(
            f"{path} has no column for loss: give it as columns.loss=NAME; or, for trends of accuracy against compute "
            f"alone, name the scores: scores=[{','.join(unread[:5])}]"
        )
    notes = units.question(table, settings.columns, path, uses_c=settings.C in (None, Compute.EXACT))
    notes += scores.remarks(raw, asked, unread)
    evaluations = (lambda names: scores.read(raw, names, asked, path)) if asked.scores else None
    return foreign.runs_of(table, path, settings.exclude, notes, evaluations)
