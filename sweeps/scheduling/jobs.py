"""What the scheduler is told of runs, and what it says of them; and the order of the queue."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from sweeps.scheduling.inventory import Allocation, Kind, Node, Resources

DAY = 86_400.0
RETURN_SECONDS = 3600.0  # that a lost node, or one in its place, is expected to take; after that it is not waited for
_KINDS: dict[Kind, Kind] = {}  # a comparison of kinds would be most of a pass


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run that waits. A gang of ``workers`` starts all at once or not at all, each ``together`` of them on a node."""

    run_id: str
    worker: Resources
    workers: int = 1
    together: int = 1
    accelerator: str = ""  # of its nodes, by their label; empty for any
    rack: str = ""  # the label of which its nodes share the value; empty where they may lie anywhere
    seconds: float = math.inf  # estimate of its length; unknown is never backfilled ahead of a reservation
    priority: int = 0
    turn: int = 0  # among runs of one priority and age, lower first
    queued: float = 0.0  # when it was asked for; a run that comes back keeps its old age
    rank: int = 0  # lower before all else: of sweeps that share the cluster (``fairness``)

    @cached_property
    def kind(self) -> Kind:
        """What its fit depends on; the same object for all such runs."""
        kind = Kind(self.worker, self.workers, self.together, self.accelerator, self.rack)
        return _KINDS.setdefault(kind, kind)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A run that holds resources until about ``ends``."""

    run_id: str
    worker: Resources
    allocation: Allocation
    ends: float = math.inf
    priority: int = 0
    queued: float = 0.0
    resumable: bool = False  # it could be stopped, and would go on from a checkpoint
    stopping: bool = False  # it was asked to, and writes that checkpoint
    since: float | None = None  # of what somebody else holds, who does not say until when: since when it is


def missing(node: Node, since: float) -> Running:
    """A lost node as something that holds all of it until it should be back.

    With it, and the node in the inventory, whoever waits for all nodes keeps the reservation, and others fill the gap
    only as long as they end before; without, a gang on the whole cluster would begin to wait anew with every loss.
    """
    return Running(
        run_id=f"lost {node.name}", worker=node.total, allocation={node.name: 1}, ends=since + RETURN_SECONDS
    )


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a site decides."""

    patience: float = DAY  # seconds of age that a step of priority is worth: nobody is overtaken for longer
    preempt: bool = False  # whether running runs make room for one of higher priority


@dataclass(frozen=True, kw_only=True)
class Start:
    """Start this run, with this many workers on these nodes."""

    run_id: str
    allocation: Allocation


class Hold(NamedTuple):
    """This run waits; ``eta`` is when it should start, if that can be told; infinite where others must free room."""

    run_id: str
    reason: str
    eta: float | None = None  # a tuple, for thousands are made in a pass


@dataclass(frozen=True, kw_only=True)
class Refuse:
    """This run can never start on this cluster, nor on the largest that it was."""

    run_id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Preempt:
    """Stop this running run, which can resume: ``by`` takes its place."""

    run_id: str
    by: str


Decision = Start | Hold | Refuse | Preempt


def turn(run: Job | Running, rules: Rules) -> float:
    """When a run's turn is, the lowest first: its time of asking, a step of priority earlier by ``patience``.

    It does not change while the run waits, so a run is overtaken only by those asked for within ``patience`` times the
    steps that they are above it, and of two runs never each goes before the other.
    """
    return run.queued - rules.patience * run.priority
