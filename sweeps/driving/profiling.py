"""The proposer of IsoFLOP profiles that place themselves.

All is decided by what the sweep's runs are and how they ended, nothing is remembered beside them: a driver that takes
over decides as the one before it would have, and a run in flight is a size that its budget has.

The lowest budget begins about the recipe's centre. A budget that none below holds up begins about the centre by the
line so far (sweeps.planning.centre); while workers would be free, ``ahead`` budgets more begin, the most central sizes
first. Where the lowest loss has too few sizes beside it the profile grows on that side, by as many as a parabola says,
until it has them, or no further size is feasible.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gpt3core.spec import RunSpec
from sweeps.driving.proposers import Proposal
from sweeps.driving.run_state import OPEN, Phase, RunState
from sweeps.planning import centre
from sweeps.planning.centre import Line, Minimum
from sweeps.planning.profiles import Profiles, Size, with_label

NEAR = 0.06  # as in analysis.estimation.isoflop: farther out the curve is no parabola
INSIDE, AT_EDGE = 0.15, 0.5  # standard deviations of ln N* of a minimum between sizes, and of one at the edge of them


@dataclass(kw_only=True)
class Profile:
    """One budget: the sizes it has, and how they ended."""

    budget: float
    every: list[Size]  # of the ladder, feasible or not
    beside: int
    open: set[int] = field(default_factory=set)  # sizes with a run on its way
    losses: dict[int, float] = field(default_factory=dict)  # of sizes all of whose runs ended; their mean
    dead: set[int] = field(default_factory=set)  # all of its runs ended without a loss

    @property
    def placed(self) -> set[int]:
        """The sizes that the budget has."""
        return self.open | set(self.losses) | self.dead

    @property
    def lowest(self) -> int | None:
        """The size with the lowest loss so far."""
        return min(self.losses, key=lambda i: (self.losses[i], i)) if self.losses else None

    def ln_n(self, index: int) -> float:
        """ln N of a size."""
        return math.log(self.every[index].n)

    def side(self, step: int) -> int:
        """How many sizes beyond the lowest on one side (step -1 or 1) ended with a loss."""
        assert self.lowest is not None
        return sum((i - self.lowest) * step > 0 for i in self.losses)

    def wants(self, step: int, most: int) -> list[int]:
        """The sizes to add on one side (step -1 or 1), nearest first: those that must stand beside the lowest."""
        if self.lowest is None or most < 1:
            return []
        beyond = [i for i in self._beyond(step) if i not in self.dead]
        known = self.open | set(self.losses)
        missing = sum(i not in known for i in beyond[: self.beside])
        inner = [i for i in known if (i - self.lowest) * step < 0]
        if not missing or (inner and max(inner, key=lambda i: i * step) not in self.losses):
            return []  # or its neighbour may yet be lower
        outside = [i for i in beyond if i not in known]
        if missing == self.beside:  # it is the outermost
            missing += self._steps(outside, step)
        return outside[: min(missing, most)]

    def _beyond(self, step: int) -> list[int]:
        """Feasible sizes beyond the lowest on one side, nearest first."""
        assert self.lowest is not None
        indices = range(self.lowest + step, len(self.every) if step > 0 else -1, step)
        return [i for i in indices if self.every[i].runs]

    def _steps(self, outside: list[int], step: int) -> int:
        """How many of the sizes outside lie before a parabola's minimum: no more than the profile has."""
        at = self.vertex()
        before = [] if at is None else [i for i in outside if (self.ln_n(i) - at) * step < 0]
        return min(len(before), len(self.placed))

    def vertex(self) -> float | None:
        """ln N at the minimum of the parabola through the sizes near the lowest loss; None where there is none."""
        if self.lowest is None:
            return None
        near = [i for i in self.losses if self.losses[i] <= self.losses[self.lowest] * (1 + NEAR)]
        return centre.vertex([self.ln_n(i) for i in near], [math.log(self.losses[i]) for i in near])

    @property
    def bracketed(self) -> bool:
        """Whether enough sizes on both sides of the lowest have ended."""
        return self.lowest is not None and all(self.side(step) >= self.beside for step in (-1, 1))

    def minimum(self) -> Minimum | None:
        """What this budget says of N*."""
        if self.lowest is None or len(self.losses) < 3:
            return None
        here, at = self.ln_n(self.lowest), self.vertex()
        if self.side(-1) and self.side(1):
            low, high = self.ln_n(min(self.losses)), self.ln_n(max(self.losses))
            inside = here if at is None else min(max(at, low), high)
            return Minimum(ln_c=math.log(self.budget), ln_n=inside, sigma=INSIDE)
        wide = abs(self.ln_n(max(self.losses)) - self.ln_n(min(self.losses)))
        beyond = here if at is None else min(max(at, here - wide), here + wide)
        return Minimum(ln_c=math.log(self.budget), ln_n=beyond, sigma=AT_EDGE)


