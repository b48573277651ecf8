"""From FLOPs to hours, money, memory and degrees of parallelism, before anything is spent. No torch, no cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gpt3core import costs
from gpt3core.errors import UsageError
from gpt3core.model import registry
from gpt3core.numerics import AUTO, Numerics
from gpt3core.parallel import choose, layout, memory, speed
from gpt3core.parallel.choose import Choice, Pins, Task
from gpt3core.parallel.layout import Layout
from gpt3core.spec import RunSpec
from sweeps.planning import hardware
from sweeps.planning.recipe import Hardware, Placement, Recipe

EVALUATION_SECONDS = 3.0
ALONE = Placement()


@dataclass(frozen=True, kw_only=True)
class GpuEstimate:
    """A run on GPUs: how many, how cut, how long, how much; or why it does not fit."""

    task: Task
    choice: Choice | None  # one that fits
    days: float = math.nan
    usd: float = math.nan
    mfu: float = math.nan
    reason: str = ""

    @property
    def layout(self) -> Layout | None:
        """How it is cut, where it fits."""
        return None if self.choice is None else self.choice.layout


def task(spec: RunSpec, plan: Hardware, place: Placement = ALONE) -> Task:
    """What is to be laid out: the model and batch of a run, and the GPU that is assumed."""
    return Task(
        model=spec.model,
        sequences=spec.optim.batch_tokens // spec.model.n_ctx,
        first=_first(spec),
        numerics=numerics(spec),
        device=hardware.gpu(plan),
        pins=pins(place),
        utilisation=plan.mfu,
    )


def _first(spec: RunSpec) -> int:
    """Sequences of the first batch, of which later ones are multiples."""
    return spec.optim.ramp.start // spec.unit_tokens


def numerics(spec: RunSpec) -> Numerics:
    """The arithmetic that a run has on GPUs: bf16 and fused attention unless the recipe says otherwise."""
    return spec.options.kept(
        Numerics(
            precision="bf16" if spec.precision == AUTO else spec.precision,
            kernel="sdpa" if spec.kernel == AUTO else spec.kernel,
        )
    )


def pins(place: Placement) -> Pins:
    """The degrees that a recipe fixes."""
    return Pins(tensor=place.tensor, pipeline=place.pipeline, context=place.context)


def on_gpus(spec: RunSpec, plan: Hardware, place: Placement = ALONE) -> GpuEstimate:
    """A run on ``placement.workers`` GPUs, or on the fewest that end it in ``plan.max_days``, or on the fastest number.

    Numbers are powers of two up to ``plan.gpus`` (itself too), or as far as the batch and the blocks can be dealt out.
    """
    hardware.check(plan)
    wanted = task(spec, plan, place)
    share = wanted.device.matmul if plan.mfu is None else plan.mfu
    ideal = costs.train_flops(spec.model, spec.tokens) / (wanted.device.peak_flops * share * 86_400)  # of one GPU
    counts = _counts(wanted, plan, place)
    worth = [gpus for gpus in counts if ideal / gpus <= plan.max_days]  # the others cannot end in time
    fastest: GpuEstimate | None = None
    for gpus in (*worth, *(gpus for gpus in reversed(counts) if gpus not in worth)):
        found = _on(spec, wanted, gpus, hardware.usd_per_hour(plan, place.accelerator))
        if found is not None and (fastest is None or found.days < fastest.days):
            fastest = found
        if found is not None and found.days <= plan.max_days:
            return found
        if fastest is not None and gpus not in worth:
            break  # fewer are slower
    if fastest is not None:
        return fastest
    return GpuEstimate(task=wanted, choice=None, reason=choose.nothing_fits(wanted, counts))


def _counts(wanted: Task, plan: Hardware, place: Placement) -> list[int]:
    """Numbers of GPUs to look at, fewest first."""
    if place.workers > 1:
        return [place.workers]
    most = wanted.sequences * wanted.device.node * registry.of(wanted.model).n_layer(wanted.model)
    if plan.gpus is not None:
        most = min(most, plan.gpus)
    counts = [2**i for i in range(most.bit_length())]
    return [*counts, most] if plan.gpus == most and most not in counts else counts


def _on(spec: RunSpec, wanted: Task, gpus: int, usd_per_hour: float) -> GpuEstimate | None:
    """The estimate for so many GPUs, if a layout of them fits."""
    choice = choose.choose(wanted, gpus)
    if choice is None:
        return None
    assert choice.step is not None
    days = _training_seconds(spec, wanted, choice) / 86_400
    return GpuEstimate(
        task=wanted,
        choice=choice,
        days=days,
        usd=gpus * days * 24 * usd_per_hour,
        mfu=costs.train_flops(spec.model, spec.tokens) / (gpus * days * 86_400 * wanted.device.peak_flops),
    )


def training_seconds(spec: RunSpec, plan: Hardware, place: Placement, gpus: int) -> float | None:
    """On so many GPUs; None where no layout of them fits."""
    found = _on(spec, task(spec, plan, place), gpus, 0.0)
    return None if found is None else 86_400 * found.days


def _training_seconds(spec: RunSpec, wanted: Task, choice: Choice) -> float:
    """Of all steps; while the batch grows they are shorter, and wait longer in a pipeline."""
    assert choice.step is not None
    phases, total = spec.optim.ramp.phases, 0.0
    for phase, after in zip(phases, [*phases[1:], None], strict=True):
        last = spec.steps if after is None else min(after.step, spec.steps)
        same = phase.batch_tokens == spec.optim.batch_tokens
        sequences = phase.batch_tokens // spec.model.n_ctx
        taken = choice.step if same else replace(wanted, sequences=sequences).step(choice.layout)
        total += max(0, last - phase.step) * taken.seconds
    return total


# ----------------------------------------------------------------------------------------- runs as a recipe places them


def layout_of(spec: RunSpec, recipe: Recipe) -> Layout:
    """How a run is cut over ``placement.workers`` ranks: chosen by memory and time on GPUs, else replicas and pins.

    Raises:
        UsageError: in one sentence, where model and batch cannot be cut so, or nothing fits.
    """
    place = recipe.placement
    if _planned_by_memory(spec, recipe):
        found = on_gpus(spec, recipe.plan, place)
        if found.layout is None:
            raise UsageError(f"{_of(spec)}placement.workers={place.workers} on {recipe.plan.gpu}: {found.reason}")
        return found.layout
    return _as_pinned(spec, place)


def placed(spec: RunSpec, recipe: Recipe) -> Layout | None:
    """How a run that is started is cut over its workers; None where each holds all of it and takes rows of its own.

    Raises:
        UsageError: in one sentence, where it cannot be cut so, or does not fit.
    """
    place = recipe.placement
    if spec.labelled is not None:
        _check_whole(spec, recipe)
        return None
    if pins(place):
        return layout_of(spec, recipe)
    if not (recipe.family == "gpt3" or place.gpus):
        return None
    reason = misfit(spec, recipe)
    if place.gpus >= 1 and (reason or recipe.family == "gpt3"):
        wanted = task(spec, recipe.plan, place)
        choice = choose.choose(wanted, place.workers)
        if choice is not None and choice.step is not None:
            return choice.layout
        reason = f"{spec.label} on {recipe.plan.gpu}: {choose.nothing_fits(wanted, [place.workers])}"
    if reason:
        enough = on_gpus(spec, recipe.plan, replace(place, workers=1)).layout
        more = f"placement.gpus=1 placement.workers={enough.world_size} would do" if enough else "no number would do"
        raise UsageError(f"{reason}: {more}; or give smaller sizes, or look with --plan")
    return None


def _check_whole(spec: RunSpec, recipe: Recipe) -> None:
    """Check that every worker can hold all of a run that is fine-tuned, which is not cut."""
    place = recipe.placement
    if pins(place):
        raise UsageError("placement.tensor, pipeline and context do not go with fine-tuning: give placement.workers")
    if (examples := _first(spec)) % place.workers:
        raise UsageError(
            f"placement.workers={place.workers}: batches of {examples} labelled examples do not divide by it; give "
            "examples=[...] and train.batch that do, or fewer workers"
        )
    if place.gpus and (reason := misfit(spec, recipe)):
        raise UsageError(f"{reason}; fine-tuning does not cut a run: give smaller sizes by runs=[...]")


def together(cut: Layout | None) -> int:
    """How many neighbouring ranks of a run must share a node: those of a tensor group."""
    return 1 if cut is None else cut.tensor


def _planned_by_memory(spec: RunSpec, recipe: Recipe) -> bool:
    """Whether degrees are chosen: for Table 2.1, and on GPUs that do not hold all of a run each."""
    on_whole_gpus = recipe.placement.gpus >= 1 and recipe.placement.workers > 1
    return recipe.family == "gpt3" or (on_whole_gpus and bool(misfit(spec, recipe)))


def _as_pinned(spec: RunSpec, place: Placement) -> Layout:
    """Pinned degrees as they are, and replicas over the other ranks."""
    tensor, pipeline, context = place.tensor or 1, place.pipeline or 1, place.context or 1
    data, rest = divmod(place.workers, tensor * pipeline * context)
    if rest:
        given = [(name, degree) for name, degree in vars(pins(place)).items() if degree is not None]
        words = " x ".join(f"placement.{name}={degree}" for name, degree in given)
        raise UsageError(
            f"placement.workers={place.workers} does not divide by {words}: give a multiple of the product"
        )
    sequences = _first(spec)
    rows = sequences // data
    most = min(rows // pipeline, memory.most_sequences(spec.model))  # a micro-batch a stage
    micro = layout.largest_divisor(rows, most)
    cut = Layout(data=data, tensor=tensor, pipeline=pipeline, context=context, micro_batch=micro)
    try:
        layout.check(cut, spec.model, sequences)
    except ValueError as error:
        raise UsageError(f"{_of(spec)}{error}") from error
    return cut


def _of(spec: RunSpec) -> str:
    return f"{spec.run_id}: "


def misfit(spec: RunSpec, recipe: Recipe) -> str:
    """Why a run does not fit its GPUs as replicas that each hold all of it; empty if it does."""
    place, device = recipe.placement, hardware.gpu(recipe.plan)
    room = device.memory_bytes * min(1.0, place.gpus or 1.0)
    sequences = _first(spec)
    if sequences % place.workers:
        return f"placement.workers={place.workers}: the batch of {spec.run_id} has {sequences} sequences"
    try:
        memory.micro_batch(
            spec.model,
            Layout(data=place.workers),
            sequences=sequences,
            numerics=numerics(spec),
            memory_bytes=room,
        )
    except ValueError as error:
        return f"{spec.label} on {recipe.plan.gpu} does not fit: {error}"
    return ""


# ---------------------------------------------------------------------------------------------------------------- time


def worker_flops(spec: RunSpec, *, gpus: float, plan: Hardware, workers: int = 1) -> float:
    """FLOP/s that one of a run's workers is expected to reach, until finished runs tell.

    A GPU: by ``speed.step``. A core: 13 GFLOP/s at 6.6k parameters, growing as their root to 110 at 890k (measured,
    AMD Zen 5).
    """
    if not gpus:
        return min(1.1e11, 1.3e10 * math.sqrt(costs.params(spec.model).nonembedding / 6.6e3))
    wanted = task(spec, plan)
    rows = max(1, wanted.sequences // workers)
    micro = layout.largest_divisor(rows, min(rows, memory.most_sequences(spec.model)))
    taken = speed.step(
        spec.model,
        Layout(data=workers, micro_batch=micro),
        sequences=rows * workers,
        device=wanted.device,
        numerics=wanted.numerics,
        utilisation=plan.mfu,
    )
    return gpus * taken.flops / taken.seconds / workers


def seconds(spec: RunSpec, *, workers: int, gpus: float, plan: Hardware, speedup: float = 1.0) -> float:
    """How long a run takes on its workers.

    Args:
        speedup: of this cluster's workers over ``worker_flops``, as finished runs have shown.
    """
    rate = worker_flops(spec, gpus=gpus, plan=plan, workers=workers) * speedup * workers
    return costs.train_flops(spec.model, spec.tokens) / rate + EVALUATION_SECONDS
