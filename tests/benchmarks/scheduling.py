"""The scheduler against Ray's greedy way and strict FIFO, on 1,024 GPUs and 10,000 runs; what a pass and a tick cost.

  python -m tests.benchmarks.scheduling            three days, without and with failures; three minutes of one core
  python -m tests.benchmarks.scheduling quick      a tenth of the runs, one day

The policies meet the same runs, lengths, crashes and lost nodes (``simulator.Failures`` draws them by run and node).
The workload was chosen once, by what a scaling-law group runs, before anything was measured on it:

- 128 nodes of 8 GPUs; 10,000 runs of the eight sizes of GPT-3's Table 2.1 and of smaller ones, as many of each size as
  runs cost less (the sweep's grid has many cheap cells and few others): 60% on 1 GPU, 15% on 2 or 4, 17% on a node,
  7.9% on 2 to 16 nodes, and the 175B gang on all 128, once, asked for when a fifth of the others has come.
- Lengths are lognormal (sigma 1) about 1 hour on 1 GPU, 2 on a node, 6 on several, 12 for the 175B gang.
- They come in sweeps: bursts of 50 to 500 at times of a Poisson process, so that the work that comes is 90% of what the
  cluster can do in that time; there is always a queue after a burst, and often none before the next.
- With failures: a node is lost every 6,000 hours (Llama 3 405B: 2,048 nodes, one loss in 3 hours) for an hour, 2% of
  attempts crash, checkpoints are 10 minutes apart, and a run takes its estimate times exp(0.3 z), z standard normal.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweeps.scheduling.inventory import ACCELERATOR, Inventory, Node, Resources
from sweeps.scheduling.jobs import Decision, Job, Rules, Running, Start
from sweeps.scheduling.ledger import Ledger, Queue
from sweeps.scheduling.scheduler import decide, skim
from sweeps.scheduling.simulator import NONE, Failures, Policy, Simulated, simulate
from tests.benchmarks.target import target

NODES, GPUS, RUNS = 128, 1024, 10_000
GANG = "gpt3-175B"
RACK = "ray.io/gpu-domain"
GPU = Resources(cpus=8, gpus=1)
SEEDS = (0, 1, 2)
HOUR = 3600.0
LOAD = 0.9
REAL = Failures(node_hours=6000, back_seconds=HOUR, run_fails=0.02, spread=0.3, checkpoint=600)


def cluster(nodes: int) -> Inventory:
    """Nodes of eight GPUs, sixteen to a rack."""
    total = Resources(cpus=64, gpus=8)
    labels = [{RACK: f"rack-{i // 16:03d}", ACCELERATOR: "H100"} for i in range(nodes)]
    return [Node(name=f"n{i:04d}", total=total, labels=each) for i, each in enumerate(labels)]


def workload(runs: int, seed: int) -> list[Job]:
    """The runs of a day that is drawn, as the page above says."""
    chance, found = random.Random(f"work:{seed}"), []
    for i in range(runs - 1):
        kind = chance.random()
        if kind < 0.75:
            workers, hours = (1 if kind < 0.60 else chance.choice((2, 4))), 1.0
        elif kind < 0.92:
            workers, hours = 8, 2.0
        else:
            workers, hours = chance.choice((16, 32, 64, 128)), 6.0
        rack = RACK if workers > 8 and chance.random() < 0.5 else ""
        seconds = HOUR * hours * chance.lognormvariate(0, 1)
        found.append(Job(run_id=f"run-{i:05d}", worker=GPU, workers=workers, rack=rack, seconds=seconds))
    work = sum(job.seconds * job.workers for job in found) + 12 * HOUR * GPUS
    span, arrivals, jobs, at = work / (LOAD * GPUS), [], list[Job](), 0
    bursts = []
    while at < len(found):
        size = chance.randint(50, 500)
        bursts.append(found[at : at + size])
        at += size
    arrivals = sorted(chance.uniform(0, span) for _ in bursts)
    for when, burst in zip(arrivals, bursts, strict=True):
        jobs += [replace(job, queued=when) for job in burst]
    fifth = jobs[len(jobs) // 5].queued
    return [*jobs, Job(run_id=GANG, worker=GPU, workers=GPUS, seconds=12 * HOUR, queued=fifth + 1.0)]


def greedy(now: float, ledger: Ledger, queue: Queue, _: Inventory, __: Rules) -> list[Decision]:
    """What Ray's placement groups do: whoever fits starts, in the order of asking, and nobody waits for anybody."""
    decisions: list[Decision] = []
    full: dict[Any, float] = {}
    for job in queue.walk(full):
        share = ledger.totals().share(job.kind)
        allocation = None if share is None else ledger.free.place(job.kind, share)
        if allocation is None:
            full[job.kind] = -math.inf
        else:
            decisions.append(ledger.start(job, allocation, now))
    return decisions


