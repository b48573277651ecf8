"""Which layout a model gets on so many devices: of those that fit, the fastest; and in a few lines why. No torch.

The order of preference is Narayanan et al. 2021's (arXiv 2104.04473, section 3): replicas while a model fits one
device, a sharded state, tensor parallelism up to a node's devices, and a pipeline over nodes; recomputation where
memory asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from gpt3core.model import registry
from gpt3core.model.architecture import ModelSpec
from gpt3core.numerics import Numerics
from gpt3core.parallel import layout as layouts
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.memory import USABLE, Memory, memory, most_sequences, snapshot_bytes, stage_params
from gpt3core.parallel.speed import Device, Step, step

VIRTUAL = (1, 2, 3, 4)  # stages a pipeline device may hold
NEAR = 1.03  # layouts that are slower by less are as good: the simplest of them is taken
SAME = 1.005


@dataclass(frozen=True, kw_only=True)
class Pins:
    """Degrees that the user has fixed; the others are chosen."""

    tensor: int | None = None
    pipeline: int | None = None
    context: int | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in vars(self).values())


ALONE = Pins(tensor=1, pipeline=1)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be laid out."""

    model: ModelSpec
    sequences: int  # of the global batch
    numerics: Numerics
    device: Device
    pins: Pins = Pins()
    utilisation: float | None = None  # see ``speed.step``
    first: int | None = None  # sequences of the first batch where batches grow, by multiples of it

    def step(self, layout: Layout) -> Step:
        """The time of a layout's step."""
        return step(
            self.model,
            layout,
            sequences=self.sequences,
            device=self.device,
            numerics=self.numerics,
            utilisation=self.utilisation,
        )

    def memory(self, layout: Layout) -> Memory:
        """The bytes of a layout's fullest device."""
        return memory(self.model, layout, sequences=self.sequences, numerics=self.numerics)

    @property
    def room(self) -> float:
        """Bytes of a device that a run may take."""
        return USABLE * self.device.memory_bytes


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A layout with its memory, and its time where it fits."""

    layout: Layout
    memory: Memory
    step: Step | None


@lru_cache(maxsize=4096)
def choose(task: Task, world: int) -> Choice | None:
    """The layout of so many devices; None where none divides model and batch, and fits."""
    fitting: list[Choice] = []
    for degrees in _model_parallel(task, world):
        if fitting:
            fastest = min(fitting, key=_seconds)
            if _least_seconds(task, world, *degrees) > NEAR * _seconds(fastest):
                continue
        fitting += [choice for choice in _cuts(task, world, *degrees) if choice.step is not None]
    return _best(fitting) if fitting else None


def _least_seconds(task: Task, world: int, pipeline: int, tensor: int, context: int) -> float:
    """What no layout of these degrees is faster than: without recomputation and messages of data, most interleaved."""
    data = world // (pipeline * tensor * context)
    rows = task.sequences // data
    if not rows:
        return math.inf
    micro = max(1, min(rows, most_sequences(task.model)))
    taken = task.step(Layout(data=data, tensor=tensor, pipeline=pipeline, context=context, micro_batch=micro))
    works = taken.model + taken.tensor
    return works * (1 + (pipeline - 1) / (max(VIRTUAL) * rows))


def _best(fitting: list[Choice]) -> Choice:
    """The simplest of the fastest."""
    fastest = min(_seconds(choice) for choice in fitting)
    near = [choice for choice in fitting if _seconds(choice) <= NEAR * fastest]
    plainest = min(_plainness(choice.layout) for choice in near)
    alike = [choice for choice in near if _plainness(choice.layout) == plainest]
    fastest = min(map(_seconds, alike))
    # few kernels of many tokens rather than many of few, which the model of time hardly tells apart
    return max((c for c in alike if _seconds(c) <= SAME * fastest), key=lambda c: c.layout.micro_batch)


def _seconds(choice: Choice) -> float:
    assert choice.step is not None
    return choice.step.seconds


def _plainness(layout: Layout) -> tuple[int, ...]:
    again = layouts.RECOMPUTE.index(layout.recompute)
    return layout.pipeline, layout.tensor, layout.context, layout.shard, layout.virtual, again


def _model_parallel(task: Task, world: int) -> Iterator[tuple[int, int, int]]:
    """Degrees of pipeline, tensor (inside a node) and context that divide model and devices, short pipelines first."""
    architecture, pins = registry.of(task.model), task.pins
    widths, n_layer = architecture.shared_widths(task.model).values(), architecture.n_layer(task.model)
    allowed = [t for t in range(1, min(task.device.node, world) + 1) if task.device.node % t == 0 or t == pins.tensor]
    tensors = [t for t in allowed if not any(width % t for width in widths) and world % t == 0]
    if pins.tensor is not None:
        tensors = [t for t in tensors if t == pins.tensor]
    context = pins.context or 1
    for pipeline in (p for p in range(1, n_layer + 1) if n_layer % p == 0 and pins.pipeline in (None, p)):
        for tensor in tensors:
            if world % (pipeline * tensor * context) == 0:
                yield pipeline, tensor, context


def _cuts(
    task: Task, world: int, pipeline: int, tensor: int, context: int, *, hopeless: bool = False
) -> Iterator[Choice]:
    """Layouts of given degrees that divide: those that fit, less what is slower for sure, and the leanest of others.

    Sharing the state costs time, recomputation too: more of either is not looked at once less of both fits.

    Args:
        hopeless: with those whose state alone does not fit.
    """
    data = world // (pipeline * tensor * context)
    rows, rest = divmod(task.first or task.sequences, data)
    if rest:
        return
    in_node = math.gcd(data, max(1, task.device.node // tensor))
    most = most_sequences(task.model)
    micros = [k for k in (2**i for i in range(most.bit_length())) if k <= most and rows % k == 0]
    for virtual in VIRTUAL if pipeline > 1 else (1,):
        cut = Layout(data=data, tensor=tensor, pipeline=pipeline, context=context, virtual=virtual)
        least = 16 * stage_params(task.model, cut, 0)
        shards = [shard for shard in sorted({1, in_node, data}) if hopeless or least / shard <= task.room]
        allowed = [k for k in micros if _divides(task, replace(cut, micro_batch=k))] if shards else []
        for shard in shards if allowed else ():
            found = list(_with_less_memory(task, replace(cut, shard=shard), allowed))
            yield from found
            if found[0].step is not None and found[0].layout.recompute == "none":
                break


def _divides(task: Task, layout: Layout) -> bool:
    try:
        layouts.check(layout, task.model, task.first or task.sequences)
    except ValueError:
        return False
    return True


def _with_less_memory(task: Task, cut: Layout, micros: Sequence[int]) -> Iterator[Choice]:
    """A layout with the least recomputation that fits, in each micro-batch that does; what does not fit with the least.

    Without a pipeline the largest micro-batch is as fast as any.
    """
    for recompute in ("none", "full") if task.numerics.kernel != "softmax" else layouts.RECOMPUTE:
        fitting = []
        for micro in micros:
            tried = _tried(task, replace(cut, micro_batch=micro, recompute=recompute))
            if tried.step is None:
                break
            fitting.append(tried)
        if fitting:
            yield from fitting if cut.pipeline > 1 else fitting[-1:]
            return
        yield tried


# ---------------------------------------------------------------------------------------------------------------- why


def explain(task: Task, choice: Choice) -> list[str]:
    """A choice in a sentence, and one for each simpler way that was tried: what it would take."""
    host = snapshot_bytes(task.model, choice.layout) / 1e9
    lines = [f"{_of(task, choice)}; a checkpoint on its way to disk takes {host:,.2g} GB a device of the host's memory"]
    chosen, said = choice.layout, {choice.layout}
    for what, pins, kept in () if task.pins else _simpler(chosen):
        freer = replace(task, pins=pins)
        world, hopeless = chosen.world_size, pins == ALONE
        cuts = [
            other
            for degrees in _model_parallel(freer, world)
            for other in _cuts(freer, world, *degrees, hopeless=hopeless)
        ]
        tried = [other for other in cuts if kept(other.layout)]
        if not tried:
            why = "do not divide model and batch" if hopeless else "do not hold the state alone"
            lines.append(f"{what}: {world:,} devices {why}")
            continue
        fit = [other for other in tried if other.step is not None]
        best = _best(fit) if fit else min(tried, key=lambda other: other.memory.total)
        if best.layout not in said:
            said.add(best.layout)
            lines.append(f"{what}: {_against(task, best, choice)}")
    return lines


def _tried(task: Task, layout: Layout) -> Choice:
    held = task.memory(layout)
    return Choice(layout=layout, memory=held, step=task.step(layout) if held.total <= task.room else None)


def _of(task: Task, choice: Choice) -> str:
    held, whole = choice.memory.total / 1e9, task.device.memory_bytes / 1e9
    words = f"{choice.layout.describe()}: {held:,.0f} of {whole:.0f} GB ({choice.memory.describe()})"
    if choice.step is None:
        return f"{words}, and {task.room / 1e9:.3g} are usable"
    parts = {"recompute": choice.step.recompute, "bubble": choice.step.bubble, "messages of tensor": choice.step.tensor}
    parts["messages of data"] = choice.step.data
    shares = ", ".join(
        f"{name} {s / choice.step.seconds:.0%}" for name, s in parts.items() if s >= 0.005 * choice.step.seconds
    )
    return f"{words}; a step takes {choice.step.seconds:,.3g} s{f', of it {shares}' if shares else ''}"


def _against(task: Task, other: Choice, choice: Choice) -> str:
    words = other.layout.describe()
    if other.step is None:
        return f"at least {other.memory.total / 1e9:,.0f} GB a device ({words})"
    assert choice.step is not None
    slower = other.step.seconds / choice.step.seconds - 1
    return f"{slower:.0%} slower ({words})" if slower > 0 else f"{-slower:.0%} faster, within what is as good ({words})"


def _simpler(chosen: Layout) -> Iterator[tuple[str, Pins, Callable[[Layout], bool]]]:
    """Ways simpler than a layout: a name, the degrees to look among, and which of these count."""
    yield "replicas alone", ALONE, lambda layout: layout.shard == 1
    if chosen.shard > 1 or chosen.model_parallel > 1:
        yield "a shared state alone", ALONE, lambda layout: layout.shard > 1
    if chosen.pipeline > 1:
        yield "no pipeline", Pins(pipeline=1), lambda layout: layout.tensor > 1
    if chosen.recompute != "none":
        yield "no recomputation", Pins(), lambda layout: layout.recompute == "none"


def nothing_fits(task: Task, counts: Sequence[int]) -> str:
    """Why no layout of these numbers of devices was taken."""
    tried = [
        choice
        for world in counts
        for degrees in _model_parallel(task, world)
        for choice in _cuts(task, world, *degrees, hopeless=True)
    ]
    limit = f"{'up to ' * (len(counts) > 1)}{max(counts):,} device{'s' * (max(counts) > 1)}"
    if not tried:
        sequences = task.first or task.sequences
        return f"no layout of {limit} divides the model and its batch of {sequences} sequences{_of_pins(task)}"
    return f"no layout of {limit} fits; nearest is {_of(task, min(tried, key=lambda c: c.memory.total))}"


def _of_pins(task: Task) -> str:
    """What of the degrees that the user has fixed does not divide; nothing where none is."""
    pinned = {name: degree for name, degree in vars(task.pins).items() if degree is not None}
    if not pinned:
        return ""
    try:
        layouts.check(Layout(**pinned), task.model, task.first or task.sequences)
    except ValueError as error:
        return f": {error}"
    degrees = ", ".join(f"{name}={degree}" for name, degree in pinned.items())
    return f" with {degrees} pinned: leave a pin out, or give another number of devices"
