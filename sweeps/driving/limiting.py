"""Keeps a sweep within ``limit.*``: which waiting runs may start, and which running ones must stop.

A run starts only if by its estimate it ends within what is left beside what runs already. Where not all fit, the runs
that together tell most about the target do (analysis.estimation.within_budget), in that order. Runs under way that the
estimates no longer have room for write their checkpoints and are held, those that teach least for what they still cost
first; at a limit all are. What does not fit is held, and comes back when runs turn out shorter than estimated; once
nothing is left that fits, the sweep ends with what it has.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gpt3core import costs
from sweeps.driving.estimates import Estimates
from sweeps.driving.hands import Cluster
from sweeps.driving.run_state import Phase, RunState
from sweeps.driving.slots import Slots
from sweeps.driving.spending import Spending
from sweeps.planning import limits, placing
from sweeps.planning.limits import NOTHING, Cost
from sweeps.planning.recipe import Recipe
from sweeps.scheduling import quota
from sweeps.scheduling.inventory import EPSILON, Inventory
from sweeps.scheduling.ledger import place
from sweeps.scheduling.scheduler import Job, Rules, Running

LOOK_SECONDS = 1.0  # between two looks for runs that came or ended
MANY = 1000  # waiting runs that all fit: more are not reckoned one by one between two choices
CHOOSE_SECONDS = 10.0  # between two choices while nothing ends ...
DUTY = 0.02  # ... and so long that they take no more than this share of a core
TOLERANCE = 0.1  # of what is left, by which estimates may promise too much before a run is stopped for it
PATIENCE_SECONDS, PATIENCE = 60.0, 0.2  # so long it must do so, at most for this share of what is left
STOP_SECONDS, LAST_SECONDS = 15.0, 2.0  # before a deadline, for checkpoints: of runs that do not end by it, of all
RESERVE_SECONDS, RESERVE = 5.0, 0.02  # of all devices in use, for the same, and the most of a limit that this takes


@dataclass(kw_only=True)
class _Chosen:
    """The last choice."""

    order: dict[str, int] | None = None  # run -> place; None where all fit
    known: set[str] = field(default_factory=set)  # runs that it was made of
    seen: object = None  # what it was made for
    next: float = -math.inf  # when it is made again in any case


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What a sweep would still need."""

    runs: int
    device_hours: float
    usd: float


