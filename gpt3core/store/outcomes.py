"""How a training can end, what no trainer would write of it, and how many devices it had."""

from __future__ import annotations

import math
from typing import Any

from gpt3core.store import files

STOPPED_EARLY = "stopped early"  # before its tokens, for its validation loss fell no more: no point on a law
STATUSES = ("done", "diverged", STOPPED_EARLY)
OF_TIME = ("train_seconds", "device_seconds", "flops_per_second", "tokens_per_second")
NUMBERS = ("steps", "devices", "epochs", "skipped_tokens", *OF_TIME)


def problem(result: dict[str, Any]) -> str:
    """What no trainer would write, or nothing."""
    if result.get("status") not in STATUSES:
        return f"status {result.get('status')!r:.40}"
    for name in NUMBERS:
        value = result.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{name} {value!r:.40}"
    damage = result.get("damage", [])
    if not isinstance(damage, list) or not all(isinstance(sentence, str) for sentence in damage):
        return f"damage {damage!r:.40}"
    return ""


def mean_devices(result: dict[str, Any]) -> float | None:
    """How many devices a training had on average, over attempts that may have had more and fewer; None if unknown."""
    of_all, seconds, last = (files.number(result.get(name)) for name in ("device_seconds", "train_seconds", "devices"))
    return of_all / seconds if of_all and seconds and min(of_all, seconds) > 0 else last
