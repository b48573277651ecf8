"""What the pages show: a study, from the fit on disk where that is of the same runs, and the runs' loss curves."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
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
KEPT = 1000  # curves; figures draw fewer
Points = tuple[NDArray[Any], ...]  # each of COLUMNS


class Reader:
    """A few points of each curve of a store, read when it is asked for; the last ones are kept until they change."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[loss_trace.Stamp, Points]] = OrderedDict()  # and when it was changed last

    def points(self, run_id: str) -> Points:
        """A curve, as arrays that nobody writes to; none of one that cannot be read."""
        stamp = loss_trace.stamp(RunDir(self._root, run_id))
        with self._lock:
            before = self._kept.pop(run_id, None)
            found = before if before is not None and before[0] == stamp else (stamp, _points(self._root, run_id))
            self._kept[run_id] = found
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found[1]


class Curves(Mapping[str, pd.DataFrame]):
    """The loss curve of each run, a few of its points for display.

    Read are those that are asked for, which of thousands are the few that are drawn. Frames are made for who asks:
    pandas notes each view that was ever taken of one.
    """

    def __init__(self, run_ids: Iterable[str], reader: Reader) -> None:
        self._ids, self._reader = dict.fromkeys(run_ids), reader

    def __getitem__(self, run_id: str) -> pd.DataFrame:
        if run_id not in self._ids:
            raise KeyError(run_id)
        return pd.DataFrame(dict(zip(COLUMNS, self._reader.points(run_id), strict=True)), copy=False)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def load(settings: StudySettings) -> tuple[Study, Path]:
    """The study, and the folder that ``analysis.fit`` writes to; nothing is fitted when what is there is up to date.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    return api.study(settings, reuse=True)


def losses(runs: Runs, reader: Reader | None = None) -> Curves | None:
    """The loss curve of each run; None for a table, which has none.

    Args:
        reader: of an earlier call, which has some of them.
    """
    return Curves(runs.table.run_id, reader or Reader(runs.source)) if runs.store else None


def _points(root: Path, run_id: str) -> Points:
    rows = store.readable_curve(root, run_id)
    if rows is None:
        thin = pd.DataFrame({name: [] for name in COLUMNS}, dtype=float)
    else:
        thin = kept(rows).astype({"attempt": np.int16})
    found = tuple(thin[name].to_numpy(copy=True) for name in COLUMNS)
    for column in found:
        column.flags.writeable = False
    return found
