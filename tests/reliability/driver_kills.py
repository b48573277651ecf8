"""Kill a sweep's driver with SIGKILL at random instants: nothing lost, nothing doubled, nothing done twice.

  python -m tests.reliability.driver_kills --kills 1000 --runs 50 --seed 0

Sweeps of stub runs, one after another, on a Ray head that outlives its drivers, until so many drivers were killed.
Half of the kills fall anywhere in a driver's life, its start included; the other half shortly after a driver has
begun to drive. Each ends when a driver is left in peace and says that all is done. Counted are results that are
missing or hold another run's number, results that were written twice, and runs that a worker finished twice. The
time to resume is from the start of the process to its first event.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps import line
from tests.benchmarks.target import target
from tests.reliability import stub_sweep

EARLY, LATE = 6.0, 1.5  # seconds: kills of the first half fall up to here, of the other so long after the first event
PATIENCE = 300.0
RESUME = 5.0


@dataclass(kw_only=True)
class Tally:
    """What was seen."""

    kills: int = 0
    driving: int = 0  # kills of a driver that had begun to drive
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    sweeps: int = 0
    resumed: list[float] = field(default_factory=list)  # seconds


def start(root: Path, runs: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A driver in a session of its own; what it says is appended to ``root.log``."""
    with (root.parent / f"{root.name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.stub_sweep", str(root), str(runs)],
            env=dict(environment),
            cwd=line.CODE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def begun(root: Path) -> int:
    """Drivers that have begun to drive."""
    events = files.read_lines(SweepDir(root, stub_sweep.NAME).path / "events.jsonl")
    return sum(event["event"] == "driver" for event in events)


def one_sweep(
    root: Path, runs: int, environment: Mapping[str, str], rng: random.Random, kills: int, tally: Tally
) -> None:
    """Drive a sweep to its end under at most so many kills."""
    killed = 0
    while True:
        before, born = begun(root), time.monotonic()
        driver = start(root, runs, environment)
        early = rng.random() < 0.5
        limit = born + (rng.uniform(0, EARLY) if early else PATIENCE) if killed < kills else born + PATIENCE
        driving = False
        while driver.poll() is None and time.monotonic() < limit:
            if not driving and begun(root) > before:
                driving = True
                tally.resumed.append(time.monotonic() - born)
                if killed < kills and not early:
                    limit = time.monotonic() + rng.uniform(0, LATE)
            time.sleep(0.01)
        if driver.poll() is not None:
            said = (root.parent / f"{root.name}.log").read_text()
            assert driver.returncode == 0, said[-3000:]
            return
        assert killed < kills, "the sweep hangs"
        driver.kill()
        driver.wait()
        killed += 1
        tally.kills += 1
        tally.driving += driving


def check(root: Path, runs: int, tally: Tally) -> None:
    """Look at what a sweep left."""
    _, cells = stub_sweep.asked(runs)
    finished = Counter(record["run_id"] for record in files.read_lines(root / "done.jsonl"))
    for run in cells.runs:
        folder = RunDir(root, run.run_id)
        table = folder.evaluation(cells.evals.eval_id)
        sound = folder.sound_result() is not None and table is not None
        if not sound or table is None or table.loss.tolist() != [stub_sweep.measured(run.run_id)]:
            tally.lost.append(run.run_id)
        if finished[run.run_id] > 1:
            tally.twice.append(run.run_id)
    stray = {path.name for path in (root / "runs").iterdir()} - {run.run_id for run in cells.runs}
    tally.doubled += sorted(stray)
    tally.sweeps += 1


def torment(environment: Mapping[str, str], folder: Path, *, kills: int, runs: int, per_sweep: int, seed: int) -> Tally:
    """Kill so many drivers."""
    rng, tally = random.Random(seed), Tally()
    while tally.kills < kills:
        root = folder / f"sweep-{tally.sweeps}"
        one_sweep(root, runs, environment, rng, min(per_sweep, kills - tally.kills), tally)
        check(root, runs, tally)
        print(f"sweep {tally.sweeps}: {tally.kills} kills", flush=True)
    return tally


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--per-sweep", type=int, default=25, help="kills in one sweep before it may end in peace")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="isoflop-kill-") as folder, line.head() as environment:
        environment["PYTHONPATH"] = str(line.CODE)
        tally = torment(environment, Path(folder), **vars(given))
    print(
        f"{tally.kills} drivers killed ({tally.driving} of them while driving) in {tally.sweeps} sweeps of "
        f"{given.runs} runs; {len(tally.resumed)} drivers began to drive, after "
        f"{statistics.median(tally.resumed):.2f} s in the median and {max(tally.resumed):.2f} s at most"
    )
    met = [
        target("driver_kills", tally.kills, ">=", 1000),
        target("driver_kills_results_lost", len(tally.lost), "==", 0),
        target("driver_kills_results_doubled", len(tally.doubled), "==", 0),
        target("driver_kills_runs_done_twice", len(tally.twice), "==", 0),
        target("driver_kills_resume_seconds", statistics.median(tally.resumed), "<=", RESUME),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    sys.exit(main())
