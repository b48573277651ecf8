"""Points to predict and runs to propose, counted as the laws count: their N and C under the convention of the fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from analysis.note import Note
from analysis.runs import conventions, foreign, units
from analysis.runs.conventions import COUNTED, LABELS, OTHER_COUNT, OTHER_N, Compute, Parameters
from analysis.runs.ratio import per_6nd
from analysis.runs.selection import Selection
from gpt3core.errors import UsageError

SAME_C = 0.02  # relative: a file's C that differs by less is the laws' own
NAMES = {"N_nonembedding": "non-embedding parameters", "N_total": "total parameters"}


def counted(
    raw: pd.DataFrame, selection: Selection, path: Path, columns: Mapping[str, str]
) -> tuple[pd.DataFrame, list[Note]]:
    """N, D, C and U of points as the laws of a selection count them, in the file's order; see foreign.check_points.

    Args:
        raw: under isoflop's names, as of foreign.named.
        columns: that the user gave for the runs, and for the points as far as they have them.

    Returns:
        The points, and notes where nothing says what their N counts.

    Raises:
        UsageError: where their N is known to count other parameters than the laws do, or for units that no run has.
    """
    table, count = raw.drop(columns="loss", errors="ignore"), COUNTED[selection.convention.n]
    given = raw.attrs.get("sources", {})
    unused = units.question(table, given, path, uses_c=selection.convention.c is Compute.EXACT)
    if "loss" in raw:
        message = f"{path}: {foreign.source_of(raw, 'loss')} is not used, for a point is what a run is (N, D, C)"
        unused.append(Note(code="points-loss", severity="warning", message=message))
    if count in table:
        table["N"] = table[count]
    notes = _doubts(table, selection, path, columns)
    if "N" not in table:
        for name in NAMES:
            if name in table:
                table["N"] = table[name]
    if (other := OTHER_COUNT.get(selection.convention.n)) in table:
        table[OTHER_N] = table[other]
    table, more = _compute(table, selection.convention.c, path)
    return foreign.check_points(table, path, per_6nd(selection.table)), [*unused, *notes, *more]


def _doubts(table: pd.DataFrame, selection: Selection, path: Path, columns: Mapping[str, str]) -> list[Note]:
    """Notes on an N that may count other parameters than the laws do; what certainly does is refused."""
    n, other = selection.convention.n, [name for name in NAMES if name in table]
    said = set(conventions.counts(selection.runs.table))
    if COUNTED[n] in table and n is not Parameters.GIVEN:
        return []
    label = f"N {LABELS[n]}"
    if "N" not in table:
        if other and (n is not Parameters.GIVEN or said & set(other)):
            raise UsageError(
                f"{path} has {NAMES[other[0]]} ({foreign.source_of(table, other[0])}), and the laws are fitted to "
                f"{label}: give those parameters, or fit with another N="
            )
        source = foreign.source_of(table, other[0]) if other else ""
    else:
        source = foreign.source_of(table, "N")
        same = n is Parameters.GIVEN or COUNTED[n] not in said  # the runs leave it open too
        if source == foreign.column_of(columns["N"]) if "N" in columns else same:
            return []
    if not source:
        return []
    message = f"{path}: {source} is taken to count the parameters that the laws are fitted to ({label})"
    return [Note(code="points-count", severity="warning", message=message)]


def _compute(table: pd.DataFrame, c: Compute, path: Path) -> tuple[pd.DataFrame, list[Note]]:
    """C by the convention, where N and D are there to say it; a note where the file says another."""
    count = {Compute.SIX_ND: "N", Compute.KAPLAN: "N_nonembedding"}.get(c)
    if count is None or not {count, "D"} <= set(table):
        return table, []
    counted = 6 * table[count] * table.D
    if "C" not in table or bool((table.C / counted - 1).abs().lt(SAME_C).all()):
        return table.assign(C=counted), []
    message = (
        f"{path}: C is {LABELS[c]}, as the laws count it; the file's own ({foreign.source_of(table, 'C')}) is not used"
    )
    return table.assign(C=counted), [Note(code="points-compute", severity="warning", message=message)]
