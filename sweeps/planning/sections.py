"""Sections of a recipe that all ladders share: what is done about anomalies, and what a sweep may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Limit:
    """What the sweep may take, over all of its drivers; at a limit it stops with what it has, and goes on if raised."""

    hours: float | None = None  # GPU-hours; core-hours where placement.gpus is 0
    usd: float | None = None  # of GPUs, at plan.usd_per_gpu_hour or that of their kind
    deadline: str | None = None  # 2027-01-31T18:00, or from the first command that gave it: 90m, 12h, 3d
    devices: int | None = None  # GPUs in use at once; cores where placement.gpus is 0
    target: float | None = None  # FLOPs about which runs tell, where not all fit; by default ten times the largest's


@dataclass
class Anomaly:
    """What is done about a loss or gradient that is not finite, or jumps (``gpt3core.anomaly``)."""

    policy: str = "stop"  # stop: the run is diverged | skip the update | rollback: go back, past the text around it
    spike: float = 0.0  # a jump: so many median absolute deviations above the median; 0: only what is not finite
    window: int = 128  # steps that the median is of
    limit: int = 10  # times a run that skip or rollback is done
    back: int = 100  # steps that rollback goes back
    ahead: int = 100  # batches after the anomaly that it passes over too
