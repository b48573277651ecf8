"""Where the runs of each size go: the recipe's ``placement``, and over it what ``placement_of`` says of a size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

from gpt3core.errors import UsageError
from gpt3core.hints import nearest
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
    """The recipe as it is for one size, with its placement and the GPU that it runs on."""
    place, plan = of(recipe, label), recipe.plan
    if place.accelerator is not None and place.accelerator in _estimated():
        plan = replace(plan, gpu=place.accelerator)
    return replace(recipe, placement=place, plan=plan)


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
    for where, at in [("placement", place), *((f"placement_of.{i}", of(recipe, i)) for i in recipe.placement_of)]:
        for name in ("accelerator", "rack"):
            if getattr(at, name) == "":
                raise UsageError(f"{where}.{name}='': the name of a GPU or of a node's label, or null for any")
    if place.accelerator in _estimated() and recipe.plan.gpu not in (type(recipe.plan)().gpu, place.accelerator):
        raise UsageError(
            f"plan.gpu={recipe.plan.gpu} has no effect with placement.accelerator={place.accelerator}, which is what "
            "runs are estimated for: leave it out"
        )


def check_labels(recipe: Recipe, labels: Iterable[str]) -> None:
    """Refuse the placement of a size that the recipe does not have."""
    known = list(dict.fromkeys(labels))
    for label in recipe.placement_of:
        if label not in known:
            there = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            raise UsageError(
                f"placement_of.{label[:40]}: no such size{nearest(label, known)}; the recipe's sizes are {there}"
            )


def workers_of(recipe: Recipe) -> Sequence[int]:
    """The numbers of ranks that runs of the recipe may have."""
    return [recipe.placement.workers, *(of(recipe, label).workers for label in recipe.placement_of)]


def prioritised(recipe: Recipe) -> bool:
    """Whether runs differ in priority."""
    return any(given.priority for given in recipe.placement_of.values())


def _estimated() -> Sequence[str]:
    """GPUs whose figures are known."""
    from sweeps.planning import hardware

    return tuple(hardware.GPUS)
