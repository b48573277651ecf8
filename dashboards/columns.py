"""The columns of the table of runs: what each is called, what it holds, and how a value is printed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpt3core.words import count, duration, percent, plain, powers, whole
from sweeps.watching.run_table import Row

TEXT, WHOLE, NUMBER = "text", "whole", "number"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column."""

    name: str  # in filters and permalinks; a field of ``Row``
    title: str
    kind: str  # text | whole | number
    words: Callable[[Any], str]
    by: str = ""  # the field that orders it, where that is another one

    def value(self, row: Row) -> Any:
        """A run's value; None where it has none."""
        value = getattr(row, self.name)
        return None if value == "" else value

    def order(self, row: Row) -> Any:
        """What a run is sorted by."""
        value = getattr(row, self.by or self.name)
        return None if value == "" else value

    def shown(self, row: Row) -> str:
        """A run's value as it is printed."""
        value = self.value(row)
        return "" if value is None else self.words(value)


def when(moment: float) -> str:
    """A moment of this machine's time zone."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
    except (ValueError, OverflowError, OSError):  # a moment that no calendar knows
        return ""


COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        Column(name="run_id", title="run", kind=TEXT, words=str),
        Column(name="size", title="size", kind=TEXT, words=str, by="n"),
        Column(name="sweep", title="sweep", kind=TEXT, words=str),
        Column(name="status", title="status", kind=TEXT, words=str),
        Column(name="share", title="done", kind=NUMBER, words=percent),
        Column(name="loss", title="loss", kind=NUMBER, words=lambda v: f"{v:.4f}"),
        Column(name="train_loss", title="training loss", kind=NUMBER, words=lambda v: f"{v:.3f}"),
        Column(name="n", title="N", kind=NUMBER, words=count),
        Column(name="parameters", title="all parameters", kind=NUMBER, words=count),
        Column(name="tokens", title="tokens", kind=NUMBER, words=count),
        Column(name="flops", title="FLOPs", kind=NUMBER, words=powers),
        Column(name="budget", title="budget", kind=NUMBER, words=powers),
        Column(name="lr", title="learning rate", kind=NUMBER, words=powers),
        Column(name="batch_tokens", title="tokens a step", kind=WHOLE, words=whole),
        Column(name="schedule", title="schedule", kind=TEXT, words=str),
        Column(name="seed", title="seed", kind=WHOLE, words="{:.0f}".format),
        Column(name="n_layer", title="layers", kind=WHOLE, words=whole),
        Column(name="d_model", title="width", kind=WHOLE, words=whole),
        Column(name="n_ctx", title="context", kind=WHOLE, words=whole),
        Column(name="vocab", title="vocabulary", kind=WHOLE, words=whole),
        Column(name="corpus", title="text", kind=TEXT, words=str),
        Column(name="parent", title="goes on from", kind=TEXT, words=str),
        Column(name="epochs", title="epochs", kind=NUMBER, words=plain),
        Column(name="precision", title="precision", kind=TEXT, words=str),
        Column(name="kernel", title="kernel", kind=TEXT, words=str),
        Column(name="device", title="device", kind=TEXT, words=str),
        Column(name="devices", title="workers", kind=WHOLE, words=whole),
        Column(name="train_seconds", title="training time", kind=NUMBER, words=duration),
        Column(name="tokens_per_second", title="tokens/s", kind=NUMBER, words=count),
        Column(name="mfu", title="MFU", kind=NUMBER, words=percent),
        Column(name="gpu_hours", title="GPU-hours", kind=NUMBER, words=plain),
        Column(name="cost", title="USD", kind=NUMBER, words=lambda v: f"{v:,.2f}"),
        Column(name="steps", title="steps", kind=WHOLE, words=whole),
        Column(name="attempts", title="attempts", kind=WHOLE, words=whole),
        Column(name="ended", title="ended", kind=NUMBER, words=when),
        Column(name="note", title="note", kind=TEXT, words=str),
    )
}
DEFAULT = ("run_id", "status", "share", "loss", "n", "tokens", "flops", "lr", "seed", "train_seconds", "ended", "note")
