"""What is measured of the orchestrator: runs that do nothing, gangs beside one another, a look at many workers."""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt3core.store import files
from gpt3core.store.rundir import open_root
from gpt3core.store.sweepdir import SweepDir
from tests.benchmarks.orchestrator_peers import RUNS, SLOTS

GANGS, RANKS = 8, 2
PAIRS = ("placement.workers=2", "placement.gpus=1", "optim.batch_tokens_min=1024")
WORKERS, PROCESSES, LOOKS = 1000, 8, 60
PART_SECONDS = 200.0


class Watched:
    """A cluster whose driver's turns are timed: what passes between two waits."""

    def __init__(self, launcher: Any) -> None:
        self._launcher, self._woke = launcher, time.monotonic()
        self.turns: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._launcher, name)

    def wait(self, seconds: float) -> None:
        """As the launcher's."""
        self.turns.append(time.monotonic() - self._woke)
        self._launcher.wait(seconds)
        self._woke = time.monotonic()


class Quiet:
    """A display of nothing."""

    def say(self, line: str) -> None: ...
    def show(self, snapshot: Any) -> None: ...
    def close(self) -> None: ...


def drive(root: Path, launcher: Any, runs: int, entry: str, *words: str) -> dict[str, float]:
    """A sweep of runs that differ in their seed: its seconds, and the driver's longest turn after the first."""
    from sweeps.driving import driver, taking
    from sweeps.planning import grid, recipe

    chosen = recipe.load(["recipe=smoke", "evals.tasks=[]", *words])
    one = grid.build(chosen, "0" * 64)
    cells = grid.Grid(runs=[replace(one.runs[0], seed=seed) for seed in range(runs)], left=[], evals=one.evals)
    open_root(root, create=True)
    files.make_folder(root / "noted")
    sweep, watched = SweepDir(root, chosen.name), Watched(launcher)
    with sweep.owned():
        taken = taking.take(chosen, cells, sweep)
        driving = driver.Driver(chosen, taken, watched, Quiet(), entry=entry)
        began, cpu = time.monotonic(), time.process_time()
        outcome = driving.drive()
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    assert len(outcome.done) == runs, f"{len(outcome.done)} of {runs} done: {outcome.failed}"
    turns = sorted(watched.turns[1:])
    return {"seconds": seconds, "cpu": cpu, "turn": turns[-1], "turn_p99": turns[int(0.99 * len(turns))]}


def ours(root: Path) -> dict[str, Any]:
    """200 runs on a local Ray."""
    from sweeps.cluster.launcher import Launcher

    launcher = Launcher("bench", cpus=SLOTS)
    try:
        told: dict[str, Any] = drive(root, launcher, RUNS, "tests.benchmarks.noop:run")
    finally:
        launcher.close()
    gaps = []
    for path in (root / "noted").glob("*.jsonl"):
        notes = sorted(files.read_lines(path), key=lambda note: note["began"])
        gaps += [after["began"] - before["ended"] for before, after in itertools.pairwise(notes)]
    gaps.sort()
    return {**told, "gap": statistics.median(gaps), "gap_p95": gaps[int(0.95 * len(gaps))], "gaps": len(gaps)}


@contextmanager
def mock_cluster(nodes: int, gpus: int) -> Iterator[str]:
    """The address of a cluster of fake nodes."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="isoflop-bench-", dir="/tmp")
    os.environ["RAY_TMPDIR"] = folder
    Path(folder, "ray").mkdir()
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80_000_000, "temp_dir": folder}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=2 * gpus, num_gpus=gpus, object_store_memory=80_000_000)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
        files.remove_folder(Path(folder))


def gangs(root: Path) -> dict[str, Any]:
    """One gang, eight at once, and 128 groups whose workers are left out."""
    from sweeps.cluster.launcher import Launcher

    told: dict[str, Any] = {}
    with mock_cluster(2, 256) as address:
        launcher = Launcher("bench", address=address)
        drive(root / "warm", launcher, 1, "tests.benchmarks.noop:run", *PAIRS)
        for count in (1, GANGS):
            here = root / str(count)
            formed: list[float] = []
            watch = threading.Thread(target=_watch, args=(launcher, here / "noted", count, formed))
            began, wall = time.monotonic(), time.time()
            watch.start()
            turn = drive(here, launcher, count, "tests.benchmarks.noop:together", *PAIRS)
            watch.join()
            ranks = [n["began"] for p in (here / "noted").glob("*.jsonl") for n in files.read_lines(p) if "rank" in n]
            assert len(ranks) == RANKS * count, f"{len(ranks)} ranks began"
            told[str(count)] = {"formed": formed[0] - began, "running": max(ranks) - wall, "turn": turn["turn"]}
        told["births"] = births(launcher, RANKS * GANGS)
        told["groups"] = groups(launcher)
        launcher.close()
    return told


def births(launcher: Any, count: int) -> float:
    """Seconds in which so many workers are born without gangs: what this machine's cores can do."""
    from sweeps.scheduling.inventory import Resources

    node, began = next(node.name for node in launcher.inventory() if node.total.gpus), time.monotonic()
    pool, shape = launcher._pool, Resources(cpus=1, gpus=1)
    with ThreadPoolExecutor(count) as hands:
        members = list(hands.map(lambda _: pool.single(node, shape, ""), range(count)))
    launcher._ray.get([member.actor.poll.remote() for member in members])
    seconds = time.monotonic() - began
    pool.end(members)
    return seconds


