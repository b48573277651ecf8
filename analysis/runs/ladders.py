"""From settings to the ladders that are compared: two sweeps, two stores, two tables, or two arms of one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.runs import conventions, domains, foreign, reading, selection, store
from analysis.runs.selection import Selection
from analysis.runs.tidy import Runs
from analysis.settings import CompareSettings, RunSettings
from gpt3core.errors import UsageError
from gpt3core.hints import nearest
from gpt3core.store.places import is_table

WAYS = "runs=[A.csv,B.csv], runs=ROOT sweep=[A,B], runs=[ROOT_A,ROOT_B], or runs=TABLE by=COLUMN arms=[A,B]"


@dataclass(frozen=True, kw_only=True)
class Ladders:
    """Two ladders, on one held-out text."""

    names: tuple[str, str]
    domain: str
    a: Selection
    b: Selection

    @property
    def texts(self) -> tuple[str, str]:
        """What the losses of each were measured on; empty where that is not known, as of a table."""
        return _text(self.a, self.domain), _text(self.b, self.domain)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where one ladder is read from."""

    path: str
    sweep: str | None = None
    arm: str | None = None
    table: pd.DataFrame | None = None

    @property
    def is_table(self) -> bool:
        return self.table is not None or is_table(Path(self.path).expanduser())

    @property
    def raw(self) -> pd.DataFrame:
        return reading.load(Path(self.path).expanduser().absolute()) if self.table is None else self.table


def ladders(settings: CompareSettings, tables: Mapping[str, pd.DataFrame] | None = None) -> list[Ladders]:
    """The two ladders, once for each held-out domain that both have a loss on.

    Args:
        tables: in memory, by name, instead of ``settings.runs``: two of them, or one with ``by``.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    settings.check()
    sources = _sources(settings, tables or {})
    if settings.columns and not all(source.is_table for source in sources):
        raise UsageError(
            f"columns.{next(iter(settings.columns))}: a store's runs name their columns themselves: leave it out"
        )
    names = _names(sources)
    stores = not any(source.is_table for source in sources)
    whole = [_read(source, settings, None) for source in sources] if stores else []
    found = []
    for domain, column in _domains(settings, sources, whole).items():
        if whole:
            runs = [domains.of(ladder, domain) if domain else ladder for ladder in whole]
        else:
            runs = [_read(source, settings, column) for source in sources]
        a, b = _selected(runs, settings)
        found.append(Ladders(names=names, domain=domain, a=a, b=b))
    return found


def _text(ladder: Selection, domain: str) -> str:
    """The held-out text of a store's runs that passed the rules, and the shares of its sources in a loss of all."""
    runs = ladder.runs.table
    if not ladder.runs.store:
        return ""
    kept = runs[runs.run_id.isin(ladder.table.run_id)].fillna({"mixture": ""})
    each = kept.held_out if domain else kept.held_out + np.where(kept.mixture == "", "", " mixed " + kept.mixture)
    return " and ".join(sorted(set(each)))


def _sources(settings: CompareSettings, tables: Mapping[str, pd.DataFrame]) -> tuple[_Source, _Source]:
    paths, sweeps = _split(settings.runs), list(settings.sweep)
    if len(sweeps) == 1:
        sweeps = [name.strip() for name in sweeps[0].split(",")]
    places = [_Source(path=n, table=t) for n, t in tables.items()] or [_Source(path=p) for p in paths]
    if not places:
        places = [_Source(path=str(store.default_root()))]
    if len(places) > 2 or len(sweeps) > 2:
        raise UsageError(f"{max(len(places), len(sweeps))} ladders are named, two are compared: {WAYS}")
    if settings.by is not None:
        return _arms(settings, places)
    if any(place.is_table for place in places) and sweeps:
        raise UsageError(f"sweep=[{', '.join(sweeps)}]: a table has no sweeps: leave it out, or name two stores")
    if len(places) == 2 and len(sweeps) in (0, 2):
        named: list[str | None] = [*sweeps] or [None, None]
        first, second = (replace(place, sweep=sweep) for place, sweep in zip(places, named, strict=True))
    elif len(places) == 1 and len(sweeps) == 2:
        first, second = (replace(places[0], sweep=sweep) for sweep in sweeps)
    else:
        raise UsageError(f"{places[0].path} and {len(sweeps)} sweeps do not say which two ladders are meant: {WAYS}")
    if (first.path, first.sweep) == (second.path, second.sweep):
        raise UsageError(f"{first.path} is named twice: a ladder is not compared with itself ({WAYS})")
    return first, second


def _split(runs: list[str]) -> list[str]:
    """``runs=A,B`` is two of them, where no path has that name."""
    if len(runs) == 1 and "," in runs[0] and not Path(runs[0]).expanduser().exists():
        return [part.strip() for part in runs[0].split(",")]
    return runs


