"""What the words good, fair and poor are worth: how often the truth lies inside the interval that they are said of.

Poor is said too where the misses were seen, and the intervals are wide for it and hold, as of losses that wave: so the
words are told of each loss apart, and fair is to hold no less often than what tells nothing, half of the time, and
than poor does where nothing below the target shows what comes.

``python -m tests.benchmarks.trust [SEEDS]``. Ladders of two and three decades of compute, noise of 0.2% and 2%, whose
loss is Hoffmann et al.'s law or one that no law fitted here can follow: it bends from 1e18 FLOPs on, waves with
compute, or falls no further. The target is a decade beyond each.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection
from itertools import product

import numpy as np
import pandas as pd

from analysis.output.answer import answer
from analysis.output.trust import HALF
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
    counts: Counter[tuple[str, str, bool]] = Counter()
    for name, (decades, step), noise, seed in product(LOSSES, LADDERS, (0.002, 0.02), range(seeds)):
        if (found := judged(LOSSES[name], decades, step, noise, seed)) is not None:
            counts[name, *found] += 1

    def inside(word: str, names: Collection[str] = LOSSES) -> tuple[int, int]:
        """How many truths lie inside, and of how many."""
        held, missed = (sum(counts[name, word, there] for name in names) for there in (True, False))
        return held, held + missed

    for word in ("good", "fair", "poor", "none"):
        by_loss = [f"{name} {held} of {of}" for name in LOSSES for held, of in [inside(word, [name])] if of]
        print(f"{word}: {' of '.join(map(str, inside(word)))} inside ({', '.join(by_loss)})")
    unseen = [name for name in LOSSES if name != "waves"]
    good, fair, fair_unseen, poor_unseen = (
        held / max(of, 1)
        for held, of in (inside("good"), inside("fair"), inside("fair", unseen), inside("poor", unseen))
    )
    target("trust_good_inside", good, ">=", 0.8)
    target("trust_fair_inside", fair, ">=", HALF)
    target("trust_fair_above_poor_unseen", fair_unseen - poor_unseen, ">=", 0.0)


if __name__ == "__main__":
    main()
