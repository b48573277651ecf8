"""Adaptive sweeps on many workers: how long until the target's interval is as narrow, and how busy the workers are.

``python -m tests.benchmarks.design_slots [--draws 3]``. The pool is every cell of a grid of sizes and tokens between
1e18 and 1e20 FLOPs (costs differ a hundredfold), its losses those of Hoffmann's form with a seed's noise; the target
is the loss at 1e21. A run takes its FLOPs. Six cheap runs begin; 30% of the pool's FLOPs may be spent. Policies, all
with the same scores (information over cost and bill, analysis.estimation.design):

joint       the batch that sweeps.driving.adaptive takes: each run given those in flight and those before it
one by one  the next run only when the last has ended
top k       the k best runs by themselves, given what has ended

The interval is the design's own at the target, given the runs that ended, by one law fitted to the whole pool, relative
to that after the first six. Time is in units of the longest run. ``until the last start`` is the share of slots at work
until no further run is taken; the rest is the tail of the last runs. CPU seconds are of one proposal.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import heapq
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.estimation import design, information
from gpt3core.spec import DataSpec, OptimSpec, RunSpec
from sweeps.driving import adaptive
from tests.benchmarks.target import target

SHARE = 0.3
COMPUTE = 1e21
LEVELS = (0.4, 0.3, 0.2, 0.15, 0.12)
SLOTS = (4, 16)
FIRST = 6


@dataclass
class Pool:
    """Runs that could be made, with their losses."""

    table: pd.DataFrame

    @staticmethod
    def drawn(seed: int) -> Pool:
        """Of one seed."""
        sizes, ratios = np.meshgrid(np.geomspace(1e7, 1e9, 28), np.geomspace(5, 320, 22))
        table = pd.DataFrame({"N": sizes.ravel(), "D": (sizes * ratios).ravel()}).assign(C=lambda t: 6 * t.N * t.D)
        table = table[table.C.between(1e18, 1e20)].reset_index(drop=True)
        noise = np.random.default_rng(seed).normal(0, 0.004, len(table))
        loss = 1.82 + 482 * table.N**-0.348 + 2085 * table.D**-0.366  # Besiroglu et al. 2024
        return Pool(table.assign(loss=loss * np.exp(noise), cost=table.C, flops=table.C))

    def widths(self) -> Callable[[list[int]], float]:
        """The target's interval given runs that ended, by the law of the whole pool."""
        known, _ = design._information(self.table, self.table, COMPUTE, "loss", None, None)

        def width(rows: list[int]) -> float:
            found = [information.Covariance(matrix=c.matrix.copy(), noise=c.noise) for c in known]
            for each in found:
                each.condition(rows)
            return design._width(found)

        return width


Policy = Callable[[pd.DataFrame, pd.DataFrame, pd.DataFrame, int, float], list[int]]
"""(finished, left, in flight, free slots, FLOPs left) -> index labels of the runs to start."""


def joint(finished: pd.DataFrame, left: pd.DataFrame, flying: pd.DataFrame, free: int, rest: float) -> list[int]:
    """As an adaptive sweep chooses."""
    chosen, _ = adaptive.choose(finished, left, flying, compute=COMPUTE, slots=free, rest=rest)
    return [int(left.index[k]) for k in chosen]


def one_by_one(finished: pd.DataFrame, left: pd.DataFrame, flying: pd.DataFrame, free: int, rest: float) -> list[int]:
    """Nothing while a run is in flight."""
    return [] if len(flying) else joint(finished, left, flying, 1, rest)


def top_k(finished: pd.DataFrame, left: pd.DataFrame, flying: pd.DataFrame, free: int, rest: float) -> list[int]:
    """The best by their single scores, blind to those in flight but for their cost."""
    every = pd.concat([finished[["N", "D", "cost"]], left[["N", "D", "cost"]]], ignore_index=True)
    known, _ = design._information(finished, every, COMPUTE, "loss", None, None)
    for each in known:
        each.condition(range(len(finished)))
    gain = np.mean([each.gain() for each in known], axis=0)[len(finished) :]
    spent = float(finished.cost.sum() + flying.cost.sum())
    order = np.argsort(-gain / (left.cost.to_numpy() + design.BILL * spent), kind="stable")
    found: list[int] = []
    for i in order:
        if len(found) < free and left.C.iloc[i] <= rest:
            rest -= left.C.iloc[i]
            found.append(int(left.index[i]))
    return found


@dataclass
class Replay:
    """What a policy came to."""

    widths: list[tuple[float, float]]  # (time, interval) after each run
    seconds: float
    busy: float  # share of the slots' time
    until_last_start: float
    slowest: float  # CPU seconds of a proposal

    def reached(self, level: float) -> float:
        """When the interval was as narrow first."""
        return min((t for t, width in self.widths if width <= level), default=np.nan)


