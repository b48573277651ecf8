"""The choice of a sweep's runs under its limits: specifications in, rows of a design out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.estimation import within_budget
from analysis.estimation.within_budget import Choice, Room
from gpt3core import costs
from gpt3core.spec import RunSpec


def choose(runs: Sequence[RunSpec], room: Room, made: Mapping[RunSpec, float], target: float | None) -> Choice:
    """Which of these runs to make, most informative for its cost first.

    Args:
        made: runs that ended or are under way, with their losses; NaN where there is none yet.
        target: FLOPs at which the law is asked; by default ten times the largest run's.
    """
    done = _table(list(made)).assign(loss=np.array([*made.values()], float))
    return within_budget.choose(_table(runs), room, made=done, compute=target)


def _table(runs: Sequence[RunSpec]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "N": np.array([costs.params(run.model).nonembedding for run in runs], float),
            "D": np.array([run.tokens for run in runs], float),
        }
    )
