"""Early stopping: the validation loss is looked at every so many tokens, and a run ends when it no longer falls.

Prechelt 1998 (Early stopping, but when?), the UP criterion: so many looks in a row without a new lowest loss. What a
run has seen so far is kept with its checkpoints, so that one that was interrupted stops where it would have.
"""

from __future__ import annotations

import math
from typing import Any

from gpt3core.options import Options


class EarlyStop:
    """What a run has seen of its validation loss."""

    def __init__(self, options: Options, state: dict[str, Any] | None) -> None:
        """Go on from a checkpoint's state, or begin."""
        self._every, self._patience = options.stop_every, options.stop_patience
        known = state or {}
        self.lowest: float | None = known.get("lowest")
        self.since = int(known.get("since", 0))  # looks without a new lowest loss

    @property
    def on(self) -> bool:
        """Whether the run may stop early."""
        return self._every > 0

    @property
    def stopped(self) -> bool:
        """Whether the run has ended."""
        return self.on and self.since >= self._patience

    def due(self, before: int, tokens: int) -> bool:
        """Whether a look falls between so many tokens before a step and so many after it."""
        return self.on and tokens // self._every > before // self._every

    def look(self, loss: float) -> None:
        """Take in a validation loss; one that is not finite is no lower than any."""
        if math.isfinite(loss) and (self.lowest is None or loss < self.lowest):
            self.lowest, self.since = loss, 0
        else:
            self.since += 1

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"lowest": self.lowest, "since": self.since}
