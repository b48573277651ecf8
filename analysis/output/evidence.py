"""Which runs the numbers of a study rest on: of the answer's sentences, and of the rows of its tables.

A number that does not say of itself which runs these are (a nominal level, a count of budgets, advice) rests on none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from analysis.estimation import backtest, ensemble, fitted_laws
from analysis.estimation.approaches import CURVES, ENVELOPE, PARABOLAS, PARAMETRIC
from analysis.estimation.choices import Choice
from analysis.estimation.fitted_laws import FittedLaw
from analysis.output.texts import shared
from analysis.study import Study

Runs = tuple[str, ...]  # ids, in order, each once
NONE: Runs = ()
NEAR = "near"  # the rule of parabolas alone


def runs(ids: Iterable[str]) -> Runs:
    """Names of runs as evidence; many sets are of the same runs, and share their names."""
    return tuple(sorted(set(shared(map(str, ids)))))


def of_fit(study: Study) -> Runs:
    """All that was fitted: the runs that passed the rules."""
    return runs(study.table.run_id)


def of_law(study: Study, law: FittedLaw) -> Runs:
    """Those that a law's parameters were fitted to."""
    seen = fitted_laws.observe(law.fit.law, study.table, study.minima, study.options.rho)
    if isinstance(seen, str):
        return NONE
    return _of_minima(study) if seen.runs is None else runs(seen.runs.run_id)


def of_approach(study: Study, approach: str) -> Runs:
    """Those that an approach's exponent of N* ~ C^a was fitted to."""
    if approach == CURVES and study.training_curves is not None:
        return runs(study.training_curves.runs)
    if approach == ENVELOPE:
        return runs(study.envelope.points.run_id)
    if approach == PARABOLAS:
        return _of_minima(study)
    joint = study.laws.get("chinchilla") if approach == PARAMETRIC else None
    return NONE if joint is None else of_law(study, joint)


def of_prediction(study: Study, *, optimal: bool) -> Runs:
    """Those that the fits behind a prediction were fitted to, as far as these have a weight in it.

    Args:
        optimal: of a compute-optimal run, not of one of any N and D.
    """
    if study.ensemble is None:
        return NONE
    weights = (study.ensemble.optimal if optimal else study.ensemble.anywhere).weights
    heavy = [choice for choice, weight in zip(study.ensemble.choices, weights, strict=True) if weight > 0]
    return _of_choices(study, heavy)


def of_scores(study: Study, task: str, shots: int) -> Runs:
    """Those that were asked the questions of a task."""
    return runs(run for t in study.trends if (t.task, t.shots) == (task, shots) for run in t.run_ids)


def of_row(study: Study, title: str, row: Sequence[str]) -> Runs:
    """Those that the numbers of a row of a table (``text.tables``) rest on."""
    first = row[0].removesuffix(" *")
    if title.startswith("Laws"):
        return next((of_law(study, law) for law in study.laws.values() if law.fit.law.equation == first), NONE)
    if title.startswith("N* ~"):
        return of_approach(study, first)
    if title.startswith("IsoFLOP minima"):
        return next((runs(p.run_ids) for p in study.minima.parabolas if f"{p.budget:.3g}" == first), NONE)
    if title.startswith("Predictions"):
        return of_prediction(study, optimal=first.startswith("best at C"))
    if title.startswith("Ensemble") and study.ensemble is not None:
        return _of_choices(study, [choice for choice in study.ensemble.choices if choice.name == first])
    if title.startswith("Backtests"):
        return of_backtests(study, first)
    if title.startswith("Influence"):
        return next((runs(i.run_ids) for i in study.influences if (i.left_out, i.kind) == (first, row[1])), NONE)
    if title.startswith("Rules"):
        return of_rule(study, first)
    return of_scores(study, first, int(row[1])) if title.startswith("Few-shot") else NONE


def of_backtests(study: Study, distance: str) -> Runs:
    """Those that were predicted from so far off; of the minimum of a budget its runs.

    Args:
        distance: as ``backtest.spelt`` has it.
    """
    weighting = study.weighting
    if weighting is None:
        return NONE
    rows = backtest.judged(weighting.tests, weighting.weights, weighting.calibration.noise)
    there = [backtest.spelt(decades) == distance for decades in backtest.bins(rows)]
    minima = {ensemble.minimum_name(p.budget): p.run_ids for p in study.minima.parabolas}
    return runs(run for name in rows.run_id[there] for run in minima.get(name, (name,)))


def of_rule(study: Study, rule: str) -> Runs:
    """Those that it took out."""
    out = [run for r in study.rules if r.name == rule for run in r.excluded]
    far = [run for p in study.minima.parabolas for run in p.far] if rule == NEAR and NEAR not in study.rules_off else []
    return runs([*out, *far])


def _of_minima(study: Study) -> Runs:
    return runs(run for p in study.minima.used for run in p.run_ids)


def _of_choices(study: Study, choices: Sequence[Choice]) -> Runs:
    assert study.ensemble is not None
    table = study.ensemble.runs
    taken = np.zeros(len(table), bool)
    for choice in choices:
        if not choice.frontier:
            taken |= choice.takes(table)
    through = _of_minima(study) if any(choice.frontier for choice in choices) else NONE
    return runs([*table.run_id[taken], *through])
