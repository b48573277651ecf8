"""What the orchestrator adds to the runs, beside Ray Tune and plain actors. About four minutes on two cores.

``python -m tests.benchmarks.orchestrator``

- 200 runs that do nothing, on 4 slots, by the real driver with real folders in a store; the gap between the end of a
  run and the start of the next on its worker; the driver's longest turn.
- The same slots with Ray Tune (with and without ``reuse_actors``) and with an actor in a placement group of its own a
  run, whose bodies do nothing at all. They take longer a run, so they do fewer: seconds of 200 at the same pace.
- On a mock cluster: 1 gang, and 8 at once: until all groups are there and all workers asked for, and until all ranks
  run; the driver's longest turn. The births of 16 processes are what this machine's cores can do, so beside it 16
  workers without gangs.
- A look at 1,000 workers: 1,000 waiting answers and 1,000 workers to ask, spread over 8 real ones.

Parts run one after another, each in a process and a Ray of its own, all but the slowest twice in turn: medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import orchestrator_parts as parts
from tests.benchmarks import orchestrator_peers as peers
from tests.benchmarks.orchestrator_peers import PEERS, RUNS
from tests.benchmarks.target import target

ROUNDS = 2
AGAIN = ("ours", "tune_reuse", "actors")  # Tune without reuse_actors is far behind, and takes half a minute
PARTS: dict[str, Callable[[Path], Any]] = {
    "ours": parts.ours,
    "tune_reuse": lambda root: peers.tune(root, reuse=True, trials=PEERS["tune_reuse"]),
    "tune": lambda root: peers.tune(root, reuse=False, trials=PEERS["tune"]),
    "actors": peers.actors,
    "gangs": parts.gangs,
    "poll": parts.poll,
}


def part(name: str) -> Any:
    """A part in a process of its own; None where its peer is missing."""
    command = [sys.executable, "-m", "tests.benchmarks.orchestrator", "--part", name]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=parts.PART_SECONDS)
    if done.returncode:
        print(done.stdout[-1000:], done.stderr[-3000:], sep="\n", file=sys.stderr)
        raise SystemExit(f"the part {name} failed")
    return json.loads(done.stdout.splitlines()[-1])


def median(found: list[Any], name: str) -> float | None:
    """A figure over the rounds; None where the peer is missing."""
    return statistics.median(round_[name] for round_ in found) if all(found) else None


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS)
    if (name := parser.parse_args().part) is not None:
        with tempfile.TemporaryDirectory(prefix="isoflop-bench-", ignore_cleanup_errors=True) as root:
            print(json.dumps(PARTS[name](Path(root) / "root")))
        return
    found: dict[str, list[Any]] = {name: [] for name in PARTS}
    for round_ in range(ROUNDS):
        for name in PARTS if round_ == 0 else AGAIN:
            found[name].append(part(name))
            print(f"{name}: {json.dumps(found[name][-1])}", flush=True)
    show(found)


def show(found: dict[str, list[Any]]) -> None:
    """The figures, and whether they are reached."""
    seconds = {name: median(found[name], "seconds") for name in ("ours", *PEERS)}
    assert seconds["ours"] is not None
    for name, told in seconds.items():
        ratio = "" if told is None else f"{told:7.1f} s for {RUNS} runs, {told / seconds['ours']:5.1f} of ours"
        print(f"{name:12}{ratio or 'not run: its package is missing'}")
    gang, poll_ = found["gangs"][0], found["poll"][0]
    one, many = gang["1"], gang[str(parts.GANGS)]
    print(
        f"1 gang formed in {one['formed']:.2f} s and running in {one['running']:.2f} s; {parts.GANGS} in "
        f"{many['formed']:.2f} s and {many['running']:.2f} s (as many workers without gangs: "
        f"{gang['births']:.2f} s); 128 groups in {gang['groups']['seconds']:.2f} s"
    )
    print(
        f"a look at {parts.WORKERS} workers: {poll_['ms']:.1f} ms ({poll_['cpu_ms']:.1f} CPU), p95 "
        f"{poll_['p95']:.1f} ms, all asked in {poll_['all']:.1f} s"
    )
    target("noop_200_seconds", seconds["ours"], "<", 15)
    target("end_to_start_ms_median", 1000 * (median(found["ours"], "gap") or 0), "<=", 50)
    target("end_to_start_ms_p95", 1000 * (median(found["ours"], "gap_p95") or 0), "<=", 50)
    for name in PEERS:
        told = seconds[name]
        target(f"ours_against_{name}", None if told is None else seconds["ours"] / told, "<", 1)
    target("gangs_8_against_1_formed", many["formed"] / one["formed"], "<=", 2)
    target("gangs_8_running_against_16_births", many["running"] / gang["births"], "<=", 1.3)
    target("gangs_8_longest_turn_ms", 1000 * many["turn"], "<", 100)
    target("groups_128_seconds", gang["groups"]["seconds"], "<=", 30)
    target("groups_128_longest_turn_ms", 1000 * gang["groups"]["turn"], "<", 100)
    target("look_at_1000_workers_ms", poll_["ms"], "<", 20)


if __name__ == "__main__":
    main()