def _arms(settings: CompareSettings, places: list[_Source]) -> tuple[_Source, _Source]:
    """Two arms of one table."""
    by, (place, *more) = str(settings.by), places
    if more or not place.is_table or settings.sweep:
        raise UsageError(f"by={by}: it splits one table into two ladders, so name one table and no sweep ({WAYS})")
    raw = place.raw
    if by not in raw:
        known = tuple(map(str, raw.columns))
        raise UsageError(f"by={by}{nearest(by, known)}: {place.path} has the columns {foreign.listed(known)}")
    there = tuple(map(str, raw[by].dropna().astype(str).unique()))
    arms = settings.arms or list(there)
    if len(arms) != 2 or arms[0] == arms[1]:
        listed = ", ".join(there[:20])
        raise UsageError(f"by={by}: give the two to compare, the baseline first, as arms=[A,B] of {listed}")
    for arm in arms:
        if arm not in there:
            raise UsageError(f"arms: no row has {by}={arm}{nearest(arm, there)}; there are {', '.join(there[:20])}")
    first, second = (
        replace(place, arm=arm, table=raw[raw[by].astype(str) == arm].reset_index(drop=True)) for arm in arms
    )
    return first, second


def _names(sources: tuple[_Source, _Source]) -> tuple[str, str]:
    """How the two are called: by arm, sweep, or file; by the whole path where these are the same."""
    short = [s.arm or s.sweep or Path(s.path).name.split(".")[0] or s.path for s in sources]
    if short[0] == short[1]:
        short = [s.path for s in sources]
    return short[0], short[1]


def _domains(
    settings: CompareSettings, sources: tuple[_Source, _Source], whole: Sequence[Runs]
) -> dict[str, str | None]:
    """Held-out domains and their columns; the loss itself (no name, no column) first, where both have it.

    Args:
        whole: the runs of both, where both are of stores, whose domains are the sources of their text.
    """
    if not all(source.is_table for source in sources):
        if settings.domains:
            raise UsageError(
                f"domains.{next(iter(settings.domains))}: a store's runs name their domains themselves: leave it out"
            )
        shared = [set(domains.names(ladder.table.columns)) for ladder in whole]
        return dict.fromkeys(["", *(sorted(set.intersection(*shared)) if shared else [])])
    raws = [source.raw for source in sources]
    for name, column in settings.domains.items():
        for source, raw in zip(sources, raws, strict=True):
            known = tuple(str(c).strip() for c in raw.columns)
            if column not in known and foreign.column_of(column) not in known:
                raise UsageError(
                    f"domains.{name}={column}: {source.path} has no column {column!r}{nearest(column, known)}; it has "
                    f"{foreign.listed(known)}"
                )
    named: dict[str, str | None] = dict(settings.domains)
    if not named:
        shared_names = [name for name in domains.names(raws[0].columns) if domains.DOMAIN + name in raws[1].columns]
        named = {name: domains.DOMAIN + name for name in shared_names}
    aliases = {alias.lower() for alias in foreign.ALIASES["loss"]}
    total = "loss" in settings.columns or all(aliases & {str(c).lower() for c in raw.columns} for raw in raws)
    return ({"": None} if total or not named else {}) | named


def _read(source: _Source, settings: CompareSettings, column: str | None) -> Runs:
    """One ladder's runs; the standard errors of a domain's loss are in a column of its own, loss_se.NAME."""
    asked = settings.of(source.path, source.sweep, column)
    if column is None or "loss_se" in settings.columns:
        return selection.read(asked, source.table, called=Path(source.path))
    raw, error = source.raw, domains.DOMAIN_SE + column.removeprefix(domains.DOMAIN)
    if error in raw:
        asked.columns["loss_se"] = error
    found = selection.read(asked, source.table, called=Path(source.path))
    return found if error in raw else replace(found, table=found.table.drop(columns="loss_se", errors="ignore"))


def _selected(runs: list[Runs], settings: CompareSettings) -> tuple[Selection, Selection]:
    """What the rules leave; a run that is excluded is one of either ladder."""
    known = [set(r.table.run_id.astype(str)) for r in runs]
    strangers = [name for name in settings.exclude if name not in known[0] | known[1]]
    if strangers:
        raise UsageError(f"exclude={strangers[0]}: no run of either ladder has this name")
    first, second = (
        selection.chosen(r, _excluding(settings, [name for name in settings.exclude if name in names]))
        for r, names in zip(runs, known, strict=True)
    )
    if first.convention != second.convention:
        raise UsageError(
            f"N and C do not mean the same in both ladders ({first.convention.n}, {first.convention.c} and "
            f"{second.convention.n}, {second.convention.c}): {_common(first, second)}"
        )
    return first, second


def _common(first: Selection, second: Selection) -> str:
    """Which conventions both ladders know, for an error."""
    known = conventions.available(second.runs.table)
    both = [f"N={c.n} C={c.c}" for c in conventions.available(first.runs.table) if c in known]
    return f"say {' or '.join(both)}, which both know" if both else "no N= and C= is known of both"


def _excluding(settings: CompareSettings, names: list[str]) -> RunSettings:
    return replace(settings.of(""), exclude=names)
