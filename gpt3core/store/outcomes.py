"""How a training can end, and what no trainer would write of it."""

from __future__ import annotations

import math
from typing import Any

STOPPED_EARLY = "stopped early"  # before its tokens, for its validation loss fell no more: no point on a law
STATUSES = ("done", "diverged", STOPPED_EARLY)


def problem(result: dict[str, Any]) -> str:
    """What no trainer would write, or nothing."""
    if result.get("status") not in STATUSES:
        return f"status {result.get('status')!r:.40}"
    for name in ("steps", "devices", "flops_per_second", "tokens_per_second", "epochs", "skipped_tokens"):
        value = result.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{name} {value!r:.40}"
    damage = result.get("damage", [])
    if not isinstance(damage, list) or not all(isinstance(sentence, str) for sentence in damage):
        return f"damage {damage!r:.40}"
    return ""
