"""How far to trust an answer, in a word and why: what the backtests show, above all at the target's distance.

Every finding has a grade; the word is the worst of them, and the findings that have it are told as its reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from analysis.estimation import backtest
from analysis.estimation.backtest import THIN_CUTS
from analysis.output import evidence
from analysis.output.evidence import NONE, Part, Runs
from analysis.study import Study
from gpt3core.words import number_of, outside

GOOD, FAIR, POOR = range(3)
WORDS = ("good", "fair", "poor")
LEVEL = 0.95
# Median misses at the target's distance: on public ladders they are 0.5 to 2.3% (docs/analysis.md), and a decade of
# compute lowers their losses by a tenth: who misses by as much foresees no better than who says that nothing changes.
FAIR_MISS, POOR_MISS = 0.03, 0.10
# Shares of held-out runs inside their 95% intervals: of public ladders PUBLIC is the lowest (docs/analysis.md), and
# good needs as many, so many that intervals which hold half of the time rise to it by less than the chance SURE: five
# of five. Intervals that hold half of the time or less tell nothing, so that is poor; so is a share under HELD that
# intervals of 95% fall to by less than SURE. Between PUBLIC and HELD it is fair of however many runs.
PUBLIC, HELD, HALF, SURE = 0.85, 0.8, 0.5, 0.05
WANTED = math.ceil(math.log(SURE) / math.log(HALF))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that the backtests show."""

    grade: int
    said: list[Part]  # where it does not make the word
    because: list[Part]  # where it does


def trust(study: Study) -> list[Part]:
    """A word, and what it rests on."""
    weighting = study.weighting
    if weighting is None:
        return _of_scores(study)
    if not weighting.calibration.supported:
        return [(f"none: {weighting.calibration.reason}", evidence.of_prediction(study, optimal=study.of_optima))]
    if study.explained is not None and not study.explained.told:
        return [
            ("none: the laws follow these losses no better than they would follow noise (F test, p = ", NONE),
            (f"{study.explained.chance:.2g}", evidence.of_fit(study)),
            ("); backtests that hold show only that the losses do not move", NONE),
        ]
    found = list(_findings(study))
    worst = max(finding.grade for finding in found)
    of = "" if study.predictions or study.predicted_points else " for runs of given N and D"
    reasons = [finding.because for finding in found if finding.grade == worst > GOOD]
    others = [finding.said for finding in found if finding.grade < worst or worst == GOOD]
    because = [(", because ", NONE), *_listed(reasons, " and ")] if reasons else []
    return [(f"{WORDS[worst]}{of}", NONE), *because, *([(": ", NONE)] if others else []), *_listed(others, ", ")]


def _listed(clauses: list[list[Part]], last: str) -> list[Part]:
    """Clauses one after the other.

    Args:
        last: what stands before the last one.
    """
    between = ["", *[", "] * (len(clauses) - 2), last]
    return [part for before, clause in zip(between, clauses, strict=False) for part in [(before, NONE), *clause]]


def _of_scores(study: Study) -> list[Part]:
    """Of scores by compute alone."""
    told = [a for a in study.score_forecasts if a.accuracy is not None]
    if not told:
        return []
    farthest = math.log10(max(a.compute for a in told) / float(study.table.C.max()))
    return [
        ("none: no score was held out; the intervals are of trends through all runs, carried on by ", NONE),
        (f"{max(0.0, farthest):.1f} decades", evidence.of_fit(study)),
    ]


def _findings(study: Study) -> Iterator[Finding]:
    asked = [*study.predictions, *study.predicted_points]
    assert study.weighting is not None
    calibration, fitted = study.weighting.calibration, evidence.of_prediction(study, optimal=study.of_optima)
    counted: Part = (number_of(calibration.cuts, "backtest"), fitted)
    wanted = f" could be made ({THIN_CUTS} are wanted: more budgets give more)"
    few = [("only ", NONE), counted, (wanted, NONE)]
    yield Finding(grade=POOR if calibration.cuts < THIN_CUTS else GOOD, said=[counted], because=few)
    asked_at = [printed(p.decades) for p in asked]
    decades = max(asked_at, default=0.0, key=abs)
    yield _reach(study, decades, fitted, several=len(asked) > 1)
    if any(at < 0 for at in asked_at):
        below: list[Part] = [("below the data nothing was held out", NONE)]
        yield Finding(grade=FAIR, said=below, because=below)
    if any(p.interval_new_run is None for p in asked):
        unknown: list[Part] = [("there is no interval for a new run", NONE)]
        yield Finding(grade=POOR, said=unknown, because=unknown)
    yield from _held_out(study, abs(decades))


