"""Two drivers start on one sweep at the same moment, again and again: one wins, the other says who holds it.

  python -m tests.reliability.two_drivers --races 1000          1,000 by locks, and 1,000 by leases

Each race is a barrier, then ``SweepDir.owned`` in two processes. In one race of twenty the winner is killed with
SIGKILL, and the sweep must be free for the next: at once where the kernel is the same.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt3core.errors import StoreError
from gpt3core.store import lease, soundness
from gpt3core.store.sweepdir import SweepDir
from tests.benchmarks.target import target

SILENCE_SECONDS, RENEWALS = 10.0, 100  # often, and with time for a busy machine
KILLED = 20  # of that many races one ends with a kill
PATIENCE = 60.0


@dataclass(kw_only=True)
class Tally:
    """What came of many races."""

    one_winner: int = 0
    none: int = 0
    two: int = 0
    unnamed: int = 0  # the loser did not name the winner
    killed: int = 0
    seconds: list[float] = field(default_factory=list)  # until both knew


def contend(pipe: Any, barrier: Any, mechanism: str) -> None:
    """A process that drives when it is told to, until it is told to stop."""
    os.environ[soundness.SETTING], os.environ[lease.SETTING] = mechanism, str(SILENCE_SECONDS)
    lease.RENEWALS = RENEWALS
    while (order := pipe.recv()) is not None:
        root, name, wait = order
        barrier.wait()
        time.sleep(wait)
        try:
            with SweepDir(Path(root), name).owned():
                pipe.send(("won", os.getpid()))
                pipe.recv()
        except StoreError as error:
            pipe.send(("lost", str(error)))
            pipe.recv()
        pipe.send(("over", os.getpid()))


class Contender:
    """One of the two, started again after a kill."""

    def __init__(self, barrier: Any, mechanism: str) -> None:
        self._words = barrier, mechanism
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=contend, args=(end, *self._words), daemon=True)
        self.process.start()
        end.close()

    def hear(self) -> tuple[str, Any]:
        assert self.pipe.poll(PATIENCE), "a contender says nothing"
        return self.pipe.recv()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        self.start()


@contextmanager
def contenders(mechanism: str) -> Iterator[list[Contender]]:
    """Two processes that are ready."""
    barrier = multiprocessing.get_context("spawn").Barrier(2)
    both = [Contender(barrier, mechanism) for _ in range(2)]
    try:
        yield both
    finally:
        for one in both:
            one.process.kill()
            one.process.join()


def races(count: int, mechanism: str, root: Path, *, seed: int = 0, killed: int = KILLED) -> Tally:
    """Hold so many races.

    Args:
        mechanism: lock | lease.
        killed: of that many races one ends with a kill of the winner.
    """
    rng, tally = random.Random(seed), Tally()
    with contenders(mechanism) as both:
        for number in range(count):
            name = f"s{number // 50}"  # fifty races over each sweep: the terms of a lease add up
            for one in both:
                one.pipe.send((str(root), name, rng.choice((0.0, rng.uniform(0, 0.002), rng.uniform(0, 0.05)))))
            began = time.monotonic()
            said = [one.hear() for one in both]
            tally.seconds.append(time.monotonic() - began)
            winners = [one for one, (word, _) in zip(both, said, strict=True) if word == "won"]
            tally.one_winner += len(winners) == 1
            tally.none += not winners
            tally.two += len(winners) == 2
            for word, sentence in said:
                if word == "lost" and winners:
                    named = re.search(rf"driver already \(\S+ pid {winners[0].process.pid} since", sentence)
                    tally.unnamed += named is None
            dies = winners[0] if winners and rng.randrange(killed) == 0 else None
            for one in both:
                if one is dies:
                    one.kill()
                    tally.killed += 1
                else:
                    one.pipe.send("end")
                    one.hear()
    return tally


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    met = True
    for mechanism in (soundness.LOCK, soundness.LEASE):
        with tempfile.TemporaryDirectory(prefix="isoflop-races-") as folder:
            tally = races(given.races, mechanism, Path(folder), seed=given.seed)
        slowest = sorted(tally.seconds)[int(0.99 * len(tally.seconds))]
        print(f"{mechanism}: {tally.one_winner} races with one winner, {tally.none} with none, {tally.two} with two;")
        print(f"  {tally.killed} winners killed; both knew after {slowest:.2f} s in 99% of the races", flush=True)
        target(f"two_drivers_{mechanism}_one_winner", tally.one_winner, ">=", given.races)
        target(f"two_drivers_{mechanism}_losers_without_the_winners_name", tally.unnamed, "<=", 0)
        met &= tally.one_winner == given.races and not tally.unnamed
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
