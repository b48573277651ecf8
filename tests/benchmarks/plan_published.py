"""The plan's time beside what was published: large runs on A100s under their papers' settings, and on H100s.

    python -m tests.benchmarks.plan_published

Settings that a paper does not print (the micro-batch of Narayanan's table, whether its stages were interleaved) are one
sequence and one stage a device. Their attention was not fused, so scores go to memory (the softmax kernel). Nothing is
measured here: both columns are figures, and a row takes microseconds.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpt3core import costs, sizes
from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.numerics import Numerics
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.speed import Step, step
from sweeps.planning.hardware import GPUS
from tests.benchmarks.target import target

DATA = Path(__file__).parent / "data"
UNFUSED, FUSED = (Numerics(precision="bf16", kernel=kernel) for kernel in ("softmax", "sdpa"))
A100, H100 = GPUS["A100"], GPUS["H100"]
DAY = 86_400
# mosaicml/llm-foundry, scripts/train/benchmarking/README.md (Apache-2.0): size, GPUs, sequences of a micro-batch,
# MFU = 6 N + 12 L d s FLOPs a token over the peak; bf16, flash attention, no recomputation
FOUNDRY_A100 = (
    ("125M", 8, 32, 0.448),
    ("350M", 8, 32, 0.516),
    ("760M", 8, 16, 0.569),
    ("1.3B", 8, 16, 0.599),
    ("2.7B", 8, 8, 0.621),
    ("6.7B", 8, 4, 0.642),
)
FOUNDRY_H100 = (("760M", 16, 16, 0.379), ("1.3B", 8, 16, 0.418), ("2.7B", 16, 8, 0.437), ("6.7B", 8, 4, 0.464))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A published figure and the plan's, in one unit."""

    name: str
    published: float
    planned: float

    @property
    def ratio(self) -> float:
        return self.planned / self.published


def rows_of(name: str) -> list[dict[str, Any]]:
    with (DATA / name).open() as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def dense(layers: int, hidden: int, heads: int, *, vocabulary: int = 51_200, n_ctx: int = 2048) -> GPTSpec:
    """A shape with dense attention in every layer, as those papers train."""
    return GPTSpec(
        n_layer=layers,
        d_model=hidden,
        n_head=heads,
        d_head=hidden // heads,
        n_ctx=n_ctx,
        vocab_size=vocabulary,
        attention="dense",
    )


