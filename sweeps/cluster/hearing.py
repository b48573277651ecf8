"""How the driver hears of its workers: an end is told to it, how far a run is it asks of some of them at a time.

Every run is one call that is answered at its end, or fails when its worker dies; waiting for a thousand such answers
costs the driver half a millisecond. Asking costs it a sixth of a millisecond a worker, so each look asks those that
were asked longest ago, and no more than ASKS of them.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.cluster import causes
from sweeps.cluster.causes import Cause
from sweeps.cluster.connect import Connection
from sweeps.cluster.job import Assignment, Report
from sweeps.scheduling.inventory import Resources

ASKS = 40  # workers asked at one look, and answers taken
ASK_SECONDS = 0.5  # between two questions to a worker
START_SECONDS = 120.0  # for the first answer of a new one, which imports torch before it
PAUSE_SECONDS = 10.0  # between two looks: longer means that this process was stopped meanwhile
SILENT_SECONDS = 300.0  # a worker that has answered before and does not any more is taken for lost


@dataclass(kw_only=True, eq=False)
class Member:
    """A worker, and what it said last."""

    actor: Any
    node: str
    shape: Resources
    report: Report = field(default_factory=lambda: Report(state="running"))
    ending: Any = None  # the answer that is its run's end
    asked: Any = None  # the answer to a question that is under way
    since: float = field(default_factory=time.monotonic)  # when it was asked, or made
    born: bool = False  # it has answered once
    away: float | None = None  # since when it cannot be reached
    again: float = math.inf  # when to listen to it again
    idle: float = 0.0  # since when it is without work

    def begin(self, assignment: Assignment, address: Any = "") -> None:
        """Give it work, without waiting for it to be there.

        Args:
            address: where the ranks meet, or the answer of the leader that will say it.
        """
        self.report, self.asked, self.away, self.again = Report(state="running"), None, None, math.inf
        self.ending = self.actor.run.remote(assignment, address)

    def listen(self) -> None:
        """Await the end of the run that it has from an earlier driver, or whose answer was lost."""
        self.ending, self.again = self.actor.ended.remote(), math.inf


class Hearing:
    """What workers say."""

    def __init__(self, connection: Connection) -> None:
        self._ray, self._looked = connection.ray, time.monotonic()

    def wait(self, members: Iterable[Member], seconds: float) -> None:
        """Return at the next end of a run, and after so long at the latest."""
        endings = [member.ending for member in members if member.ending is not None]
        if endings:
            self._ray.wait(endings, num_returns=1, timeout=max(0.0, seconds))
        else:
            time.sleep(max(0.0, seconds))

    def hear(self, members: Sequence[Member]) -> None:
        """Take the ends that were told and the answers that have come, and ask some workers again."""
        now = self._now(members)
        for member in members:
            if member.again <= now:
                member.listen()
        by_ending = {m.ending: m for m in members if m.ending is not None}
        for ref in self._come(by_ending):
            self._ended(by_ending[ref], now)
        by_asked = {m.asked: m for m in members if m.asked is not None}
        come = self._come(by_asked)
        for ref in by_asked.keys() - set(come):
            _overdue(by_asked[ref], now)
        for ref in come[:ASKS]:
            self._answered(by_asked[ref])
        due = (m for m in members if m.asked is None and (not m.born or now - m.since >= ASK_SECONDS))
        for member in heapq.nsmallest(ASKS, due, key=lambda m: m.since):
            member.asked = member.actor.poll.remote()
            member.since = now if member.born else member.since

    def _now(self, members: Iterable[Member]) -> float:
        """The time; what passed while this process was stopped counts against no worker."""
        now = time.monotonic()
        if (gap := now - self._looked) > PAUSE_SECONDS:
            for member in members:
                member.since += gap
                member.away = None
        self._looked = now
        return now

    def _come(self, refs: dict[Any, Member]) -> list[Any]:
        if not refs:
            return []
        ready: list[Any] = self._ray.wait(list(refs), num_returns=len(refs), timeout=0)[0]
        return ready

    def _ended(self, member: Member, now: float) -> None:
        try:
            report = self._ray.get(member.ending)
        except self._ray.exceptions.ActorUnavailableError as error:
            member.away = now if member.away is None else member.away
            if now - member.away <= SILENT_SECONDS:
                member.ending, member.again = None, now + ASK_SECONDS
                return
            report = _dead(error)
        except self._ray.exceptions.RayError as error:
            report = _dead(error)
        if report.state == "running":  # it goes on, and only the wait was long
            member.away = None
            member.listen()
            return
        member.ending, member.away = None, None
        member.report = (
            Report(state="lost", error="its worker never got its work", cause=Cause.DEATH)
            if report.state == "idle"
            else report
        )
        member.born |= report.state != "lost"

    def _answered(self, member: Member) -> None:
        try:
            said = self._ray.get(member.asked)
        except self._ray.exceptions.ActorUnavailableError:
            said = None  # it is asked again; what counts is whether its run's end can be awaited
        except self._ray.exceptions.RayError as error:
            said, member.report = None, _dead(error) if member.ending is None else member.report
        member.asked = None
        if said is None:
            return
        member.born, member.away = True, None
        if member.ending is not None and said.state == "running":
            member.report = said


def _dead(error: Exception) -> Report:
    died = f"its worker died ({type(error).__name__})"
    return Report(state="lost", error=died, cause=causes.of_death(error))


def _overdue(member: Member, now: float) -> None:
    """A worker that was never heard, or is not any more, is given up after its time."""
    silent = now - member.since
    if not member.born and silent > START_SECONDS:
        error = f"its worker did not start on node {member.node[:8]} within {START_SECONDS:g} s"
        member.report, member.ending = Report(state="unstarted", error=error), None
    elif member.born and silent > SILENT_SECONDS:
        error = f"its worker on node {member.node[:8]} has not answered for {SILENT_SECONDS:g} s"
        member.report, member.ending = Report(state="lost", error=error, cause=Cause.HANG), None
