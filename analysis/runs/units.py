"""Units that cannot be meant: tokens in billions, parameters in millions, compute in PF-days, perplexities for losses.

What no run can be is refused with the unit that would make sense of it; what is only unusual is asked in a note. A
unit that the user wrote (``columns.D=tokens*1e9``, or ``*1`` where the file is right) is taken as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.note import Note
from analysis.runs.foreign import has_unit, source_of
from gpt3core.costs import PF_DAY
from gpt3core.errors import UsageError

LEAST_PARAMETERS, LEAST_TOKENS = 100.0, 1e3  # in the median; a law of language models begins above
TOKENS_PER_PARAMETER = 1e-3, 1e6  # in the median; Kaplan et al.'s largest models had 0.1, over-trained small ones 1e4
USUAL_RATIO = 20.0  # Hoffmann et al. 2022
LEAST_6ND = 1e9  # FLOPs, in the median: a hundredth of a second of one core
IN_PRINT = ((1e6, 1e9), (1e6, 1e6), (1e9, 1e9))  # units of parameters and tokens in tables of papers
COMPUTE_OVER_6ND = 1e-3, 1e4  # in the median; experts make it small, a head on a tiny model large
MILLIONS = 1e6  # parameters: below, so many tokens for each are of a size given in thousands or more
SCALES = (1e3, 1e6, 1e9, 1e12)
COMPUTE_UNITS = {"PF-days": PF_DAY, **{f"{p}FLOPs": 10.0**e for p, e in zip("GTPEZ", (9, 12, 15, 18, 21), strict=True)}}
USUAL_LOSS = 0.1, 8.0  # nats per token, in the median; the frequencies of 50k tokens alone cost 7.5
USUAL_BATCH = 4096.0  # tokens, in the median of models of ten million parameters and more
LARGE = 1e7  # parameters, of such a model


def question(table: pd.DataFrame, columns: Mapping[str, str], path: Path, *, uses_c: bool = True) -> list[Note]:
    """Refuse units that no run can have; notes on what is unusual.

    Args:
        table: under isoflop's names, as of foreign.named.
        columns: that the user gave.
        uses_c: whether the table's own column of compute is what C means.

    Raises:
        UsageError: with the unit that would make sense.
    """
    known = {name: _positive(table[name]) for name in ("N", "N_total", "N_nonembedding", "D", "C") if name in table}
    counts = [name for name in ("N", "N_total", "N_nonembedding") if name in known]
    asked = {name for name in known if not (name in columns and has_unit(columns[name]))}
    if counts and "D" in known:
        _tokens_and_parameters(table, known, counts[0], asked, path)
    if counts and {"D", "C"} <= set(known) and uses_c and "C" in asked:
        n = np.fmax.reduce([known[name] for name in counts])
        _compute(table, known["C"] / (6 * n * known["D"]), path)
    large = bool(counts) and float(known[counts[0]].median()) > LARGE
    return [*_loss(table, columns), *(_batch(table, columns) if large else [])]


def _positive(column: pd.Series) -> pd.Series:
    """What is wrong in single rows is refused elsewhere."""
    return column.where(np.isfinite(column) & (column > 0))


def _tokens_and_parameters(
    table: pd.DataFrame, known: Mapping[str, pd.Series], n: str, asked: set[str], path: Path
) -> None:
    """Refuse D or N in thousands, millions or billions."""
    size, tokens = float(known[n].median()), float(known["D"].median())
    ratio, compute = float((known["D"] / known[n]).median()), float((6 * known[n] * known["D"]).median())
    low, high = TOKENS_PER_PARAMETER
    if n in asked and (size < LEAST_PARAMETERS or (ratio > high and size < MILLIONS)):
        reference = tokens / USUAL_RATIO if tokens >= LEAST_TOKENS else 1e9
        _refuse(table, n, f"{size:.3g} in the median: parameters are meant", _nearest(reference / size), path)
    if "D" in asked and (tokens < LEAST_TOKENS or ratio < low):
        what = f"{tokens:.3g} in the median, {ratio:.2g} of the parameters: tokens are meant"
        factor = _nearest(USUAL_RATIO * max(size, LEAST_PARAMETERS) / tokens)
        if not (n in asked and compute * factor < LEAST_6ND):
            _refuse(table, "D", what, factor, path)
    if {n, "D"} <= asked and compute < LEAST_6ND:
        _refuse_both(table, n, (size, tokens, compute), path)


def _refuse_both(table: pd.DataFrame, n: str, medians: tuple[float, float, float], path: Path) -> None:
    """Refuse N and D that are no run's together, as tables in millions and billions have them."""
    size, tokens, compute = medians
    off = {units: abs(np.log(units[1] * tokens / (units[0] * size) / USUAL_RATIO)) for units in IN_PRINT}
    units = min(IN_PRINT, key=lambda pair: round(off[pair], 6))
    columns = source_of(table, n), source_of(table, "D")
    asked, right = (
        " ".join(f"columns.{name}={column}*{unit}" for name, column, unit in zip((n, "D"), columns, each, strict=True))
        for each in ([_digits(unit) for unit in units], "11")
    )
    words = " and ".join(dict.fromkeys("millions" if unit == MILLIONS else "billions" for unit in units))
    raise UsageError(
        f"{path}: {n} (column {columns[0]}) is {size:.3g} and D (column {columns[1]}) {tokens:.3g} in the median, "
        f"{compute:.2g} FLOPs by 6ND: parameters and tokens are meant; are they in {words}? Give them as {asked}, or "
        f"as {right} if they are right"
    )


