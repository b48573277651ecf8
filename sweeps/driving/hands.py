"""What the driver needs of whoever starts its runs: the launcher on a cluster, or a fake one in tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sweeps.cluster.job import Job, Update
from sweeps.scheduling.inventory import Allocation, Inventory, Resources
from sweeps.scheduling.scheduler import Running


class Cluster(Protocol):
    """Nodes, and runs on them."""

    def inventory(self) -> Inventory:
        """The living nodes."""

    def running(self) -> list[Running]:
        """The runs that hold resources, those of an earlier driver among them."""

    def others(self) -> list[Running]:
        """What somebody else holds."""

    def claims(self) -> Mapping[str, str]:
        """What the drivers of other sweeps that live told last with ``claim``, by a key of each sweep."""

    def claim(self, text: str, *, alone: bool) -> None:
        """Tell the drivers of other sweeps; while this one is not alone, workers without work end at once."""

    def poll(self) -> list[Update]:
        """What became of every run that was started; whoever ended is told of once."""

    def wait(self, seconds: float) -> None:
        """Return when ``poll`` has an end to tell, and after so long at the latest."""

    def start(self, run_id: str, allocation: Allocation, shape: Resources, entry: str, job: Job) -> None:
        """Start a run; raises StartError when that cannot be."""

    def end(self, run_id: str) -> None:
        """End a run at once, whatever it does; nothing more is told of it."""

    def leaving(self) -> Mapping[str, float]:
        """The nodes that are to be taken away, with the seconds that are left."""

    def stop(self, run_id: str | None = None) -> None:
        """Ask one run, or all, to write a checkpoint and end."""