def look(
    profiles: Profiles,
    places: Mapping[str, tuple[float, int]],
    phases: Mapping[str, Phase],
    losses: Mapping[str, float],
) -> dict[float, Profile]:
    """The budgets as they stand.

    Args:
        places: of ``profiles``.
        phases: of the runs that the sweep has.
        losses: of runs that ended with one.
    """
    found = {b: Profile(budget=b, every=profiles.sizes(b), beside=profiles.recipe.beside) for b in profiles.budgets}
    runs: dict[tuple[float, int], list[str]] = {}
    for run_id in phases:
        if run_id in places:
            runs.setdefault(places[run_id], []).append(run_id)
    for (budget, index), ids in runs.items():
        profile, known = found[budget], [losses[i] for i in ids if i in losses]
        if any(phases[i] in (*OPEN, Phase.SPARE, Phase.HELD) for i in ids):
            profile.open.add(index)
        elif known:
            profile.losses[index] = sum(known) / len(known)
        else:
            profile.dead.add(index)
    return found


def line(profiles: Profiles, found: Mapping[float, Profile]) -> Line:
    """The law of N* so far."""
    minima = [m for profile in found.values() if (m := profile.minimum()) is not None]
    lowest = profiles.budgets[0]
    return centre.fit(math.log(lowest), profiles.prior(lowest), profiles.recipe.center_exponent, minima)


