"""GPUs that a sweep may be placed on: what they can do, hold and cost, and what a recipe's ``plan`` section assumes."""

from __future__ import annotations

from dataclasses import dataclass

from gpt3core.cli import nearest
from gpt3core.errors import UsageError
from sweeps.planning.recipe import Hardware

MOST_USD = 1e6  # an hour of one GPU


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


def mfu(plan: Hardware) -> float:
    """The share of its peak that a GPU is assumed to reach."""
    return plan.mfu if plan.mfu is not None else gpu(plan).mfu


def usd_per_hour(plan: Hardware) -> float:
    """The assumed price of one GPU."""
    return plan.usd_per_gpu_hour if plan.usd_per_gpu_hour is not None else gpu(plan).usd_per_hour


def check(plan: Hardware) -> None:
    """Refuse an unknown GPU or an impossible assumption.

    Raises:
        UsageError: naming the key.
    """
    gpu(plan)
    if plan.mfu is not None and not 0 < plan.mfu <= 1:
        raise UsageError(f"plan.mfu={plan.mfu}: it is a share of the peak, above 0 and at most 1")
    if not plan.max_days > 0:
        raise UsageError(f"plan.max_days={plan.max_days}: days that a run may take, above 0")
    price = plan.usd_per_gpu_hour
    if price is not None and not 0 <= price < MOST_USD:
        raise UsageError(f"plan.usd_per_gpu_hour={price}: US dollars, from 0 to {MOST_USD:g}")
