"""What to run next, what it costs, and the command that runs it: ``python -m analysis.design runs=PATH``.

runs=PATH            runs made: a store or a table; with sweep=, columns.X=, N=, C=, exclude=, rules=, min_tokens=,
                     min_compute=, max_compute=, precision= as for analysis.fit. A store's runs in flight count as made,
                     whatever their outcome will be; runs that ended, failed ones among them, are not proposed again
target=loss          the loss at target_compute; or n_star, the compute-optimal size there; or accuracy:TASK (or
                     accuracy:TASK:K, with K examples), through the trend of that accuracy over the loss
scores=[arc]         a table's columns of accuracy, for such a target; with chance., items. and shots. as for
                     analysis.fit
target_compute=1e24  FLOPs (default: ten times the highest-compute run)
candidates=FILE      a row a run that could be made: columns N and D, and gpu_hours where cost is not FLOPs. Without
                     it a sweep's recipe is continued, or a grid is laid about a table's range
largest=1e23         FLOPs of the largest run of such a grid (default: the target's, at most ten times the largest run)
running=FILE         more runs in flight, that the store does not know of
batch=4              how many to propose
usd_per_hour=3       price of an hour of a run (default: what the runs recorded)
worth=100            the most that a tenth off the interval may cost, in the unit that costs are printed in; above it
                     going on is not worth it (default: what the runs so far cost together)
stop=0.9             nor is it when all candidates together would leave more of the interval
out=DIR              where design.json and next.csv go (default: not written)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.settings import DesignSettings
from gpt3core import cli

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from analysis.estimation.design import Design
    from analysis.next_runs import NextRuns

NAMES = {"loss": "loss", "n_star": "N*"}


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    given = cli.settings(DesignSettings(), argv)
    given.check()

    from analysis import api

    found = api.design(given)
    _print(found)
    if given.out:
        from analysis.output import documents

        print(f"written: {', '.join(map(str, documents.write_design(found, given.out)))}")
    return 0


def _print(found: NextRuns) -> None:
    from rich.console import Console

    console = Console(width=None if Console().is_terminal else 140)
    if found.design.proposals:
        console.print(_table(found))
        print(_interval(found.design, found.table))
    for remark in found.remarks:
        print(remark)
    for sentence in _verdict(found):
        print(sentence)
    if not found.design.proposals:
        return
    print("to run the choice all the same:" if not found.design.worth else "to run the choice:")
    for line in found.commands:
        print(f"  {line}")
    if not found.commands:
        print("  train these N and D, add a row for each to the runs, and ask again (out=DIR writes them as next.csv)")


def _table(found: NextRuns) -> Table:
    from rich.markup import escape
    from rich.table import Table

    design, rows = found.design, found.table
    title = f"What to run next, for the {NAMES.get(design.target, design.target)} at C={design.compute:.3g}"
    table = Table(title=escape(title), title_justify="left")
    names = ["size"] if "size" in rows else ["candidate"]
    names += ["N", "D", "FLOPs", *(name for name in ("hours", "usd") if (rows[name] > 0).all()), "interval after it"]
    for name in names:
        table.add_column(name.upper() if name == "usd" else name)
    for p, row in zip(design.proposals, rows.to_dict("records"), strict=True):
        cells = [
            str(row["size"]) if "size" in rows else str(p.index + 1),
            f"{p.n:.3g}",
            f"{p.d:.3g}",
            f"{row['C']:.3g}",
        ]
        cells += [f"{row[name]:,.3g}" for name in ("hours", "usd") if name in names]
        table.add_row(*map(escape, cells), f"{p.interval:.0%} of now")
    return table


def _interval(design: Design, rows: pd.DataFrame) -> str:
    """The target's interval before and after the choice, in words."""
    after = float(rows.interval.iloc[-1])
    digits = ".3g" if design.target == "n_star" else ".3f"
    unit = " nats" if design.target == "loss" else ""
    parts = []
    for when, share in (("now", 1.0), ("after the choice", after)):
        low, high = design.interval(share)
        width = f"{high / low:.2f} times" if design.target == "n_star" else f"{high - low:.3f}{unit} wide"
        parts.append(f"{low:{digits}} to {high:{digits}} {when} ({width})")
    name = NAMES.get(design.target, design.target)
    return f"{name} at C={design.compute:.3g}, 95% by the design's own account: {', '.join(parts)}"


def _verdict(found: NextRuns) -> list[str]:
    """Whether going on is worth its cost, by which rule, with its numbers."""
    design, unit = found.design, found.unit
    assert design.limit is not None, "the command always sets one"
    said = [f"spent so far: {design.spent:,.3g} {unit}"]
    total = float(found.table.cost.sum())
    if design.proposals:
        said[0] += f"; the choice costs {total:,.3g} {unit}"
    price = "nothing narrows it" if design.price is None else f"a tenth off costs at least {design.price:,.3g} {unit}"
    rule = f"{price}, and may cost {design.limit:,.3g} (worth=)"
    every = f"all candidates together would narrow the interval to {design.everything:.0%} of what it is now (stop=)"
    if design.worth:
        return [*said, f"go on: {rule}; {every}"]
    return [*said, f"stop, further runs are not worth their cost: {rule}; {every}"]


if __name__ == "__main__":
    cli.run(main)
