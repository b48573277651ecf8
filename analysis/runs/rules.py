"""Which runs enter a fit: rules with names, each listed in the output with the runs that it takes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.runs import tuned
from analysis.settings import RULES
from gpt3core.errors import UsageError
from gpt3core.store.rundir import STOPPED_EARLY

MAX_EPOCHS = 4.0  # up to about four epochs repeated data is nearly as good as new (Muennighoff et al. 2023)
WORTHLESS_EPOCHS = 40.0  # beyond, repeating is worth nothing and models overfit: no law here speaks of it (the same)
MIN_TOKENS_PER_PARAMETER = 1.0  # below, a run has not left the first drop of its curve
DIVERGED_ABOVE = 0.05  # relative: more than this above a run with no more parameters and no more tokens
OF_JUDGEMENT = ("worse-than-smaller", "under-trained")  # a reader may see these runs otherwise
RULED_OUT = "ruled_out"  # column: taken out by one of these
Window = tuple[float | None, float | None]
EXEMPT = {
    "near": "keep_far",
    "repeated-data": "keep_repeated",
}  # rule -> column by which a table of runs says it is off


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A named rule and the runs it took out."""

    name: str
    meaning: str
    excluded: list[str]
    on: bool = True
    would_exclude: list[str] = field(default_factory=list)  # of a rule that is off


def apply(
    table: pd.DataFrame,
    *,
    min_tokens: float = 0.0,
    exclude: Sequence[str] = (),
    window: Window = (None, None),
    precision: str | None = None,
    off: Sequence[str] = (),
) -> tuple[pd.DataFrame, list[Rule]]:
    """The runs that pass every rule, and the rules. A run is listed under the first rule that takes it out.

    Rules of single laws (EXEMPT) are applied where these are fitted: the table says by a column which are off.

    Args:
        table: run_id, N, D, U, loss, status, epochs; precision and duplicate where they are known.
        min_tokens: of training, below which a run does not count.
        exclude: run_ids that the user takes out.
        window: FLOPs, both ends inside, outside of which no run counts; None where it is open.
        precision: the only one that the runs may have been trained in; any by default.
        off: rules of RULES that take no run out.

    Raises:
        UsageError: for a name in ``exclude`` that no run has, or a precision that none was trained in.
    """
    _check_asked(table, exclude, precision)
    assert set(off) <= set(RULES)
    rules, out = [], pd.Series(False, index=table.index)
    checks = chain(_checks(table, min_tokens, exclude, precision, off), _outside(table, window))
    for name, meaning, hit in checks:
        found = sorted(table.run_id[hit & ~out])
        if name in off:
            rules.append(Rule(name=name, meaning=meaning, excluded=[], on=False, would_exclude=found))
        else:
            rules.append(Rule(name=name, meaning=meaning, excluded=found))
            out |= hit
    return exempt(table[~out].reset_index(drop=True), off), rules


def exempt(table: pd.DataFrame, off: Sequence[str]) -> pd.DataFrame:
    """The runs, with a column for each rule of EXEMPT that is off."""
    return table.assign(**{column: True for name, column in EXEMPT.items() if name in off})


def with_ruled_out(table: pd.DataFrame, everything: pd.DataFrame, applied: Sequence[Rule]) -> pd.DataFrame:
    """The runs that passed and, marked, behind them those that rules of judgement took out; as they are if none did.

    Args:
        everything: all runs as points.
        applied: the rules with the runs that each took out.
    """
    names = {name for rule in applied if rule.name in OF_JUDGEMENT for name in rule.excluded}
    out = everything[everything.run_id.isin(names)]
    if out.empty:
        return table
    return pd.concat([table.assign(**{RULED_OUT: False}), out.assign(**{RULED_OUT: True})], ignore_index=True)


def exempted(table: pd.DataFrame, rule: str) -> NDArray[np.bool_]:
    """Which rows (n,) a rule of EXEMPT is off for."""
    column = EXEMPT[rule]
    if column not in table:
        return np.zeros(len(table), bool)
    return np.array([value is True for value in table[column].astype(object)], bool)  # points beside runs have none


def _check_asked(table: pd.DataFrame, exclude: Sequence[str], precision: str | None) -> None:
    """Refuse what names nothing."""
    strangers = sorted(set(exclude) - set(table.run_id))
    if strangers:
        raise UsageError(f"exclude={strangers[0]}: no run has this name; names are like {', '.join(table.run_id[:3])}")
    if precision is None:
        return
    if "precision" not in table:
        raise UsageError(
            f"precision={precision}: these runs do not say it (a column precision is needed): leave it out"
        )
    there = sorted(set(table.precision))
    if precision not in there:
        raise UsageError(f"precision={precision}: no run was trained in it; there are {', '.join(there)}")


