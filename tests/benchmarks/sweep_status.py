"""How long the commands that only read a store take: their imports, and a sweep of 10,000 runs, 1,000 under way.

python -m tests.benchmarks.sweep_status           half a minute; medians of several, whole processes
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gpt3core.store import files
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from tests.benchmarks.target import target
from tests.test_house import CODE

REPEATS = 5
RUNS, DONE, UNDER_WAY = 10_000, 6_000, 1_000


def seconds(words: list[str]) -> tuple[float, float]:
    """Median wall and CPU seconds of a process."""
    wall, cpu = [], []
    for _ in range(REPEATS):
        began, before = time.monotonic(), os.times()
        subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=CODE)
        after = os.times()
        wall.append(time.monotonic() - began)
        cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return statistics.median(wall), statistics.median(cpu)


def store(root: Path) -> SweepDir:
    """A sweep's folder as its drivers leave it in the midst of 10,000 runs."""
    open_root(root, create=True)
    ids = [f"d{8 * (1 + i % 24)}-{i:012x}" for i in range(RUNS)]
    sweep, lines = SweepDir(root, "large"), []
    files.make_folder(sweep.path)
    for i, run_id in enumerate(ids[: DONE + UNDER_WAY]):
        folder = RunDir(root, run_id)
        attempt = folder.path / "attempt-001"
        attempt.mkdir(parents=True)
        at = 1.8e9 + 10 * i
        rates = '"cores": 1.0, "gpus": 0.0, "usd_per_hour": 0.0'
        lines.append(f'{{"event": "start", "run_id": "{run_id}", "time": {at}, "allocation": {{"{"0" * 56}": 1}}}}')
        lines.append(f'{{"event": "took", "run_id": "{run_id}", "time": {at}, {rates}}}')
        if i < DONE:
            (folder.path / "result.json").write_bytes(b'{"status": "done"}')
            lines.append(f'{{"event": "done", "run_id": "{run_id}", "time": {at + 60}}}')
            lines.append(f'{{"event": "finished", "run_id": "{run_id}", "time": {at}, "loss": 3.5, "status": "done"}}')
            lines.append(f'{{"event": "freed", "run_id": "{run_id}", "time": {at}, "seconds": 60.0, {rates}}}')
        else:
            (attempt / "tail.jsonl").write_bytes(b'{"step": 5}\n')
            (folder.checkpoints / "step-00000005").mkdir(parents=True)
    (sweep.path / "events.jsonl").write_text("\n".join(lines) + "\n")
    sweep.write_record(SweepRecord(runs=tuple(ids)))
    live = {"phase": "training", "step": 5, "steps": 100, "loss": 3.0, "tokens_per_second": 1e4}
    more = {"since": 1.8e9, "ends": 1.9e9, "devices": 1.0, "flops_per_second": 1e9, "mfu": None, "stopping": False}
    under_way = ids[DONE : DONE + UNDER_WAY]
    sweep.write_status(
        {
            "sweep": "large", "state": "driving", "time": time.time(), "host": os.uname().nodename, "pid": os.getpid(),
            "nodes": 9, "asked": RUNS, "done": DONE, "failed": {}, "held": {}, "pruned": {},
            "running": dict.fromkeys(under_way, live), "under_way": dict.fromkeys(under_way, more),
            "waiting": [{"reason": "behind", "count": 3000, "runs": ids[7000:7020], "starts": [1.9e9] * 20}],
            "eta_seconds": 1e5, "damage": [], "unit": "core", "taken": {"hours": 1.0, "usd": 0.0},
        }
    )  # fmt: skip
    return sweep


def main() -> int:
    """The script."""
    bare, _ = seconds(["-c", "pass"])
    imports = max(seconds(["-c", f"import sweeps.{name}"])[1] for name in ("status", "diff", "logs"))
    with tempfile.TemporaryDirectory(prefix="isoflop-status-") as root:
        sweep = store(Path(root))
        words = ["-m", "sweeps.status", f"runs={root}"]
        driving, driving_cpu = seconds(words)
        sweep.write_status({**(sweep.status() or {}), "pid": 2**22 + 1})
        dead, dead_cpu = seconds(words)
        as_json, _ = seconds([*words, "--json"])
    print(f"import {imports:.2f} s CPU; bare Python {bare:.2f} s")
    print(
        f"{RUNS:,} runs, wall (CPU): driver alive {driving:.2f} s ({driving_cpu:.2f}), dead {dead:.2f} s "
        f"({dead_cpu:.2f}), --json {as_json:.2f} s"
    )
    target("status_import_cpu_seconds", imports, "<=", 0.3)
    target("status_10000_runs_seconds", max(driving, dead, as_json), "<=", 1.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
