"""The cluster as plain data, real or fake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Cores and GPUs."""

    cpus: float = 0.0
    gpus: float = 0.0

    def fits(self, other: Resources) -> bool:
        """Whether ``other`` fits into these."""
        return other.cpus <= self.cpus + EPSILON and other.gpus <= self.gpus + EPSILON

    def times(self, k: int) -> Resources:
        """k of these."""
        return Resources(cpus=k * self.cpus, gpus=k * self.gpus)

    def minus(self, other: Resources) -> Resources:
        """What is left of these without ``other``."""
        return Resources(cpus=self.cpus - other.cpus, gpus=self.gpus - other.gpus)

    def plus(self, other: Resources) -> Resources:
        """These and ``other``."""
        return Resources(cpus=self.cpus + other.cpus, gpus=self.gpus + other.gpus)

    def __str__(self) -> str:
        parts = [f"{self.gpus:g} GPU{'s' * (self.gpus != 1)}"] if self.gpus else []
        return " and ".join([*parts, f"{self.cpus:g} core{'s' * (self.cpus != 1)}"])


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the cluster and all that it has."""

    name: str
    total: Resources
    labels: Mapping[str, str] = field(default_factory=dict)


Inventory = list[Node]
Allocation = Mapping[str, int]  # node name -> workers there
ACCELERATOR = "ray.io/accelerator-type"  # the label by which Ray tells what GPUs a node has


class Kind(NamedTuple):
    """All that the fit of a gang depends on."""

    worker: Resources
    workers: int = 1
    together: int = 1  # workers that must share a node
    accelerator: str = ""  # what a node's ACCELERATOR label must be; empty for any
    rack: str = ""  # a label of which all its nodes must share the value; a node without the label is alone

    @property
    def devices(self) -> float:
        """GPUs of all its workers; cores where they have none."""
        return self.workers * (self.worker.gpus or self.worker.cpus)

    def __str__(self) -> str:
        groups = f" (each {self.together} on one node)" if self.together > 1 else ""
        many = str(self.worker) if self.workers == 1 else f"{self.workers} workers of {self.worker} at once{groups}"
        on = f" on {self.accelerator}" if self.accelerator else ""
        return f"{many}{on}, in one {self.rack}" if self.rack and self.workers > 1 else f"{many}{on}"


def rack_of(node: Node, label: str) -> tuple[bool, str]:
    """Which rack a node is in by a label; one without the label is a rack of its own. Without a label all are one."""
    if not label:
        return True, ""
    return (True, node.labels[label]) if label in node.labels else (False, node.name)
