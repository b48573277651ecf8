"""What the pages show: a study, from the fit on disk where that is of the same runs, and the runs' loss curves."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis import api
from analysis.runs import store
from analysis.runs.tidy import Runs
from analysis.settings import StudySettings
from analysis.study import Study
from dashboards.figures.curves import kept


def load(settings: StudySettings) -> tuple[Study, Path]:
    """The study, and the folder that ``analysis.fit`` writes to; nothing is fitted when what is there is up to date.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    return api.study(settings, reuse=True)


def losses(runs: Runs) -> dict[str, pd.DataFrame] | None:
    """The loss curve of each run, a few of its points for display; None for a table, which has none."""
    if not runs.store:
        return None
    return {run_id: kept(store.curve(runs.source, run_id)) for run_id in runs.table.run_id}
