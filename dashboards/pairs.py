"""Which ladders of the runs that the app follows can be compared, and the settings and results of comparing two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.settings import CompareSettings, StudySettings
from gpt3core.store import places, sweepdir
from gpt3core.store.rundir import open_root

if TYPE_CHECKING:
    from analysis.estimation.compare import Comparison
    from analysis.runs.ladders import Ladders

SWEEP = "sweep"  # what a store's ladders are told apart by
STATE = {"by": "", "A": "", "B": ""}  # of a permalink, with its defaults
LEAST_ROWS, MOST_ARMS = 4, 30  # of a table's column: rows of an arm, and arms


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two ladders: the values of a column of a table, or two sweeps."""

    by: str
    a: str
    b: str


def known(given: StudySettings, path: Path) -> dict[str, list[str]]:
    """The ladders by what tells them apart: a store's sweeps, or the values of the columns of a table that split it.

    Args:
        path: of the store or the table that is followed.

    Raises:
        StoreError: where there is no store (any more).
    """
    if not places.is_table(path):
        names = sweepdir.names(path)
        if not names:
            open_root(path, create=False)
        return {SWEEP: names} if len(names) > 1 else {}
    from analysis.runs import foreign, reading

    raw = foreign.headed(reading.load(path), path)
    read = set(foreign.named(raw, given.columns, path).attrs["sources"].values())
    used = {foreign.column_of(name) for name in read}
    found = {}
    for column in (name for name in raw.columns if name not in used):
        rows = raw[column].dropna().astype(str).value_counts()
        arms = sorted(rows.index[rows >= LEAST_ROWS])
        if 1 < len(arms) <= MOST_ARMS:
            found[str(column)] = arms
    return found


def chosen(state: Mapping[str, str], ladders: Mapping[str, list[str]], shown: str = "") -> Pair | None:
    """The pair that a permalink means; None where there are no two.

    What it does not say, or what is not among the ladders, is the one shown as B, and the first of the others as A.
    """
    if not ladders:
        return None
    by = state["by"] if state.get("by") in ladders else next(iter(ladders))
    arms = ladders[by]
    b = state.get("B", "")
    if b not in arms:
        b = next((arm for arm in (shown, *reversed(arms)) if arm in arms and arm != state.get("A")), arms[-1])
    a = state.get("A", "")
    if a not in arms or a == b:
        a = next(arm for arm in arms if arm != b)
    return Pair(by=by, a=a, b=b)


def settings(given: StudySettings, path: Path, pair: Pair) -> CompareSettings:
    """What ``analysis.compare`` takes for the same comparison, under the settings that the app was started with."""
    of_table = places.is_table(path)
    return CompareSettings(
        runs=[str(path)],
        sweep=[] if of_table else [pair.a, pair.b],
        by=pair.by if of_table else None,
        arms=[pair.a, pair.b] if of_table else [],
        columns=given.columns,
        N=given.N,
        C=given.C,
        exclude=given.exclude,
        min_tokens=given.min_tokens,
        min_compute=given.min_compute,
        max_compute=given.max_compute,
        rules=given.rules,
        precision=given.precision,
        fix=given.fix,
        target_compute=given.target_compute,
    )


def compare(asked: CompareSettings) -> list[tuple[Ladders, Comparison]]:
    """Both ladders and their comparison, one for each held-out domain.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    from analysis import api
    from analysis.runs import ladders

    return [(pair, api.compared(asked, pair)) for pair in ladders.ladders(asked)]