class SelfPlacing:
    """Places the profiles of a sweep, budget by budget."""

    def __init__(self, profiles: Profiles, losses: Callable[[str], float | None]) -> None:
        """Place.

        Args:
            losses: of a run that is done, None where it ended without one; asked once a run.
        """
        self._profiles, self._read, self._places = profiles, losses, profiles.places
        self._losses: dict[str, float | None] = {}
        self._seen: object = None
        self._over = ""

    def propose(self, states: Mapping[str, RunState], slots: Callable[[], int]) -> Proposal:
        """The sizes to add now, and at the end what each budget came to."""
        if self._over:
            return Proposal(over=self._over)
        phases = {i: state.phase for i, state in states.items()}
        room = slots()
        if (phases, room > 0) == self._seen:
            return Proposal()
        self._seen = phases, room > 0
        for run_id, phase in phases.items():
            if phase == Phase.DONE and run_id not in self._losses:
                self._losses[run_id] = self._read(run_id)
        known = {i: loss for i, loss in self._losses.items() if loss is not None}
        found = look(self._profiles, self._places, phases, known)
        take = tuple(i for i, phase in phases.items() if phase == Phase.SPARE)
        new, told = self._place(found, room - len(take))
        if not new and not take and all(not profile.open for profile in found.values()):
            self._over = "every budget has its sizes"
            told += verdicts(self._profiles, found)
        runs = tuple(run for size in new for run in size.runs)
        return Proposal(take=take, new=runs, told=tuple(told), over=self._over)

    def _place(self, found: Mapping[float, Profile], room: int) -> tuple[list[Size], list[str]]:
        """The sizes to add, and words on them."""
        law, recipe = line(self._profiles, found), self._profiles.recipe
        new, told, unsettled = [], [], 0
        for budget, profile in found.items():
            wanted, why = self._wanted(profile, law, unsettled, room)
            for index in wanted:
                profile.open.add(index)
            if wanted:
                sizes = [profile.every[i] for i in sorted(wanted)]
                new += sizes
                room -= sum(len(size.runs) for size in sizes)
                told.append(f"placed  {', '.join(size.label for size in sizes)} at {budget:.3g} FLOPs: {why}")
            unsettled += bool(profile.open) or not (profile.placed or all(size.reason for size in profile.every))
            if unsettled > recipe.ahead:
                break
        return new, told

    def _wanted(self, profile: Profile, law: Line, unsettled: int, room: int) -> tuple[list[int], str]:
        """The sizes that one budget should have now and has not, and why.

        Args:
            unsettled: budgets below it that have runs on their way: with any, only free workers are used.
        """
        recipe, budget, have = self._profiles.recipe, profile.budget, profile.placed
        most = recipe.most_points - len(have)
        allowed = most if not unsettled else min(most, room // max(1, recipe.replicas))
        at, sigma = law.at(math.log(budget))
        about = f"about N={math.exp(at):.3g}, within a factor of {math.exp(2 * sigma):.2g}"
        if len(have) < recipe.points:
            window = sorted(self._profiles.about(budget, at), key=lambda size: abs(math.log(size.n) - at))
            missing = [size.index for size in window if size.index not in have]
            chosen = missing[: max(0, min(recipe.points - len(have), allowed))]
            if chosen:
                return chosen, about
        grown = [i for step in (-1, 1) for i in profile.wants(step, allowed)][: max(0, allowed)]
        side = "small" if grown and profile.lowest is not None and grown[0] < profile.lowest else "large"
        return grown, f"the lowest loss lies at the {side} end of its sizes"


def verdicts(profiles: Profiles, found: Mapping[float, Profile]) -> list[str]:
    """What each budget came to, a sentence each."""
    law, told = line(profiles, found), []
    for budget, profile in found.items():
        at = law.at(math.log(budget))[0]
        tried = len(profile.placed)
        full = "" if profile.bracketed or tried < profiles.recipe.most_points else f"; most_points={tried} were tried"
        told.append(f"profile {budget:.3g} FLOPs: {_verdict(profile)}{full}{_left(profiles, profile, at)}")
    return told


def _verdict(profile: Profile) -> str:
    if profile.lowest is None:
        dead = ", ".join(profile.every[i].label for i in sorted(profile.dead))
        return f"no size ended with a loss ({dead})" if dead else "no size is feasible"
    sizes = [profile.every[i].label for i in sorted(profile.losses)]
    lowest = profile.every[profile.lowest].label
    if profile.bracketed:
        at = profile.vertex()
        here = f"N* about {math.exp(at):.3g}, " if at is not None else ""
        return f"{here}between {len(sizes)} sizes ({sizes[0]} to {sizes[-1]}): the lowest is {lowest}"
    if len(sizes) == 1:
        return f"no minimum: {lowest} alone ended with a loss"
    return f"no minimum within the {len(sizes)} sizes ({sizes[0]} to {sizes[-1]}): the lowest is {lowest}"


def _left(profiles: Profiles, profile: Profile, at: float) -> str:
    """The sizes that had no place there, with the reasons."""
    ends = (min(profile.placed) - 1, max(profile.placed) + 1) if profile.placed else ()
    outside = [profile.every[i] for i in ends if 0 <= i < len(profile.every) and profile.every[i].reason]
    near = {size.index: size for size in [*profiles.dropped(profile.budget, at), *outside]}
    words = [with_label(near[i]) for i in sorted(near)]
    words += [f"{profile.every[i].label} (ended without a loss)" for i in sorted(profile.dead)]
    return f"; left out: {', '.join(words)}" if words else ""


def expected(
    profiles: Profiles, phases: Mapping[str, Phase], losses: Mapping[str, float]
) -> tuple[list[RunSpec], list[str]]:
    """The runs that a sweep has and those that its budgets would get now; and where each begins, a sentence a budget.

    Args:
        phases, losses: as for ``look``.
    """
    recipe, found = profiles.recipe, look(profiles, profiles.places, phases, losses)
    law, told, runs = line(profiles, found), list[str](), dict[str, RunSpec]()
    for budget, profile in found.items():
        at, sigma = law.at(math.log(budget))
        sizes = {i: profile.every[i] for i in sorted(profile.placed)}
        placed = len(sizes)
        if placed < recipe.points:
            sizes |= {size.index: size for size in profiles.about(budget, at)}
        runs |= {run.run_id: run for size in sizes.values() for run in size.runs}
        able = min(recipe.most_points, sum(bool(size.runs) for size in profile.every))
        least, most = (budget * count * recipe.replicas for count in (len(sizes), max(len(sizes), able)))
        has = f", {placed} of them placed" if placed else ""
        told.append(
            f"profile {budget:.3g} FLOPs: about N={math.exp(at):.3g}, within a factor of {math.exp(2 * sigma):.2g} "
            f"(95%); {len(sizes)} size{'s' * (len(sizes) != 1)}{has}: {least:.3g} FLOPs, at most {most:.3g}"
        )
    return list(runs.values()), told