def _checks(
    table: pd.DataFrame, min_tokens: float, exclude: Sequence[str], precision: str | None, off: Sequence[str]
) -> Iterator[tuple[str, str, pd.Series]]:
    """(name, meaning, which runs it takes out) of every rule that applies here."""
    lost = ~(table.loss.astype(float).abs().lt(np.inf) & (table.loss > 0))
    why = "the loss is missing or not finite, or the run's status says so"
    if table.loss.isna().all() and (table.status == "done").any():
        lost &= False  # a table of scores alone: none of its runs has a loss
        why = "the run's compute is not known, or its status says so"
    yield "excluded", "taken out by exclude=", table.run_id.isin(list(exclude))
    if "duplicate" in table:
        yield (
            "duplicate",
            "its row is the same as an earlier one, or its N, D and loss are to the last digit: these are one run",
            table.duplicate.astype(bool),
        )
    yield from _ended(table, why, lost, off)
    other = pd.Series(False, index=table.index) if precision is None else table.precision != precision
    if precision is not None:
        yield "precision", f"not trained in {precision} (precision={precision})", other
    yield (
        "repeated-data",
        f"the text was seen more than {WORTHLESS_EPOCHS:g} times (laws without repetition leave out runs beyond "
        f"{MAX_EPOCHS:g} epochs too)",
        table.epochs > WORTHLESS_EPOCHS * 1.001,
    )
    counted = ~(lost | other | table.run_id.isin(list(exclude)) | (table.status != "done"))
    yield (
        "not-best-tuned",
        "another learning rate, batch or schedule reached a lower loss at its N and D: a trial of a search",
        pd.Series(tuned.worse(table, counted.to_numpy(bool)), index=table.index),
    )
    yield (
        "worse-than-smaller",
        f"its loss lies more than {DIVERGED_ABOVE:.0%} above that of a run with no more parameters and no more "
        f"tokens: unstable or badly tuned",
        _worse_than_smaller(table),
    )
    yield (
        "short-run",
        f"fewer than {min_tokens:,.0f} training tokens (min_tokens): such a run is still between a unigram and "
        f"a bigram model",
        min_tokens > table.D,
    )
    yield (
        "under-trained",
        f"fewer than {MIN_TOKENS_PER_PARAMETER:g} training token per parameter, where no min_tokens is given",
        (table.D < MIN_TOKENS_PER_PARAMETER * table.N) & (not min_tokens),
    )


def _outside(table: pd.DataFrame, window: Window) -> Iterator[tuple[str, str, pd.Series]]:
    """The rule of the computes that the user wants, where there are any."""
    low, high = window
    if low is None and high is None:
        return
    asked = [f"{name}={end:g}" for name, end in (("min_compute", low), ("max_compute", high)) if end is not None]
    inside = (table.C >= (low or 0.0)) & (table.C <= (np.inf if high is None else high))
    yield "outside-window", f"its compute lies outside {', '.join(asked)}", ~inside


def _ended(table: pd.DataFrame, why: str, lost: pd.Series, off: Sequence[str]) -> Iterator[tuple[str, str, pd.Series]]:
    """The rules of how a run ended."""
    early = table.status == STOPPED_EARLY
    yield (
        "diverged",
        why,
        ((table.status != "done") & ~early) | lost,
    )
    yield (
        "stopped-early",
        "its validation loss fell no more and it stopped before its tokens: such a length follows from the losses, and "
        "no law of runs of given lengths speaks of it",
        early,
    )
    if "diverged" in off:
        yield "no-loss", "the loss is missing, not finite or not positive: there is nothing to fit", lost


def _worse_than_smaller(table: pd.DataFrame) -> pd.Series:
    n, d, u, loss = (table[name].to_numpy(float) for name in ("N", "D", "U", "loss"))
    known = np.where(np.isfinite(loss), loss, np.inf)
    found = np.zeros(len(table), bool)
    for i in range(len(table)):
        smaller = (n <= n[i]) & (d <= d[i]) & (u <= u[i])
        found[i] = bool(loss[i] > (1 + DIVERGED_ABOVE) * known[smaller].min(initial=np.inf))
    return pd.Series(found, index=table.index)
