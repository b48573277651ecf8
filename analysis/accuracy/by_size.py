"""Accuracies of each size beside those of the others: of the run that was trained with most compute, seeds together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from analysis.accuracy.trends import MEAN, averaged
from gpt3core.evals.spec import INSTRUCTED

SAME_C = 0.999  # of a size's most compute: seeds of one budget are together
RUN = ("run_id", "size", "N", "D", "C")
SCORE = ("accuracy", "accuracy_se", "baseline")
COLUMNS = ("task", "shots", "N", "size", "D", "C", *SCORE, "tasks", "runs", "order")  # of ``largest``
_ARITHMETIC = ("addition_", "subtraction_", "multiplication_", "three_operations")
_WORDS = ("cycle_letters", "anagrams_", "random_insertion", "reversed_words")
# generated tasks by what they are about; the names of their means
FAMILIES: dict[str, Callable[[str], bool]] = {
    "arithmetic": lambda task: task.startswith(_ARITHMETIC),
    "word scrambling": lambda task: task.startswith(_WORDS),
    "in-context episodes": lambda task: task.startswith("episodes_"),
}


def largest(evals: pd.DataFrame) -> pd.DataFrame:
    """A row a size, task and number of examples, means of tasks (trends.MEAN and FAMILIES) first.

    A mean is of the same tasks at every number of examples at which it is given: those that every run measured there.

    Args:
        evals: a row a run, task and number of examples: RUN, fits, accuracy, accuracy_se, chance, prior_accuracy.

    Returns:
        task, shots, N, size, D, C, accuracy, accuracy_se (of the questions), baseline (the larger of chance and always
        giving the likeliest answer), tasks (of a mean: how many), runs, order (of the tasks); by N within a task.
    """
    measured = evals[evals.fits.astype(bool) & evals.accuracy.notna()]
    if measured.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    measured = measured.assign(baseline=measured[["chance", "prior_accuracy"]].astype(float).max(axis=1), tasks=1)
    found = pd.concat([*_means(measured), measured], ignore_index=True)
    key = ["task", "shots", "N"]
    found = found[found.C >= SAME_C * found.groupby(key).C.transform("max")]
    found = found.astype(dict.fromkeys(SCORE, float))
    order = {task: i for i, task in enumerate(dict.fromkeys(found.task))}
    table = found.groupby(key, as_index=False).agg(
        size=("size", "first"),
        D=("D", "mean"),
        C=("C", "mean"),
        accuracy=("accuracy", "mean"),
        accuracy_se=("accuracy_se", "mean"),  # seeds answer the same questions, which count once
        baseline=("baseline", "mean"),
        tasks=("tasks", "first"),
        runs=("run_id", "nunique"),
    )
    return table.assign(order=table.task.map(order)).sort_values(["order", "N", "shots"], ignore_index=True)


def members(evals: pd.DataFrame, mean: str) -> list[str]:
    """The tasks that a mean of ``largest`` is of; any other task is its own."""
    if mean not in (MEAN, *FAMILIES):
        return [mean]
    found = averaged(evals[[_belongs(mean, str(task)) for task in evals.task]])
    return [] if found is None else found.tasks


def _plain(task: str) -> str:
    """A task's name without its variant: the instruction, and shorter words."""
    return task.removesuffix(INSTRUCTED).removesuffix("_short")


def _belongs(mean: str, task: str) -> bool:
    return mean == MEAN or FAMILIES[mean](_plain(task))


def _means(measured: pd.DataFrame) -> list[pd.DataFrame]:
    """The means as tasks of their own, run by run; of a family only where it is not all that there is."""
    made, every = [], set(measured.task)
    for name in (MEAN, *FAMILIES):
        rows = measured[[_belongs(name, str(task)) for task in measured.task]]
        if rows.empty or (name != MEAN and set(rows.task) == every) or (found := averaged(rows)) is None:
            continue
        rows = rows[rows.task.isin(found.tasks) & rows.shots.isin(found.shots)]
        mean = rows.groupby([*RUN, "shots"], sort=False, as_index=False, dropna=False).agg(
            accuracy=("accuracy", "mean"),
            accuracy_se=("accuracy_se", lambda errors: np.sqrt((errors.astype(float) ** 2).sum()) / len(errors)),
            baseline=("baseline", "mean"),
            tasks=("task", "nunique"),
        )
        made.append(mean.assign(task=name))
    return made
