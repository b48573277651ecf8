"""What the pages show: a study, from the fit on disk where that is of the same runs, and the runs' loss curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import api
from analysis.runs import store
from analysis.runs.tidy import Runs
from analysis.settings import StudySettings
from analysis.study import Study
from dashboards.figures.curves import kept
from gpt3core.store.rundir import RunDir
from sweeps.watching import loss_trace

COLUMNS = ("tokens", "loss", "attempt")  # of a curve, that figures read
Points = tuple[NDArray[Any], ...]  # each of COLUMNS
Read = dict[str, tuple[loss_trace.Stamp, Points]]  # the curve of a run, and when it was changed last


class Curves(Mapping[str, pd.DataFrame]):
    """The loss curve of each run, a few of its points for display.

    Kept are arrays, and frames are made for who asks: thousands of them are most of an app's memory, and pandas notes
    each view that was ever taken of one.
    """

    def __init__(self, points: Mapping[str, Points]) -> None:
        self._points = points

    def __getitem__(self, run_id: str) -> pd.DataFrame:
        return pd.DataFrame(dict(zip(COLUMNS, self._points[run_id], strict=True)), copy=False)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._points

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)


def load(settings: StudySettings) -> tuple[Study, Path]:
    """The study, and the folder that ``analysis.fit`` writes to; nothing is fitted when what is there is up to date.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    return api.study(settings, reuse=True)


def losses(runs: Runs, read: Read | None = None) -> Curves | None:
    """The loss curve of each run; None for a table, which has none.

    Args:
        read: the curves of an earlier call, of which those that changed are read again; it is brought up to date.
    """
    if not runs.store:
        return None
    read = {} if read is None else read
    for run_id in runs.table.run_id:
        stamp = loss_trace.stamp(RunDir(runs.source, run_id))
        if run_id not in read or read[run_id][0] != stamp:
            read[run_id] = stamp, _points(runs.source, run_id)
    for gone in set(read) - set(runs.table.run_id):
        del read[gone]
    return Curves({run_id: read[run_id][1] for run_id in runs.table.run_id})


def _points(root: Path, run_id: str) -> Points:
    """Some of a run's curve, as arrays that nobody writes to; none of one that cannot be read."""
    rows = store.readable_curve(root, run_id)
    if rows is None:
        thin = pd.DataFrame({name: [] for name in COLUMNS}, dtype=float)
    else:
        thin = kept(rows).astype({"attempt": np.int16})
    found = tuple(thin[name].to_numpy(copy=True) for name in COLUMNS)
    for column in found:
        column.flags.writeable = False
    return found
