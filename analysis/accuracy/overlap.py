"""Accuracy on the questions that are in the training text and on the others: Table C.1 of Brown et al. 2020."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.accuracy.by_size import SAME_C
from gpt3core.data.decontaminate import Overlap
from gpt3core.evals.spec import OVERLAP, SPLIT_ACCURACIES


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A row of the table: a task at a number of examples."""

    shots: int
    run_ids: tuple[str, ...]  # of most compute, whose means they are
    row: Overlap

    @property
    def runs(self) -> int:
        """How many these are."""
        return len(self.run_ids)


def overlaps(evals: pd.DataFrame, table: pd.DataFrame) -> list[Asked]:
    """A row a task and number of examples, of the runs of most compute that answered it; the paper's is of one model.

    Args:
        evals: a row a run, task and number of examples: accuracy, items, and of some OVERLAP.
        table: run_id and C of the runs that count.
    """
    if evals.empty or not set(OVERLAP) <= set(evals.columns):
        return []
    known = evals[evals.gram.notna() & evals.fits.astype(bool)].merge(table[["run_id", "C"]], on="run_id")
    known = known[known.C >= SAME_C * known.groupby(["task", "shots"]).C.transform("max")]
    return [
        Asked(shots=int(str(shots)), run_ids=tuple(group.run_id.unique()), row=_row(str(task), group))
        for (task, shots), group in known.groupby(["task", "shots"], sort=False)
    ]


def _row(task: str, group: pd.DataFrame) -> Overlap:
    first = group.iloc[0]
    mean = group[["accuracy", *SPLIT_ACCURACIES]].astype(float).mean()
    return Overlap(
        name=task,
        n=int(first.gram),
        total=int(first["items"]),
        dirty=int(first.dirty),
        score=float(mean.accuracy),
        dirty_score=float(mean.accuracy_dirty),
        clean_score=float(mean.accuracy_clean),
    )
