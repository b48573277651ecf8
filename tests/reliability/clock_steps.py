"""The wall clock jumps by an hour while a sweep runs, ahead and back: nothing notices but the times in the logs.

  python -m tests.reliability.clock_steps

The driver, Ray and the workers see a clock that is off by what a file says (``faults.c``). It jumps whenever a new
checkpoint is seen: an hour ahead, two back, and so on. The sweep must end as an undisturbed one does, in about its
time, with the same bits, and without a failure, a lost worker or a second attempt in its log.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from gpt3core.store import files
from gpt3core.store.sweepdir import SweepDir
from tests.benchmarks.target import target
from tests.reliability import write_faults
from tests.reliability.kill_sweep import outcome, same, start

HOUR = 3600
PATIENCE = 600.0
SLOWER = 2.0  # times the undisturbed sweep's time that the other may take


def stepped(root: Path, environment: dict[str, str], clock: Path) -> int:
    """Run a sweep to its end under a clock that jumps; how often it did."""
    steps, seen, deadline = 0, 0, time.monotonic() + PATIENCE
    clock.write_text("0")
    driver = start(root, {**environment, "FAULTS_CLOCK": str(clock)})
    while driver.poll() is None and time.monotonic() < deadline:
        now = len(list(root.glob("runs/*/checkpoints/step-*"))) + len(list(root.glob("runs/*/result.json")))
        if now > seen:
            seen, steps = now, steps + 1
            files.write_bytes(clock, str(HOUR if steps % 2 else -HOUR).encode())
        time.sleep(0.05)
    assert driver.poll() == 0, root.with_name(f"{root.name}.log").read_text()[-3000:]
    return steps


def main() -> int:
    """The script."""
    with tempfile.TemporaryDirectory(prefix="isoflop-clock-") as folder:
        plain = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        preloaded = {**plain, "LD_PRELOAD": str(write_faults.build(Path(folder)))}
        whole, jumped = Path(folder) / "whole", Path(folder) / "jumped"
        began = time.monotonic()
        assert start(whole, plain).wait() == 0
        undisturbed = time.monotonic() - began
        began = time.monotonic()
        steps = stepped(jumped, preloaded, Path(folder) / "clock")
        took = time.monotonic() - began
        equal = same(outcome(jumped), outcome(whole))
        events = Counter(e["event"] for e in files.read_lines(SweepDir(jumped, "smoke").path / "events.jsonl"))
    print(f"the clock jumped {steps} times; {took:.0f} s, undisturbed {undisturbed:.0f} s; events {dict(events)}")
    met = [
        target("clock_steps", steps, ">=", 4),
        target("clock_same_bits", float(equal), "==", 1),
        target("clock_failures", events["failed"] + events["misstart"], "==", 0),
        target("clock_time_ratio", took / undisturbed, "<=", SLOWER),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
