"""The hands of the scheduler: starts runs on a Ray cluster, tells what became of them, adopts and releases them.

A run of one worker goes to a warm worker of its shape on its node, or to a new one. A gang gets a placement group,
asked for only when the scheduler says that it fits, pinned to the scheduler's nodes, all or nothing. Everything is
detached and named in the sweep's namespace, so that a new driver adopts what a dead one left running.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sweeps.cluster.board import Board
from sweeps.cluster.causes import PERHAPS_THE_NODE, Cause
from sweeps.cluster.connect import Connection
from sweeps.cluster.forming import Forming
from sweeps.cluster.gang import Gangs, Team
from sweeps.cluster.head import Head
from sweeps.cluster.hearing import Hearing, Member
from sweeps.cluster.job import Assignment, Job, Update
from sweeps.cluster.news import News
from sweeps.cluster.pool import IDLE_SECONDS, ORPHAN_SECONDS, Pool
from sweeps.scheduling.inventory import Allocation, Inventory, Resources
from sweeps.scheduling.scheduler import Running

ROOM_SECONDS = 0.05  # between two looks whether a gang has room
ADOPT_SECONDS = 30.0  # for a worker of an earlier driver to answer, on a busy node too


class Launcher:
    """Starts runs on a Ray cluster and tells what became of them."""

    def __init__(
        self,
        namespace: str,
        address: str | None = None,
        cpus: int | None = None,
        orphan_seconds: float = ORPHAN_SECONDS,
    ) -> None:
        """Connect, and take over what an earlier driver of the namespace left running.

        Args:
            namespace, address, cpus: see ``Connection``.
            orphan_seconds: after which a worker without work or driver ends itself.
        """
        self._connection = Connection(namespace, address, cpus)
        self.local, self._ray = self._connection.local, self._connection.ray
        self._pool = Pool(self._connection, orphan_seconds)
        self._gangs = Gangs(self._connection, self._pool)
        self._hearing = Hearing(self._connection)
        self._forming = Forming(self._connection, self._pool, self._gangs)
        self._teams: dict[str, Team] = {}
        self._board = Board(self._connection)
        self._head, self._news = Head(self._connection.head(), local=self.local), News(self._connection)
        self._adopt()

    # ---------------------------------------------------------------------------------------------- what there is

    def inventory(self) -> Inventory:
        """The living nodes and all that they have."""
        return self._connection.inventory()

    def running(self) -> list[Running]:
        """The runs that hold resources."""
        return [Running(run_id=team.run_id, worker=team.shape, allocation=team.where) for team in self._teams.values()]

    def others(self) -> list[Running]:
        """What somebody else holds: used on a node, and not by this sweep's workers."""
        inventory = self.inventory()
        self._pool.forget(self._connection.looked)
        ours: dict[str, Resources] = {}
        held = [(member.node, member.shape, 1) for member in self._pool.idle]
        held += [(node, shape, 1) for gone in self._pool.leaving for node, shape in gone.places]
        held += [(node, team.shape, n) for team in self._teams.values() for node, n in team.where.items()]
        for name, shape, count in held:
            ours[name] = ours.get(name, Resources()).plus(shape.times(count))
        found = []
        for node in inventory:
            used = node.total.minus(self._connection.unused(node)).minus(ours.get(node.name, Resources()))
            rest = Resources(cpus=max(0.0, used.cpus), gpus=max(0.0, used.gpus))
            if rest != Resources():
                found.append(Running(run_id=f"others on {node.name}", worker=rest, allocation={node.name: 1}))
        return found

    def claims(self) -> Mapping[str, str]:
        """What the drivers of other sweeps of this cluster told last."""
        return self._board.read()

    def claim(self, text: str, *, alone: bool) -> None:
        """Tell the drivers of other sweeps; while this one is not alone, workers without work end at once."""
        self._board.write(text)
        self._pool.idle_seconds = IDLE_SECONDS if alone else 0.0

    def poll(self) -> list[Update]:
        """The state of every run that was started; ended ones are released."""
        self._head.require()
        self._hearing.hear([*self._pool.idle, *self._busy()])
        self._pool.tidy()
        self._forming.look()
        updates = []
        for team in list(self._teams.values()):
            update = self._explained(team, team.update())
            updates.append(update)
            if update.state != "running":
                self._release(team, update)
        return updates

    def wait(self, seconds: float) -> None:
        """Return when a run has ended, and after so long at the latest; ``poll`` then tells what happened."""
        self._forming.look()
        self._hearing.wait(self._busy(), min(seconds, ROOM_SECONDS) if self._forming.waiting else seconds)

    def _busy(self) -> list[Member]:
        return [member for team in self._teams.values() for member in team.members]

    # -------------------------------------------------------------------------------------------------- what to do

    def start(self, run_id: str, allocation: Allocation, shape: Resources, entry: str, job: Job) -> None:
        """Start a run where the scheduler said: on one warm or new worker, or on a gang; waits for nothing.

        One that cannot be started leaves nothing behind, and ``poll`` says "unstarted" and why.
        """
        team = self._teams[run_id] = Team(run_id=run_id, where=dict(allocation), shape=shape)
        self._forming.start(team, entry, job)

    def stop(self, run_id: str | None = None) -> None:
        """Ask a run, or all, to write a checkpoint and end; ``poll`` then says "stopped"."""
        for team in self._teams.values():
            if run_id in (None, team.run_id) and not self._forming.withdraw(team):
                for member in team.members:
                    member.actor.stop.remote(team.run_id)

    def end(self, run_id: str) -> None:
        """End a run at once, whatever it does."""
        if (team := self._teams.get(run_id)) is not None:
            self._dissolve(team)

    def leaving(self) -> Mapping[str, float]:
        """The nodes that are to be taken away, with the seconds that are left."""
        return self._news.leaving()

    def _explained(self, team: Team, update: Update) -> Update:
        """With the node that is gone, where that is why the run ended."""
        if update.state not in ("failed", "lost") or update.cause not in PERHAPS_THE_NODE:
            return update
        if not (gone := self._news.gone(team.where)):
            return update
        return replace(update, cause=Cause.NODE, node=gone, error=f"its node {gone[:8]} is gone ({update.error})")

    def close(self) -> None:
        """Leave: idle workers end, starts are taken back; runs go on where the cluster outlives this process."""
        self._head.close()
        if self._head.lost:
            return  # whatever is asked of this cluster now does not return
        self._board.clear()
        self._teams = {i: team for i, team in self._teams.items() if not self._forming.withdraw(team)}
        if self._teams:
            runs = "1 run is" if len(self._teams) == 1 else f"{len(self._teams)} runs are"
            after = (
                "end with the local Ray; start the same command again, and they resume from their checkpoints"
                if self.local
                else "go on without it; start the same command again to take them over"
            )
            print(f"this driver leaves while {runs} under way: they {after}", file=sys.stderr)
        self._pool.close()
        self._connection.close()

    def _release(self, team: Team, update: Update) -> None:
        """A sound single worker stays warm; gangs and workers after an error end."""
        if team.group is None and team.members and update.state in ("done", "stopped", "busy"):
            self._pool.keep(team.members[0], team.run_id)
            del self._teams[team.run_id]
        else:
            self._dissolve(team)

    def _dissolve(self, team: Team) -> None:
        if not self._forming.withdraw(team):
            self._pool.end(team.members, team.group, team.run_id)
        self._teams.pop(team.run_id, None)

    # ---------------------------------------------------------------------------------------------------- adoption

    def _adopt(self) -> None:
        """Take over the workers that an earlier driver of this sweep left; end what cannot be put together again."""
        found: dict[str, list[tuple[Assignment, Member]]] = {}
        actors = []
        for name in self._ray.util.list_named_actors():
            with contextlib.suppress(ValueError):  # it ended meanwhile
                actors += [self._ray.get_actor(name)] if name.startswith("worker-") else []
        asked = [actor.work.remote() for actor in actors]
        if asked:
            self._ray.wait(asked, num_returns=len(asked), timeout=ADOPT_SECONDS)
        for actor, answer in zip(actors, asked, strict=True):
            if (adopted := self._adopted(actor, answer)) is not None:
                found.setdefault(adopted[0].run_id, []).append(adopted)
        groups = self._gangs.existing()
        for run_id, ranks in found.items():
            ranks.sort(key=lambda item: item[0].rank)
            members, (work, _) = [member for _, member in ranks], ranks[0]
            where = dict(Counter(member.node for member in members))
            group = groups.pop(self._gangs.name(run_id), None)
            team = Team(run_id=run_id, members=members, group=group, where=where, shape=work.shape)
            if len(ranks) == work.world_size:
                self._teams[run_id] = team
            else:
                self._dissolve(team)
        for group in groups.values():  # of gangs that ended, or never began, while no driver was there
            self._gangs.remove(group)

    def _adopted(self, actor: Any, answer: Any) -> tuple[Assignment, Member] | None:
        """A worker that was found by name and has work; one without is ended."""
        try:
            work = self._ray.get(answer, timeout=0)
        except (self._ray.exceptions.RayError, TimeoutError):
            work = None
        if work is None:
            self._ray.kill(actor)
            return None
        member = Member(actor=actor, node=work.node, shape=work.shape, born=True)
        member.listen()
        return work, member
