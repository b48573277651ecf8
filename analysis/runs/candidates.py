"""Runs that could be made and runs that are being made, with their costs in one unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.note import Note
from analysis.runs import conventions, foreign, points, store
from analysis.runs.selection import Selection
from gpt3core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Costed:
    """Tables with N, D, C and ``cost``, all in one unit."""

    finished: pd.DataFrame  # with loss, and a status that is done for those that count
    running: pd.DataFrame
    candidates: pd.DataFrame
    unit: str


def read(path: Path, columns: Mapping[str, str], selection: Selection) -> tuple[pd.DataFrame, list[Note]]:
    """A file of runs to make: N, D, C as a selection counts them, and gpu_hours where it says them; and notes.

    Raises:
        UsageError: when N or D is missing, or N counts other parameters than the selection's.
    """
    path = path.expanduser().absolute()
    raw = foreign.read_points(path, columns)
    found, notes = points.counted(raw, selection, path, columns)
    if found.N.isna().any():
        raise UsageError(f"{path}: a candidate needs N and D")
    return found.assign(gpu_hours=raw.gpu_hours) if "gpu_hours" in raw else found, notes


def costed(selection: Selection, candidates: pd.DataFrame, running: pd.DataFrame | None = None) -> Costed:
    """Runs made, in flight and possible, with costs in GPU-hours where runs and candidates all have them, else FLOPs.

    Runs that the rules took out tell nothing: they get the status "out". A run in flight costs per FLOP what the
    finished runs did in the median.

    Args:
        running: runs in flight besides those that a store knows of.
    """
    kept = selection.everything.run_id.isin(selection.table.run_id)
    finished = selection.everything.assign(status=kept.map({True: "done", False: "out"}))
    parts = [part for part in (in_flight(selection), running) if part is not None and len(part)]
    pending = pd.concat(parts, ignore_index=True) if parts else finished[:0]
    if _has_hours(selection.table) and _has_hours(candidates):
        rate = float((selection.table.gpu_hours / selection.table.C).median())
        tables = [
            table.assign(cost=table.gpu_hours.fillna(rate * table.C) if "gpu_hours" in table else rate * table.C)
            for table in (finished, pending, candidates)
        ]
        return Costed(finished=tables[0], running=tables[1], candidates=tables[2], unit="GPU-hours")
    tables = [table.assign(cost=table.C) for table in (finished, pending, candidates)]
    return Costed(finished=tables[0], running=tables[1], candidates=tables[2], unit="FLOPs")


def in_flight(selection: Selection) -> pd.DataFrame | None:
    """Runs of a store's sweep that were started and have not ended, as points; None where there are none."""
    if not selection.runs.store:
        return None
    found = store.in_flight(selection.runs)
    if found.empty:
        return None
    planned = found.assign(status="running", epochs=1.0, loss=np.nan)
    return conventions.points(planned, selection.convention)[["run_id", "N", "D", "C"]]


def _has_hours(table: pd.DataFrame) -> bool:
    return "gpu_hours" in table and bool((table.gpu_hours > 0).all())
