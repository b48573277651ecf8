"""Where the runs of each size go: the recipe's ``placement``, and over it what ``placement_of`` says of a size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import fields, replace

from gpt3core.errors import UsageError
from gpt3core.hints import nearest
from sweeps.planning import hardware
from sweeps.planning.recipe import Own, Placement, Recipe
from sweeps.scheduling.inventory import Kind, Resources
from sweeps.scheduling.jobs import Rules

MOST_PRIORITY = 1000  # either way
MOST_HOURS = 1e6
PLACED = tuple(f.name for f in fields(Own) if f.name != "priority")


def of(recipe: Recipe, label: str) -> Placement:
    """The placement of a size."""
    own = recipe.placement_of.get(label)
    if own is None:
        return recipe.placement
    given = {name: value for name in PLACED if (value := getattr(own, name)) is not None}
    return replace(recipe.placement, **given)


def own(recipe: Recipe, label: str) -> Recipe:
    """The recipe as it is for one size, with its placement, the GPU that it runs on, and how many there are of it."""
    place, plan = of(recipe, label), recipe.plan
    if place.accelerator is not None:
        gpu = place.accelerator if place.accelerator in hardware.GPUS else plan.gpu
        plan = replace(plan, gpu=gpu, gpus=plan.gpus and cluster_gpus(recipe).get(place.accelerator))
    return replace(recipe, placement=place, plan=plan)


def cluster_gpus(recipe: Recipe) -> dict[str, int]:
    """How many GPUs of each kind ``plan.gpus`` are, those of ``plan.gpu`` or of the placement's accelerator first."""
    plan = recipe.plan
    first = recipe.placement.accelerator or plan.gpu
    return {first: (plan.gpus or 0) - sum(plan.gpus_of.values()), **plan.gpus_of}


def prices(recipe: Recipe) -> list[float]:
    """USD per hour of the GPUs that runs of a recipe may have."""
    kinds = [place.accelerator for place in _places(recipe)]
    anywhere = recipe.plan.usd_per_gpu_hour_of if None in kinds else ()
    return [hardware.usd_per_hour(recipe.plan, kind) for kind in (*kinds, *anywhere)]


def _places(recipe: Recipe) -> list[Placement]:
    """Of all sizes: the recipe's, and those of their own."""
    return [recipe.placement, *(of(recipe, label) for label in recipe.placement_of)]


def priority(recipe: Recipe, label: str) -> int:
    """Of a size's runs."""
    return recipe.placement_of[label].priority if label in recipe.placement_of else 0


def rules(recipe: Recipe) -> Rules:
    """The scheduler's rules."""
    return Rules(patience=3600 * recipe.placement.patience_hours, preempt=recipe.placement.preempt)


def worker(place: Placement) -> Resources:
    """What a rank takes."""
    return Resources(cpus=place.cpus, gpus=place.gpus)


def kind(place: Placement, *, workers: int | None = None, together: int = 1) -> Kind:
    """What a run asks of the cluster.

    Args:
        workers: by default those of the placement.
        together: ranks that share a node.
    """
    count = place.workers if workers is None else workers
    return Kind(worker(place), count, together, place.accelerator or "", place.rack or "")


def check(recipe: Recipe) -> None:
    """Refuse what has no meaning, but for the single placements.

    Raises:
        UsageError: naming the key.
    """
    place = recipe.placement
    if not 0 < place.patience_hours <= MOST_HOURS:
        raise UsageError(
            f"placement.patience_hours={place.patience_hours:g}: hours of waiting that a step of priority is worth, "
            f"above 0 and at most {MOST_HOURS:g}"
        )
    for label, given in recipe.placement_of.items():
        if not -MOST_PRIORITY <= given.priority <= MOST_PRIORITY:
            raise UsageError(
                f"placement_of.{label}.priority={given.priority}: from {-MOST_PRIORITY} to {MOST_PRIORITY}, 0 where "
                "nothing is said"
            )
        if given == Own():
            raise UsageError(f"placement_of.{label}: says nothing; give one of {', '.join([*PLACED, 'priority'])}")
        if bool(of(recipe, label).gpus) != bool(place.gpus):
            raise UsageError(
                f"placement_of.{label}.gpus={of(recipe, label).gpus:g}, placement.gpus={place.gpus:g}: the runs of a "
                "sweep are all on GPUs or all on cores, for their arithmetic differs; make two sweeps"
            )
        if given.accelerator is not None and not place.gpus and recipe.family != "gpt3":
            raise UsageError(f"placement_of.{label}.accelerator has no effect with placement.gpus=0: leave it out")
        if given.rack is not None and of(recipe, label).workers == 1 and recipe.family != "gpt3":
            raise UsageError(f"placement_of.{label}.rack has no effect on runs of one worker: leave it out")
    for where, at in zip(
        ["placement", *(f"placement_of.{i}" for i in recipe.placement_of)], _places(recipe), strict=True
    ):
        for name in ("accelerator", "rack"):
            if getattr(at, name) == "":
                raise UsageError(f"{where}.{name}='': the name of a GPU or of a node's label, or null for any")
    _check_kinds(recipe)
    if place.accelerator in hardware.GPUS and recipe.plan.gpu not in (type(recipe.plan)().gpu, place.accelerator):
        raise UsageError(
            f"plan.gpu={recipe.plan.gpu} has no effect with placement.accelerator={place.accelerator}, which is what "
            "runs are estimated for: leave it out"
        )


