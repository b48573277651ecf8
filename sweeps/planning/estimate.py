"""From FLOPs to hours, money, memory and degrees of parallelism, before anything is spent. No torch, no cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpt3core import costs
from gpt3core.model import registry
from gpt3core.spec import RunSpec
from sweeps.planning import hardware
from sweeps.planning.hardware import Gpu
from sweeps.planning.recipe import Hardware

EVALUATION_SECONDS = 3.0
NODE_GPUS = 8
TENSOR_DEGREES = (1, 2, 4, 8)
MEMORY_USED = 0.9  # of a GPU: the rest is fragmentation, buffers and the CUDA context


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
class GpuEstimate:
    """A run on GPUs: how many, how cut, how long, how much; or why it does not fit."""

    layout: Layout | None
    days: float = math.nan
    usd: float = math.nan
    mfu: float = math.nan
    reason: str = ""


def on_gpus(spec: RunSpec, plan: Hardware) -> GpuEstimate:
    """The fewest GPUs (powers of two, whole nodes above eight) that hold the run and end it in ``plan.max_days``."""
    device = hardware.gpu(plan)
    hardware.check(plan)
    mfu = hardware.mfu(plan)
    flops = costs.train_flops(spec.model, spec.tokens)
    sequences = spec.optim.batch_tokens // spec.model.n_ctx
    fastest: GpuEstimate | None = None
    gpus = 1
    while gpus <= sequences * NODE_GPUS * registry.of(spec.model).n_layer(spec.model):
        layout = cut(spec, gpus, device, sequences)
        if layout is not None:
            days = flops / (gpus * device.peak_flops * mfu) / 86_400
            usd = gpus * days * 24 * hardware.usd_per_hour(plan)
            fastest = GpuEstimate(layout=layout, days=days, usd=usd, mfu=mfu)
            if days <= plan.max_days:
                return fastest
        gpus *= 2
    if fastest is None:
        return GpuEstimate(layout=None, reason=f"no layout fits {device.memory_bytes / 1e9:.0f} GB a GPU")
    return fastest


def cut(spec: RunSpec, gpus: int, device: Gpu, sequences: int) -> Layout | None:
    """Degrees for so many GPUs: the least model parallelism that fits, tensor inside a node first, recompute last."""
    model, architecture = spec.model, registry.of(spec.model)
    n_layer, widths = architecture.n_layer(model), architecture.shared_widths(model).values()
    for recompute in ("selective", "full"):
        for pipeline in (p for p in range(1, n_layer + 1) if n_layer % p == 0):
            for tensor in (
                t for t in TENSOR_DEGREES if not any(width % t for width in architecture.shared_widths(model).values())
            ):
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


def worker_flops(spec: RunSpec, *, gpus: float, plan: Hardware) -> float:
    """FLOP/s that one worker is expected to reach, until finished runs tell.

    A GPU: its peak times the plan's MFU. A core: 13 GFLOP/s at 6.6k parameters, growing as their root to 110 at 890k
    (measured, AMD Zen 5).
    """
    if gpus:
        device = hardware.gpu(plan)
        return gpus * device.peak_flops * hardware.mfu(plan)
    return min(1.1e11, 1.3e10 * math.sqrt(costs.params(spec.model).nonembedding / 6.6e3))


def seconds(spec: RunSpec, *, workers: int, gpus: float, plan: Hardware, speedup: float = 1.0) -> float:
    """How long a run takes on its workers.

    Args:
        speedup: of this cluster's workers over ``worker_flops``, as finished runs have shown.
    """
    rate = worker_flops(spec, gpus=gpus, plan=plan) * speedup * workers
    return costs.train_flops(spec.model, spec.tokens) / rate + EVALUATION_SECONDS
