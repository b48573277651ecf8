"""What a whole sweep takes: device-hours, dollars, and its wall-clock on a cluster by the real scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpt3core.spec import RunSpec
from gpt3core.trunk import Prefix
from sweeps.planning import estimate, hardware, trunks
from sweeps.planning.recipe import Recipe
from sweeps.scheduling import simulator
from sweeps.scheduling.inventory import Resources
from sweeps.scheduling.scheduler import Job

MOST_SIMULATED = 3000  # runs; more would take the scheduler minutes


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A run that is still to be trained, and how long it takes on how many workers."""

    spec: RunSpec
    seconds: float  # of its own: from another's checkpoint on, where it starts from one
    workers: int
    after: tuple[str, float] | None = None  # that other run, and the seconds after which the checkpoint is there


def timed(
    recipe: Recipe, runs: Sequence[RunSpec], prefixes: Mapping[str, Prefix]
) -> tuple[list[Timed], dict[str, str]]:
    """The runs that are to be trained by estimate, and those without one with the reason.

    Args:
        prefixes: where runs start that do not start from the first step.
    """
    place, found, without = recipe.placement, [], {}
    coming = {run.run_id for run in runs}
    for run in runs:
        if recipe.family == "gpt3":
            planned = estimate.on_gpus(run, recipe.plan, place)
            if planned.layout is None:
                without[run.run_id] = planned.reason
                continue
            seconds, workers = planned.days * 86_400, planned.layout.world_size
        else:
            workers = place.workers
            seconds = estimate.seconds(run, workers=workers, gpus=place.gpus, plan=recipe.plan)
        share, prefix = trunks.own_share(run, prefixes.get(run.run_id)), prefixes.get(run.run_id)
        after = None
        if prefix is not None and prefix.run_id in coming:
            after = prefix.run_id, (1 - share) * seconds  # the trunk does these steps as fast
        found.append(Timed(spec=run, seconds=share * seconds, workers=workers, after=after))
    return found, without


def lines(recipe: Recipe, runs: Sequence[RunSpec], prefixes: Mapping[str, Prefix]) -> list[str]:
    """The totals of runs that are to be trained, a sentence each; none where no run is placed on GPUs."""
    if recipe.family != "gpt3" and not recipe.placement.gpus:
        return []
    known, without = timed(recipe, runs, prefixes)
    each = recipe.placement.gpus or 1.0
    hours = sum(run.seconds * run.workers * each for run in known) / 3600
    price = hardware.usd_per_hour(recipe.plan)
    longest = max((run.seconds for run in known), default=0.0)
    found = [
        f"in all: {hours:,.0f} GPU-hours, {hours * price:,.0f} USD at {price:.2f} a {recipe.plan.gpu}-hour for "
        f"{len(known):,} run{'s' * (len(known) != 1)}; the longest takes {_time(longest)}"
    ]
    if without:
        run_id, reason = next(iter(without.items()))
        found.append(f"without {len(without):,} that no such cluster holds ({run_id}: {reason})")
    if recipe.plan.gpus is not None:
        found.append(_wall_clock(recipe, known))
    return found


def _wall_clock(recipe: Recipe, known: Sequence[Timed]) -> str:
    """How long the sweep takes on ``plan.gpus`` GPUs."""
    total, device, place = recipe.plan.gpus, hardware.gpu(recipe.plan), recipe.placement
    assert total is not None
    total = min(total, recipe.limit.devices or total)
    if len(known) > MOST_SIMULATED:
        return f"on {total:,} GPUs: more than {MOST_SIMULATED:,} runs are not simulated"
    worker = Resources(gpus=place.gpus or 1.0, cpus=place.cpus)
    nodes = simulator.cluster(total, device.node, max(1.0, place.cpus / min(1.0, worker.gpus)))
    jobs = [Job(run_id=t.spec.run_id, worker=worker, workers=t.workers, seconds=t.seconds) for t in known]
    done = simulator.simulate(nodes, jobs, {t.spec.run_id: t.after for t in known if t.after is not None})
    if not done.spells:
        return f"on {total:,} GPUs: no run starts ({next(iter(done.refused.values()), 'nothing is left to train')})"
    never = f"; {len(done.refused):,} never start" if done.refused else ""
    return (
        f"on {total:,} GPUs: {_time(done.seconds)} from the first start to the last end, by the scheduler on these "
        f"estimates; GPUs at work {done.gpu_seconds() / (done.seconds * total):.0%} of it{never}"
    )


def _time(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} seconds"
