"""Which runs of a sweep start from a checkpoint of a longer one of their size; pure."""

from __future__ import annotations

from collections.abc import Iterable

from gpt3core.spec import RunSpec
from gpt3core.trunk import Prefix, family, stable_steps


def families(runs: Iterable[RunSpec]) -> list[list[RunSpec]]:
    """The runs that begin alike, the one whose decay begins last first; without those that begin like no other."""
    found: dict[str, list[RunSpec]] = {}
    for run in runs:
        if name := family(run):
            found.setdefault(name, []).append(run)
    return [sorted(group, key=lambda run: (-stable_steps(run), run.run_id)) for group in found.values()]


def prefixes(runs: Iterable[RunSpec]) -> dict[str, Prefix]:
    """Where each run starts that is not its family's trunk, when nothing has been trained yet."""
    return {
        run.run_id: Prefix(run_id=trunk.run_id, step=stable_steps(run))
        for trunk, *branches in families(runs)
        for run in branches
    }


def own_share(run: RunSpec, prefix: Prefix | None) -> float:
    """The share of a run's tokens that it trains itself; steps tell it only where batches do not grow."""
    return 1.0 if prefix is None else 1 - run.tokens_at(prefix.step) / run.tokens