def _check_kinds(recipe: Recipe) -> None:
    """Refuse numbers and prices of kinds of GPUs that are no other kinds, or that no run can have."""
    plan, kinds = recipe.plan, {place.accelerator for place in _places(recipe)}
    for name in ("gpus_of", "usd_per_gpu_hour_of"):
        for kind in getattr(plan, name):
            if not kind:
                raise UsageError(f"plan.{name} has '': give the name of a GPU, as Ray labels its nodes")
            if kind not in kinds and None not in kinds:
                raise UsageError(
                    f"plan.{name}.{kind[:40]} has no effect: all runs ask for {' or '.join(sorted(map(str, kinds)))}"
                    f"{nearest(kind, sorted(map(str, kinds)))}; leave it out, or ask for it by placement_of"
                )
    if plan.gpus is not None:
        _check_cluster(recipe, kinds)


def _check_cluster(recipe: Recipe, kinds: Set[str | None]) -> None:
    """Refuse what the GPUs of ``plan.gpus`` do not have: kinds that runs ask for or are estimated for, or prices."""
    plan, counts, are = recipe.plan, cluster_gpus(recipe), _are(recipe)
    first = next(iter(counts))
    for kind, count in plan.gpus_of.items():
        if count < 1 or counts[first] < 0:
            raise UsageError(f"plan.gpus_of.{kind}={count}: GPUs of that kind, from 1 to plan.gpus={plan.gpus} in all")
        if kind == first:
            raise UsageError(
                f"plan.gpus_of.{kind}: {kind} is what plan.gpus={plan.gpus} are but for those of other kinds"
            )
    for asked in kinds:
        if asked is not None and not counts.get(asked):
            raise UsageError(
                f"{are}, and runs ask for {asked}: say how many of them there are, like plan.gpus_of='{{{asked}: 8}}'"
            )
    for priced in plan.usd_per_gpu_hour_of:
        if priced not in counts:
            raise UsageError(
                f"plan.usd_per_gpu_hour_of.{priced[:40]} has no effect: {are}"
                f"{nearest(priced, list(counts))}; leave it out, or say how many there are, like "
                f"plan.gpus_of='{{{priced[:40]}: 8}}'"
            )


def _are(recipe: Recipe) -> str:
    """What the GPUs of ``plan.gpus`` are, in words."""
    counts = ", ".join(f"{n} of {kind}" for kind, n in cluster_gpus(recipe).items() if n)
    return f"plan.gpus={recipe.plan.gpus} are {counts}"


def check_labels(recipe: Recipe, labels: Iterable[str]) -> None:
    """Refuse the placement of a size that the recipe does not have."""
    known = list(dict.fromkeys(labels))
    for label in recipe.placement_of:
        if label not in known:
            there = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            raise UsageError(
                f"placement_of.{label[:40]}: no such size{nearest(label, known)}; the recipe's sizes are {there}"
            )
    _check_estimated(recipe, known)


def _check_estimated(recipe: Recipe, labels: Sequence[str]) -> None:
    """Refuse to estimate runs for a GPU of which the cluster has none."""
    first, count = next(iter(cluster_gpus(recipe).items()))
    if recipe.plan.gpus_of and not count and any(of(recipe, label).accelerator is None for label in labels):
        raise UsageError(
            f"{_are(recipe)}, so none is the plan.gpu={first} that runs without placement.accelerator "
            "are estimated and priced as: give the kind that most GPUs are as plan.gpu (as placement.accelerator where "
            f"it is none of {', '.join(hardware.GPUS)}), and leave it out of plan.gpus_of"
        )


def workers_of(recipe: Recipe) -> Sequence[int]:
    """The numbers of ranks that runs of the recipe may have."""
    return [place.workers for place in _places(recipe)]


def prioritised(recipe: Recipe) -> bool:
    """Whether runs differ in priority."""
    return any(given.priority for given in recipe.placement_of.values())
