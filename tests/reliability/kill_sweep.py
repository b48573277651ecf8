"""Kill a sweep with SIGKILL at random moments until it is done, and compare it with an undisturbed one, bit by bit.

  python tests/reliability/kill_sweep.py --kills 20 --seed 0

Kills go to the driver, to a worker, or to everything at once, on a local Ray (which dies with its driver) and on a
Ray head that outlives its drivers (whose workers go on and are adopted). Compared are all columns of the table but
time, cost, throughput and attempts, every evaluation, and every loss curve. Exit 0 if all are equal and no process is
left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from analysis.runs import store as runs
from gpt3core.store.rundir import RunDir
from sweeps import line

MEASURED = ["gpu_hours", "device_seconds", "cost", "tokens_per_second", "mfu", "attempts"]
SETTINGS = ("recipe=smoke", "placement.checkpoint_seconds=0.3", "placement.max_failures=1000")
LONGEST = 18.0  # seconds until a kill; a driver takes about six to get its workers going
PATIENCE = 300.0
LINGER = 120.0  # two of Ray's agents notice the death of their node only after half a minute
Outcome = tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]


def outcome(root: Path) -> Outcome:
    """What must not depend on interruptions."""
    loaded = runs.load(root)
    assert loaded.missing == [], loaded.missing
    evals = loaded.evals.sort_values(["run_id", "task", "shots"], ignore_index=True)
    curves = {run_id: RunDir(root, run_id).curve().drop(columns="attempt").to_csv() for run_id in loaded.table.run_id}
    return loaded.table.drop(columns=MEASURED), evals, curves


def same(a: Outcome, b: Outcome) -> bool:
    """Whether two sweeps ended with the same bits."""
    return a[0].equals(b[0]) and a[1].equals(b[1]) and a[2] == b[2]


def descendants(pid: int) -> list[int]:
    """Processes below a process, nearest first."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found, layer = [], [pid]
    while layer:
        layer = [child for child, parent in parents.items() if parent in layer]
        found += layer
    return found


def workers(pids: list[int]) -> list[int]:
    """Those of the processes that are isoflop's workers."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if b"ray::Worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def alive(pids: list[int]) -> list[int]:
    """Those that are neither gone nor zombies."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                found.append(pid)
    return found


def start(root: Path, environment: dict[str, str], settings: Sequence[str] = SETTINGS) -> subprocess.Popen[bytes]:
    """A driver, in a session of its own; what it says is appended to ``root.log``."""
    command = [sys.executable, "sweeps/sizes.py", *settings]
    log = (root.parent / f"{root.name}.log").open("ab")
    environment = {**environment, "ISOFLOP_ROOT": str(root)}
    return subprocess.Popen(command, env=environment, cwd=line.CODE, stdout=log, stderr=log, start_new_session=True)


def kill(pids: list[int]) -> None:
    """SIGKILL, whoever of them is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def cluster(lasting: bool) -> Iterator[tuple[dict[str, str], int | None]]:
    """The environment of drivers, and the process below which a lasting head's workers live."""
    if not lasting:
        yield {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}, None
        return
    with line.head() as environment:
        yield environment, os.getpid()


def disturbed(root: Path, rng: random.Random, kills: int, lasting: bool) -> Counter[str]:
    """Run a sweep to its end under at most so many kills; what was killed, and what stayed behind."""
    done: Counter[str] = Counter()
    killed: list[int] = []
    with cluster(lasting) as (environment, above):
        driver = start(root, environment)
        while True:
            limit = time.monotonic() + (rng.uniform(0.3, LONGEST) if sum(done.values()) < kills else PATIENCE)
            while time.monotonic() < limit and driver.poll() is None:
                time.sleep(0.02)
            if driver.poll() is not None:
                if driver.returncode == 0:
                    break
                done[f"driver exit {driver.returncode}"] += 1
                assert done[f"driver exit {driver.returncode}"] < 5, (root.parent / f"{root.name}.log").read_text()
                driver = start(root, environment)
                continue
            assert sum(done.values()) < kills, "the sweep hangs"
            tree = descendants(driver.pid)
            training = workers(tree if above is None else descendants(above))
            what = rng.choice(["driver", "worker", "all"])
            if what == "worker" and training:
                kill([rng.choice(training)])
                done["worker"] += 1
                continue
            done["driver" if what == "worker" else what] += 1
            kill([driver.pid] if what != "all" else [driver.pid, *tree, *training])
            driver.wait()
            killed += tree
            driver = start(root, environment)
    done["left behind"] += len(lingering(killed))
    return done


def lingering(killed: list[int]) -> list[int]:
    """Those that are still there after the time that Ray's own processes take to notice."""
    deadline = time.monotonic() + LINGER
    while (left := alive(killed)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-sweep", type=int, default=5, help="kills in one sweep before it may end in peace")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="isoflop-kill-") as folder:
        whole = Path(folder) / "whole"
        began = time.monotonic()
        assert start(whole, {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}).wait() == 0
        print(f"undisturbed sweep: {time.monotonic() - began:.0f} s", flush=True)
        expected = outcome(whole)
        total: Counter[str] = Counter()
        equal, rounds = True, 0
        while sum(total[k] for k in ("driver", "worker", "all")) < given.kills:
            root, lasting = Path(folder) / f"round-{rounds}", rounds % 2 == 1
            left = given.kills - sum(total[k] for k in ("driver", "worker", "all"))
            began = time.monotonic()
            done = disturbed(root, rng, min(given.per_sweep, left), lasting)
            same_bits = same(outcome(root), expected)
            where = "lasting head" if lasting else "local Ray"
            print(
                f"round {rounds} ({where}): {dict(done)}, {time.monotonic() - began:.0f} s, equal: {same_bits}",
                flush=True,
            )
            total += done
            equal &= same_bits
            rounds += 1
    print(f"kills: {total['driver']} of the driver, {total['worker']} of a worker, {total['all']} of everything")
    print(f"tables, evaluations and curves bit-identical: {equal}; processes left behind: {total['left behind']}")
    return 0 if equal and total["left behind"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
