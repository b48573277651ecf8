"""What a layer of each attention pattern costs on the CPU, against its band and against the context, beside SDPA.

``python -m tests.benchmarks.attention_band [--short]``. Forward and backward of 4 heads 32 wide over 4,096 positions in
all; one thread, CPU time, arms in turn, medians; memory is what is kept for the backward pass. The peer is SDPA,
dense and causal, and with the band as a boolean mask.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt3core.model import native
from gpt3core.model.attention import attend
from gpt3core.model.patterns import Pattern
from gpt3core.train.process import settle_process
from tests.benchmarks.target import target

HEADS, WIDTH, TOKENS = 4, 32, 4096
Mixer = Callable[[Tensor, Tensor, Tensor], Tensor]


def ours(n_ctx: int, window: int, kernel: str, sparse: Pattern | None = None) -> Mixer:
    """A backend of ours."""
    return lambda q, k, v: attend(q, k, v, n_ctx=n_ctx, window=window, kernel=kernel, sparse=sparse)


def masked(n_ctx: int, window: int) -> Mixer:
    """SDPA with the band as a boolean mask."""
    place = torch.arange(n_ctx)
    mask = Pattern(kind="banded", size=window).sees(place[:, None], place[None])
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def arms(n_ctx: int, windows: list[int]) -> dict[str, Mixer]:
    """Everything that is timed at a length."""
    kernels = ["softmax", "sdpa", *(["native"] if native.library() else [])]
    found = {f"dense {kernel}": ours(n_ctx, n_ctx, kernel) for kernel in kernels}
    for window in windows:
        found |= {f"band {window} {kernel}": ours(n_ctx, window, kernel) for kernel in kernels}
        found[f"band {window} SDPA and mask"] = masked(n_ctx, window)
    if n_ctx > 128:
        for sparse in (Pattern(kind="strided", size=128), Pattern(kind="fixed", size=128, summary=8)):
            found[f"{sparse.kind} 128"] = ours(n_ctx, n_ctx, "softmax", sparse)
    return found


def measured(steps: dict[str, Mixer], n_ctx: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Median CPU seconds of a pass there and back, and MB kept between, of each arm."""
    shape = (TOKENS // n_ctx, HEADS, n_ctx, WIDTH)
    q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
    gradient = torch.randn(shape)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    kept: dict[str, dict[int, int]] = {name: {} for name in steps}
    for _ in range(rounds + 1):
        for name, mix in steps.items():
            held = kept[name] = {}

            def keep(x: Tensor, held: dict[int, int] = held) -> Tensor:
                held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
                return x

            began = time.process_time()
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
                out = mix(q, k, v)
            torch.autograd.grad(out, (q, k, v), gradient)
            seconds[name].append(time.process_time() - began)
    return {name: (statistics.median(seconds[name][1:]), sum(kept[name].values()) / 1e6) for name in steps}


def main() -> None:
    """Print the comparison."""
    short = "--short" in sys.argv
    settle_process("cpu", 1)
    lengths = (
        {128: [4], 2048: [4, 128]} if short else {128: [4, 32], 512: [4, 64], 2048: [4, 64, 128, 256], 4096: [128]}
    )
    found = {}
    for n_ctx, windows in lengths.items():
        found[n_ctx] = measured(arms(n_ctx, windows), n_ctx, 3 if short else 7)
        base = found[n_ctx]["dense sdpa"][0]
        print(f"{TOKENS // n_ctx} x {n_ctx} positions")
        for name, (taken, kept) in found[n_ctx].items():
            print(f"  {name:26} {1e3 * taken:8.1f} ms, {taken / base:5.2f}x dense SDPA, {kept:7.1f} MB kept")

    def best(n_ctx: int, kind: str, which: int) -> float:
        rows = (value[which] for name, value in found[n_ctx].items() if name.startswith(kind) and "mask" not in name)
        return min(rows)

    dense = found[2048]["dense sdpa"][0]
    target("band128_at_2048_over_dense_sdpa_time", best(2048, "band 128", 0) / dense, "<=", 0.58)
    target(
        "band128_at_2048_over_masked_sdpa_time",
        best(2048, "band 128", 0) / found[2048]["band 128 SDPA and mask"][0],
        "<=",
        0.35,
    )
    target("band4_at_128_over_dense_sdpa_time", best(128, "band 4", 0) / found[128]["dense sdpa"][0], "<=", 0.5)
    target("band4_over_band128_at_2048_time", best(2048, "band 4 ", 0) / best(2048, "band 128", 0), "<=", 0.5)
    longer = None if short else best(4096, "band 128", 0) / best(2048, "band 128", 0)
    target("band128_at_4096_over_2048_time_of_as_many_tokens", longer, "<=", 1.2)
    longer = None if short else best(4096, "band 128", 1) / best(2048, "band 128", 1)
    target("band128_at_4096_over_2048_bytes_of_as_many_tokens", longer, "<=", 1.1)


if __name__ == "__main__":
    main()
