"""A sweep is what was asked under its name: a command that would forget runs says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpt3core.errors import UsageError
from gpt3core.store.sweepdir import SweepRecord


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The runs of a sweep from now on, and those of its record that drop out."""

    runs: tuple[str, ...]
    dropped: tuple[str, ...] = ()


def union(record: SweepRecord | None, run_ids: Sequence[str], *, replace: bool, extend: bool) -> Asked:
    """What a command makes of a sweep.

    Raises:
        UsageError: when runs of the record would drop out and neither ``replace`` nor ``extend`` is given, or both.
    """
    if replace and extend:
        raise UsageError("replace=true and extend=true: one drops the earlier runs, the other keeps them; give one")
    asked = tuple(dict.fromkeys(run_ids))
    known = set(asked)
    missing = tuple(run_id for run_id in record.runs if run_id not in known) if record else ()
    if extend:
        return Asked(runs=(*asked, *missing))
    if missing and not replace:
        raise UsageError(
            f"under this sweep's name {len(missing)} other runs were asked before ({', '.join(missing[:3])}), which "
            "this command does not ask for; give this one another name (name=...), or extend=true to keep them too, "
            "or replace=true to drop them from the sweep (what they trained stays in the store)"
        )
    return Asked(runs=asked, dropped=missing)
