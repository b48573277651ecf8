"""A sweep is what was asked under its name: a command that would forget runs says so, and how to mean it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpt3core.errors import UsageError
from gpt3core.store.sweepdir import SweepRecord

EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The runs of a sweep from now on, in the order asked, and those of its record that drop out."""

    runs: tuple[str, ...]
    dropped: tuple[str, ...] = ()


def union(record: SweepRecord | None, run_ids: Sequence[str], *, replace: bool, extend: bool) -> Asked:
    """What a command makes of a sweep: all that the record has, or what ``replace`` or ``extend`` say.

    Args:
        record: what was asked under the sweep's name before, None where nothing was.
        run_ids: of the runs that this command asks for.
        replace: drop the record's other runs.
        extend: keep the record's other runs too, after those asked.

    Raises:
        UsageError: when runs of the record would drop out and neither is given, or when both are.
    """
    if replace and extend:
        raise UsageError("replace=true and extend=true: one drops the earlier runs, the other keeps them; give one")
    asked = tuple(dict.fromkeys(run_ids))
    missing = forgotten(record, asked)
    if extend:
        return Asked(runs=(*asked, *missing))
    if missing and not replace:
        raise UsageError(
            f"{sentence(missing, asked)}; give this one another name (name=...), or extend=true to keep them too, or "
            "replace=true to drop them from the sweep (what they trained stays in the store)"
        )
    return Asked(runs=asked, dropped=missing)


def forgotten(record: SweepRecord | None, run_ids: Sequence[str]) -> tuple[str, ...]:
    """The record's runs that are not among those asked."""
    asked = set(run_ids)
    return tuple(run_id for run_id in record.runs if run_id not in asked) if record else ()


def sentence(missing: Sequence[str], asked: Sequence[str]) -> str:
    """What would drop out of a sweep, in words."""
    shown = ", ".join(missing[:EXAMPLES]) + (", ..." if len(missing) > EXAMPLES else "")
    others = f"{len(missing)} other runs were" if len(missing) != 1 else "1 other run was"
    return (
        f"under this sweep's name {others} asked before ({shown}), "
        f"which this command of {len(asked)} run{'s' * (len(asked) != 1)} does not ask for"
    )