def _watch(launcher: Any, noted: Path, count: int, formed: list[float]) -> None:
    """Note when all teams were formed, and let all ranks go once every one has begun."""
    from sweeps.cluster.gang import RUNNING

    deadline = time.monotonic() + PART_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.005)
        teams = list(launcher._teams.values())
        if not formed and len(teams) == count and all(team.stage == RUNNING for team in teams):
            formed.append(time.monotonic())
        if sum(len(files.read_lines(path)) for path in noted.glob("*.jsonl")) == RANKS * count:
            (noted / "all").touch()
            return


def groups(launcher: Any, count: int = 128) -> dict[str, float]:
    """Seconds in which so many gangs have their groups, real ones, and workers that are no processes; longest turn."""
    from sweeps.cluster.gang import OVER, RUNNING
    from sweeps.scheduling.inventory import Resources

    gang, made = Resources(cpus=1, gpus=1), launcher._pool._worker
    nodes = [node.name for node in launcher.inventory() if node.total.gpus]
    launcher._pool._worker = _Nobody()
    began, turns = time.monotonic(), []
    try:
        for index in range(count):
            launcher.start(f"gang{index}", dict.fromkeys(nodes, 1), gang, "none:none", None)
        turns.append(time.monotonic() - began)
        while not all(team.stage in (RUNNING, OVER) for team in launcher._teams.values()):
            turn = time.monotonic()
            launcher._forming.look()
            launcher.others()
            turns.append(time.monotonic() - turn)
            time.sleep(0.02)
        seconds = time.monotonic() - began
        assert all(team.stage == RUNNING for team in launcher._teams.values()), "a group was refused"
    finally:
        launcher._pool._worker = made
        for team in list(launcher._teams.values()):
            launcher._pool.end([], team.group, team.run_id)
        launcher._teams.clear()
    return {"seconds": seconds, "turn": max(turns)}


class _Nobody:
    """Stands for an actor and whatever is asked of it, and starts nothing."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any, **words: Any) -> Any:
        return self

    def remote(self, *args: Any, **words: Any) -> Any:
        """No call."""
        return self


def poll(root: Path) -> dict[str, float]:
    """Milliseconds of a look at 1,000 workers, all of them with an end to wait for; seconds until all were asked."""
    from sweeps.cluster.hearing import Hearing
    from sweeps.cluster.job import Assignment, Job, Report
    from sweeps.cluster.launcher import Launcher
    from sweeps.planning import grid, recipe
    from sweeps.scheduling.inventory import Resources

    cells = grid.build(recipe.load(["recipe=smoke", "evals.tasks=[]"]), "0" * 64)
    job, none = Job(spec=cells.runs[0], evals=cells.evals, root=root, device="cpu"), Resources(cpus=0.1)
    files.make_folder(root / "noted")
    launcher = Launcher("bench", cpus=2)
    ray = launcher._ray
    node = launcher.inventory()[0].name
    entry = "tests.benchmarks.noop:together"
    workers = [launcher._pool.single(node, none, entry) for _ in range(PROCESSES)]
    for index, member in enumerate(workers):
        work = Assignment(entry=entry, run_id=f"r{index}", job=job, node=node, shape=none)
        member.begin(replace(work, rank=1))
    ray.get([member.actor.poll.remote() for member in workers])
    members = [replace(workers[i % PROCESSES], ending=None, born=True) for i in range(WORKERS)]
    for member in members:
        member.report = Report(state="running")
        member.listen()
    hearing, walls, cpus, heard = Hearing(launcher._connection), [], [], set()
    began, all_heard = time.monotonic(), float("inf")
    for _ in range(LOOKS):
        wall, cpu = time.perf_counter(), time.thread_time()
        hearing.hear(members)
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.thread_time() - cpu))
        heard |= {i for i, member in enumerate(members) if member.asked is not None}
        if len(heard) == WORKERS and all_heard == float("inf"):
            all_heard = time.monotonic() - began
        hearing.wait(members, 0.25)
    (root / "noted" / "all").touch()
    launcher._pool.end(workers)
    launcher.close()
    walls.sort()
    return {
        "ms": statistics.median(walls),
        "cpu_ms": statistics.median(cpus),
        "p95": walls[int(0.95 * len(walls))],
        "all": all_heard,
    }
