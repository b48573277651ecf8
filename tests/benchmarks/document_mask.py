"""What it costs that the documents of one sequence do not see each other: a training step with the mask and without.

``python -m tests.benchmarks.document_mask [--short]``. Forward and backward pass of a model of GPT-3's shape over rows
that are packed with documents of log-normal length; one thread, CPU time, arms in turn, medians. At 128 positions a
document is longer than the context, as in the laptop sweep; at 2,048 some lie in one row.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from gpt3core.model import native, products, registry
from gpt3core.sizes import nano
from gpt3core.train.objective import model_loss_sum, next_token
from gpt3core.train.process import settle_process
from tests.benchmarks.target import target

VOCAB, END = 1024, 1023
MEAN = 600  # tokens of a document
SHAPES = {  # n_ctx, rows, width, band: the laptop sweep's widest, then longer contexts
    128: (8, 160, 4),
    512: (4, 128, 64),
    2048: (2, 128, 128),
}

GOALS = {128: 1.1, 512: 1.1, 2048: 0.95}  # of the fastest kernel: blocks that no document reaches are not computed


def rows(n_ctx: int, count: int) -> torch.Tensor:
    """Packed documents: (B, T+1)."""
    rng = np.random.default_rng(n_ctx)
    tokens = rng.integers(END, size=count * n_ctx + 1)
    lengths = rng.lognormal(np.log(MEAN) - 0.5, 1.0, size=len(tokens)).astype(int) + 1
    ends = np.cumsum(lengths) - 1
    tokens[ends[ends < len(tokens)]] = END
    return torch.from_numpy(np.stack([tokens[i * n_ctx : (i + 1) * n_ctx + 1] for i in range(count)]))


def measured(n_ctx: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Median CPU seconds of a step without the mask and with it, of each kernel."""
    count, width, band = SHAPES[n_ctx]
    shape = nano(width, n_layer=2, n_ctx=n_ctx, vocab_size=VOCAB, attention="alternating", band=band)
    ids = rows(n_ctx, count)
    arms: dict[tuple[str, bool], Any] = {}
    built = [*(["native"] if native.library() else []), *(["wide"] if native.library() and products.there() else [])]
    for kernel in ["softmax", "sdpa", *built]:
        for masked in (False, True):
            model = registry.of(shape).build(replace(shape, document_end=END if masked else None), kernel=kernel)
            model.init_weights(0)
            arms[kernel, masked] = model
    seconds: dict[tuple[str, bool], list[float]] = {arm: [] for arm in arms}
    for _ in range(rounds + 1):
        for arm, model in arms.items():
            began = time.process_time()
            torch.autograd.backward(model_loss_sum(model, next_token(ids, None)) / ids[:, 1:].numel())
            seconds[arm].append(time.process_time() - began)
            model.zero_grad()
    middle = {arm: statistics.median(taken[1:]) for arm, taken in seconds.items()}
    return {kernel: (middle[kernel, False], middle[kernel, True]) for kernel, masked in arms if masked}


def main() -> None:
    """Print the comparison."""
    short = "--short" in sys.argv
    settle_process("cpu", 1)
    found = {n_ctx: measured(n_ctx, 3 if short else 15) for n_ctx in SHAPES}
    for n_ctx, kernels in found.items():
        count, width, band = SHAPES[n_ctx]
        print(f"{count} x {n_ctx} positions, width {width}, band {band}")
        for kernel, (without, masked) in kernels.items():
            print(f"  {kernel:8} {1e3 * without:7.1f} ms, masked {1e3 * masked:7.1f} ms, {masked / without:.2f}x")
        best = min(masked for _, masked in kernels.values()) / min(without for without, _ in kernels.values())
        target(f"masked_step_over_unmasked_at_{n_ctx}_time", best, "<=", GOALS[n_ctx])


if __name__ == "__main__":
    main()
