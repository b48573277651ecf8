"""What a whole sweep takes: device-hours, dollars, and its wall-clock on a cluster by the real scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gpt3core import costs
from gpt3core.spec import RunSpec
from gpt3core.trunk import Prefix
from gpt3core.words import duration
from sweeps.planning import estimate, hardware, placing, timeline, trunks
from sweeps.planning.limits import Cost
from sweeps.planning.recipe import Recipe
from sweeps.scheduling import simulator
from sweeps.scheduling.inventory import ACCELERATOR, Inventory, Kind
from sweeps.scheduling.jobs import Job
from sweeps.scheduling.simulator import NONE, Failures, Simulated

MOST_SIMULATED = 10_000  # runs; more would take minutes
BACK_SECONDS = 3600.0  # until a lost node is replaced
CHECKPOINT_SECONDS = 600.0  # between those of a large run, by what a save costs


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A run that is still to be trained, and how long it takes on what."""

    spec: RunSpec
    kind: Kind
    seconds: float  # of its own: from another's checkpoint on, where it starts from one
    gpu: str  # what it is expected to run on, and ...
    usd_per_hour: float  # ... one costs
    after: tuple[str, float] | None = None  # that other run, and the seconds after which the checkpoint is there

    @property
    def gpu_hours(self) -> float:
        """Of all its workers."""
        return self.seconds * self.kind.workers * self.kind.worker.gpus / 3600

    @property
    def rate(self) -> Cost:
        """What a second of it takes."""
        return Cost(self.kind.devices, self.kind.workers * self.kind.worker.gpus * self.usd_per_hour / 3600)


def timed(
    recipe: Recipe, runs: Sequence[RunSpec], prefixes: Mapping[str, Prefix]
) -> tuple[list[Timed], dict[str, str]]:
    """The runs that are to be trained by estimate, and those without one with the reason.

    Args:
        prefixes: where runs start that do not start from the first step.
    """
    found, without = [], {}
    coming = {run.run_id for run in runs}
    own = {label: placing.own(recipe, label) for label in {run.label for run in runs}}
    for run in runs:
        plan, place = own[run.label].plan, own[run.label].placement
        if recipe.family == "gpt3":
            place = replace(place, gpus=place.gpus or 1.0)
            planned = estimate.on_gpus(run, plan, own[run.label].placement)
            if planned.layout is None:
                without[run.run_id] = planned.reason
                continue
            seconds, workers, together = planned.days * 86_400, planned.layout.world_size, planned.layout.tensor
        else:
            workers, together = place.workers, place.tensor or 1
            seconds = estimate.seconds(run, workers=workers, gpus=place.gpus, plan=plan)
        share, prefix = trunks.own_share(run, prefixes.get(run.run_id)), prefixes.get(run.run_id)
        after = None
        if prefix is not None and prefix.run_id in coming:
            after = prefix.run_id, (1 - share) * seconds  # the trunk does these steps as fast
        kind = placing.kind(place, workers=workers, together=together)
        gpu = kind.accelerator or plan.gpu
        price = hardware.usd_per_hour(plan, gpu)
        found.append(Timed(spec=run, kind=kind, seconds=share * seconds, gpu=gpu, usd_per_hour=price, after=after))
    return found, without


def lines(recipe: Recipe, runs: Sequence[RunSpec], prefixes: Mapping[str, Prefix]) -> list[str]:
    """The totals of runs that are to be trained, a sentence each; none where no run is placed on GPUs."""
    if recipe.family != "gpt3" and not recipe.placement.gpus:
        return []
    known, without = timed(recipe, runs, prefixes)
    usd = sum(run.gpu_hours * run.usd_per_hour for run in known)
    longest = max((run.seconds for run in known), default=0.0)
    found = [
        f"in all: {sum(run.gpu_hours for run in known):,.0f} GPU-hours, {usd:,.0f} USD at {_prices(recipe, known)} for "
        f"{len(known):,} run{'s' * (len(known) != 1)}; the longest takes {duration(longest)}"
    ]
    if without:
        run_id, reason = next(iter(without.items()))
        found.append(f"without {len(without):,} that no such cluster holds ({run_id}: {reason})")
    if recipe.plan.gpus is not None:
        found += _wall_clock(recipe, known)
    return found


