"""GPUs that a sweep may be placed on: what they can do, hold and cost, and what a recipe's ``plan`` section assumes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpt3core.errors import UsageError
from gpt3core.hints import nearest
from gpt3core.parallel.speed import Device
from sweeps.planning.recipe import Hardware

MOST_USD = 1e6  # an hour of one GPU
MOST_GPUS = 1_000_000  # of a cluster


@dataclass(frozen=True, kw_only=True)
class Gpu(Device):
    """A GPU: what it can do and hold, what one costs, and where the share of its peak comes from.

    Peaks, memory and links: makers' data sheets, nodes of eight. The share that training reaches is fitted to what was
    published for GPT-3-like models; once a run has measured more, give ``plan.mfu``. Prices are round on-demand figures
    of 2025, for orientation: set ``plan.usd_per_gpu_hour`` to yours.
    """

    usd_per_hour: float
    source: str


def _gpu(tflops: float, matmul: float, gb: float, speeds: tuple[float, float, float], usd: float, source: str) -> Gpu:
    """A row of the table: TFLOP/s, GB, and GB/s of the memory, of the links in a node and of the network."""
    memory, link, network = (1e9 * speed for speed in speeds)
    return Gpu(
        peak_flops=tflops * 1e12,
        matmul=matmul,
        memory_bytes=gb * 1e9,
        memory_speed=memory,
        link_speed=link,
        network_speed=network,
        usd_per_hour=usd,
        source=source,
    )


GPUS = {
    "H100": _gpu(989, 0.58, 80, (3350, 450, 50), 3.0, "llm-foundry and Megatron-LM on H100: 38-46% MFU"),
    "H200": _gpu(989, 0.58, 141, (4800, 450, 50), 3.8, "as H100"),
    "A100": _gpu(312, 0.72, 80, (2039, 300, 25), 1.8, "Narayanan 2021 and Korthikanti 2022: 33-56% MFU"),
    "V100": _gpu(125, 0.32, 32, (900, 150, 12.5), 1.5, "GPT-3 itself: 24.6 of 125 TFLOP/s"),
}


def gpu(plan: Hardware) -> Gpu:
    """The GPU of a plan section.

    Raises:
        UsageError: for an unknown one.
    """
    if plan.gpu not in GPUS:
        raise UsageError(
            f"plan.gpu={plan.gpu[:40]}: unknown GPU{nearest(plan.gpu, list(GPUS))}; allowed are {', '.join(GPUS)}"
        )
    return GPUS[plan.gpu]


def usd_per_hour(plan: Hardware, accelerator: str | None = None) -> float:
    """The assumed price of one GPU.

    Args:
        accelerator: as Ray labels its nodes; by default the plan's. One that nobody gave a price has the plan's.
    """
    accelerator = accelerator or plan.gpu
    if accelerator in plan.usd_per_gpu_hour_of:
        return plan.usd_per_gpu_hour_of[accelerator]
    return plan.usd_per_gpu_hour if plan.usd_per_gpu_hour is not None else GPUS.get(accelerator, gpu(plan)).usd_per_hour


def check(plan: Hardware) -> None:
    """Refuse an unknown GPU or an impossible assumption.

    Raises:
        UsageError: naming the key.
    """
    gpu(plan)
    if plan.mfu is not None and not 0 < plan.mfu <= 1:
        raise UsageError(f"plan.mfu={plan.mfu}: it is a share of the peak, above 0 and at most 1")
    if plan.gpus is not None and not 1 <= plan.gpus <= MOST_GPUS:
        raise UsageError(f"plan.gpus={plan.gpus}: GPUs of the whole cluster, from 1 to {MOST_GPUS:,}")
    if plan.rack_nodes is not None and plan.rack_nodes < 1:
        raise UsageError(f"plan.rack_nodes={plan.rack_nodes}: nodes of a rack, 1 or more")
    if plan.node_hours is not None and not 1 <= plan.node_hours < math.inf:
        raise UsageError(
            f"plan.node_hours={plan.node_hours}: hours between two losses of one node, 1 or more; null where none is "
            "lost (Llama 3 405B lost one of its 2,048 nodes every 3 hours or so, which is 6000)"
        )
    if not plan.max_days > 0:
        raise UsageError(f"plan.max_days={plan.max_days}: days that a run may take, above 0")
    prices = {"": plan.usd_per_gpu_hour, **{f"_of.{kind}": usd for kind, usd in plan.usd_per_gpu_hour_of.items()}}
    for where, price in prices.items():
        if price is not None and not 0 <= price < MOST_USD:
            raise UsageError(f"plan.usd_per_gpu_hour{where}={price}: US dollars, from 0 to {MOST_USD:g}")
