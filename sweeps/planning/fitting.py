"""What --plan says of a sweep's limits: what is taken, which runs fit, which fall out; by the first estimates."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gpt3core.spec import RunSpec
from gpt3core.words import some
from sweeps.planning import limits, totals
from sweeps.planning.limits import Cost, Left
from sweeps.planning.recipe import Recipe
from sweeps.planning.totals import Timed
from sweeps.scheduling.inventory import EPSILON

Choose = Callable[[Sequence[RunSpec], Left, Mapping[RunSpec, float], float | None], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What the sweep has behind it, as the store tells."""

    hours: float = 0.0
    usd: float = 0.0
    deadline_began: float | None = None
    now: float = 0.0  # seconds since the epoch


def lines(
    recipe: Recipe,
    runs: Sequence[RunSpec],
    trained: Sequence[RunSpec],
    taken: Taken,
    choose: Choose,
) -> list[str]:
    """Sentences about the limits; none where there are none.

    Args:
        runs: that are still to be trained.
        trained: the others.
        choose: which to make where not all fit.
    """
    limit, unit = recipe.limit, limits.device(recipe)
    found = []
    if limit.devices is not None:
        found.append(f"limit.devices={limit.devices}: at most so many {unit}s are in use at once")
    if not limits.any_of(limit):
        return found
    known, _ = totals.timed(recipe, runs, {})
    room = _room(recipe, known, trained, taken)
    words = _limits(recipe, taken)
    if limit.deadline is not None:
        n = _devices(recipe)
        words += f" on {n:g} {unit}{'s' * (n != 1)}" if n else "; how many run at once is not known: give plan.gpus="
    if not known:
        return [*found, f"{words}: nothing is left to train"]
    if room.holds_all():
        return [*found, f"{words}: all {len(known)} runs fit by the first estimates ({_cost(recipe, known)})"]
    order = list(choose([run.spec for run in known], room, dict.fromkeys(trained, math.nan), limit.target))
    chosen, out = [known[i] for i in order], [run for i, run in enumerate(known) if i not in set(order)]
    found.append(
        f"{words}: {len(chosen)} of {len(known)} runs fit by the first estimates ({_cost(recipe, chosen)}), those that "
        f"tell most about the loss at {_target(recipe)} for their cost, in this order: {_named(chosen) or 'none'}"
    )
    found.append(f"beyond the limit, and held: {_named(out)}; they would take {_cost(recipe, out)} more")
    return found


def _target(recipe: Recipe) -> str:
    """Where the law is asked."""
    if recipe.limit.target is not None:
        return f"{recipe.limit.target:.3g} FLOPs"
    return "ten times the largest run's FLOPs"


def _limits(recipe: Recipe, taken: Taken) -> str:
    """The limits as typed, with what is taken of them."""
    limit, words = recipe.limit, []
    if limit.hours is not None:
        words.append(f"limit.hours={limit.hours:g} ({taken.hours:.3g} {limits.device(recipe)}-hours taken)")
    if limit.usd is not None:
        words.append(f"limit.usd={limit.usd:g} ({taken.usd:.3g} spent)")
    if limit.deadline is not None:
        until = limits.deadline(limit.deadline, taken.deadline_began or taken.now)
        words.append(f"limit.deadline={limit.deadline} ({limits.moment(until)})")
    return ", ".join(words)


def _room(recipe: Recipe, known: Sequence[Timed], trained: Sequence[RunSpec], taken: Taken) -> Left:
    """What is left, each run on the slowest kind of GPU that it may have."""
    limit, until = recipe.limit, math.inf
    if limit.deadline is not None:
        until = limits.deadline(limit.deadline, taken.deadline_began or taken.now) - taken.now
    specs, slow = [run.spec for run in known], [max([1.0, *run.others.values()]) for run in known]
    devices, least = _devices(recipe), min((run.kind.devices for run in known), default=1.0)
    return Left(
        seconds=[run.seconds * times for run, times in zip(known, slow, strict=True)],
        rates=[run.rate.times(1 / times) for run, times in zip(known, slow, strict=True)],
        left=limits.all_of(limit).plus(Cost(3600 * taken.hours, taken.usd), -1),
        until=until,
        places=[0.0] * (max(1, int(devices / least)) if devices else 0),
        widths=[math.ceil(run.kind.devices / least - EPSILON) for run in known],
        begun=limits.begun(trained),
        **limits.common(specs),
    )


def _devices(recipe: Recipe) -> float:
    """How many are in use at once, as far as the recipe or this machine tell; 0 where nothing does."""
    on_gpus = recipe.placement.gpus or recipe.family == "gpt3"
    there = (recipe.plan.gpus or 0) if on_gpus else len(os.sched_getaffinity(0))
    return min((n for n in (there, recipe.limit.devices) if n), default=0)


def _cost(recipe: Recipe, runs: Sequence[Timed]) -> str:
    cost = limits.total(run.rate.times(run.seconds) for run in runs)
    usd = f", {cost.usd:,.3g} USD" if recipe.placement.gpus else ""
    most = "at most " if any(run.others for run in runs) else ""
    return f"{most}{cost.device_seconds / 3600:,.3g} {limits.device(recipe)}-hours{usd}"


def _named(runs: Sequence[Timed]) -> str:
    return some([run.spec.run_id for run in runs])
