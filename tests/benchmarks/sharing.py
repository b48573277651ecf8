"""What it costs and gives that sweeps share a cluster: random crowds of two and three, with sharing and without.

  python -m tests.benchmarks.sharing               a minute; simulated, no Ray

Each crowd is simulated twice, with every driver's view seconds late: as it is, and as if each sweep took whatever is
free and kept it for its next run. Runs take 20 s to two minutes, so what a change of hands costs is seen. Runs on one
core each, and then gangs of any width: these must wait until as many nodes are empty together whenever they take turns
with others, and widths that do not add up to the cluster leave nodes empty; one sweep that keeps all need not.
"""

from __future__ import annotations

import random
import statistics
import sys

from tests.benchmarks.target import target
from tests.sweeps.many_sweeps import Sweep, World, mean, nodes, runs

CROWDS, SECONDS, SETTLED = 12, 600, 120


def crowd(chance: random.Random, *, gangs: bool) -> tuple[int, list[Sweep]]:
    """A cluster's nodes, and sweeps that each want more than it has."""
    size, sweeps = chance.randint(4, 8), []
    for i in range(chance.randint(2, 3)):
        workers, seconds = chance.randint(1, size) if gangs else 1, chance.choice([20.0, 60.0, 120.0])
        many = int(1.5 * SECONDS * size / (workers * seconds)) + 2
        jobs = runs(f"s{i}", many, seconds, workers=workers)
        sweeps.append(Sweep(f"s{i}", jobs, comes=chance.choice([0.0, 30.0])))
    return size, sweeps


def crowds(*, gangs: bool) -> tuple[float, list[float], dict[bool, int]]:
    """The cluster's use, of what it is without sharing; what each sweep had, of an equal part; sweeps that had nothing.

    The last with sharing and without.
    """
    used: dict[bool, list[float]] = {True: [], False: []}
    due, starved = list[float](), {True: 0, False: 0}
    for seed in range(CROWDS):
        for share in (True, False):
            size, sweeps = crowd(random.Random(seed), gangs=gangs)
            World(nodes(size), sweeps, share=share).run(SECONDS)
            used[share].append(sum(mean(s, SETTLED, SECONDS) for s in sweeps) / size)
            starved[share] += sum(not s.took for s in sweeps)
            due += [mean(s, SETTLED, SECONDS) * len(sweeps) / size for s in sweeps] if share else []
    return sum(used[True]) / sum(used[False]), due, starved


def main() -> int:
    """The script."""
    met = []
    for gangs, use, part in ((False, 0.97, 0.8), (True, 0.88, 0.35)):
        what = "gangs" if gangs else "singles"
        ratio, due, starved = crowds(gangs=gangs)
        print(f"{what}: each had of an equal part {statistics.median(due):.2f} in the median, {min(due):.2f} at least")
        print(f"{what}: sweeps that had nothing: {starved[True]}; without sharing {starved[False]}")
        met += [
            target(f"sharing_{what}_use_of_the_cluster", ratio, ">=", use),
            target(f"sharing_{what}_least_part", min(due), ">=", part),
            target(f"sharing_{what}_starved", starved[True], "==", 0),
        ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