def replay(pool: Pool, slots: int, policy: Policy, seed: int) -> Replay:
    """One sweep."""
    table, width = pool.table, pool.widths()
    rng = np.random.default_rng(seed)
    start = [int(i) for i in rng.choice(table.C.nsmallest(40).index, FIRST, replace=False)]
    rest, taken, ended, queue = SHARE * table.C.sum(), set[int](), list[int](), list(start)
    now, last_start, slowest = 0.0, 0.0, 0.0
    running: list[tuple[float, int]] = []
    spans: list[tuple[float, float, int]] = []
    seen: list[tuple[float, float]] = []
    first = width(start)
    while True:
        free = slots - len(running)
        chosen, queue = queue[:free], queue[free:]
        if free and not chosen and len(ended) >= adaptive.LEAST_RESULTS:
            left = table.loc[[i for i in table.index if i not in taken and table.C[i] <= rest]]
            if len(left):
                began = time.process_time()
                flying = table.loc[[i for _, i in running]].assign(left=[end - now for end, _ in running])
                chosen = policy(table.loc[ended], left, flying, free, rest)
                slowest = max(slowest, time.process_time() - began)
        for i in chosen:
            taken.add(i)
            rest -= table.C[i]
            heapq.heappush(running, (now + table.C[i], i))
            last_start = now
        if not running:
            break
        ends, i = running[0]
        spans.append((now, ends, len(running)))
        heapq.heappop(running)
        now = ends
        ended.append(i)
        seen.append((now / table.C.max(), width(ended) / first))
    busy = sum((b - a) * n for a, b, n in spans) / (slots * now)
    until = sum((min(b, last_start) - a) * n for a, b, n in spans if a < last_start) / (slots * last_start)
    return Replay(seen, now / table.C.max(), busy, until, slowest)


def big(count: int) -> tuple[float, float]:
    """CPU seconds of a proposal of 16 among so many candidates, by the sweep's own function."""
    from gpt3core.sizes import nano
    from sweeps.planning.recipe import NanoRecipe

    shape = {"n_layer": 2, "n_ctx": 128, "vocab_size": 1024, "attention": "dense", "band": 4}
    data = DataSpec(corpus="starter", corpus_sha256="0" * 64, tokenizer="gpt2:1024", validation_fraction=0.06)
    runs = {}
    for k in range(count):
        tokens = 512 * (1000 + 37 * k)
        optim = OptimSpec(lr=0.01, batch_tokens=512, warmup_tokens=512, decay_tokens=tokens)
        run = RunSpec(model=nano(16 + 4 * (k % 5), **shape), data=data, optim=optim, tokens=tokens, budget_flops=1e10)
        runs[run.run_id] = run
    ids = list(runs)
    losses = {i: 3 + 1e6 / runs[i].tokens for i in ids[:40]}
    half = {i: runs[i].tokens / 2e4 for i in ids[40:56]}
    began = time.process_time()
    recipe = NanoRecipe(adaptive=True, adaptive_share=1.0)
    adaptive.next_runs(
        recipe, runs, losses=losses, taken={*ids[:56], *adaptive._first(runs)}, under_way=half,
        seconds=lambda run: run.tokens / 1e4, slots=16,
    )  # fmt: skip
    return count, time.process_time() - began


def main() -> None:
    """Replay and print."""
    settings = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    draws = int(settings.get("--draws", 3))
    pools = [Pool.drawn(seed) for seed in range(draws)]
    table = pools[0].table
    within = table.C.max() / table.C.min()
    print(f"{len(table)} candidates, costs within {within:.0f}x, {draws} draws; time until interval")
    found = {("one by one", 1): [replay(p, 1, one_by_one, s) for s, p in enumerate(pools)]}
    for slots in SLOTS:
        for name, policy in (("joint", joint), ("top k", top_k)):
            found[name, slots] = [replay(p, slots, policy, s) for s, p in enumerate(pools)]
    for (name, slots), runs in found.items():
        times = "  ".join(f"{level:g}: {np.mean([r.reached(level) for r in runs]):6.2f}" for level in LEVELS)
        ends, busy, until = (
            float(np.mean([value(r) for r in runs]))
            for value in (lambda r: r.widths[-1][1], lambda r: r.busy, lambda r: r.until_last_start)
        )
        print(
            f"  {name:10s} {slots:2d} slots  {times}  end {np.mean([r.seconds for r in runs]):5.2f} at {ends:.3f}  "
            f"busy {busy:.2f}, until the last start {until:.2f}  proposal {max(r.slowest for r in runs):.2f} CPU s"
        )
    for count, seconds in map(big, (200, 1000, 2000)):
        print(f"  proposal of 16 among {count} candidates: {seconds:.2f} CPU s")
    ours = [r for (name, _), runs in found.items() if name == "joint" for r in runs]
    target("adaptive_slots_busy_until_last_start", min(r.until_last_start for r in ours), ">=", 0.9)
    target("adaptive_slots_busy_to_the_end", min(r.busy for r in ours), ">=", 0.9)
    alone = np.mean([r.seconds for r in found["one by one", 1]])
    for slots in SLOTS:
        speedup = alone / np.mean([r.seconds for r in found["joint", slots]]) / slots
        target(f"adaptive_{slots}_slots_speedup_over_ideal", float(speedup), ">=", 0.85)
    target("adaptive_proposal_cpu_seconds_200_candidates", big(200)[1], "<=", 1.0)


if __name__ == "__main__":
    main()