def fifo(now: float, ledger: Ledger, queue: Queue, _: Inventory, __: Rules) -> list[Decision]:
    """Strictly in the order of asking: nobody starts before the first who cannot."""
    decisions: list[Decision] = []
    for job in queue.walk({}):
        share = ledger.totals().share(job.kind)
        allocation = None if share is None else ledger.free.place(job.kind, share)
        if allocation is None:
            break
        decisions.append(ledger.start(job, allocation, now))
    return decisions


POLICIES: dict[str, Policy] = {"ours": skim, "greedy": greedy, "fifo": fifo}


@dataclass(frozen=True, kw_only=True)
class Day:
    """What a policy made of a day. Hours."""

    utilisation: float  # GPU-hours of work that was kept, over all there were until the last end
    makespan: float
    gang: float  # wait of the full-cluster gang
    small: float  # median wait of the runs on one GPU
    node: float  # the same of runs on a node and more
    seconds: float  # that the simulation took


def day(policy: Policy, jobs: Sequence[Job], failures: Failures) -> Day:
    """Simulate one."""
    began = time.process_time()
    done = simulate(cluster(NODES), jobs, failures=failures, policy=policy)
    assert not done.refused
    wait = _waits(done, jobs)
    ended = {spell.run_id for spell in done.spells if spell.outcome == "done"}
    assert len(ended) == len(jobs)
    work = sum(job.workers * job.seconds * _stretch(job, failures) for job in jobs)
    return Day(
        utilisation=work / (GPUS * done.seconds),
        makespan=done.seconds / HOUR,
        gang=wait[GANG] / HOUR,
        small=statistics.median(wait[job.run_id] for job in jobs if job.workers == 1) / HOUR,
        node=statistics.median(wait[job.run_id] for job in jobs if 8 <= job.workers < GPUS) / HOUR,
        seconds=time.process_time() - began,
    )


def _stretch(job: Job, failures: Failures) -> float:
    """How much longer than estimated a run is, as the simulator draws it."""
    return math.exp(failures.spread * failures.drawn("length", job.run_id).gauss()) if failures.spread else 1.0


def _waits(done: Simulated, jobs: Sequence[Job]) -> dict[str, float]:
    """Seconds from being asked for to the first start."""
    queued, found = {job.run_id: job.queued for job in jobs}, dict[str, float]()
    for spell in done.spells:
        found.setdefault(spell.run_id, spell.started - queued[spell.run_id])
    return found


def days(runs: int, seeds: Sequence[int]) -> dict[str, list[tuple[Day, Day, Day]]]:
    """Every policy on the same days, without and with failures."""
    found: dict[str, list[tuple[Day, Day, Day]]] = {"as planned": [], "with failures": []}
    print(f"{'day':>3} {'':13} {'policy':7} utilisation  makespan   gang waits  1 GPU waits  nodes wait   CPU")
    for seed in seeds:
        jobs = workload(runs, seed)
        for name, failures in (("as planned", NONE), ("with failures", replace(REAL, seed=seed))):
            each = {policy: day(act, jobs, failures) for policy, act in POLICIES.items()}
            for policy, d in each.items():
                print(
                    f"{seed:>3} {name:13} {policy:7} {d.utilisation:10.1%} {d.makespan:8.0f} h {d.gang:10.1f} h "
                    f"{d.small:10.2f} h {d.node:9.1f} h {d.seconds:5.0f} s",
                    flush=True,
                )
            found[name].append((each["ours"], each["greedy"], each["fifo"]))
    return found


# ------------------------------------------------------------------------------------------------- what a pass costs


