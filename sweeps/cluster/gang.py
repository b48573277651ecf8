"""The workers of a run together: a placement group for several, and one verdict from what they say."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sweeps.cluster.causes import Cause
from sweeps.cluster.connect import Connection
from sweeps.cluster.hearing import Member
from sweeps.cluster.job import Report, Update
from sweeps.cluster.pool import Pool, new_name
from sweeps.scheduling.inventory import Allocation, Resources

CAUSE_SECONDS = 5.0  # for the rank that knows the cause, when another one says only that the connection broke

ROOM, FORMING, RUNNING, OVER = "room", "forming", "running", "over"  # the stages of a start; it is over where it failed


@dataclass(kw_only=True, eq=False)
class Team:
    """The workers of a run, the placement group of a gang, and how far their start is."""

    run_id: str
    members: list[Member] = field(default_factory=list)
    group: Any = None
    broke: float | None = None  # when a collective was first seen to fail
    where: Allocation = field(default_factory=dict)  # node -> workers there, or on their way
    shape: Resources = field(default_factory=Resources)
    stage: str = RUNNING
    withdrawn: bool = False  # while it was forming
    error: str = ""  # why it could not start
    heard: list[Report] = field(default_factory=list)  # what was looked at last
    said: Update | None = None  # and what was said of it

    @property
    def world_size(self) -> int:
        """How many workers it has."""
        return sum(self.where.values())

    def update(self) -> Update:
        """What became of the run."""
        if self.stage == OVER:
            node = next(iter(self.where)) if len(self.where) == 1 else ""  # of several it is not known which
            state = "unstarted" if self.error else "stopped"
            return Update(run_id=self.run_id, state=state, error=self.error, node=node)
        if self.stage != RUNNING:
            return Update(run_id=self.run_id, state="running")
        reports = [member.report for member in self.members]
        if self.said is not None and self.broke is None and reports == self.heard:
            return self.said
        if self.broke is None and any(report.collective for report in reports):
            self.broke = time.monotonic()
        waited = self.broke is not None and time.monotonic() - self.broke > CAUSE_SECONDS
        said = combine(self.run_id, reports, waited=waited)
        if said.state not in ("running", "done"):
            rank = at_fault(reports)
            blamed = reports[rank].blames
            said = replace(said, node=self.members[rank if blamed is None else blamed].node)
        self.heard, self.said = reports, said
        return said


class Gangs:
    """Placement groups of one sweep, by the run's name."""

    def __init__(self, connection: Connection, pool: Pool) -> None:
        self._ray, self._pool = connection.ray, pool
        self._prefix = f"gang-{connection.namespace}-"

    def group(self, team: Team) -> Any:
        """Ask for a team's group on the scheduler's nodes, all or nothing."""
        return self._ray.util.placement_group(
            [_bundle(team.shape.times(count)) for count in team.where.values()],
            strategy="STRICT_SPREAD" if len(team.where) > 1 else "STRICT_PACK",
            name=self.name(team.run_id),
            lifetime="detached",
            bundle_label_selector=[{"ray.io/node-id": node} for node in team.where],
        )

    def members(self, team: Team, entry: str) -> Iterator[Member]:
        """The workers of a team whose group is there, rank 0 first."""
        leader, scheduling = new_name(), self._ray.util.scheduling_strategies
        first = True
        for index, (node, count) in enumerate(team.where.items()):
            strategy = scheduling.PlacementGroupSchedulingStrategy(team.group, placement_group_bundle_index=index)
            for _ in range(count):
                words = {"name": leader} if first else {"leader": leader}
                first = False
                words |= {"group": self.name(team.run_id), "entry": entry}
                yield self._pool.member(node, team.shape, strategy, **words)

    def remove(self, group: Any) -> None:
        """Remove a group, and whatever still runs in it."""
        self._ray.util.remove_placement_group(group)

    def name(self, run_id: str) -> str:
        """A run's group."""
        return f"{self._prefix}{run_id}"

    def existing(self) -> dict[str, Any]:
        """This sweep's groups by name."""
        found = {}
        for entry in self._ray.util.placement_group_table().values():
            if entry["name"].startswith(self._prefix) and entry["state"] != "REMOVED":
                with contextlib.suppress(ValueError):
                    found[entry["name"]] = self._ray.util.get_placement_group(entry["name"])
        return found


def combine(run_id: str, reports: Sequence[Report], *, waited: bool = True) -> Update:
    """What a gang's workers say together.

    Rank 0 has the progress and the result; a run that is done, or another's, has not failed because its other ranks
    missed rank 0. Of failures the cause counts: a fatal one, then one that is not a collective's, then a dead worker.

    Args:
        waited: whether ranks that are still running had their time to say more than that a collective failed.
    """
    lead, kinds = reports[0], {report.state for report in reports}
    finished = kinds == {"done"} or (lead.state == "done" and lead.result is not None)
    echo = not waited and all(r.state in ("running", "done") or r.collective for r in reports)
    if "running" in kinds and (finished or echo or kinds <= {"running", "done"}):
        beats, doing = sum(r.beats for r in reports), next((r.doing for r in reports if r.doing), "")
        return Update(run_id=run_id, state="running", progress=lead.progress, beats=beats, doing=doing)
    if finished:
        return Update(run_id=run_id, state="done", result=lead.result)
    worst = reports[at_fault(reports)]
    ranks = tuple(f"rank {i} {r.state}: {r.error}" for i, r in enumerate(reports)) if len(reports) > 1 else ()
    return Update(
        run_id=run_id,
        state=worst.state if worst.state != "idle" else "lost",
        error=worst.error,
        traceback=worst.traceback,
        fatal=worst.fatal,
        cause=worst.cause if worst.state != "idle" else Cause.DEATH,
        ranks=ranks,
    )


def at_fault(reports: Sequence[Report]) -> int:
    """The rank that is nearest to the cause of a gang's end; rank 0 where none has ended."""
    ended = [rank for rank, report in enumerate(reports) if report.state not in ("running", "done", "idle")]
    return min(ended, key=lambda rank: _weight(reports[rank]), default=0)


def _weight(report: Report) -> int:
    """How near to the cause a rank's word is, the nearest first."""
    if report.state == "failed":
        return 1 if report.fatal else 4 if report.collective else 2
    return {"busy": 0, "lost": 3, "unstarted": 3}.get(report.state, 5)


def _bundle(resources: Resources) -> dict[str, float]:
    bundle = {"CPU": resources.cpus, "GPU": resources.gpus}
    return {name: amount for name, amount in bundle.items() if amount > 0}
