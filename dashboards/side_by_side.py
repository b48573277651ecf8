"""Runs beside each other: what differs between them first, by the fields that can change the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt3core import spec as specs
from gpt3core.store.rundir import RunDir
from gpt3core.words import powers
from sweeps.watching import differences
from sweeps.watching.differences import WORDS
from sweeps.watching.words import value


@dataclass(frozen=True, kw_only=True)
class Line:
    """One field, a value a run."""

    field: str
    words: str  # what it is, where its name does not say it
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Several runs, the first of which the others are compared with."""

    run_ids: tuple[str, ...]
    weights: tuple[Line, ...]  # what differs and can change the weights
    beside: tuple[Line, ...]  # what differs beside that
    same: tuple[Line, ...]  # of the specifications; one value


def compare(runs: Sequence[RunDir]) -> SideBySide:
    """Two runs or more.

    Raises:
        StoreError: where a specification is unreadable.
    """
    pairs = [differences.compare(runs[0], other) for other in runs[1:]]
    weights = _lines([{d.field: d for d in pair.hashed} for pair in pairs])
    beside = _lines([{d.field: d for d in pair.beside} for pair in pairs])
    differing = {line.field for line in (*weights, *beside)}
    same = [
        Line(field=name, words=WORDS.get(name, ""), values=(_shown(held),))
        for name, held in specs.flat(specs.as_dict(runs[0].spec())).items()
        if name not in differing
    ]
    return SideBySide(
        run_ids=tuple(run.run_id for run in runs), weights=tuple(weights), beside=tuple(beside), same=tuple(same)
    )


def _shown(held: Any) -> str:
    """A value as it stands in a table."""
    return powers(held) if isinstance(held, float) else value(held)


def _lines(pairs: Sequence[Mapping[str, Any]]) -> list[Line]:
    """A line a field: the first run's value, then each other's, which is the first's where they do not differ."""
    lines = []
    for name in dict.fromkeys(field for pair in pairs for field in pair):
        told = next(pair[name] for pair in pairs if name in pair)
        values = (told.a, *(pair[name].b if name in pair else told.a for pair in pairs))
        words = "" if told.words == name else told.words
        lines.append(Line(field=name, words=words, values=tuple(map(_shown, values))))
    return lines
