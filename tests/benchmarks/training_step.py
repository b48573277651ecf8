"""A training step of ours beside the same shape in plain torch, Hugging Face's GPT-2 and litgpt, in one process.

``python -m tests.benchmarks.training_step [A] [B] [C] [--precision fp32 bf16] [--compile] [--as-run] [--seconds 10]
[--only ARM ...]``; without shapes all three.

A step is forward, backward, clip to 1 and fused AdamW over the same random tokens; one thread; CPU time of the process.
Arms take turns, a step each, for so many CPU-seconds an arm; medians of tokens per CPU-second are printed, with their
ratio to the best peer of the same mode (eager or compiled) and allocator settings. ``plain`` is nanoGPT's shape written
here with torch modules: pre-LayerNorm, learned positions, erf GELU, SDPA, tied head, F.cross_entropy; all its layers
dense. Ours has GPT-3's alternation, its loss in fp32; compiled it is what ``compile=all`` does, and peers are
compiled whole. The allocator's settings (``settle_process``) hold for a process: --as-run times the peers without them,
before all else, as people run them. Without bf16 products in the processor its rows are in short form (a step an arm
after the first), and no target is held to them. litgpt and transformers take part where installed (``make peers``).

Targets: at A and B our best over the best peer as people run it, and under the same settings; in every mode no peer is
faster; at C our best over our softmax kernel, which was all there was when the target was set (nothing is compiled for
the native one that a run would have to earn).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import contextlib
import functools
import importlib.util
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch._inductor.config as inductor
from torch import Tensor, nn
from torch.nn import functional as F

from gpt3core.model import native, products
from gpt3core.model.gpt import GPT
from gpt3core.model.gpt_spec import ENTRY, GPTSpec
from gpt3core.parallel.compiled import compile_blocks
from gpt3core.train.process import settle_process
from tests.benchmarks.target import target


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model and how much it reads a step."""

    n_layer: int
    d_model: int
    n_head: int
    n_ctx: int
    sequences: int
    vocab_size: int
    band: int

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.n_ctx * self.sequences


def _laptop(width: int, heads: int, sequences: int) -> Shape:
    return Shape(n_layer=2, d_model=width, n_head=heads, n_ctx=128, sequences=sequences, vocab_size=1024, band=4)


SHAPES = {
    "A": Shape(n_layer=4, d_model=256, n_head=4, n_ctx=256, sequences=8, vocab_size=50_304, band=64),
    "B": Shape(n_layer=6, d_model=384, n_head=6, n_ctx=512, sequences=4, vocab_size=50_304, band=128),
    "C16": _laptop(16, 1, 5),
    "C64": _laptop(64, 2, 10),
    "C160": _laptop(160, 5, 9),
}
GOALS = {"A": (1.45, 1.1), "B": (1.6, 1.25)}  # over the best peer as people run it, and under the same settings


