"""What happened to a run, and its worker's last words: ``python -m sweeps.logs RUN``.

RUN                  an id, the beginning of one, the label of a size (d64), or a run's folder
runs=ROOT            the store (default: ISOFLOP_ROOT, or ~/.isoflop/runs)
--attempt N          one attempt only; by default all, and the last words of the last
--tail N             how many of the last lines of its progress and of what it printed (10)
--follow             go on until the run has ended (Ctrl-C leaves)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gpt3core import cli
from gpt3core.errors import UsageError
from gpt3core.store.rundir import RunDir
from sweeps.watching import differences, last_words, words

COMMAND = "python -m sweeps.logs"
TAIL = 10
EVERY_SECONDS = 1.0


def main(argv: Sequence[str]) -> int:
    """The command."""
    given = words.parse(argv, keys=("runs", "attempt", "tail"), flags=("--follow", "--help"), named=1, command=COMMAND)
    if "--help" in given.flags:
        print(__doc__)
        return 0
    if not given.named:
        raise UsageError(f"which run? {COMMAND} RUN; python -m sweeps.status names those of a sweep")
    run = differences.find(words.root(given.settings.get("runs")), given.named[0])
    root, there = run.path.parent.parent, last_words.attempts(run)
    attempt = words.number(given.settings["attempt"], "attempt") if "attempt" in given.settings else None
    if attempt is not None and attempt not in there:
        known = f"it has {', '.join(map(str, there))}" if there else "it has never started"
        raise UsageError(f"attempt={attempt}: run {run.run_id} has no such attempt; {known}")
    count = words.number(given.settings.get("tail", str(TAIL)), "tail")
    _print(root, run, attempt, count)
    if "--follow" in given.flags:
        follow(root, run, attempt)
    return 0


def _print(root: Path, run: RunDir, attempt: int | None, count: int) -> None:
    print(f"{run.run_id}  {run.path}")
    said = last_words.events(root, run, attempt)
    for one in said:
        print(one.text())
    if not said:
        print("nothing was logged of it: it has not started yet; python -m sweeps.status says what it waits for")
    there = last_words.attempts(run)
    last = attempt or (there[-1] if there else None)
    if last is None:
        return
    if lines := last_words.progress(run, last, count):
        print(f"attempt {last}, the last that it told of its progress:")
        for line in lines:
            print(f"    {line}")
    printed, reason = last_words.outputs(run, last, count)
    for output in printed:
        print(f"attempt {last}, printed by its worker ({output.path}):")
        for line in output.lines:
            print(f"    {line}")
    if reason:
        print(f"attempt {last}, printed by its worker: {reason}")


def follow(root: Path, run: RunDir, attempt: int | None, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Print what is new until the run has its result."""
    said, told = last_words.events(root, run, attempt), ""
    try:
        while True:
            over = run.trained
            now = last_words.events(root, run, attempt)
            for one in last_words.new_lines(said, now):
                print(one.text(), flush=True)
            said = now
            there = last_words.attempts(run)
            last = attempt or (there[-1] if there else 0)
            line = "".join(last_words.progress(run, last, 1)) if last else ""
            if line and line != told:
                print(f"    {line}", flush=True)
            told = line
            if over:
                return
            sleep(EVERY_SECONDS)
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    cli.run(main)