def _reach(study: Study, decades: float, fitted: Runs, *, several: bool) -> Finding:
    """How many backtests reach as far as the target, by what is printed: of fewer in all another finding speaks.

    Args:
        decades: of the farthest target from the data; negative: below them.
        fitted: what the prediction rests on.
        several: whether there are other targets.
    """
    reached = [printed(farthest) for farthest in study.tested.groupby("fitted_to").decades.max()]
    many = sum(farthest >= abs(decades) for farthest in reached)
    reach = f"{number_of(many, 'backtest')} {'reaches' if many == 1 else 'reach'} as far"
    why = f"and only {reach} ({THIN_CUTS} are wanted)" if many else f"farther than any backtest ({max(reached):.1f})"
    target = f"the {'farthest ' if several else ''}target lies {outside(decades)} the data"
    return Finding(
        grade=POOR if many < THIN_CUTS <= len(reached) else GOOD,
        said=[(f"none beyond {max(reached):.1f} decades", fitted)],
        because=[(f"{target}, {why}", fitted)],
    )


def _held_out(study: Study, decades: float) -> Iterator[Finding]:
    """How far held-out runs were missed at the target's distance, and how many lay inside their intervals.

    Args:
        decades: of the target from the data; where no backtest reaches as far, the farthest ones count.
    """
    rows, bins = study.tested, backtest.bins(study.tested)
    beyond = decades > printed(rows.decades.max())
    at = bins.max() if beyond else bins[bins >= min(bins.max(), backtest.edge(decades))].min()
    where = "at the farthest" if beyond else "at the target's distance"
    miss, behind = printed(np.expm1(rows.miss[bins == at].abs().median()), 3), evidence.of_backtests(study, at)
    yield Finding(
        grade=POOR if miss > POOR_MISS else FAIR if miss > FAIR_MISS else GOOD,
        said=[(f"median miss {miss:.1%} {where}", behind)],
        because=[(f"the median miss {where} was {miss:.1%}", behind)],
    )
    (share, runs), (far_share, far_runs) = held_share(rows), held_share(rows[bins >= at])
    if not runs:
        return
    share, far_share = printed(share, 2), printed(far_share, 2)
    what = number_of(runs, "held-out budget" if rows.optimal.all() else "held-out run")
    every = evidence.of_backtests(study, *np.unique(bins))
    inside, grade = f"{share:.0%} of {what}", grade_of_share(share, runs)
    intervals = f"inside their {LEVEL:.0%} intervals"
    because: list[Part] = [(f"only {inside}", every), (f" lay {intervals}", NONE)]
    if share >= PUBLIC and runs < WANTED:
        because = [
            (f"only {what}", every),
            (f" could be predicted ({WANTED} are wanted to show that intervals hold)", NONE),
        ]
    yield Finding(grade=grade, said=[(inside, every), (f" {intervals}", NONE)], because=because)
    if far_runs and (worse := grade_of_share(far_share, far_runs)) > grade and far_share < PUBLIC:
        those = evidence.of_backtests(study, *np.unique(bins[bins >= at]))
        far: list[Part] = [(f"{far_share:.0%}", those), (f" of those {where}{'' if beyond else ' or farther'}", NONE)]
        yield Finding(grade=worse, said=far, because=[("only ", NONE), *far, (f" lay {intervals}", NONE)])


def printed(value: float, digits: int = 1) -> float:
    """A number as it is printed: what is judged is what the reader sees."""
    return float(f"{value:.{digits}f}")


def held_share(rows: pd.DataFrame) -> tuple[float, int]:
    """The share of predictions whose interval held what was measured, and of how many different runs they were.

    Args:
        rows: of ``backtest.judged``; those without an interval do not count.
    """
    inside = backtest.held(rows, (LEVEL,))[:, 0]
    known = np.isfinite(inside)
    return (float(inside[known].mean()) if known.any() else math.nan), int(rows.run_id[known].nunique())


def grade_of_share(share: float, runs: int) -> int:
    """What a share of held-out runs inside their intervals is worth.

    Args:
        runs: different ones: a run that several cuts predict counts once, for they miss it alike.
    """
    if share <= HALF or (share < HELD and at_most(share, runs, LEVEL) < SURE):
        return POOR
    return GOOD if share >= PUBLIC and at_most(1 - share, runs, HALF) < SURE else FAIR


def at_most(share: float, runs: int, level: float) -> float:
    """The chance that no larger share of runs lies inside intervals of a level: the binomial's, between counts too."""
    inside = share * runs
    return float(special.betainc(runs - inside, inside + 1, 1 - level)) if inside < runs else 1.0
