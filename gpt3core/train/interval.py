"""How long to train between two checkpoints, from the time that one takes. No torch.

Too rarely costs what is trained again after a failure, too often what saving takes: between the two lies sqrt(2 d M)
for saves of d seconds and a failure every M (Young 1974; Daly 2006, equation 7). Whoever does not know M bounds the
cost.
"""

from __future__ import annotations

import math

MOST_SHARE = 0.04  # of the wall time that saves may take


def seconds_between(save_seconds: float, *, least: float, failures_every: float | None = None) -> float:
    """Seconds of training from one checkpoint to the next.

    Args:
        save_seconds: that the last one took from training: its wait, and on a CPU the writer's time on the cores.
        least: as asked for; it is kept where saves are quick.
        failures_every: seconds of this run from one failure to the next, where that is known.
    """
    bounded = save_seconds * (1 / MOST_SHARE - 1)
    young = 0.0 if failures_every is None else math.sqrt(2 * save_seconds * failures_every)
    return max(least, bounded, young)
