"""The start of runs, beside one another: room, placement group, workers, work. The driver waits for none of it.

Each start is a team that goes through its stages: ROOM until the cluster knows what ended workers have given back,
FORMING while a thread asks for the group and the workers, RUNNING from when they have their work. One that fails, or is
withdrawn meanwhile, is OVER once everything was given back. What a driver that dies in the middle leaves has names by
which the next one finds it.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from sweeps.cluster.connect import Connection
from sweeps.cluster.gang import FORMING, OVER, ROOM, RUNNING, Gangs, Team
from sweeps.cluster.hearing import Member
from sweeps.cluster.job import Assignment, Job, StartError
from sweeps.cluster.pool import Pool

GROUP_SECONDS = 30.0  # a group that fits now is created in milliseconds; a second try can take one more second
LOOK_SECONDS = 1.0  # between two looks whether the start was withdrawn


class Forming:
    """Teams on their way."""

    def __init__(self, connection: Connection, pool: Pool, gangs: Gangs) -> None:
        self._ray, self._pool, self._gangs = connection.ray, pool, gangs
        self.waiting: list[tuple[Team, str, Job]] = []  # for room
        self._lock = threading.Lock()  # of a team's last step to RUNNING, and of its withdrawal

    def start(self, team: Team, entry: str, job: Job) -> None:
        """Begin: with a warm worker at once, otherwise in a thread, a gang once there is room."""
        if team.world_size == 1:
            (node,) = team.where
            if (member := self._pool.warm(node, team.shape)) is not None:
                give(team, [member], entry, job)
                return
        self._pool.make_room(team.where)
        team.stage = ROOM
        if not self._go_on(team, entry, job, time.monotonic()):
            self.waiting.append((team, entry, job))

    def look(self) -> None:
        """Go on with the teams for which there is room by now."""
        now = time.monotonic()
        self.waiting = [waiting for waiting in self.waiting if not self._go_on(*waiting, now)]

    def _go_on(self, team: Team, entry: str, job: Job, now: float) -> bool:
        if team.world_size > 1 and not self._pool.room(team.run_id, team.where, now):
            return False
        team.stage = FORMING
        self._pool.hands.submit(self._form, team, entry, job)
        return True

    def withdraw(self, team: Team) -> bool:
        """Take a start back, if its work has not been given yet; the team is over when all is undone."""
        with self._lock:
            if team.stage == FORMING:
                team.withdrawn = True
            elif team.stage == ROOM:
                self.waiting = [item for item in self.waiting if item[0] is not team]
                team.stage = OVER
            return team.stage != RUNNING

    def _form(self, team: Team, entry: str, job: Job) -> None:
        """In a thread: everything, or nothing and why."""
        members: list[Member] = []
        try:
            self._gather(team, members, entry)
            with self._lock:
                if team.withdrawn:
                    raise StartError("")
                give(team, members, entry, job)
        except StartError as error:
            self._undo(team, members, str(error))
        except Exception as error:  # whatever it is: a start that died in silence would be awaited for ever
            self._undo(team, members, f"could not start where it was planned ({error})")

    def _gather(self, team: Team, members: list[Member], entry: str) -> None:
        """Fill ``members``.

        Raises:
            StartError: when it was withdrawn, or the group is not there in time.
        """
        if team.world_size == 1:
            (node,) = team.where
            members.append(self._pool.single(node, team.shape, entry))
            return
        team.group = self._gangs.group(team)
        deadline = time.monotonic() + GROUP_SECONDS
        while not team.group.wait(LOOK_SECONDS):
            if team.withdrawn or time.monotonic() > deadline:
                raise StartError(
                    f"could not start where it was planned (no placement group within {GROUP_SECONDS:g} s)"
                )
        for member in self._gangs.members(team, entry):
            members.append(member)
            if team.withdrawn:
                raise StartError("")

    def _undo(self, team: Team, members: list[Member], error: str) -> None:
        self._pool.end_here(members, team.group, team.run_id)
        with self._lock:
            team.error, team.stage = "" if team.withdrawn else error, OVER


def give(team: Team, members: list[Member], entry: str, job: Job) -> None:
    """Give every rank its work; from now on the team runs."""
    address: Any = members[0].actor.address.remote() if team.world_size > 1 else ""
    for rank, member in enumerate(members):
        work = Assignment(
            entry=entry,
            run_id=team.run_id,
            job=job,
            node=member.node,
            shape=team.shape,
            rank=rank,
            world_size=team.world_size,
        )
        member.begin(work, address)
    team.members, team.stage = members, RUNNING
