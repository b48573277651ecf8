"""Comparisons of ladders as words and files: compare.json and compare.md."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from analysis.estimation.compare import APART, CUT, SAME, SURE, Comparison, Multiplier
from analysis.estimation.shift import FLOOR
from analysis.note import Note
from analysis.output.documents import finite
from gpt3core.store import files
from gpt3core.words import Symbols

Row = list[str]
LN_BITS, SAME_BITS = -math.log(math.log(2)), 0.03  # ln of bits in a nat; losses this near to it apart are asked about
TRIED = 1.5  # decades: intervals were held against known multipliers a decade beyond the data
HEADER = ["C", "loss A", "loss B", "multiplier", "95%", "told apart"]
DIRECTIONS = {
    APART: "nothing is told: the ladders have no compute in common, and one of them is carried on to the other's",
    "better": "B is better",
    "worse": "B is worse",
    "crosses": "B is better at some budgets, worse at others",
}


def sentences(found: Comparison) -> list[str]:
    """The answer, how it moves with compute, and what it rests on."""
    if found.paired and (found.cellwise.difference == 0).all():
        same = f"in all {found.cells} shared cells the losses are the same to the last digit"
        return [f"{SAME}: {same}; are they the same runs?"]
    inside = [m for m in found.at if not m.decades] or found.at
    top = ([m for m in inside if m.told_apart] or inside)[-1]
    answer = DIRECTIONS.get(found.verdict, f"{SAME}: the difference is inside the noise")
    doubts = notes(found)
    worth = f"B is worth {top.value:.3g} times the compute ({_span(top.interval)})"
    here = f"{answer}: at C={top.compute:.3g} {worth if math.isfinite(top.value) else 'A never reaches the loss of B'}"
    if doubts:
        here += ", with a warning"
    low, high = found.growth_interval
    trend = "grows" if low > 1 else "shrinks" if high < 1 else "no trend is told"
    growth = f"a factor of {found.growth:.3g} a decade ({_span(found.growth_interval)})"
    how = f"paired over {found.cells} shared cells" if found.paired else "not paired: all runs of both, with one law"
    lines = [
        here,
        *(f"{note.severity}: {note.message}" for note in doubts),
        f"with compute the multiplier {trend}: {growth}"
        if trend != "no trend is told"
        else f"{trend} in the multiplier: {growth}",
        f"{how}; a run scatters by {found.scatter:.2%} in loss{_seeds(found)}: multipliers under {found.resolved:.3g} "
        "would not be told from one",
    ]
    if close := [m for m in found.at if not (m.told_apart or m.decades or m.interval[0] <= 1 <= m.interval[1])]:
        at = ", ".join(f"{m.compute:.3g}" for m in close)
        lines.append(
            f"at C={at} the interval leaves one out and is not told apart: that takes the wider band of "
            f"{SURE:.0%}, which holds at every budget at once"
        )
    apart = float(np.median([np.log(m.loss_b / m.loss_a) for m in found.at]))
    if abs(abs(apart) - LN_BITS) < SAME_BITS:
        more, less = ("B", "A") if apart > 0 else ("A", "B")
        lines.append(f"losses of {more} are {np.exp(abs(apart)):.2f} times those of {less}: bits beside nats a token?")
    if len(found.shapes) > 1:
        lines.append(Symbols(f"surface {found.law}; shapes of ln m in ln C: {_shares(found.shapes)}"))
    return [*lines, *_backtest(found), *_far(found)]


def notes(found: Comparison) -> list[Note]:
    """What a reader must know before a multiplier is believed."""
    said = []
    if not found.one_text:
        first, second = (f"{name} on {text}" for name, text in zip(found.names, found.texts, strict=True))
        told = (
            f"the losses on {found.domain} compare where both hold out the same of it"
            if found.domain
            else "what one is worth in compute may be the texts' difference and not the models'"
        )
        message = f"the losses are not known to be of one held-out text ({first}; {second}): {told}"
        said.append(Note(code="held-out-texts", severity="warning", message=message))
    if all(found.precisions) and found.precisions[0] != found.precisions[1]:
        first, second = (f"{name} in {bits}" for name, bits in zip(found.names, found.precisions, strict=True))
        message = (
            f"the runs were trained in different precisions ({first}; {second}): their losses may differ for that "
            "alone; train both with one precision=NAME"
        )
        said.append(Note(code="mixed-precision", severity="warning", message=message))
    if without := [m for m in (*found.at, *found.beyond) if math.isinf(m.interval[1])]:
        never = ", ".join(f"{m.compute:.3g}" for m in without if math.isinf(m.value))
        perhaps = ", ".join(f"{m.compute:.3g}" for m in without if math.isfinite(m.value))
        weight = f"{found.shapes.get(FLOOR, 0.0):.0%} of the weight is of laws by which"
        message = f"{weight} B's irreducible loss is lower than A's: " if perhaps and not never else "by the law "
        parts = [f"at C={never} A reaches the loss of B at no compute, and there is no multiplier"] if never else []
        parts += [f"at C={perhaps} A may reach it at no compute, and the interval has no high end"] if perhaps else []
        message += "; ".join(parts)
        said.append(Note(code="out-of-reach", severity="warning", message=message))
    if far := [m for m in found.at if 0 < m.carried < math.inf and not m.decades]:
        most = max(far, key=lambda m: m.carried)
        at = ", ".join(f"{m.compute:.3g}" for m in far)
        message = (
            f"at C={at} no run of either is near the loss that the other reaches: a multiplier of {most.value:.3g} "
            f"carries the law on by {most.carried:.1f} decades outside the runs, and is its form's and not measured"
        )
        said.append(Note(code="carried-on", severity="warning", message=message))
    return said


def _seeds(found: Comparison) -> str:
    known = [
        f"{name} {noise:.2%}" for name, noise in zip(found.names, found.noise, strict=True) if not math.isnan(noise)
    ]
    return f" (seeds of one point: {', '.join(known)})" if known else ""


def _shares(shapes: dict[str, float]) -> str:
    return ", ".join(f"{name} {weight:.0%}" for name, weight in shapes.items())


def _backtest(found: Comparison) -> list[str]:
    test = found.backtest
    if test is None:
        return ["no backtest: too few runs lie a decade below the largest compute"]
    line = f"fitted below C={test.cut:.3g}, the {test.runs} runs above are missed by {test.loss:.2%} (median)"
    if not math.isnan(test.free):
        line += f", by {test.free:.2%} without the fixed exponents"
    if not math.isnan(test.difference):
        line += f"; differences of paired losses there by {test.difference:.2%} (root mean square)"
    return [line]


def _far(found: Comparison) -> list[str]:
    """How far outside the data the targets lie, where that is farther than intervals of known multipliers were held."""
    far = [f"C={m.compute:.3g} by {m.decades:.1f} decades" for m in found.beyond if m.decades > TRIED]
    if not far or found.verdict == APART:
        return []
    tested = f"the backtest reaches {CUT:g}" if found.backtest else "nothing is backtested"
    return [f"carried on outside the data: {', '.join(far)}; {tested}, and beyond that the multiplier is its form's"]


def rows(found: Comparison) -> list[Row]:
    """One for each budget that was run, then the targets."""
    every = [(m, f", {m.decades:.1f} decades beyond" if m.decades else "") for m in (*found.at, *found.beyond)]
    return [
        [
            f"{m.compute:.3g}{where}",
            _loss(m.loss_a),
            _loss(m.loss_b),
            _times(m.value),
            _span(m.interval),
            ("yes" if m.told_apart else "no") if not where else "-",
        ]
        for m, where in every
    ]


def title(found: Comparison) -> str:
    """What is compared."""
    domain = f" on {found.domain}" if found.domain else ""
    return f"A = {found.names[0]} ({found.runs[0]} runs), B = {found.names[1]} ({found.runs[1]} runs){domain}"


def named(found: Comparison) -> tuple[str, ...]:
    """Names from outside that its sentences may hold."""
    return (*found.names, *found.texts, found.domain)


def to_markdown(comparisons: list[Comparison]) -> str:
    """A short report."""
    lines = ["# Is B better than A, and by how much compute", ""]
    for found in comparisons:
        lines += [f"## {_cell(title(found))}", "", *[f"- {_cell(line)}" for line in sentences(found)], ""]
        lines += ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
        lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows(found)] + [""]
    return "\n".join(lines)


def to_json(comparisons: list[Comparison]) -> dict[str, Any]:
    """The contract that scripts rely on. Numbers that do not exist are null, as multipliers that are infinite."""
    document = {"comparisons": [_entry(found) for found in comparisons]}
    cleaned: dict[str, Any] = finite(document)
    return cleaned


def write(comparisons: list[Comparison], out: Path) -> None:
    """Write compare.json and compare.md."""
    with files.explained(out, setting=files.OUT):
        files.make_folder(out)
        files.write_json(out / "compare.json", to_json(comparisons))
        files.write_bytes(out / "compare.md", to_markdown(comparisons).encode())


def _entry(found: Comparison) -> dict[str, Any]:
    entry = dict(vars(found))
    entry["at"], entry["beyond"] = ([_multiplier(m) for m in part] for part in (found.at, found.beyond))
    entry["cellwise"] = found.cellwise.to_dict("records")
    entry["notes"] = [note.said() for note in notes(found)]
    entry["backtest"] = None if found.backtest is None else dict(vars(found.backtest))
    return entry


def _multiplier(m: Multiplier) -> dict[str, Any]:
    entry = dict(vars(m))
    entry["interval95"] = entry.pop("interval")
    entry["never"] = math.isinf(m.value)  # A reaches B's loss at no compute
    return entry


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _loss(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"


def _times(multiplier: float) -> str:
    """To three decimals; what is too small or too large for these to three digits."""
    return f"{multiplier:.3f}" if 0.01 <= multiplier < 1000 else f"{multiplier:.3g}"


def _span(interval: list[float]) -> str:
    return f"{_times(interval[0])} to {_times(interval[1])}"
