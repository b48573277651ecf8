"""What a sweep may take (``limit.*``): checked, a deadline read, and what of it is left as runs are chosen; pure."""

from __future__ import annotations

import bisect
import copy
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from typing import Any, NamedTuple

from gpt3core.errors import UsageError
from gpt3core.hints import nearest
from gpt3core.spec import RunSpec
from gpt3core.trunk import family, stable_steps
from sweeps.planning import placing
from sweeps.planning.recipe import Limit, Recipe

MOST_HOURS = 1e12
LEAST_COST = 1e-15  # of a run, which is above 0
MOST_FLOPS = 1e36
MOST_SECONDS = 100 * 365.25 * 86_400
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
DURATION = re.compile(r"(\d+(?:\.\d+)?)([a-z]+)")
EXAMPLES = "a time like 2027-01-31T18:00, or a duration like 90m, 12h or 3d"


def device(recipe: Recipe) -> str:
    """What is counted: GPUs, or cores where runs have none."""
    return "GPU" if recipe.placement.gpus else "core"


def devices(recipe: Recipe) -> float:
    """How many of them a run takes."""
    place = recipe.placement
    return place.workers * (place.gpus or place.cpus)


def all_of(limit: Limit) -> Cost:
    """What the whole sweep may take."""
    return Cost(math.inf if limit.hours is None else 3600 * limit.hours, math.inf if limit.usd is None else limit.usd)


def spends(limit: Limit) -> bool:
    """Whether hours or dollars are limited."""
    return limit.hours is not None or limit.usd is not None


def any_of(limit: Limit) -> bool:
    """Whether anything is limited that may leave runs out."""
    return spends(limit) or limit.deadline is not None


def check(recipe: Recipe) -> None:
    """Refuse limits that are none, or that no run keeps.

    Raises:
        UsageError: naming the key.
    """
    limit, gpus = recipe.limit, recipe.placement.gpus
    if limit.hours is not None and not 0 < limit.hours <= MOST_HOURS:
        raise UsageError(f"limit.hours={limit.hours:g}: {device(recipe)}-hours that the whole sweep may take, above 0")
    if limit.usd is not None:
        if not gpus:
            raise UsageError(
                f"limit.usd={limit.usd:g} with placement.gpus=0: a core has no price here; give limit.hours (of cores)"
            )
        if not 0 < limit.usd <= MOST_HOURS:
            raise UsageError(f"limit.usd={limit.usd:g}: US dollars that the whole sweep may cost, above 0")
        if not any(placing.prices(recipe)):
            raise UsageError(f"limit.usd={limit.usd:g} has no effect with plan.usd_per_gpu_hour=0: give a price")
    most = max([1.0, devices(recipe), *(devices(placing.own(recipe, label)) for label in recipe.placement_of)])
    if limit.devices is not None and limit.devices < most:
        raise UsageError(
            f"limit.devices={limit.devices}: {device(recipe)}s in use at once, and one run takes "
            f"{most:g}; give more, or fewer by placement.workers"
        )
    if limit.deadline is not None:
        deadline(limit.deadline, 0.0)
    if limit.target is not None and not 0 < limit.target <= MOST_FLOPS:
        raise UsageError(f"limit.target={limit.target}: FLOPs, positive (like 1e14)")
    if recipe.family == "gpt3" and not gpus and (spends(limit) or limit.devices is not None):
        raise UsageError(
            "limit.hours and limit.devices with placement.gpus=0: a run would count cores, and the plan of GPT-3's "
            "sizes counts GPUs; give placement.gpus=1"
        )


def is_duration(text: str) -> bool:
    """Whether a deadline counts from when it was first given."""
    return DURATION.fullmatch(text.strip().lower()) is not None


def deadline(text: str, began: float) -> float:
    """The moment of a deadline, in seconds since the epoch; a time without a zone is this machine's.

    Args:
        began: from when a duration counts.

    Raises:
        UsageError: where it is neither a time nor a duration.
    """
    word = text.strip()
    if match := DURATION.fullmatch(word.lower()):
        amount, unit = float(match[1]), match[2]
        if unit not in UNITS:
            raise UsageError(
                f"limit.deadline={word:.40}: unknown unit {unit:.20}{nearest(unit, list(UNITS))}; units "
                f"are {', '.join(UNITS)} (s, minutes, hours, days)"
            )
        if not 0 < amount * UNITS[unit] <= MOST_SECONDS:
            raise UsageError(f"limit.deadline={word:.40}: above 0 and at most a century; give {EXAMPLES}")
        return began + amount * UNITS[unit]
    try:
        return datetime.fromisoformat(word).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"limit.deadline={word:.40}: give {EXAMPLES}") from error


