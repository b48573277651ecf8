"""The pages of a study that grows: fitted anew when results were added, behind the last ones, which stay shown."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.settings import StudySettings
from dashboards import faults, memory
from dashboards.exports import Shelf
from dashboards.run_sets import RunSets
from gpt3core.errors import UsageError
from gpt3core.store import places
from gpt3core.store.rundir import default_root

if TYPE_CHECKING:
    from analysis.output.answer import Spelt
    from analysis.study import Study
    from dashboards import data
    from dashboards.figures.style import Page
    from dashboards.made import Made

POLL_SECONDS = 3.0  # between looks at the store
FITTING = "The laws are being fitted."
Token = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class View:
    """What there is to show. Never changed, only replaced, so that a reader's is of one study."""

    number: int = 0  # of the study shown; grows
    name: str = ""
    answer: list[Spelt] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)
    study: Study | None = None
    made: float = 0.0  # when it was read from the store, seconds since the epoch
    fitting: float | None = None  # since when newer results are being fitted
    problem: str = ""  # why newer results could not be

    @property
    def waiting(self) -> str:
        """Why there is no study, where there is none."""
        return self.problem or FITTING


class Live:
    """Follows a store or a table, whose place is ``root``; ``view`` is what to show now.

    ``shelf`` keeps the figures that are shown, for who asks for the rows behind them; ``sets`` the runs behind numbers.
    """

    def __init__(self, given: StudySettings, *, apart: bool = False) -> None:
        """Follow what settings name; ``apart``: what takes long is made by processes of their own."""
        self.given, self._apart = given, apart
        self.root = places.local(given.runs) if given.runs else default_root()
        self.shelf, self.sets = Shelf(), RunSets(self.root)
        self._token: Token | None = None
        self._problem = ""  # of the last fit
        self._reader: data.Reader | None = None
        self.view = View()

    @property
    def of_table(self) -> bool:
        """Whether it follows a table, whose runs have no page of their own."""
        return places.is_table(self.root)

    def follow(self) -> None:
        """Look at the store for ever, in a thread that ends with the process."""
        threading.Thread(target=self._follow, name="live", daemon=True).start()

    def look(self) -> None:
        """Fit what is new, if anything is; a problem is shown, and tried again when the store changes."""
        try:
            places.refresh(self.root)
            token = _token(self.root)
        except Exception as error:  # the store is away now
            self._shown(problem=_sentence(error))
            return
        if token == self._token:
            self._shown(problem=self._problem)
            memory.trim()
            return
        self.view = replace(self.view, fitting=time.time(), problem="")
        try:
            self.view = self._fitted()
        except Exception as error:  # whatever it is, the reader hears of it, and the next look is made
            self.view = replace(self.view, fitting=None, problem=_sentence(error))
        self._token, self._problem = token, self.view.problem
        memory.give_back()

    def _shown(self, problem: str) -> None:
        """Say a problem, or that there is none any more; the view stays where it says so already."""
        if problem != self.view.problem:
            self.view = replace(self.view, problem=problem)

    def _follow(self) -> None:
        with contextlib.suppress(Exception):  # the first look says it
            from dashboards.figures import catalogue  # noqa: F401
        gc.freeze()  # modules are most of what cycles are sought in, for which every request waits, and they stay
        while True:
            self.look()
            time.sleep(POLL_SECONDS)

    def make(self, asked: StudySettings, *, apart: bool) -> Made:
        """What is shown of settings.

        Args:
            apart: by a process of its own, if this follower has any.
        """
        if apart and self._apart:
            from dashboards import apart as process

            return process.make(asked)
        from dashboards import data, made

        self._reader = self._reader or data.Reader(self.root)
        return made.make(asked, self._reader)

    def _fitted(self) -> View:
        made = self.make(self.given, apart=True)
        if made.study.runs.store:  # whoever opens a link before any page that has it was shown
            self.sets.learn(runs for _, parts in made.answer for _, runs in parts)
        return View(
            number=self.view.number + 1,
            name=made.study.runs.name,
            answer=made.answer,
            pages=made.pages,
            study=made.study,
            made=self.view.fitting or time.time(),
        )


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, (UsageError, *faults.KNOWN)) else f"not fitted: {faults.tell(error)}"


def _token(root: Path) -> Token:
    """Changes when a result or an evaluation is added: the folder of a run's evaluations then has another time.

    All times count, not the newest alone: what is copied with its time, as by rsync -a, may be older than others.
    """
    if root.is_file():
        return 1, root.stat().st_mtime_ns
    times = []
    with contextlib.suppress(OSError), os.scandir(root / "runs") as runs:
        for run in runs:
            for written in ("result.json", "evals"):
                with contextlib.suppress(OSError):
                    times.append(Path(f"{run.path}/{written}").stat().st_mtime_ns)
    return len(times), sum(times)