def _digits(factor: float) -> str:
    return f"{factor:.4g}".replace("e+0", "e").replace("e+", "e")


def _compute(table: pd.DataFrame, ratio: pd.Series, path: Path) -> None:
    """Refuse C in other units than FLOPs."""
    middle = float(ratio.median())
    if not (middle < COMPUTE_OVER_6ND[0] or middle > COMPUTE_OVER_6ND[1]):
        return
    unit, factor = min(COMPUTE_UNITS.items(), key=lambda known: abs(np.log(known[1] * middle)))
    what = f"{middle:.2g} times 6ND in the median: FLOPs of the training are meant"
    _refuse(table, "C", what, factor if middle < 1 else None, path, unit=unit)


def _nearest(factor: float) -> float:
    return min(SCALES, key=lambda scale: abs(np.log(scale / factor)))


def _refuse(
    table: pd.DataFrame, name: str, what: str, factor: float | None, path: Path, unit: str | None = None
) -> None:
    column = source_of(table, name)
    given, right = f"{path}: {name} (column {column}) is {what}", f"columns.{name}={column}*1 if it is right"
    if factor is None:
        raise UsageError(f"{given}; name another column, or give it as {right}")
    digits = _digits(factor)
    asked = f"multiply by {digits}" if unit is None else f"is it in {unit}"
    raise UsageError(f"{given}; {asked}? Give it as columns.{name}={column}*{digits}, or as {right}")


def _loss(table: pd.DataFrame, columns: Mapping[str, str]) -> list[Note]:
    """Ask about losses that are hardly nats per token; the laws are the same in any unit that is a multiple."""
    if "loss" not in table or ("loss" in columns and has_unit(columns["loss"])):
        return []
    middle = float(_positive(table.loss).median())
    if not (middle < USUAL_LOSS[0] or middle > USUAL_LOSS[1]):
        return []
    column = source_of(table, "loss")
    meant = (
        f"is it in another unit (columns.loss={column}*1000)?"
        if middle < USUAL_LOSS[0]
        else "more than to know nothing but how often tokens are: is it a perplexity, whose logarithm is meant?"
    )
    message = f"the loss (column {column}) is {middle:.3g} in the median, and nats per token are meant: {meant}"
    return [Note(code="loss-unit", severity="warning", message=message)]


def _batch(table: pd.DataFrame, columns: Mapping[str, str]) -> list[Note]:
    """Ask about batches of large models that are hardly tokens."""
    if "batch_tokens" not in table or ("batch_tokens" in columns and has_unit(columns["batch_tokens"])):
        return []
    middle = float(_positive(table.batch_tokens).median())
    if not middle < USUAL_BATCH:
        return []
    column = source_of(table, "batch_tokens")
    message = (
        f"the batch (column {column}) is {middle:.3g} in the median, and tokens are meant: is it in sequences "
        f"(columns.batch_tokens={column}*2048, of so many tokens)?"
    )
    return [Note(code="batch-unit", severity="warning", message=message)]