def mixed(runs: int, name: str, seed: int) -> list[Job]:
    """A queue of all shapes: parts of a GPU, cores alone, gangs with and without a rack, priorities."""
    chance, found = random.Random(f"queue:{seed}"), []
    for i in range(runs):
        kind, worker, workers, rack = chance.random(), GPU, 1, ""
        if kind < 0.10:
            worker = Resources(cpus=4, gpus=0.5)
        elif kind < 0.15:
            worker = Resources(cpus=16)
        elif 0.60 <= kind < 0.75:
            workers = chance.choice((2, 4))
        elif 0.75 <= kind < 0.90:
            workers = 8
        elif kind >= 0.90:
            workers, rack = chance.choice((16, 32, 64, 128)), chance.choice(("", RACK))
        found.append(
            Job(
                run_id=f"{name}{i:05d}",
                worker=worker,
                workers=workers,
                rack=rack,
                seconds=HOUR * chance.lognormvariate(0, 1.5),
                priority=chance.choice((0, 0, 0, 1, 2)),
                queued=chance.uniform(0, 1e5),
            )
        )
    return found


def passes(runs: int, nodes: int) -> dict[str, float]:
    """CPU milliseconds of ``decide`` with so many runs queued: on a cluster that is full, empty, or makes room."""
    inventory, first = cluster(nodes), mixed(runs, "a", 0)
    gang = Job(run_id=GANG, worker=GPU, workers=8 * nodes, seconds=1e6, queued=5e4)
    started = {d.run_id: d for d in decide(1e5, inventory, first, []) if isinstance(d, Start)}
    running = [
        Running(
            run_id=job.run_id,
            worker=job.worker,
            allocation=started[job.run_id].allocation,
            ends=1e5 + job.seconds,
            priority=job.priority,
            queued=job.queued,
            resumable=True,
        )
        for job in first
        if job.run_id in started
    ]
    queue = [gang, *mixed(runs - 1, "b", 1)]
    urgent = [replace(gang, priority=9), *queue[1:]]
    return {
        "full": cpu_ms(lambda: decide(1e5, inventory, queue, running)),
        "empty": cpu_ms(lambda: decide(1e5, inventory, queue, [])),
        "preempting": cpu_ms(lambda: decide(1e5, inventory, urgent, running, rules=Rules(preempt=True))),
    }


def cpu_ms(act: Callable[[], Any], repeats: int = 7) -> float:
    """Median CPU milliseconds."""
    found = []
    for _ in range(repeats):
        began = time.process_time()
        act()
        found.append(1000 * (time.process_time() - began))
    return statistics.median(found)


def tick() -> tuple[float, float]:
    """CPU milliseconds of a driver's tick at 10,000 runs: deciding, and one that changes nothing."""
    from tests.benchmarks import driver_scale

    with tempfile.TemporaryDirectory(prefix="isoflop-tick-") as root:
        *_, deciding, quiet = driver_scale.sweep(Path(root))
    return deciding, quiet


def main(words: Sequence[str]) -> int:
    """The script."""
    quick = list(words) == ["quick"]
    if words and not quick:
        raise SystemExit(f"{' '.join(words)}: allowed is quick, or nothing")
    small, large = passes(1000, 128), passes(10_000, 1000)
    for name, found in (("1,000 x 128", small), ("10,000 x 1,000", large)):
        print(f"a pass over {name} nodes, ms CPU: " + ", ".join(f"{k} {v:.1f}" for k, v in found.items()))
    deciding, quiet = tick()
    print(f"a tick of a driver at 10,000 runs, ms CPU: deciding {deciding:.1f}, nothing changed {quiet:.1f}")
    found = days(RUNS // 10 if quick else RUNS, SEEDS[:1] if quick else SEEDS)
    met = [
        target("pass_1000x128_ms", small["full"], "<=", 5),
        target("pass_10000x1000_ms", large["full"], "<=", 50),
        target("idle_tick_10000_ms", quiet, "<=", 20),
    ]
    for name, each in found.items():
        how = "" if name == "as planned" else "_with_failures"
        met += [
            target(f"utilisation_over_greedy{how}", min(o.utilisation / g.utilisation for o, g, _ in each), ">=", 0.95),
            target(f"gang_wait_over_fifo{how}", max(o.gang / f.gang for o, _, f in each), "<=", 1.3),
            target(f"small_wait_over_fifo{how}", max(o.small / f.small for o, _, f in each), "<=", 0.1),
        ]
    print("the worst of the days; waits are from being asked for to the first start")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
