"""What the driver and the workers tell one another, typed: converted where it enters, never again. No ray, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt3core.evals.spec import EvalSpec
from gpt3core.numerics import Numerics
from gpt3core.parallel.layout import Layout
from gpt3core.spec import RunSpec
from gpt3core.trunk import Prefix
from sweeps.cluster.causes import Cause
from sweeps.scheduling.inventory import Resources


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a run's workers need to know, the same for all ranks."""

    spec: RunSpec
    evals: EvalSpec
    root: Path
    device: str  # cpu | cuda
    threads: int = 1  # of a rank
    numerics: Numerics | None = None  # the sweep's choice where the specification says "auto"
    checkpoint_seconds: float = 10.0
    prefix: Prefix | None = None  # where another run has done the first steps
    keep: tuple[int, ...] = ()  # steps whose checkpoints others wait for
    peak_flops: float | None = None  # of one device
    usd_per_hour: float = 0.0  # of one device
    layout: Layout | None = None  # over the gang's ranks; replicas by default
    halvings: int = 0  # of the micro-batch, after as many ends for want of memory
    hang_seconds: float | None = None  # after which a rank that does not come to a collective is named


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A worker's part of a run: what to call with which job, and its place in the gang."""

    entry: str  # module:function
    run_id: str
    job: Job
    node: str
    shape: Resources
    rank: int = 0
    world_size: int = 1
    address: str = ""  # host:port where the ranks meet


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is, as its rank 0 says a few times a second."""

    phase: str  # training | evaluating
    step: int
    steps: int
    loss: float | None = None  # nats per token, of the training batches
    tokens_per_second: float = 0.0

    @classmethod
    def of(cls, live: Mapping[str, Any]) -> Progress:
        """From what the trainer reports; what is not needed here is left out."""
        return cls(
            phase=live["phase"],
            step=live["step"],
            steps=live["steps"],
            loss=live["loss"],
            tokens_per_second=live["tokens_per_second"],
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one worker says of its work."""

    state: str = "idle"  # idle | running | done | stopped | busy | failed; lost and unstarted are the pool's words
    assignment: Assignment | None = None
    progress: Progress | None = None
    result: dict[str, Any] | None = None
    error: str = ""
    traceback: str = ""
    fatal: bool = False  # trying again would end the same way
    collective: bool = False  # the failure of a collective: another rank may know the cause
    cause: Cause = Cause.CRASH  # of a failure, or of a death
    blames: int | None = None  # the rank that it waits for in vain
    beats: int = 0  # signs of life so far (``gpt3core.pulse``)
    doing: str = ""  # something long that cannot beat


@dataclass(frozen=True, kw_only=True)
class Update:
    """What became of a run."""

    run_id: str
    state: str  # running | done | stopped | busy | failed | lost: a worker died | unstarted: one never came
    progress: Progress | None = None
    result: dict[str, Any] | None = None
    error: str = ""
    traceback: str = ""
    fatal: bool = False
    cause: Cause = Cause.CRASH
    node: str = ""  # of the rank at fault, as far as that is known
    beats: int = 0
    doing: str = ""
    ranks: tuple[str, ...] = field(default=())  # what each rank of a failed gang said


class StartError(Exception):
    """A run could not be started where the scheduler said; nothing was left behind."""
