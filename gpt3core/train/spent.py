"""What the training of a run took, over attempts that may have had more, fewer or other devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Those of an attempt."""

    count: float = 1
    usd_per_hour: float = 0.0  # of one
    peak_flops: float | None = None  # a second, of one; None where it is not known, as of CPUs


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Time, and what it cost."""

    train_seconds: float = 0.0
    device_seconds: float = 0.0
    usd: float = 0.0
    possible_flops: float | None = 0.0  # of the devices in that time; None where it is not known of some of them

    def plus(self, seconds: float, devices: Devices) -> Spent:
        """With so long a training on such devices."""
        of_all, peak = seconds * devices.count, devices.peak_flops
        return Spent(
            train_seconds=self.train_seconds + seconds,
            device_seconds=self.device_seconds + of_all,
            usd=self.usd + of_all / 3600 * devices.usd_per_hour,
            possible_flops=None if self.possible_flops is None or peak is None else self.possible_flops + of_all * peak,
        )


KEPT = tuple(vars(Spent()))


def before(state: Mapping[str, Any], devices: Devices) -> Spent:
    """By a checkpoint; what an older one does not say is taken to have been as with the devices of now."""
    seconds = state["train_seconds"]
    alike = Spent().plus(state.get("device_seconds", devices.count * seconds) / devices.count, devices)
    return replace(alike, **{name: state[name] for name in KEPT if name in state})
