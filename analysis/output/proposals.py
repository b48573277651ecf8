"""What to run next, in words: a row a run, the target's interval before and after, and whether it is worth its cost."""

from __future__ import annotations

from analysis.next_runs import NextRuns
from gpt3core.words import count, flops

BY_HAND = "train these N and D, add a row for each to the runs, and ask again (out=DIR writes them as next.csv)"
NAMES = {"loss": "loss", "n_star": "N*"}


def title(found: NextRuns) -> str:
    """Of the table."""
    design = found.design
    return f"What to run next, for the {NAMES.get(design.target, design.target)} at C={design.compute:.3g}"


def rows(found: NextRuns) -> tuple[list[str], list[list[str]]]:
    """Header and cells, a row a run in their order."""
    design, table = found.design, found.table
    names = ["size"] if "size" in table else ["candidate"]
    names += ["N", "D", "FLOPs", *(name for name in ("hours", "usd") if (table[name] > 0).all()), "interval after it"]
    cells = []
    for p, row in zip(design.proposals, table.to_dict("records"), strict=True):
        first = str(row["size"]) if "size" in table else str(p.index + 1)
        costs = [f"{row[name]:,.3g}" for name in ("hours", "usd") if name in names]
        cells.append([first, count(p.n), count(p.d), flops(row["C"]), *costs, f"{p.interval:.0%} of now"])
    return [name.upper() if name == "usd" else name for name in names], cells


def sentences(found: NextRuns) -> list[str]:
    """The interval, what was left out of the choice, and the verdict."""
    narrowed = [_interval(found)] if found.design.proposals else []
    return [*narrowed, *found.remarks, *_verdict(found)]


def _interval(found: NextRuns) -> str:
    """The target's interval before and after the choice."""
    design, after = found.design, float(found.table.interval.iloc[-1])
    digits = ".3g" if design.target == "n_star" else ".3f"
    unit = " nats" if design.target == "loss" else ""
    parts = []
    for when, share in (("now", 1.0), ("after the choice", after)):
        low, high = design.interval(share)
        width = f"{high / low:.2f} times" if design.target == "n_star" else f"{high - low:.3f}{unit} wide"
        parts.append(f"{low:{digits}} to {high:{digits}} {when} ({width})")
    name = NAMES.get(design.target, design.target)
    about = (
        "what analysis.fit predicts" if found.as_fitted else "its law and prior, for analysis.fit predicts none here"
    )
    account = f"95% by the design's own account, about {about}"
    return f"{name} at C={design.compute:.3g}, {account}: {', '.join(parts)}"


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


def how(found: NextRuns) -> list[str]:
    """The commands that run the choice under a line that says so, or what to do without a recipe."""
    if not found.design.proposals:
        return []
    said = "to run the choice:" if found.design.worth else "to run the choice all the same:"
    return [said, *(f"  {line}" for line in found.commands or [BY_HAND])]
