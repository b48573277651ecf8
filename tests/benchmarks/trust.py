"""What the words good, fair and poor are worth: how often the truth lies inside the interval that they are said of.

``python -m tests.benchmarks.trust [SEEDS]``. Ladders of two and three decades of compute, noise of 0.2% and 2%, whose
loss is Hoffmann et al.'s law or one that no law fitted here can follow: it bends from 1e18 FLOPs on, waves with
compute, or falls no further. The target is a decade beyond each.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd

from analysis.output.answer import answer
from tests.analysis.test_trust import fitted, ladder, law, waving
from tests.benchmarks.target import target

Loss = Callable[[pd.DataFrame], pd.Series]
LADDERS = ((2, 0.5), (3, 0.5), (3, 0.25))  # decades, and between budgets


def bending(by: float) -> Loss:
    """The law, and beside it a bend."""
    return lambda t: law(t) * np.exp(by * np.log10(t.C / 1e18).clip(lower=0) ** 2)


LOSSES: dict[str, Loss] = {
    "law": law,
    **{f"bends by {by}": bending(by) for by in (0.02, 0.08, -0.015)},
    "waves": waving,
    "no further": lambda t: law(t).clip(lower=3.0),
}


def judged(loss: Loss, decades: float, step: float, noise: float, seed: int) -> tuple[str, bool] | None:
    """The word, and whether the truth lies inside the interval of a new run; None where nothing is predicted."""
    study = fitted(ladder(loss, decades, step, noise, seed))
    if not study.predictions or study.predictions[0].interval_new_run is None:
        return None
    p = study.predictions[0]
    low, high = p.interval_new_run or (0, 0)
    truth = float(loss(pd.DataFrame({"N": [p.n], "D": [p.d], "C": [p.compute]})).iloc[0])
    return dict(answer(study))["trust"].replace(":", ",").split(",")[0], low <= truth <= high


def main() -> None:
    """Count them."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    counts: Counter[tuple[str, bool]] = Counter()
    for loss, (decades, step), noise, seed in product(LOSSES.values(), LADDERS, (0.002, 0.02), range(seeds)):
        if (found := judged(loss, decades, step, noise, seed)) is not None:
            counts[found] += 1
    for word in ("good", "fair", "poor", "none"):
        print(f"{word}: {counts[word, True]} of {counts[word, True] + counts[word, False]} inside")
    target("trust_good_inside", counts["good", True] / (counts["good", True] + counts["good", False]), ">=", 0.8)


if __name__ == "__main__":
    main()
