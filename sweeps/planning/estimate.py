"""From FLOPs to hours, money, memory, GPUs and degrees of parallelism, before anything is spent. No torch, no
cluster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpt3core import costs
from gpt3core.cli import nearest
from gpt3core.errors import UsageError
from gpt3core.model import registry
from gpt3core.spec import RunSpec
from sweeps.planning.recipe import Plan

EVALUATION_SECONDS = 3.0
NODE_GPUS = 8
TENSOR_DEGREES = (1, 2, 4, 8)
MEMORY_USED = 0.9  # of a GPU: the rest is fragmentation, buffers and the CUDA context


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU: dense 16-bit peak, memory, and what training reaches on it.

    Peaks: makers' data sheets. MFU: what has been published for GPT-3-like models, as noted; an assumption for a
    plan, to be replaced by ``plan.mfu`` once a run has measured it. Prices are round on-demand figures of 2025, for
    orientation: set ``plan.usd_per_gpu_hour`` to yours.
    """

    peak_flops: float
    memory_bytes: float
    mfu: float
    usd_per_hour: float
    source: str


GPUS = {
    "H100": Gpu(
        peak_flops=989e12, memory_bytes=80e9, mfu=0.40, usd_per_hour=3.0, source="llm-foundry, Megatron-LM: 35-49%"
    ),
    "H200": Gpu(peak_flops=989e12, memory_bytes=141e9, mfu=0.40, usd_per_hour=3.8, source="as H100"),
    "A100": Gpu(peak_flops=312e12, memory_bytes=80e9, mfu=0.45, usd_per_hour=1.8, source="Narayanan 2021: 43-52%"),
    "V100": Gpu(peak_flops=125e12, memory_bytes=32e9, mfu=0.20, usd_per_hour=1.5, source="GPT-3: 24.6 of 125 TFLOP/s"),
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a run is cut over GPUs."""

    data: int
    tensor: int
    pipeline: int
    recompute: str
    memory_bytes: float

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return self.data * self.tensor * self.pipeline


@dataclass(frozen=True, kw_only=True)
class GpuPlan:
    """A run on GPUs: how many, how cut, how long, how much; or why it does not fit."""

    layout: Layout | None
    days: float = math.nan
    usd: float = math.nan
    mfu: float = math.nan
    reason: str = ""


def gpu(plan: Plan) -> Gpu:
    """The GPU of a plan.

    Raises:
        UsageError: for an unknown GPU or an impossible assumption.
    """
    if plan.gpu not in GPUS:
        raise UsageError(
            f"plan.gpu={plan.gpu}: unknown GPU{nearest(plan.gpu, list(GPUS))}; allowed are {', '.join(GPUS)}"
        )
    if plan.mfu is not None and not 0 < plan.mfu <= 1:
        raise UsageError(f"plan.mfu={plan.mfu}: it is a share of the peak, between 0 and 1")
    if not plan.max_days > 0:
        raise UsageError(f"plan.max_days={plan.max_days}: it must be positive")
    return GPUS[plan.gpu]


def on_gpus(spec: RunSpec, plan: Plan) -> GpuPlan:
    """The fewest GPUs (powers of two, whole nodes above eight) that hold the run and end it in ``plan.max_days``."""
    device = gpu(plan)
    mfu = plan.mfu if plan.mfu is not None else device.mfu
    flops = costs.train_flops(spec.model, spec.tokens)
    sequences = spec.optim.batch_tokens // spec.model.n_ctx
    fastest: GpuPlan | None = None
    gpus = 1
    while gpus <= sequences * NODE_GPUS * registry.of(spec.model).n_layer(spec.model):
        layout = cut(spec, gpus, device, sequences)
        if layout is not None:
            days = flops / (gpus * device.peak_flops * mfu) / 86_400
            price = plan.usd_per_gpu_hour if plan.usd_per_gpu_hour is not None else device.usd_per_hour
            fastest = GpuPlan(layout=layout, days=days, usd=gpus * days * 24 * price, mfu=mfu)
            if days <= plan.max_days:
                return fastest
        gpus *= 2
    if fastest is None:
        return GpuPlan(layout=None, reason=f"no layout fits {device.memory_bytes / 1e9:.0f} GB a GPU")
    return fastest


def cut(spec: RunSpec, gpus: int, device: Gpu, sequences: int) -> Layout | None:
    """Degrees for so many GPUs: the least model parallelism that fits, tensor inside a node first, recompute last."""
    model, architecture = spec.model, registry.of(spec.model)
    n_layer = architecture.n_layer(model)
    for recompute in ("selective", "full"):
        for pipeline in (p for p in range(1, n_layer + 1) if n_layer % p == 0):
            for tensor in (t for t in TENSOR_DEGREES if architecture.divides(model, t)):
                if gpus % (tensor * pipeline) or (pipeline > 1 and tensor < NODE_GPUS):
                    continue
                data = gpus // (tensor * pipeline)
                if sequences % data:
                    continue
                memory = costs.memory_per_device(
                    model, data=data, tensor=tensor, pipeline=pipeline, recompute=recompute
                )
                if memory.total <= MEMORY_USED * device.memory_bytes:
                    return Layout(
                        data=data, tensor=tensor, pipeline=pipeline, recompute=recompute, memory_bytes=memory.total
                    )
    return None


def worker_flops(spec: RunSpec, *, gpus: float, plan: Plan) -> float:
    """FLOP/s that one worker is expected to reach, until finished runs tell.

    A GPU: its peak times the plan's MFU. A core: 13 GFLOP/s at 6.6k parameters, growing as their root to 110 at 890k
    (measured, AMD Zen 5).
    """
    if gpus:
        device = gpu(plan)
        return gpus * device.peak_flops * (plan.mfu if plan.mfu is not None else device.mfu)
    return min(1.1e11, 1.3e10 * math.sqrt(costs.params(spec.model).nonembedding / 6.6e3))


def seconds(spec: RunSpec, *, workers: int, gpus: float, plan: Plan, speedup: float = 1.0) -> float:
    """How long a run takes on its workers.

    Args:
        speedup: of this cluster's workers over ``worker_flops``, as finished runs have shown.
    """
    rate = worker_flops(spec, gpus=gpus, plan=plan) * speedup * workers
    return costs.train_flops(spec.model, spec.tokens) / rate + EVALUATION_SECONDS
