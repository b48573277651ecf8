"""What a driver can say of a sweep beside its runs: expected starts and end, what was taken and is to come."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeps.driving import expected
from sweeps.driving.estimates import Estimates
from sweeps.driving.expected import Expected
from sweeps.driving.hands import Cluster
from sweeps.driving.limiting import Limits
from sweeps.driving.run_state import Phase, RunState
from sweeps.driving.spending import Spending
from sweeps.planning import limits
from sweeps.scheduling import ledger

LOOK_SECONDS = 2.0  # between two looks at the whole queue ...
DUTY = 0.02  # ... and so long that they take no more than this share of a core


@dataclass(kw_only=True)
class Outlook:
    """Expects, and adds up."""

    estimates: Estimates
    spending: Spending
    limits: Limits
    cluster: Cluster
    _expected: Expected = field(default_factory=Expected)
    _next: float = -math.inf

    def account(self, states: Mapping[str, RunState], now: float) -> None:
        """Take note of the cluster, of who holds devices, and of how fast the runs are."""
        self.spending.living(self.cluster.inventory())
        for run_id, seconds in self.spending.look(self.cluster.running(), now).items():
            if run_id in states and states[run_id].phase == Phase.DONE:
                self.estimates.ended(run_id, seconds)
        self.estimates.listen(states.values(), now)

    def eta(self, states: Mapping[str, RunState], now: float) -> float | None:
        """Seconds until all is done; None while nothing tells it."""
        end = self.expect(states, now).end
        return None if end is None else max(0.0, end - now)

    def expect(self, states: Mapping[str, RunState], now: float) -> Expected:
        """When the waiting runs should start, in their order, and the last run end."""
        if now < self._next and not self._passed(states, now):
            return self._expected
        began = time.thread_time()
        waiting = [s for s in states.values() if s.phase == Phase.WAITING]
        jobs = self.limits.ordered([self.estimates.job(s) for s in waiting])
        jobs.sort(key=lambda job: ledger.place(job, self.limits.rules))
        ends = [now + self.estimates.left(s) for s in states.values() if s.phase == Phase.RUNNING]
        room, later = self.limits.slots.places(now)
        known = {s.run_id: s.expects for s in waiting}
        self._expected = expected.expect(
            now, [(j.run_id, j.seconds) for j in jobs], ends, max(room, len(ends)), known, later
        )
        self._next = now + max(LOOK_SECONDS, (time.thread_time() - began) / DUTY)
        return self._expected

    def _passed(self, states: Mapping[str, RunState], now: float) -> bool:
        """Whether the end that was expected is over, and there are runs that have not ended: it was of fewer runs."""
        end = self._expected.end
        return (
            end is not None and end <= now and any(s.phase in (Phase.WAITING, Phase.RUNNING) for s in states.values())
        )

    def plain(self, states: Mapping[str, RunState], now: float, wall: float) -> dict[str, Any]:
        """For status.json; moments in seconds since the epoch.

        Args:
            now: by the driver's clock.
            wall: the same moment since the epoch.
        """
        looked = self.expect(states, now)
        return {
            "unit": limits.device(self.limits.recipe),
            "under_way": self._under_way(states, now, wall),
            "starts": {i: round(wall + t - now, 1) for i, t in looked.starts.items()},
            "ends": {i: round(wall + t - now, 1) for i, t in looked.ends.items()},
            "taken": self._taken(now),
            "to_come": self._to_come(states),
            "limit": self.limits.plain(),
            "estimates": self._account(),
        }

    def _under_way(self, states: Mapping[str, RunState], now: float, wall: float) -> dict[str, Any]:
        where = {run.run_id: run.allocation for run in self.cluster.running()}
        return {
            s.run_id: self._of_run(s, self.spending.accelerators(where.get(s.run_id, {})), now, wall)
            for s in states.values()
            if s.phase == Phase.RUNNING
        }

    def _of_run(self, state: RunState, accelerators: Mapping[str, int], now: float, wall: float) -> dict[str, Any]:
        held, flops = self.spending.since(state.run_id, now), self.estimates.flops_per_second(state)
        devices, peak = self.estimates.devices(state), self.estimates.peak_flops(state.spec, accelerators)
        return {
            "since": None if held is None else round(wall - held, 1),
            "ends": round(wall + self.estimates.left(state), 1),
            "devices": devices,
            "flops_per_second": round(flops),
            "mfu": round(flops / (peak * devices), 4) if peak else None,
            "stopping": state.stopping,
            "resumed": state.resumed,
        }

    def _taken(self, now: float) -> dict[str, float]:
        used = self.spending.used(now)
        hours = used.gpu_hours if self.limits.recipe.placement.gpus else used.core_hours
        return {"hours": round(hours, 5), "usd": round(used.usd, 4)}

    def _to_come(self, states: Mapping[str, RunState]) -> dict[str, float]:
        """Of the runs that are to end in this sweep; what is held is apart."""
        on = [s for s in states.values() if s.phase in (Phase.WAITING, Phase.RUNNING, Phase.SPARE)]
        held = [s for s in states.values() if s.phase == Phase.HELD]
        now, later = (limits.total(map(self.limits.takes, group)) for group in (on, held))
        return {
            "hours": round(now.device_seconds / 3600, 5),
            "usd": round(now.usd, 4),
            "held_hours": round(later.device_seconds / 3600, 5),
            "held_usd": round(later.usd, 4),
        }

    def _account(self) -> dict[str, float] | None:
        account = self.estimates.account()
        return None if account is None else {k: round(v, 4) for k, v in vars(account).items()}