def _prices(recipe: Recipe, known: Sequence[Timed]) -> str:
    """What is paid for an hour of each kind of GPU, with the hours where there are several."""
    hours: dict[tuple[str, float], float] = {}
    for run in known:
        hours[run.gpu, run.usd_per_hour] = hours.get((run.gpu, run.usd_per_hour), 0.0) + run.gpu_hours
    first = recipe.placement.accelerator or recipe.plan.gpu
    kinds = hours or {(first, hardware.usd_per_hour(recipe.plan, first)): 0.0}
    many = len(kinds) > 1
    return " and ".join(f"{usd:.2f} a {gpu}-hour{f' ({kinds[gpu, usd]:,.0f})' * many}" for gpu, usd in sorted(kinds))


def _wall_clock(recipe: Recipe, known: Sequence[Timed]) -> list[str]:
    """When the sweep ends on ``plan.gpus`` GPUs, and its timeline."""
    total = recipe.plan.gpus
    assert total is not None
    if (most := recipe.limit.devices or total) < total and recipe.plan.gpus_of:
        return [f"on {total:,} GPUs of several kinds, {most:,} in use at once (limit.devices): that is not simulated"]
    total = min(total, most)
    if len(known) > MOST_SIMULATED:
        return [f"on {total:,} GPUs: more than {MOST_SIMULATED:,} runs are not simulated"]
    jobs = [
        Job(
            run_id=run.spec.run_id,
            **run.kind._asdict(),
            seconds=run.seconds,
            priority=placing.priority(recipe, run.spec.label),
        )
        for run in known
    ]
    after = {run.spec.run_id: run.after for run in known if run.after is not None}
    failures = NONE
    if recipe.plan.node_hours is not None:
        every = max(CHECKPOINT_SECONDS, recipe.placement.checkpoint_seconds)
        failures = Failures(node_hours=recipe.plan.node_hours, back_seconds=BACK_SECONDS, checkpoint=every)
    nodes = cluster(recipe, known, total)
    done = simulator.simulate(nodes, jobs, after, rules=placing.rules(recipe), failures=failures)
    where, reason = f"on {total:,} GPUs{_kinds(recipe)}", next(iter(done.refused.values()), "nothing is left to train")
    if not done.spells:
        return [f"{where}: no run starts ({reason})"]
    never = f"; {len(done.refused):,} never start ({reason})" if done.refused else ""
    each = recipe.plan.rack_nodes
    racks = f" in racks of {each} node{'s' * (each != 1)}" if each is not None else ""
    found = [
        f"{where}{racks}: {duration(done.seconds)} from the first start to the last end, by the scheduler on these "
        f"estimates; GPUs at work {done.gpu_seconds() / (done.seconds * total):.0%} of it{_lost(done, recipe)}{never}"
    ]
    by_size = sorted(known, key=lambda run: costs.params(run.spec.model).total)
    sizes = {run.spec.run_id: run.spec.label for run in by_size}
    legend = (
        f"timeline, {duration(done.seconds)} from left to right: tenths of the {len(nodes):,} nodes' GPUs "
        "(. below a twentieth, # all), and the most at once"
    )
    return [*found, legend, *timeline.draw(done, sizes, total)]


def _kinds(recipe: Recipe) -> str:
    """How many there are of each kind, where there are several; and which are not those of the estimate."""
    if not recipe.plan.gpus_of:
        return ""
    counts = ", ".join(f"{count:,} {kind}" for kind, count in placing.cluster_gpus(recipe).items() if count)
    free = "" if recipe.placement.accelerator else f", where runs that name none take as long as on {recipe.plan.gpu}"
    return f" ({counts}{free})"


def _lost(done: Simulated, recipe: Recipe) -> str:
    """What lost nodes cost."""
    if recipe.plan.node_hours is None:
        return ""
    times = sum(spell.outcome == "lost" for spell in done.spells)
    return (
        f"; a node lost every {recipe.plan.node_hours:,g} hours (plan.node_hours) and back after one stops runs "
        f"{times:,} times"
    )


def cluster(recipe: Recipe, known: Sequence[Timed], most: int) -> Inventory:
    """The nodes of ``plan.gpus`` GPUs, or of the most that may be used, labelled as runs ask for them."""
    plan, found = recipe.plan, []
    cores = max((run.kind.worker.cpus / min(1.0, run.kind.worker.gpus) for run in known), default=1.0)
    racks = {run.kind.rack for run in known if run.kind.rack}
    for kind, gpus in placing.cluster_gpus(recipe).items():
        each = hardware.GPUS.get(kind, hardware.gpu(plan)).node
        for i, node in enumerate(simulator.cluster(min(gpus, most), each, max(1.0, cores))):
            rack = f"rack-{kind}-{i // plan.rack_nodes}" if plan.rack_nodes else "rack"
            labels = {ACCELERATOR: kind, **dict.fromkeys(racks, rack)}
            found.append(replace(node, name=f"{kind}-{node.name}", labels=labels))
    return found