def moment(seconds: float) -> str:
    """A moment of this machine's time zone, to the minute."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


class Cost(NamedTuple):
    """Of a run or of a second of it, or what may be spent: a tuple, for thousands are made in a turn of the driver."""

    device_seconds: float = math.inf
    usd: float = math.inf

    def plus(self, other: Cost, times: float = 1.0) -> Cost:
        """With another so many times."""
        return Cost(self.device_seconds + times * other.device_seconds, self.usd + times * other.usd)

    def times(self, k: float) -> Cost:
        """k of these."""
        return Cost(k * self.device_seconds, k * self.usd)

    def within(self, left: Cost) -> bool:
        """Whether so much is left."""
        return self.device_seconds <= left.device_seconds and self.usd <= left.usd

    def share(self, left: Cost) -> float:
        """Of what is left, by the limit that is nearer; where there is none, its device-seconds."""
        if left == UNLIMITED:
            return self.device_seconds
        return max(
            (part / whole if whole > 0 else math.inf) if part else 0.0 for part, whole in zip(self, left, strict=True)
        )


UNLIMITED, NOTHING = Cost(), Cost(0.0, 0.0)


def total(costs: Iterable[Cost]) -> Cost:
    """All of them."""
    return reduce(Cost.plus, costs, NOTHING)


@dataclass(kw_only=True)
class Left:
    """What is left to spend as runs are chosen, and what they take of it.

    A run of a family that begins alike costs only what those chosen before have not trained already.
    """

    seconds: Sequence[float]  # of each run
    rates: Sequence[Cost]  # of a second of each
    left: Cost = UNLIMITED
    until: float = math.inf  # seconds to the deadline
    places: list[float] = field(default_factory=list)  # seconds until each place of the cluster is free, in order
    widths: Sequence[int] = ()  # places that each run takes; one where nothing is said
    families: Sequence[str] = ()
    stable: Sequence[float] = ()  # the share of each run that its family has in common with it ...
    tokens: Sequence[float] = ()  # ... and its tokens
    begun: dict[str, float] = field(default_factory=dict)  # family -> tokens that are trained, or will be

    def own(self, run: int) -> float:
        """Seconds of a run after those chosen."""
        name = self.families[run] if self.families else ""
        there = self.begun.get(name, 0.0) if name else 0.0
        shared = min(there, self.stable[run]) if there else 0.0
        return self.seconds[run] * (1 - shared / self.tokens[run]) if shared else self.seconds[run]

    def cost(self, run: int) -> float:
        """Of a run after those chosen, as a share of what is left."""
        return max(LEAST_COST, self.rates[run].times(self.own(run)).share(self.left))

    def fits(self, run: int) -> bool:
        """Whether it would end within what is left."""
        if not self.rates[run].times(self.own(run)).within(self.left):
            return False
        return self._begin(run) + self.own(run) <= self.until

    def _begin(self, run: int) -> float:
        """When as many places are free as it takes."""
        return self.places[self._width(run) - 1] if self.places else 0.0

    def _width(self, run: int) -> int:
        """The places that it takes, no more than there are now: whether more will come is not for a limit to say."""
        return min(self.widths[run] if self.widths else 1, len(self.places))

    def take(self, run: int) -> None:
        """Choose it."""
        seconds = self.own(run)
        self.left = self.left.plus(self.rates[run], -seconds)
        if self.places:
            ends, width = self._begin(run) + seconds, self._width(run)
            del self.places[:width]
            at = bisect.bisect(self.places, ends)
            self.places[at:at] = [ends] * width
        if self.families and (name := self.families[run]):
            self.begun[name] = max(self.begun.get(name, 0.0), self.stable[run])

    def holds_all(self) -> bool:
        """Whether every run fits, the longest first."""
        room = copy.deepcopy(self)
        for run in sorted(range(len(self.seconds)), key=lambda i: -self.seconds[i]):
            if not room.fits(run):
                return False
            room.take(run)
        return True

    def __deepcopy__(self, memo: object) -> Left:
        changed = {"places": [*self.places], "begun": {**self.begun}}
        return Left(**{**vars(self), **changed})


def common(runs: Sequence[RunSpec]) -> dict[str, Any]:
    """What ``Left`` must know of runs that begin alike."""
    return {
        "families": [family(run) for run in runs],
        "stable": [float(run.tokens_at(stable_steps(run))) for run in runs],
        "tokens": [float(run.tokens) for run in runs],
    }


def begun(runs: Iterable[RunSpec]) -> dict[str, float]:
    """The tokens of each family that these runs have trained, or will have."""
    found: dict[str, float] = {}
    for run in runs:
        if name := family(run):
            found[name] = max(found.get(name, 0.0), float(run.tokens_at(stable_steps(run))))
    return found
