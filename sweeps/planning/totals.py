"""What a whole sweep takes: device-hours, dollars, and its wall-clock on a cluster by the real scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

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
    others: Mapping[str, float] = field(default_factory=dict)  # that it may have too: how many times as long it takes
    dearest: float = 0.0  # USD on one of these, at most, for what takes an hour on ``gpu``
    after: tuple[str, float] | None = None  # that other run, and the seconds after which the checkpoint is there

    @property
    def gpu_hours(self) -> float:
        """Of all its workers."""
        return self.seconds * self.kind.workers * self.kind.worker.gpus / 3600

    @property
    def rate(self) -> Cost:
        """What a second of it takes, at most: on the slowest kind that it may have, and at the price of the dearest."""
        slowest, price = max([1.0, *self.others.values()]), max(self.usd_per_hour, self.dearest)
        return Cost(slowest * self.kind.devices, self.kind.workers * self.kind.worker.gpus * price / 3600)


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
        others = {} if kind.accelerator else _others(own[run.label], run, kind.workers, seconds)
        found.append(
            Timed(
                spec=run,
                kind=kind,
                seconds=share * seconds,
                gpu=gpu,
                usd_per_hour=price,
                others=others,
                dearest=max((hardware.usd_per_hour(plan, one) * times for one, times in others.items()), default=0.0),
                after=after,
            )
        )
    return found, without


def _others(recipe: Recipe, run: RunSpec, workers: int, seconds: float) -> dict[str, float]:
    """The kinds of GPU beside ``plan.gpu`` that a run may have which names none: how many times as long it takes there.

    As long on a kind that is in no table, and on one that does not hold it.
    """
    found = {}
    for gpu in recipe.plan.gpus_of:
        plan, place = replace(recipe.plan, gpu=gpu if gpu in hardware.GPUS else recipe.plan.gpu), recipe.placement
        if recipe.family == "gpt3":
            there = estimate.training_seconds(run, plan, place, workers)
        else:
            there = estimate.seconds(run, workers=workers, gpus=place.gpus, plan=plan)
        found[gpu] = 1.0 if there is None else there / seconds
    return found


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
    slower = {run.spec.run_id: run.others for run in known if run.others}
    done = simulator.simulate(nodes, jobs, after, rules=placing.rules(recipe), failures=failures, slower=slower)
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
    if slower:
        found.append(_as_placed(recipe, done, nodes))
    by_size = sorted(known, key=lambda run: costs.params(run.spec.model).total)
    sizes = {run.spec.run_id: run.spec.label for run in by_size}
    legend = (
        f"timeline, {duration(done.seconds)} from left to right: tenths of the {len(nodes):,} nodes' GPUs "
        "(. below a twentieth, # all), and the most at once"
    )
    return [*found, legend, *timeline.draw(done, sizes, total)]


def _kinds(recipe: Recipe) -> str:
    """How many there are of each kind, where there are several."""
    counts = ", ".join(f"{count:,} {kind}" for kind, count in placing.cluster_gpus(recipe).items() if count)
    return f" ({counts})" if recipe.plan.gpus_of else ""


def _as_placed(recipe: Recipe, done: Simulated, nodes: Inventory) -> str:
    """The hours of each kind of GPU, and what they cost, where runs may have one or the other."""
    gpus, hours = {node.name: node.labels[ACCELERATOR] for node in nodes}, dict[str, float]()
    for spell in done.spells:
        each = (spell.ended - spell.started) * spell.resources.gpus / sum(spell.allocation.values()) / 3600
        for name, workers in spell.allocation.items():
            hours[gpus[name]] = hours.get(gpus[name], 0.0) + workers * each
    usd = sum(hardware.usd_per_hour(recipe.plan, gpu) * amount for gpu, amount in hours.items())
    amounts = " and ".join(f"{amount:,.0f} {gpu}-hours" for gpu, amount in sorted(hours.items()))
    return (
        f"by the GPUs that they get there: {amounts}, {usd:,.0f} USD; above, runs that name none count as on "
        f"{recipe.plan.gpu}"
    )


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