def narayanan() -> list[Row]:
    """TFLOP/s a GPU of Table 1: their FLOPs count full recomputation (96 B s l h^2 (...), equation 3)."""
    found = []
    for row in rows_of("narayanan2021_table1.csv"):
        layers, hidden, batch, gpus = (int(row[key]) for key in ("layers", "hidden", "batch", "gpus"))
        tensor, pipeline = int(row["tensor"]), int(row["pipeline"])
        layout = Layout(data=gpus // tensor // pipeline, tensor=tensor, pipeline=pipeline, recompute="full")
        model = dense(layers, hidden, int(row["heads"]))
        taken = step(model, layout, sequences=batch, device=A100, numerics=UNFUSED)
        flops = 96 * batch * 2048 * layers * hidden**2 * (1 + 2048 / (6 * hidden) + 51_200 / (16 * layers * hidden))
        name = f"narayanan_{float(row['params_billion']):g}B_tflops"
        found.append(
            Row(name=name, published=float(row["tflops_per_gpu"]), planned=flops / taken.seconds / gpus / 1e12)
        )
    return found


def korthikanti() -> list[Row]:
    """Seconds of an iteration of Table 5, with full and with selective recomputation."""
    found = []
    for row in rows_of("korthikanti2022_table5.csv"):
        model = dense(int(row["layers"]), int(row["hidden"]), int(row["heads"]))
        for recompute, column in (("full", "full_seconds"), ("selective", "present_seconds")):
            layout = Layout(
                data=int(row["gpus"]) // 8 // int(row["pipeline"]),
                tensor=8,
                pipeline=int(row["pipeline"]),
                virtual=int(row["virtual"]),
                micro_batch=int(row["micro"]),
                recompute=recompute,
            )
            taken = step(model, layout, sequences=int(row["batch"]), device=A100, numerics=UNFUSED)
            name = f"korthikanti_{row['name']}_{recompute}_seconds"
            found.append(Row(name=name, published=float(row[column]), planned=taken.seconds))
    return found


def gpt3_on_1024_a100s() -> tuple[Step, float]:
    """A step of GPT-3 175B as Narayanan et al. 2021 (section 5.1) run it, and the days of 300B tokens."""
    size = sizes.GPT3["175B"].model()
    model = replace(size, attention="dense", vocab_size=51_200)
    layout = Layout(data=16, tensor=8, pipeline=8, recompute="full")
    taken = step(model, layout, sequences=1536, device=A100, numerics=UNFUSED)
    return taken, taken.seconds * 300e9 / (1536 * 2048) / DAY


def foundry(published: tuple[tuple[str, int, int, float], ...], device: Any) -> list[Row]:
    """MFU of llm-foundry's runs, by their count of FLOPs."""
    found = []
    for name, gpus, micro, mfu in published:
        built = sizes.GPT3[name].model()
        model = replace(built, attention="dense", vocab_size=50_368)
        layout = Layout(data=gpus, shard=gpus, micro_batch=micro)
        sequences = 1024
        taken = step(model, layout, sequences=sequences, device=device, numerics=FUSED)
        n = costs.params(model).total
        flops = (6 * n + 12 * model.n_layer * model.d_model * model.n_ctx) * sequences * model.n_ctx
        planned = flops / (taken.seconds * gpus * device.peak_flops)
        found.append(Row(name=f"foundry_{name}_{device.peak_flops / 1e12:.0f}_mfu", published=mfu, planned=planned))
    return found


def megatron_177b() -> Row:
    """Megatron-LM's 177B on 2,304 H100s (README, 2024): tensor 8, pipeline 6, data 48, batch 1,152: 44% of the peak."""
    model = dense(96, 12_288, 96, vocabulary=128_256, n_ctx=4096)
    layout = Layout(data=48, shard=48, tensor=8, pipeline=6, virtual=4)
    taken = step(model, layout, sequences=1152, device=H100, numerics=FUSED)
    return Row(name="megatron_177B_mfu", published=0.44, planned=taken.mfu(2304, H100.peak_flops))


def main() -> None:
    """Print the table, and a line a target."""
    taken, days = gpt3_on_1024_a100s()
    table = [*narayanan(), *korthikanti(), *foundry(FOUNDRY_A100, A100)]
    h100 = [*foundry(FOUNDRY_H100, H100), megatron_177b()]
    print(f"{'row':36} {'published':>10} {'planned':>10} {'ratio':>7}")
    for row in (*table, *h100):
        print(f"{row.name:36} {row.published:10.4g} {row.planned:10.4g} {row.ratio:7.3f}")
    print(
        f"175B on 1,024 A100s: {days:.1f} days (published 34), {taken.mfu(1024, A100.peak_flops):.0%} MFU, "
        f"{taken.hfu(1024, A100.peak_flops):.0%} with recomputation counted (published 140 TFLOP/s, 45%)"
    )
    target("gpt3_1024_a100_days_off", abs(days / 34 - 1), "<=", 0.15)
    target("narayanan_worst_off", max(abs(row.ratio - 1) for row in narayanan()), "<=", 0.15)
    target("korthikanti_worst_off", max(abs(row.ratio - 1) for row in korthikanti()), "<=", 0.15)
    target("a100_one_node_worst_off", max(abs(row.ratio - 1) for row in foundry(FOUNDRY_A100, A100)), "<=", 0.15)
    target("h100_worst_off", max(abs(row.ratio - 1) for row in h100), "<=", 0.25)


if __name__ == "__main__":
    main()
