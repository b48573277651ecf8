"""The page of runs of a report: all of them, and as many sets of them as numbers of the report rest on.

A number leads to its set: the page then shows the runs of that alone, by its style sheet, without a script.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gpt3core.words import Name, count, flops

if TYPE_CHECKING:
    from analysis.output.evidence import Runs
    from analysis.study import Study

PAGE = "runs.html"
HEADER = ("run", "size", "N", "D", "C", "loss", "fitted")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A run: its cells under HEADER, and the sets that it is in."""

    cells: tuple[str, ...]
    sets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RunList:
    """The runs of a study; sets are added as numbers ask for their addresses."""

    study: Study
    sets: dict[Runs, str] = field(default_factory=dict)  # and the place of each on the page

    @cached_property
    def known(self) -> frozenset[str]:
        """The runs that are listed: those of the sweep without a result too."""
        runs = self.study.runs
        return frozenset(map(str, (*self.study.everything.run_id, *runs.missing, *runs.pruned)))

    def address(self, runs: Runs) -> str:
        """Of the page with these runs alone; empty where some are not on it."""
        if runs not in self.sets and not self.known.issuperset(runs):
            return ""
        return f"{PAGE}#{self.sets.setdefault(runs, f'set-{len(self.sets) + 1}')}"

    def rows(self) -> list[Listed]:
        """All runs, small and short ones first; below them those without a result."""
        out = {run: rule.name for rule in reversed(self.study.rules) if rule.on for run in rule.excluded}
        within = {run: list[str]() for run in self.known}
        for runs, name in self.sets.items():
            for run in runs:
                within[run].append(name)
        shown = self.study.everything.sort_values(["N", "C"]).to_dict("records")
        cells = [_cells(run := str(row["run_id"]), row, out.get(run, "")) for row in shown]
        without = sorted(self.known.difference(run for run, *_ in cells))
        why = [f"out: {out[run]}" if run in out else "no result yet" for run in without]
        cells += [(Name(run), *[""] * (len(HEADER) - 2), said) for run, said in zip(without, why, strict=True)]
        return [Listed(cells=row, sets=tuple(within[row[0]])) for row in cells]


def _cells(run: str, row: Mapping[Any, Any], rule: str) -> tuple[str, ...]:
    """A run in words.

    Args:
        rule: that took it out, if one did.
    """
    spelt = ((count, "N"), (count, "D"), (flops, "C"), ("{:.4f}".format, "loss"))
    numbers = ["" if math.isnan(row[name]) else spell(row[name]) for spell, name in spelt]
    size = str(row.get("size", ""))
    named = "" if size == f"{row['N']:.4g}" else size  # a table without names of sizes has N in their place
    return (Name(run), Name(named), *numbers, f"out: {rule}" if rule else "yes")
