"""Workers on their nodes: made, polled without waiting for the slow, kept warm for a while, ended."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps.cluster.connect import Connection
from sweeps.cluster.job import Assignment, Report
from sweeps.scheduling.inventory import Resources

# one arena for all threads: every run has a new thread, and an arena each would keep memory; large pages: 3-8% faster
MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1"}
CODE = Path(__file__).resolve().parent.parent.parent
POLL_SECONDS = 2.0  # for an answer of a worker that has answered before
START_SECONDS = 120.0  # for the first answer of a new one, which imports torch before it
SILENT_SECONDS = 300.0  # a worker that has answered before and does not any more is taken for lost
IDLE_SECONDS = 30.0  # a worker without work keeps its cores and GPUs from others for so long
ORPHAN_SECONDS = 60.0  # a worker that has neither work nor driver ends itself after so long
RELEASE_SECONDS = 0.3  # the cluster's view of free resources is that old


@dataclass(kw_only=True)
class Member:
    """A worker, and what it said last."""

    actor: Any
    node: str
    shape: Resources
    report: Report = field(default_factory=lambda: Report(state="running"))
    asked: Any = None  # the answer to a poll that is under way
    since: float = field(default_factory=time.monotonic)  # when that poll was sent, or the worker made
    born: bool = False  # it has answered once
    idle: float = 0.0  # since when it is without work

    def begin(self, assignment: Assignment, address: Any = "") -> None:
        """Give it work, without waiting for it to be there.

        Args:
            address: where the ranks meet, or the answer of the leader that will say it.
        """
        self.report, self.asked = Report(state="running"), None
        self.actor.start.remote(assignment, address)


class Pool:
    """The workers of one sweep."""

    def __init__(self, connection: Connection, orphan_seconds: float) -> None:
        self._ray, self._orphan_seconds = connection.ray, orphan_seconds
        self.idle: list[Member] = []
        self._freed = -RELEASE_SECONDS

    def single(self, node: str, shape: Resources) -> Member:
        """A warm worker of this shape on this node, or a new one."""
        for member in self.idle:
            if member.node == node and member.shape == shape:
                self.idle.remove(member)
                return member
        self.make_room(node)
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        return self.member(node, shape, strategy)

    def member(self, node: str, shape: Resources, strategy: Any, *, name: str = "", **words: str) -> Member:
        """A new worker; ``words`` are the gang's of ``Worker``."""
        from sweeps.cluster.worker import Worker

        variables = {"OMP_NUM_THREADS": str(max(1, int(shape.cpus))), "PYTHONPATH": python_path(), **MALLOC}
        actor = (
            self._ray.remote(Worker)
            .options(
                name=name or new_name(),
                lifetime="detached",
                max_restarts=0,
                num_cpus=shape.cpus,
                num_gpus=shape.gpus,
                scheduling_strategy=strategy,
                runtime_env={"env_vars": variables},
            )
            .remote(orphan_seconds=self._orphan_seconds, **words)
        )
        return Member(actor=actor, node=node, shape=shape)

    def keep(self, member: Member) -> None:
        """Keep a sound worker warm for the next run of its shape."""
        member.actor.clear.remote()
        member.idle = time.monotonic()
        self.idle.append(member)

    def end(self, members: Iterable[Member]) -> None:
        """End workers at once, whatever they do."""
        for member in list(members):
            if member in self.idle:
                self.idle.remove(member)
            self._ray.kill(member.actor)
            self._freed = time.monotonic()

    def make_room(self, *nodes: str) -> None:
        """End idle workers on these nodes: the scheduler counts them as free."""
        self.end([m for m in self.idle if m.node in nodes])
        time.sleep(max(0.0, self._freed + RELEASE_SECONDS - time.monotonic()))

    def poll(self, busy: Iterable[Member]) -> None:
        """Ask every worker how it stands. Those that have answered before are waited for, a little and once."""
        members, now = [*self.idle, *busy], time.monotonic()
        for member in members:
            if member.asked is None:
                member.asked = member.actor.poll.remote()
                member.since = now if member.born else member.since
        prompt = [m.asked for m in members if m.born and now - m.since < POLL_SECONDS]
        if prompt:
            self._ray.wait(prompt, num_returns=len(prompt), timeout=POLL_SECONDS)
        for member in members:
            self._hear(member)
        self.idle = [m for m in self.idle if m.report.state not in ("lost", "unstarted")]
        self.end([m for m in self.idle if time.monotonic() - m.idle > IDLE_SECONDS])

    def _hear(self, member: Member) -> None:
        """Take a worker's answer, if it has come."""
        ready, _ = self._ray.wait([member.asked], timeout=0)
        if not ready:
            silent = time.monotonic() - member.since
            if not member.born and silent > START_SECONDS:
                error = f"its worker did not start on node {member.node[:8]} within {START_SECONDS:g} s"
                member.report = Report(state="unstarted", error=error)
            elif member.born and silent > SILENT_SECONDS:
                error = f"its worker on node {member.node[:8]} has not answered for {SILENT_SECONDS:g} s"
                member.report = Report(state="lost", error=error)
            return
        try:
            member.report, member.born = self._ray.get(member.asked), True
        except self._ray.exceptions.RayError as error:
            member.report = Report(state="lost", error=f"its worker died ({type(error).__name__})")
        member.asked = None


def new_name() -> str:
    """A name for a worker, by which the next driver finds it."""
    return f"worker-{uuid.uuid4().hex[:12]}"


def python_path() -> str:
    """Workers import the code that the driver runs, wherever it came from."""
    inherited = os.environ.get("PYTHONPATH", "")
    return f"{CODE}:{inherited}" if inherited else str(CODE)
