"""Runs that could be made and runs that are being made, with what they cost: FLOPs, hours and US dollars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.laws import Array
from analysis.note import Note
from analysis.runs import conventions, foreign, ladder, points, store
from analysis.runs.ladder import Ladder
from analysis.runs.ratio import Ratio, tokens
from analysis.runs.selection import Selection
from gpt3core.errors import UsageError

UNITS = {"usd": "USD", "hours": "hours", "C": "FLOPs"}  # of costs, the dearest to a user first
SIZES = 5  # of a budget, where a foreign table's range makes the grid
SPAN = 4.0  # of their N about the best one
HALF_DECADE = 10**0.5


@dataclass(frozen=True, kw_only=True)
class Costed:
    """Tables with N, D, C, hours and usd (nan where nothing says them) and ``cost``, all in one unit."""

    finished: pd.DataFrame  # with loss, and a status that is done for those that count
    running: pd.DataFrame
    candidates: pd.DataFrame
    unit: str


def read(path: Path, columns: Mapping[str, str], selection: Selection) -> tuple[pd.DataFrame, list[Note]]:
    """A file of runs to make: N, D, C as a selection counts them, gpu_hours and seed where it says them; and notes.

    Raises:
        UsageError: when N or D is missing, or N counts other parameters than the selection's.
    """
    path = path.expanduser().absolute()
    raw = foreign.read_points(path, columns)
    found, notes = points.counted(raw, selection, path, columns)
    if found.N.isna().any():
        raise UsageError(f"{path}: a candidate needs N and D")
    if "gpu_hours" in raw and not np.isfinite(_hours(selection)).any():
        hours = foreign.source_of(raw, "gpu_hours")
        message = f"{path}: {hours} is not used, for the runs made do not say their hours: costs are FLOPs"
        notes = [*notes, Note(code="candidates-hours", severity="warning", message=message)]
    return found.assign(**{name: raw[name] for name in ("gpu_hours", "seed") if name in raw}), notes


def of_recipe(selection: Selection, largest: float) -> tuple[pd.DataFrame, Ladder]:
    """What a store's sweep could run next by its own recipe, as points, and the ladder that names the command.

    Args:
        largest: C of the largest run that may be proposed, as the selection counts it.
    """
    runs = selection.runs
    unfinished = store.unfinished(runs)
    made = pd.concat([runs.table, unfinished], ignore_index=True) if len(unfinished) else runs.table
    exact = largest * float((runs.table.flops_model.to_numpy(float) / selection.everything.C.to_numpy(float)).max())
    found = ladder.read(store.recipe(runs), made, exact)
    return conventions.points(found.table(), selection.convention), found


def about(best: Mapping[float, float], cost: Ratio) -> pd.DataFrame:
    """A plain grid: sizes a factor of two apart about the best N of every budget.

    Args:
        best: N by budget, FLOPs as the runs count them.
        cost: C/(6ND) of the runs by size.
    """
    rows = [(n * factor, c) for c, n in best.items() for factor in np.geomspace(1 / SPAN, SPAN, SIZES)]
    table = pd.DataFrame(rows, columns=["N", "C"]).map(lambda value: float(f"{value:.3g}"))
    d = pd.Series(tokens(cost, np.log(table.N.to_numpy()), table.C.to_numpy()))
    return table.assign(D=d.map(lambda value: float(f"{value:.3g}")))[["N", "D", "C"]]


def budgets(highest: float, largest: float) -> list[float]:
    """Budgets of half decades from one below the highest-compute run's to the largest run's."""
    count = int(np.floor(np.log(largest / highest) / np.log(HALF_DECADE) + 1e-9))
    return [float(f"{highest * HALF_DECADE**k:.3g}") for k in range(-1, count + 1)]


def costed(
    selection: Selection,
    candidates: pd.DataFrame,
    running: pd.DataFrame | None = None,
    usd_per_hour: float | None = None,
) -> Costed:
    """Runs made, in flight and possible, with costs in USD or else hours where all of them have these, else FLOPs.

    Runs that the rules took out tell nothing: they get the status "out". Hours are GPU-hours, or those that a run took
    where it did not run on GPUs; a run that does not say them takes what runs of its size took a FLOP.

    Args:
        running: runs in flight besides those that a store knows of.
        usd_per_hour: price of an hour; by default what the runs themselves recorded, if they did.
    """
    kept = selection.everything.run_id.isin(selection.table.run_id)
    status = kept.map({True: "done", False: "out"})
    finished = selection.everything.assign(status=status, hours=_hours(selection), usd=_usd(selection))
    parts = [part for part in (in_flight(selection), running) if part is not None and len(part)]
    pending = pd.concat(parts, ignore_index=True) if parts else finished[:0]
    tables = [_with_hours(table, finished) for table in (finished, pending, candidates)]
    if usd_per_hour is not None:
        tables = [table.assign(usd=table.hours * usd_per_hour) for table in tables]
    else:
        rate = float((finished.usd / finished.hours).median()) if (finished.usd > 0).any() else np.nan
        tables = [tables[0], *(table.assign(usd=table.hours * rate) for table in tables[1:])]
    unit = next(name for name in UNITS if all(bool((table[name] > 0).all()) for table in tables))
    done, flying, possible = (table.assign(cost=table[unit]) for table in tables)
    return Costed(finished=done, running=flying, candidates=possible, unit=UNITS[unit])


def in_flight(selection: Selection) -> pd.DataFrame | None:
    """Runs of a store's sweep that were started and have not ended, as points; None where there are none."""
    if not selection.runs.store:
        return None
    found = store.in_flight(selection.runs)
    if found.empty:
        return None
    planned = found.assign(status="running", epochs=1.0, loss=np.nan)
    return conventions.points(planned, selection.convention)[["run_id", "N", "D", "C"]]


def _recorded(selection: Selection, name: str) -> Array:
    """A column of the runs as they were read, in the order of ``everything``; nan where they do not say it."""
    table = selection.runs.table
    if name not in table:
        return np.full(len(table), np.nan)
    values = table[name].to_numpy(float)
    return np.where(values > 0, values, np.nan)


def _hours(selection: Selection) -> Array:
    """Of every run: GPU-hours, or else the core-hours that its training took."""
    took = _recorded(selection, "device_seconds") / 3600
    gpu = _recorded(selection, "gpu_hours")
    return gpu if np.isfinite(gpu).any() else took


def _usd(selection: Selection) -> Array:
    return _recorded(selection, "cost")


def _with_hours(table: pd.DataFrame, finished: pd.DataFrame) -> pd.DataFrame:
    """The table with a column of hours: its own, or what runs of its sizes took a FLOP (of the nearest size beyond)."""
    own = table.hours if "hours" in table else table.gpu_hours if "gpu_hours" in table else np.nan
    known = finished[finished.hours > 0]
    if known.empty:
        return table.assign(hours=own)
    rate = known.assign(rate=np.log(known.hours / known.C)).groupby("N").rate.median()
    guess = table.C * np.exp(np.interp(np.log(table.N.to_numpy(float)), np.log(rate.index), rate.to_numpy(float)))
    return table.assign(hours=guess.where(~(pd.Series(own, index=table.index) > 0), own))