class PlainBlock(nn.Module):
    """A block of nanoGPT's shape."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d, self.heads = shape.d_model, shape.n_head
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        b, t, d = x.shape
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.qkv(self.norm1(x)).split(d, dim=2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        added: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + added


class Plain(nn.Module):
    """nanoGPT's shape in plain torch modules: ids and targets to the mean loss."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocab_size, shape.d_model)
        self.positions = nn.Embedding(shape.n_ctx, shape.d_model)
        self.blocks = nn.Sequential(*(PlainBlock(shape) for _ in range(shape.n_layer)))
        self.norm = nn.LayerNorm(shape.d_model)
        self.head = nn.Linear(shape.d_model, shape.vocab_size, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The mean loss."""
        x = self.blocks(self.tokens(ids) + self.positions.weight[: ids.size(1)])
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())


class HuggingFace(nn.Module):
    """transformers' GPT-2 with SDPA and no dropout."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(
            vocab_size=shape.vocab_size, n_positions=shape.n_ctx, n_embd=shape.d_model, n_layer=shape.n_layer,
            n_head=shape.n_head, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
            attn_implementation="sdpa", bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        self.model = GPT2LMHeadModel(config)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The mean loss."""
        return F.cross_entropy(self.model(ids).logits.flatten(0, 1), targets.flatten())


class LitGPT(nn.Module):
    """litgpt's GPT with its rotary positions (it has no learned ones)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        import litgpt

        config = litgpt.Config(
            n_layer=shape.n_layer, n_embd=shape.d_model, n_head=shape.n_head, block_size=shape.n_ctx,
            vocab_size=shape.vocab_size, padded_vocab_size=shape.vocab_size,
        )  # fmt: skip
        self.model = litgpt.GPT(config)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The mean loss."""
        return F.cross_entropy(self.model(ids).flatten(0, 1), targets.flatten())


class Ours(nn.Module):
    """Our model by one of its kernels, with its fused head and loss."""

    def __init__(self, shape: Shape, kernel: str) -> None:
        super().__init__()
        fields = {name: value for name, value in vars(shape).items() if name != "sequences"}
        spec = GPTSpec(**fields, d_head=shape.d_model // shape.n_head)
        self.model = GPT(spec, kernel=kernel)
        self.model.init_weights(0)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The mean loss."""
        summed: Tensor = self.model(ids, targets)
        return summed / targets.numel()


PEERS: dict[str, tuple[str | None, Callable[[Shape], nn.Module]]] = {
    "plain": (None, Plain),
    "transformers": ("transformers", HuggingFace),
    "litgpt": ("litgpt", LitGPT),
}


def stepper(model: nn.Module, shape: Shape, bf16: bool) -> Callable[[], float]:
    """A function that trains one step and returns its CPU seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = torch.randint(
        shape.vocab_size, (shape.sequences, shape.n_ctx + 1), generator=torch.Generator().manual_seed(0)
    )

    def step() -> float:
        began = time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else contextlib.nullcontext():
            loss = model(ids[:, :-1], ids[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - began

    return step


def arms(shape: Shape, bf16: bool, asked: argparse.Namespace, *, ours: bool) -> dict[str, Callable[[], float]]:
    """Everything to be timed in one precision, by name."""
    builders: dict[str, Callable[[], nn.Module]] = {
        name: functools.partial(build, shape)
        for name, (package, build) in PEERS.items()
        if package is None or importlib.util.find_spec(package)
    }
    if ours:
        kernels = ["softmax", "sdpa", *(["native"] if native.library() else [])]
        kernels += ["wide"] if native.library() and products.there() and (bf16 or products.taken_for_less()) else []
        builders |= {f"ours-{kernel}": functools.partial(Ours, shape, kernel) for kernel in kernels}
    if asked.compile:
        builders |= {
            f"{name}-compiled": functools.partial(compiled, build)
            for name, build in builders.items()
            if name not in ("ours-native", "ours-wide")
        }
    return {
        name: stepper(build(), shape, bf16) for name, build in builders.items() if not asked.only or name in asked.only
    }


def compiled(build: Callable[[], nn.Module]) -> nn.Module:
    """A peer compiled whole, or ours by its blocks."""
    model = build()
    if isinstance(model, Ours):
        compile_blocks(model.model, ENTRY.cuts, "cpu", loss=True)
        return model
    return torch.compile(model)  # type: ignore[return-value]


def timed(steps: dict[str, Callable[[], float]], seconds: float) -> dict[str, float]:
    """Median CPU seconds of a step of each arm, a step in turn; one step each where there are no seconds."""
    for name, step in steps.items():
        began = time.process_time()
        step()  # memory, and compilation
        if name.endswith("compiled"):
            print(f"    {name}: first step {time.process_time() - began:.1f} CPU-s, compilers beside it not counted")
        if seconds:
            step()
    taken: dict[str, list[float]] = {name: [] for name in steps}
    while min(map(sum, taken.values())) < seconds or min(map(len, taken.values())) < (3 if seconds else 1):
        for name, step in steps.items():
            taken[name].append(step())
    print(f"    {min(map(len, taken.values()))} rounds", flush=True)
    return {name: statistics.median(values) for name, values in taken.items()}


def mode(arm: str) -> str:
    """How an arm is run."""
    return "compiled" if arm.endswith("-compiled") else "eager"


def best(times: dict[str, float], *, ours: bool, how: str = "") -> float | None:
    """The least time of ours or of the peers, in a mode or in any."""
    found = [t for arm, t in times.items() if arm.startswith("ours") is ours and how in ("", mode(arm))]
    return min(found, default=None)


def ratio(peer: float | None, own: float | None) -> float | None:
    """How many times faster; None where one of them was not run."""
    return peer / own if peer and own else None


def report(name: str, shape: Shape, precision: str, times: dict[str, float], as_run: dict[str, float]) -> None:
    """A table of one shape and precision."""
    print(f"{name} {precision}: {shape}")
    for arm, taken in times.items():
        peer = ratio(best(times, ours=False, how=mode(arm)), taken)
        beside = f", {peer:5.2f}x the best {mode(arm)} peer" if peer else ""
        extra = f", without our allocator settings {shape.tokens / as_run[arm]:10,.0f}" if arm in as_run else ""
        print(f"  {arm:22} {shape.tokens / taken:10,.0f} tokens per CPU-s{beside}{extra}")


def targets(name: str, precision: str, times: dict[str, float], as_run: dict[str, float]) -> None:
    """Its lines of targets; without times none was run."""
    own, start = best(times, ours=True), f"step_{name}_{precision}"
    if name in GOALS:
        reach, same = GOALS[name]
        target(f"{start}_times_best_peer_as_run", ratio(best(as_run, ours=False), own), ">=", reach)
        target(f"{start}_times_best_peer_same_settings", ratio(best(times, ours=False), own), ">=", same)
    else:
        target(
            f"{start}_times_own_softmax",
            ratio(times.get("ours-softmax"), best(times, ours=True, how="eager")),
            ">=",
            1.15,
        )
    for how in ("eager", "compiled"):
        value = ratio(best(times, ours=False, how=how), best(times, ours=True, how=how))
        target(f"{start}_{how}_times_best_peer", value, ">=", 1.0)


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", choices=["A", "B", "C", []])
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--as-run", action="store_true")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", nargs="+", default=[])
    asked = parser.parse_args()
    if asked.compile and not any(map(shutil.which, ("g++", "clang++"))):
        parser.error("--compile needs g++ or clang++, and there is none here")
    fast = {"fp32": True, "bf16": bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())}
    cases = [(name, p) for name in SHAPES if name[0] in (asked.shapes or "ABC") for p in asked.precision]
    torch.set_num_threads(1)
    inductor.compile_threads = 1

    def measured(name: str, precision: str, *, ours: bool) -> dict[str, float]:
        steps = arms(SHAPES[name], precision == "bf16", asked, ours=ours)
        return timed(steps, asked.seconds if fast[precision] else 0.0)

    as_run = {case: measured(*case, ours=False) for case in cases if asked.as_run}
    settle_process("cpu", 1)
    for name, precision in cases:
        times = measured(name, precision, ours=True)
        report(name, SHAPES[name], precision, times, as_run.get((name, precision), {}))
        if fast[precision]:
            targets(name, precision, times, as_run.get((name, precision), {}))
        else:
            print("  this processor has no bf16 products: in short form, and no target is held to it")
            targets(name, precision, {}, {})


if __name__ == "__main__":
    main()
