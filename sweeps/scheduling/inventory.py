"""The cluster as plain data, real or fake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
