"""What the drivers of a cluster's sweeps tell one another, as text, and for how long it holds.

A claim is a lease: it counts while it changes, by the reader's own clock, and a driver that works writes a new one
within seconds. So what a driver had claimed that was stopped is free again after LEASE_SECONDS; of who died no word is
read any more. What the runs of either go on to hold is seen as anything that a stranger holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from sweeps.scheduling.fairness import Claim
from sweeps.scheduling.inventory import Resources
from sweeps.scheduling.jobs import Job, Running

FORM = 1  # of the text: drivers with another one are strangers
LEASE_SECONDS = 30.0


def to_text(claim: Claim, now: float, number: int) -> str:
    """A claim to put up.

    Args:
        number: that no earlier text of this driver had.
    """
    held = [[r.worker.cpus, r.worker.gpus, dict(r.allocation), _finite(r.ends - now)] for r in claim.held]
    wants = [
        [job.run_id, job.worker.cpus, job.worker.gpus, *job.kind[1:], _finite(job.seconds), n] for job, n in claim.wants
    ]
    about = {name: getattr(claim, name) for name in ("name", "weight", "excess", "lasts", "waited")}
    return json.dumps({"form": FORM, "number": number, **about, "held": held, "wants": wants})


def from_text(text: str, key: str, now: float) -> Claim | None:
    """A claim as it was put up; None where it is none that this driver can read."""
    try:
        said: dict[str, Any] = json.loads(text)
        if said["form"] != FORM:
            return None
        held = [
            Running(
                run_id=f"sweep {said['name']}",
                worker=Resources(cpus=float(cpus), gpus=float(gpus)),
                allocation={str(node): int(n) for node, n in where.items()},
                ends=math.inf if ends is None else now + float(ends),
            )
            for cpus, gpus, where, ends in said["held"]
        ]
        return Claim(
            key=key,
            name=str(said["name"]),
            **{name: float(said[name]) for name in ("weight", "excess", "lasts", "waited")},
            held=tuple(held),
            wants=tuple(map(_wanted, said["wants"])),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _wanted(entry: list[Any]) -> tuple[Job, int]:
    run_id, cpus, gpus, workers, together, accelerator, rack, seconds, count = entry
    job = Job(
        run_id=str(run_id),
        worker=Resources(cpus=float(cpus), gpus=float(gpus)),
        workers=int(workers),
        together=int(together),
        accelerator=str(accelerator),
        rack=str(rack),
        seconds=math.inf if seconds is None else float(seconds),
    )
    return job, int(count)


def _finite(seconds: float) -> float | None:
    return round(seconds, 3) if seconds < math.inf else None


class Leases:
    """The claims of other drivers that live."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, float, Claim | None]] = {}  # the last text, until when it counts, what it says

    def look(self, texts: Mapping[str, str], now: float) -> list[Claim]:
        """Those of these claims that hold, in one order for all who look.

        Args:
            texts: all that are up, by the key of their sweep.
        """
        for key, text in texts.items():
            if key not in self._seen or self._seen[key][0] != text:
                self._seen[key] = text, now + LEASE_SECONDS, from_text(text, key, now)
        self._seen = {key: seen for key, seen in self._seen.items() if key in texts}
        living = (seen for _, seen in sorted(self._seen.items()) if now < seen[1])
        return [claim for _, _, claim in living if claim is not None]
