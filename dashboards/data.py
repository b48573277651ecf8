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
from gpt3core.errors import StoreError
from gpt3core.store.rundir import RunDir
from sweeps.watching import loss_trace

Read = dict[str, tuple[loss_trace.Stamp, pd.DataFrame]]  # the curve of a run, and when it was changed last


def load(settings: StudySettings) -> tuple[Study, Path]:
    """The study, and the folder that ``analysis.fit`` writes to; nothing is fitted when what is there is up to date.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    return api.study(settings, reuse=True)


def losses(runs: Runs, read: Read | None = None) -> dict[str, pd.DataFrame] | None:
    """The loss curve of each run, a few of its points for display; None for a table, which has none.

    Args:
        read: the curves of an earlier call, of which those that changed are read again; it is brought up to date.
    """
    if not runs.store:
        return None
    read = {} if read is None else read
    for run_id in runs.table.run_id:
        stamp = loss_trace.stamp(RunDir(runs.source, run_id))
        if run_id not in read or read[run_id][0] != stamp:
            read[run_id] = stamp, _curve(runs.source, run_id)
        else:
            read[run_id] = stamp, _anew(read[run_id][1])
    for gone in set(read) - set(runs.table.run_id):
        del read[gone]
    return {run_id: read[run_id][1] for run_id in runs.table.run_id}


def _curve(root: Path, run_id: str) -> pd.DataFrame:
    """Some points of a run's curve; none of one that cannot be read, for what was fitted stands without it."""
    try:
        return kept(store.curve(root, run_id))
    except (StoreError, OSError, ValueError):
        return pd.DataFrame({"tokens": [], "loss": []}, dtype=float)


def _anew(curve: pd.DataFrame) -> pd.DataFrame:
    """The same, sharing nothing: pandas keeps a note of each view that figures took of a frame, hundreds deep."""
    return pd.DataFrame({name: column.to_numpy(copy=True) for name, column in curve.items()})
