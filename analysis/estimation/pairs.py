"""Cells that two ladders share: runs of the same parameters and tokens, or of the same named size and budget.

What a law cannot explain of a cell (a size that is badly tuned, the end of a schedule) is the same in both ladders and
cancels in the difference of their losses there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

SAME = 0.01  # of ln N and ln D: closer runs are of one cell
LEAST = 4  # cells, and ...
WORTH = "worth"  # column of what a run's loss is worth by its standard error: see uncertainty.measured
LEAST_SHARE = 0.5  # ... of the cells of the ladder that has fewer: from there on two ladders are paired


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The shared cells, one row each in both tables: N, D, C, ln_loss (mean over seeds) and runs, by their worth."""

    a: pd.DataFrame
    b: pd.DataFrame
    share: float  # of the cells of the ladder that has fewer

    @property
    def enough(self) -> bool:
        """Whether the two ladders are to be compared cell by cell."""
        return len(self.a) >= LEAST and self.share >= LEAST_SHARE


def pairs(a: pd.DataFrame, b: pd.DataFrame) -> Pairs:
    """The shared cells of two tables of runs (size, N, D, C, loss; budget_flops where it is known)."""
    first, second = cells(a), cells(b)
    left, right = _match(first, second)
    fewer = min(len(first), len(second))
    return Pairs(
        a=first.iloc[left].reset_index(drop=True),
        b=second.iloc[right].reset_index(drop=True),
        share=len(left) / fewer if fewer else 0.0,
    )


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """One row for all seeds of a point: size, budget, N, D, C, ln_loss and runs, in the order of the table."""
    budget = table.budget_flops if "budget_flops" in table else pd.Series(np.nan, index=table.index)
    rows = pd.DataFrame({"size": table["size"], "budget": budget, "N": table.N, "D": table.D, "C": table.C})
    weight = table[WORTH].to_numpy(float) if WORTH in table else np.ones(len(table))
    rows["runs"], rows["ln_loss"] = weight, weight * np.log(table.loss.to_numpy(float))
    grouped = rows.groupby([_near(rows.N), _near(rows.D)], sort=False)
    found = grouped.agg({name: "sum" if name in ("runs", "ln_loss") else "first" for name in rows})
    return found.assign(ln_loss=found.ln_loss / found.runs).reset_index(drop=True)


def _near(values: pd.Series) -> np.ndarray:
    """Labels of groups of values that differ by less than SAME from their neighbours."""
    logs = np.log(values.to_numpy(float))
    order = np.argsort(logs, kind="stable")
    steps = np.diff(logs[order], prepend=logs[order[:1]]) > SAME
    labels = np.empty(len(logs), int)
    labels[order] = np.cumsum(steps)
    return labels


def _match(a: pd.DataFrame, b: pd.DataFrame) -> tuple[list[int], list[int]]:
    """Positions of the cells that belong together: by N and D, and those left by size and stated budget."""
    left: list[int] = []
    right: list[int] = []
    logs = np.log(b[["N", "D"]].to_numpy(float))
    for i, here in enumerate(np.log(a[["N", "D"]].to_numpy(float))):
        gap = np.abs(logs - here).max(1) if len(logs) else np.empty(0)
        gap[right] = np.inf
        if len(gap) and gap.min() <= SAME:
            left.append(i)
            right.append(int(gap.argmin()))
    budgets = b.budget.to_numpy(float)
    keys = zip(b["size"], budgets, strict=True)
    named = {key: j for j, key in enumerate(keys) if j not in right and np.isfinite(budgets[j])}
    for i, key in enumerate(zip(a["size"], a.budget.to_numpy(float), strict=True)):
        if i not in left and (j := named.pop(key, None)) is not None:
            left.append(i)
            right.append(j)
    return left, right
