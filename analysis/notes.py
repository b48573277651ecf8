"""What a reader must know beside the numbers; every note has a code for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from analysis import isoflop
from analysis.backtest import THIN_CUTS
from analysis.solve import FitStatus
from analysis.study import Study

MAIN_LAWS = ("chinchilla", "compute_frontier")  # the others are fitted for whoever looks for them
MOST_DRAWS = 0.9
BIASED = 0.05  # ln N*: a parabola off by more than this is said to be biased
SPREAD = 0.01  # relative: choices that differ by more at a target are pointed out
MOVES = 0.01  # relative: something whose absence moves the prediction by more is pointed out
FEW_STARTS = 0.2  # share of starts at the optimum under which a fit is called fragile


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something a reader must know."""

    code: str
    severity: str  # info | warning
    message: str


def notes(study: Study) -> list[Note]:
    """All notes of a study, in the order of its parts."""
    return [*_rules(study), *_isoflop(study), *_fits(study), *_predictions(study), *_runs(study)]


def _rules(study: Study) -> Iterator[Note]:
    for rule in study.rules:
        if rule.excluded:
            message = f"{len(rule.excluded)} runs: {rule.meaning}: {', '.join(rule.excluded)}"
            yield Note(code=f"rule-{rule.name}", severity="info", message=message)
    if not study.runs.store and study.table.C.equals(6 * study.table.N * study.table.D):
        yield Note(code="compute-6nd", severity="info", message="C is 6ND: the table has no column of compute")


def _isoflop(study: Study) -> Iterator[Note]:
    minima = study.minima
    for p, implied in zip(minima.parabolas, study.implied, strict=True):
        if p.far:
            message = (
                f"C={p.budget:.3g}: {len(p.far)} runs more than {isoflop.NEAR:.0%} above the best stay out of the "
                f"parabola: {', '.join(p.far)}"
            )
            yield Note(code="rule-near", severity="info", message=message)
        if not p.ok:
            yield Note(code="no-minimum", severity="warning", message=f"C={p.budget:.3g}: {p.reason}")
        elif implied is not None and abs(implied.bias) > BIASED:
            message = (
                f"C={p.budget:.3g}: a parabola through L(N,D)'s own losses at these sizes puts N* "
                f"{np.expm1(implied.bias):+.0%} off the law's minimum: trust the parametric minimum more, or run sizes "
                f"centred on it"
            )
            yield Note(code="parabola-biased", severity="warning", message=message)
    kept = 0 if minima.draws is None else len(minima.draws)
    if minima.asked and kept < MOST_DRAWS * minima.asked:
        message = (
            f"{minima.asked - kept} of {minima.asked} bootstrap draws had a budget without a minimum inside its sizes "
            "and are not in the intervals of the frontier and of N*: they are too narrow; run sizes farther out"
        )
        yield Note(code="draws-without-minimum", severity="warning", message=message)


def _fits(study: Study) -> Iterator[Note]:
    for law in study.laws.values():
        fit = law.fit
        if fit.status in (FitStatus.ILL_DETERMINED, FitStatus.NOT_CONVERGED):
            message = f"{fit.law.equation} is {fit.status.value}: {fit.reason}"
            severity = "warning" if fit.law.name in (*MAIN_LAWS, study.options.law) else "info"
            yield Note(code=f"fit-{fit.status.name.lower().replace('_', '-')}", severity=severity, message=message)
        elif fit.status is FitStatus.OK and fit.share_at_optimum < FEW_STARTS:
            message = f"{fit.law.equation}: {fit.share_at_optimum:.0%} of the starts found the optimum"
            yield Note(code="fragile-optimum", severity="info", message=message)


def _predictions(study: Study) -> Iterator[Note]:
    stack = study.stack
    if stack is None:
        asked = "" if study.options.law == "all" else f" by law={study.options.law}"
        message = f"nothing can be predicted{asked}: no law of N and D, and none of C with budgets, could be fitted"
        yield Note(code="no-prediction", severity="warning", message=message)
        return
    if not (study.predictions or study.predicted_points):
        return
    calibration = (stack.optimal if study.predictions else stack.anywhere).calibration
    supported = calibration.supported
    yield Note(
        code="thin-calibration" if supported else "no-calibration",
        severity="info" if calibration.cuts >= THIN_CUTS else "warning",
        message=calibration.reason,
    )
    everywhere = [*study.predictions, *study.predicted_points]
    untold = [f"N={p.n:.3g} D={p.d:.3g}" for p in everywhere if supported and p.interval_new_run is None]
    if untold:
        message = (
            f"the runs vary along one line of ln N and ln D only and tell nothing of {', '.join(untold[:5])}: "
            "no interval of a new run there, and the prediction rests on the form of the laws alone"
        )
        yield Note(code="not-told", severity="warning", message=message)
    for p in study.predictions:
        low, high = p.spread
        if high / low - 1 > SPREAD:
            message = (
                f"C={p.compute:.3g}: the {len(p.by_choice)} fit choices differ by {high / low - 1:.1%} there "
                f"({low:.3f} to {high:.3f})"
            )
            yield Note(code="choices-differ", severity="info", message=message)
    moving = [i for i in study.influences if abs(i.loss_change) > MOVES]
    for i in moving[:3]:
        message = (
            f"without {i.left_out} L(N,D)'s prediction moves by {i.loss_change:+.1%}, its N* by {i.n_star_change:+.0%}"
        )
        yield Note(code="influential", severity="warning", message=message)


def _runs(study: Study) -> Iterator[Note]:
    repeated = study.table[study.table.epochs > 1]
    if len(repeated):
        listed = ", ".join(f"{r.run_id} {r.epochs:.2f}" for r in repeated.head(30).itertuples())
        more = "" if len(repeated) <= 30 else f" and {len(repeated) - 30} more"
        message = f"{len(repeated)} runs saw the text more than once (epochs): {listed}{more}"
        yield Note(code="repeated-data", severity="info", message=message)
    if study.runs.missing:
        listed = ", ".join(study.runs.missing)
        message = f"{len(study.runs.missing)} runs of the sweep have no result yet: {listed}"
        yield Note(code="unfinished", severity="warning", message=message)
