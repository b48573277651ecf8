"""What scale costs the driver: a pass of the scheduler, a tick, and the start of a sweep of 10,000 runs.

  python tests/benchmarks/driver_scale.py          a minute; CPU time of this process, medians of several

No Ray: the cluster is fake and its nodes are numbers, so this is what isoflop itself needs.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpt3core.spec import RunSpec
from gpt3core.store.sweepdir import SweepDir
from sweeps.cluster.job import Progress, Update
from sweeps.driving import driver, taking
from sweeps.planning import grid, recipe
from sweeps.scheduling.inventory import Node, Resources
from sweeps.scheduling.scheduler import Job, Running, Start, decide
from tests.benchmarks.target import target

REPEATS = 7
GPU = Resources(cpus=1, gpus=1)
RUNS, NODES = 10_000, 128


def cpu_ms(act: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median CPU milliseconds."""
    found = []
    for _ in range(repeats):
        began = time.process_time()
        act()
        found.append(1000 * (time.process_time() - began))
    return statistics.median(found)


def paced_ms(act: Callable[[], Any], repeats: int) -> float:
    """Median CPU milliseconds at the pace of a driver; prints the mean: some is done once in seconds."""
    found = []
    for _ in range(repeats):
        began = time.process_time()
        act()
        found.append(1000 * (time.process_time() - began))
        time.sleep(driver.TICK_SECONDS)
    print(f"ticks without a change, ms CPU: median {statistics.median(found):.1f}, mean {sum(found) / repeats:.1f}")
    return statistics.median(found)


def cluster(nodes: int) -> list[Node]:
    """Nodes of eight GPUs."""
    return [Node(name=f"n{i}", total=Resources(cpus=16, gpus=8)) for i in range(nodes)]


def passes(runs: int, nodes: int) -> tuple[float, float]:
    """A pass over a queue of mixed gangs: on an empty cluster, and on the one that it has filled."""
    queue = [
        Job(run_id=f"j{i}", worker=GPU, workers=[1, 1, 1, 8, 64][i % 5], seconds=60.0 + i, queued=float(i))
        for i in range(runs)
    ]
    inventory = cluster(nodes)
    started = {d.run_id: d.allocation for d in decide(0, inventory, queue, []) if isinstance(d, Start)}
    running = [
        Running(run_id=j.run_id, worker=GPU, allocation=started[j.run_id], ends=j.seconds)
        for j in queue
        if j.run_id in started
    ]
    rest = [j for j in queue if j.run_id not in started]
    return cpu_ms(lambda: decide(0, inventory, queue, [])), cpu_ms(lambda: decide(1, inventory, rest, running))


class Full:
    """A cluster on which all that was started goes on for ever."""

    def __init__(self) -> None:
        self._inventory, self._running = cluster(NODES), {}

    def inventory(self) -> list[Node]:
        return self._inventory

    def running(self) -> list[Running]:
        return list(self._running.values())

    def leaving(self) -> dict[str, float]:
        return {}

    def others(self) -> list[Running]:
        return []

    def claims(self) -> dict[str, str]:
        return {}

    def claim(self, text: str, *, alone: bool) -> None: ...

    def poll(self) -> list[Update]:
        live = Progress(phase="training", step=10, steps=100, loss=3.0, tokens_per_second=1e4)
        return [Update(run_id=run_id, state="running", progress=live) for run_id in self._running]

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def start(self, run_id: str, allocation: Any, shape: Resources, entry: str, job: Any) -> None:
        self._running[run_id] = Running(run_id=run_id, worker=shape, allocation=allocation)

    def stop(self, run_id: str | None = None) -> None: ...


class Quiet:
    """Shows nothing."""

    def say(self, line: str) -> None: ...
    def show(self, snapshot: Any) -> None: ...
    def close(self) -> None: ...


def sweep(root: Path) -> tuple[float, float, float, float]:
    """Seconds (wall) of taking 10,000 runs, new and again; milliseconds of a tick, deciding and quiet."""
    chosen = recipe.load(["recipe=smoke", "placement.gpus=1"])
    cells = grid.build(chosen, "0" * 64)
    runs: list[RunSpec] = []
    for seed in range(RUNS // len(cells.runs)):
        runs += [type(run)(**{**_fields(run), "seed": seed}) for run in cells.runs]
    cells = grid.Grid(runs=runs, left=[], evals=cells.evals)
    folder = SweepDir(root, "scale")
    with folder.owned():
        seconds = []
        for _ in range(2):
            began = time.monotonic()
            taken = taking.take(chosen, cells, folder)
            driving = driver.Driver(chosen, taken, Full(), Quiet(), entry="fake:fake")
            for state in driving.states.values():
                driving.happenings.settle_if_done(state)
            seconds.append(time.monotonic() - began)

        def tick() -> None:
            now = time.monotonic()
            for update in driving.cluster.poll():
                driving.happenings.take(update, now)
            driving._act(now)
            driving._show()

        def deciding() -> None:
            driving._decided = -math.inf
            tick()

        tick()  # starts what has room
        deciding_ms = cpu_ms(deciding, 21)
        return seconds[0], seconds[1], deciding_ms, paced_ms(tick, 60)


def _fields(run: RunSpec) -> dict[str, Any]:
    return {name: getattr(run, name) for name in run.__dataclass_fields__}


def main() -> int:
    """The script."""
    small, small_full = passes(1000, 128)
    large, large_full = passes(10_000, 1000)
    with tempfile.TemporaryDirectory(prefix="isoflop-scale-") as root:
        first, again, tick, quiet = sweep(Path(root))
    print(
        f"pass, ms CPU: 1,000 x 128 {small:.1f} (full {small_full:.1f}); 10,000 x 1,000 {large:.0f} ({large_full:.0f})"
    )
    print(
        f"10,000 runs on {NODES} nodes: taken in {first:.1f} s, again in {again:.1f} s, a tick {tick:.0f} ms CPU "
        f"(quiet {quiet:.0f})"
    )
    met = [
        target("scheduler_pass_1000x128_ms", max(small, small_full), "<=", 20),
        target("scheduler_pass_10000x1000_ms", max(large, large_full), "<=", 500),
        target("driver_tick_ms", tick, "<=", 100),
        target("driver_start_again_seconds", again, "<=", 9),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