@dataclass(kw_only=True)
class Limits:
    """The limits of one sweep, as its driver keeps them."""

    recipe: Recipe
    estimates: Estimates
    spending: Spending
    cluster: Cluster
    slots: Slots
    say: Callable[[str], None]
    loss: Callable[[str], float | None]  # of a run that is done
    began: float | None  # from when a deadline that is a duration counts, seconds since the epoch
    now: float  # the driver's clock, and ...
    wall: float  # ... the same moment in seconds since the epoch
    _chosen: _Chosen = field(default_factory=_Chosen)
    _losses: dict[str, float | None] = field(default_factory=dict)
    _held: set[str] = field(default_factory=set)  # for a limit
    _refused: set[str] = field(default_factory=set)  # of these, runs that were chosen and did not fit after all
    _ended: int = 0  # runs that had ended when these were refused
    _looked: float = -math.inf
    _stopped: bool = False
    _over_since: float = math.inf  # that the runs under way need more than is left
    _until: float = math.inf  # the deadline by the driver's clock

    def __post_init__(self) -> None:
        self.limit, self.any = self.recipe.limit, limits.any_of(self.recipe.limit)
        self.deadline: float | None = None  # seconds since the epoch
        if self.limit.deadline is not None:
            self.deadline = limits.deadline(self.limit.deadline, self.began or self.wall)
            self._until = self.now + self.deadline - self.wall

    # ------------------------------------------------------------------------------------------------- what is left

    def _left(self, now: float) -> Cost:
        """What is not spent; dollars by what they cost when they were."""
        used = self.spending.used(now)
        hours = used.gpu_hours if self.recipe.placement.gpus else used.core_hours
        return limits.all_of(self.limit).plus(Cost(3600 * hours, used.usd), -1)

    def reached(self, now: float) -> bool:
        """Whether nothing more may run."""
        if not self.any:
            return False
        held = limits.total(map(self._holds, self.cluster.running()))
        each = zip(self._left(now), held, limits.all_of(self.limit), strict=True)
        spent = any(left <= min(RESERVE_SECONDS * rate, RESERVE * whole) for left, rate, whole in each)
        return spent or now >= self._until - LAST_SECONDS

    def _early(self, now: float) -> bool:
        """Whether no node has said yet what its GPUs cost: nothing starts before one does, and nothing is held."""
        return self.limit.usd is not None and not self.spending.shapes and not self.reached(now)

    def _holds(self, run: Running) -> Cost:
        """What a second of a run under way takes, or of a preparation."""
        devices = sum(run.allocation.values()) * (run.worker.gpus or run.worker.cpus)
        return Cost(devices, self.spending.usd_per_second(run.run_id) or 0.0)

    # ------------------------------------------------------------------------------------------------ what may happen

    def look(self, states: Mapping[str, RunState], now: float) -> None:
        """Stop the runs under way that have no room left; hold the waiting ones that have none, and let others go."""
        if not self.any or self._early(now):
            return
        running = [s for s in states.values() if s.phase == Phase.RUNNING and not s.stopping]
        if self.reached(now):
            self._stop_all(running, now)
        elif now >= self._looked + LOOK_SECONDS:
            self._stop_some(running, now)
        self._choose(states, now)

    def queue(self, waiting: Sequence[RunState], states: Mapping[str, RunState], now: float) -> list[RunState]:
        """The waiting runs that end within the limits if they start now, in their order; the others get a reason.

        Args:
            waiting: that could start now; others may wait for a checkpoint or after a failure.
        """
        if (
            not self.any
            or self._early(now)
            or (self._chosen.order is None and len(waiting) > MANY and not self.reached(now))
        ):
            return list(waiting)
        left, found, closed = self._left(now).plus(self._promised(states), -1), [], self.reached(now)
        refused = []
        for state in sorted(waiting, key=lambda s: self._rank(s.run_id)):
            cost = self.takes(state)
            if closed or not cost.within(left) or now + self._seconds(state) > self._until - LAST_SECONDS:
                refused.append(state)
                continue
            left = left.plus(cost, -1)
            found.append(state)
        if refused:
            self._refuse(refused, states, final=not found)
        return found

    def _refuse(self, refused: Sequence[RunState], states: Mapping[str, RunState], *, final: bool) -> None:
        """Runs that were chosen and do not fit now: they wait for others to end, or are held where none is left to."""
        final &= not any(state.phase in (Phase.RUNNING, Phase.AWAITED) for state in states.values())
        why = self._names()
        for state in refused:
            if final:
                self._hold(state, why)
                self._refused.add(state.run_id)
            else:
                state.reason = f"beyond {why}, for now"

    def ordered(self, jobs: Sequence[Job]) -> list[Job]:
        """Jobs with the choice's order as their priority, where not all fit."""
        if self._chosen.order is None:
            return list(jobs)
        return [replace(job, priority=-self._rank(job.run_id)) for job in jobs]

    @property
    def rules(self) -> Rules:
        """The scheduler's rules: where the choice is the order, nobody who runs makes room for what tells less."""
        found = placing.rules(self.recipe)
        return found if self._chosen.order is None else replace(found, preempt=False)

    def turned(
        self,
        cut: Inventory,
        inventory: Inventory,
        jobs: Sequence[Job],
        running: Sequence[Running],
        others: Sequence[Running],
    ) -> tuple[Inventory, Sequence[Running]]:
        """What ``limit.devices`` leaves, or as much elsewhere if the first has no place there; and the runs as seen so.

        Args:
            inventory: all of the cluster.
        """
        if self.limit.devices is None or cut is inventory or not jobs:
            return cut, running
        first = min(jobs, key=lambda job: place(job, self.rules))
        return quota.turned(cut, inventory, running, others, first.kind, self.limit.devices)

    def _rank(self, run_id: str) -> int:
        return 0 if self._chosen.order is None else self._chosen.order.get(run_id, len(self._chosen.order))

    def _promised(self, states: Mapping[str, RunState]) -> Cost:
        """What the runs under way still take; those asked to stop, what a checkpoint does."""
        running = [s for s in states.values() if s.phase == Phase.RUNNING]
        return limits.total(self.takes(s, most=STOP_SECONDS if s.stopping else math.inf) for s in running)

    def takes(self, state: RunState, most: float = math.inf) -> Cost:
        """What a run still takes, of so many seconds at most."""
        return self._rate(state).times(min(most, self._seconds(state)))

    def _rate(self, state: RunState) -> Cost:
        """What a second of a run takes: of dollars, what its nodes cost where it has some."""
        rate, usd = self.estimates.rate(state, self.spending.shapes), self.spending.usd_per_second(state.run_id)
        return rate if usd is None else rate._replace(usd=usd)

    def _seconds(self, state: RunState) -> float:
        return self.estimates.job(state).seconds if state.phase == Phase.WAITING else self.estimates.left(state)

    def _stop_all(self, running: Sequence[RunState], now: float) -> None:
        if running and not self._stopped:
            self._stopped = True
            self.say(f"limit   {self._why(now)}: the runs under way write their checkpoints")
        for state in running:
            self._stop(state)

    def _stop_some(self, running: Sequence[RunState], now: float) -> None:
        """Where the runs under way need more than is left: stop those that have done least for what they still take."""
        if now >= self._until - STOP_SECONDS:
            for state in running:
                if now + self.estimates.left(state) > self._until:
                    self._stop(state)
            return
        left = self._left(now)
        promised = limits.total(map(self.takes, running))
        if promised.within(left.times(1 + TOLERANCE)):
            self._over_since = math.inf
            return
        self._over_since = min(self._over_since, now)
        patience = min(PATIENCE_SECONDS, PATIENCE / limits.total(map(self._rate, running)).share(left))
        if now - self._over_since < patience:
            return  # a speed that was just measured may be a moment's
        for state in sorted(running, key=self._worth):
            if promised.within(left.times(1 + TOLERANCE)):
                return
            promised = promised.plus(self.takes(state), -1)
            self.say(f"limit   {state.run_id} would end beyond {self._why(now)}: it writes its checkpoint")
            self._stop(state)

    def _stop(self, state: RunState) -> None:
        state.stopping = True
        self.cluster.stop(state.run_id)

    def _worth(self, state: RunState) -> float:
        """FLOPs done of a run under way for each second that it still takes: the least is stopped first."""
        done = state.progress.step / max(1, state.progress.steps) if state.progress else 0.0
        return done * costs.train_flops(state.spec.model, state.spec.tokens) / max(1.0, self.estimates.left(state))

    # --------------------------------------------------------------------------------------------------- the choice

    def _choose(self, states: Mapping[str, RunState], now: float) -> None:
        """Which of the runs that wait, or are held for a limit, fit; asked when a run came or ended, and at times."""
        if now < self._looked + LOOK_SECONDS and now < self._chosen.next and not self.reached(now):
            return
        self._looked = now
        here = [s for s in states.values() if s.phase == Phase.WAITING or s.run_id in self._held]
        here = [s for s in here if s.phase in (Phase.WAITING, Phase.HELD) and s.run_id not in self._refused]
        ended = sum(s.phase not in (Phase.WAITING, Phase.RUNNING, Phase.HELD) for s in states.values())
        if ended != self._ended:
            self._ended, self._refused = ended, set()
        known = self._chosen.known
        seen = (ended, self.reached(now), all(s.run_id in known for s in here))
        if not here or (seen == self._chosen.seen and now < self._chosen.next):
            return
        began = time.thread_time()
        room = self._room(here, states, now)
        order = (
            None
            if room.holds_all()
            else {here[i].run_id: n for n, i in enumerate(self._informative(here, states, room))}
        )
        out = 0 if order is None else len(here) - len(order)
        if out and not self._held:
            which = f"{len(order or ())} of the waiting runs fit, {out} do not"
            self.say(f"limit   {self._why(now)}: {which}; the most informative for their cost start first")
        self._settle(here, order)
        spent = time.thread_time() - began
        self._chosen = _Chosen(
            order=order,
            known={*known, *(s.run_id for s in here)},
            seen=(*seen[:2], True),
            next=now + max(CHOOSE_SECONDS, spent / DUTY),
        )

    def _settle(self, here: Sequence[RunState], order: Mapping[str, int] | None) -> None:
        why = self._names()
        for state in here:
            if order is None or state.run_id in order:
                self._held.discard(state.run_id)
                if state.phase == Phase.HELD:
                    state.wait("")
            elif state.phase == Phase.WAITING or state.run_id in self._held:
                self._hold(state, why)

    def _hold(self, state: RunState, why: str) -> None:
        self._held.add(state.run_id)
        state.settle(Phase.HELD, f"beyond {why}; raise it and start the same command again")

    def _room(self, here: Sequence[RunState], states: Mapping[str, RunState], now: float) -> limits.Left:
        """What is left beside the runs under way."""
        running = [s for s in states.values() if s.phase == Phase.RUNNING]
        ends = [self.estimates.left(s) for s in running for _ in range(self._width(s))]
        room, later = self.slots.places(now)
        on_the_way = (Phase.RUNNING, Phase.AWAITED, Phase.DONE)
        return limits.Left(
            seconds=[self.estimates.alone(s) for s in here],
            rates=list(map(self._rate, here)),
            left=NOTHING if self.reached(now) else self._left(now).plus(self._promised(states), -1),
            until=self._until - LAST_SECONDS - now,
            places=sorted([*ends, *[0.0] * max(0, room - len(ends)), *(free - now for free in later)]),
            widths=list(map(self._width, here)),
            **limits.common([s.spec for s in here]),
            begun=limits.begun([s.spec for s in states.values() if s.phase in on_the_way]),
        )

    def _width(self, state: RunState) -> int:
        """How many places of a common run it takes."""
        return math.ceil(self.estimates.devices(state) / self.estimates.common.devices - EPSILON)

    def _informative(self, here: Sequence[RunState], states: Mapping[str, RunState], room: limits.Left) -> list[int]:
        from sweeps.driving.informative import choose  # scipy and the laws, which a sweep that fits does without

        for run_id, state in states.items():
            if state.phase == Phase.DONE and run_id not in self._losses:
                self._losses[run_id] = self.loss(run_id)
        made = {i: loss for i, loss in self._losses.items() if loss is not None}
        made |= {i: math.nan for i, s in states.items() if s.phase in (Phase.RUNNING, Phase.AWAITED)}
        return choose([s.spec for s in here], room, {states[i].spec: made[i] for i in made}, self.limit.target).runs

    # ------------------------------------------------------------------------------------------------------- in words

    def _names(self) -> str:
        """The limits that leave runs out, as they were typed."""
        given = ((name, getattr(self.limit, name)) for name in ("hours", "usd", "deadline"))
        return ", ".join(f"limit.{name}={value}" for name, value in given if value is not None)

    def _why(self, now: float) -> str:
        """The limits, and how much of them is taken."""
        words, unit, used = [], limits.device(self.recipe), self.spending.used(now)
        if self.limit.hours is not None:
            hours = used.gpu_hours if self.recipe.placement.gpus else used.core_hours
            words.append(f"limit.hours={self.limit.hours:g} ({hours:.3g} {unit}-hours taken)")
        if self.limit.usd is not None:
            words.append(f"limit.usd={self.limit.usd:g} ({used.usd:.3g} spent)")
        if self.deadline is not None:
            words.append(f"limit.deadline={self.limit.deadline} ({limits.moment(self.deadline)})")
        return ", ".join(words)

    def missing(self, states: Mapping[str, RunState]) -> Missing:
        """What the runs that did not end would still take."""
        left = [s for s in states.values() if s.phase in (Phase.WAITING, Phase.RUNNING, Phase.AWAITED, Phase.HELD)]
        cost = limits.total(map(self.takes, left))
        return Missing(runs=len(left), device_hours=cost.device_seconds / 3600, usd=cost.usd)

    def beyond(self, states: Mapping[str, RunState]) -> list[str]:
        """The runs that are held for a limit."""
        return [i for i, state in states.items() if i in self._held and state.phase == Phase.HELD]

    def outcome(self, states: Mapping[str, RunState], now: float) -> str:
        """What was reached, what is missing and what it would cost; empty where no limit held anything."""
        held = [states[run_id] for run_id in self.beyond(states)]
        if not held:
            return ""
        still, unit = self.missing({s.run_id: s for s in held}), limits.device(self.recipe)
        price = f" and {still.usd:,.3g} USD" if self.recipe.placement.gpus else ""
        return (
            f"stopped at {self._why(now)}: {len(held)} of {len(states)} runs are missing, which would take about "
            f"{still.device_hours:.3g} {unit}-hours{price} more by estimate; raise the limit and start the same "
            "command again"
        )

    def plain(self) -> dict[str, Any]:
        """For status.json."""
        found = {name: getattr(self.limit, name) for name in ("hours", "usd", "devices")}
        return {**{k: v for k, v in found.items() if v is not None}, **self._deadline()}

    def _deadline(self) -> dict[str, float]:
        return {} if self.deadline is None else {"deadline": round(self.deadline, 1)}
