"""Where one run of a sweep stands, and when its failures are too many. Times are of the monotonic clock."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from gpt3core.spec import RunSpec
from gpt3core.trunk import Prefix
from sweeps.cluster.job import Progress
from sweeps.driving.failures import Tally, Verdict, backoff

AGAIN = "starts again after: "  # a cause, which stays true whatever becomes of the driver


class Phase(StrEnum):
    """Where a run stands."""

    SPARE = "spare"  # not proposed (yet)
    WAITING = "waiting"
    RUNNING = "running"
    AWAITED = "awaited"  # its worker says that it is done; the store does not show it yet
    DONE = "done"
    FAILED = "failed"  # for good
    PRUNED = "pruned"  # no loss of it could change the law; its checkpoint is kept
    HELD = "held"  # on request, or for nodes that did not come back; goes on when asked


OPEN = (Phase.WAITING, Phase.RUNNING, Phase.AWAITED)  # on the way to a result


@dataclass(kw_only=True, eq=False)
class RunState:
    """One run of the sweep."""

    spec: RunSpec
    phase: Phase = Phase.SPARE
    reason: str = ""  # why it waits, failed or is held
    trained: bool = False  # only its evaluation is missing
    progress: Progress | None = None
    prefix: Prefix | None = None  # where it would start, in place of its first step
    awaits: Prefix | None = None  # the checkpoint that it waits for
    not_before: float = -math.inf  # of its next start
    ends: float = math.inf  # when it is expected to end, while it runs, by what was heard when it ...
    at: tuple[str, int] | None = None  # ... was there: phase and step
    expects: float | None = None  # when the scheduler expects to start it
    awaited: float = math.inf  # since when its result is awaited
    stopping: bool = False  # it was asked to stop
    queued: float = 0.0  # since when it waits, once it does; it keeps this age whatever happens to it
    tally: Tally = field(default_factory=Tally)  # of its failures
    workers: int | None = None  # fewer than the recipe's, of a gang that shrank
    misstarts: int = 0  # one after another on the same cluster
    cluster: object = None  # as it was at the last of them
    farthest: int = 0  # step that was reached
    resumes: int = 0  # step of the newest checkpoint that an earlier driver left
    again: bool = False  # it had begun before it was started last
    resumed: float | None = None  # share of its steps that it went on from then, once it said so

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.spec.run_id

    def started(self, ends: float) -> None:
        """Its workers have it."""
        self.phase, self.reason, self.ends, self.progress = Phase.RUNNING, "", ends, None
        self.stopping, self.again, self.resumed, self.at = False, False, None, None

    def begun(self, ends: float) -> None:
        """Its workers were given it, anew or again."""
        self.started(ends)
        self.again = max(self.farthest, self.resumes) > 0

    def heard(self, progress: Progress | None) -> None:
        """Its workers say how far it is."""
        if self.again and self.resumed is None and progress is not None and progress.step:
            self.resumed = progress.step / progress.steps
        self.progress = progress
        if progress is not None:
            self.farthest = max(self.farthest, progress.step)
            if progress.step:
                self.misstarts = 0

    def settle(self, phase: Phase, reason: str = "") -> None:
        """It no longer runs."""
        self.phase, self.reason, self.progress, self.ends, self.stopping = phase, reason, None, math.inf, False

    def wait(self, reason: str, until: float = -math.inf) -> None:
        """It waits for its turn, and is not started before ``until``."""
        self.settle(Phase.WAITING, reason)
        self.not_before = until

    def failed(self, verdict: Verdict, now: float) -> bool:
        """Take what follows from a failure: it is tried again a little later, or has failed for good (True)."""
        self.tally = verdict.tally
        if verdict.wait is None:
            self.settle(Phase.FAILED, verdict.reason)
            return True
        self.wait(AGAIN + verdict.reason, now + verdict.wait)
        return False

    def misstarted(self, error: str, cluster: object, limit: int, now: float) -> bool:
        """Count a start that the cluster refused: tried again later, or failed for good on an unchanged cluster (True).

        Args:
            cluster: whatever compares equal as long as nothing has changed there.
        """
        self.misstarts = self.misstarts + 1 if cluster == self.cluster else 1
        self.cluster = cluster
        if self.misstarts >= limit:
            self.settle(
                Phase.FAILED,
                f"{error}; it was tried {self.misstarts} times on an unchanged cluster: check placement.workers, "
                "placement.cpus and placement.gpus against what one node has",
            )
            return True
        self.wait(AGAIN + error, now + backoff(self.misstarts + 2))
        return False
