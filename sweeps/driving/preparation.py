"""What comes before the first run, on one worker: text and numerics, because what is wrong there concerns every run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpt3core.errors import StoreError
from sweeps.cluster.causes import UNCOUNTED
from sweeps.cluster.job import Job, StartError, Update
from sweeps.driving.failures import backoff
from sweeps.driving.hands import Cluster
from sweeps.driving.nodes import GRACE_SECONDS
from sweeps.driving.sharing import Among
from sweeps.scheduling import scheduler
from sweeps.scheduling.inventory import Kind

NAME = "preparation"
ENTRY = "sweeps.cluster.worker:prepare"


class Preparation:
    """Runs until it has an answer."""

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        job: Job,
        limit: int,
        say: Callable[[str], None],
        among: Among,
        *,
        begun: bool,
    ) -> None:
        """Prepare.

        Args:
            kind: of the runs, of which it takes one worker.
            begun: whether the sweep has run before: then nodes that are missing are waited for.
            among: which may wait for the cluster too.
            job: of the run with the largest shape, for the numerics are timed on it.
            limit: failures after which it is given up.
        """
        self._cluster, self._shape, self._job, self._limit, self._say = cluster, kind.worker, job, limit, say
        self._among, self._accelerator = among, kind.accelerator
        self._begun = begun
        self.reason = ""  # why it waits
        self._queued: float | None = None  # since when it is asked for
        self._without: float | None = None  # since when no node has room for it
        self._failures = 0
        self._not_before = 0.0
        self.result: Mapping[str, Any] | None = None

    def act(self, now: float) -> bool:
        """Start it where there is room. False once it is over.

        Raises:
            StoreError: when no node has room for a worker of this sweep, or it failed too often.
        """
        if self.result is not None:
            return False
        running = self._cluster.running()
        if now < self._not_before or any(run.run_id == NAME for run in running):
            self._among.stay(now, running)
            return True
        self._queued = now if self._queued is None else self._queued
        job = scheduler.Job(run_id=NAME, worker=self._shape, accelerator=self._accelerator, queued=self._queued)
        inventory = self._cluster.inventory()
        self._among.look(now, running)
        held = [*running, *self._among.strangers(self._cluster.others()), *self._among.held]
        (decision,) = self._among.decide(now, inventory, [job], held)
        self._among.tell(now, [decision], [job])
        assert not isinstance(decision, scheduler.Preempt), "one that has no priority stops nobody"
        self.reason = "" if isinstance(decision, scheduler.Start) else f"the preparation {decision.reason}"
        if isinstance(decision, scheduler.Refuse):
            self._without = now if self._without is None else self._without
            if (inventory and not self._begun) or now - self._without > GRACE_SECONDS:
                raise StoreError(f"no run can start: each {decision.reason}")
        else:
            self._without = None
        if isinstance(decision, scheduler.Start):
            try:
                self._cluster.start(NAME, decision.allocation, self._shape, ENTRY, self._job)
            except StartError as error:
                self._failed(str(error), now)
        return True

    def take(self, update: Update, now: float) -> None:
        """What became of it.

        Raises:
            StoreError: when it failed for good.
        """
        if update.state == "done" and update.result is not None:
            self.result = update.result
            tokens = update.result["data"]["tokens"]
            self._say(
                f"text: {tokens['train'] / 1e6:.2f}M training and {tokens['validation'] / 1e6:.2f}M validation tokens"
            )
            for licence in update.result["licences"]:
                self._say(f"text licence: {licence}")
        elif update.fatal:
            raise StoreError(update.error)
        elif update.state not in ("running", "stopped") and update.cause not in UNCOUNTED:
            self._failed(update.error, now)

    def _failed(self, error: str, now: float) -> None:
        self._failures += 1
        self._not_before = now + backoff(self._failures)
        if self._failures >= self._limit:
            raise StoreError(f"the preparation failed {self._failures} times; at last: {error}")
