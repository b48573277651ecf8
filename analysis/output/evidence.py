"""Which runs the numbers of a study rest on: of the answer's sentences, and of the cells of its tables.

A number that does not say of itself which runs these are (a nominal level, a count of budgets, advice) rests on none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from analysis.accuracy.trends import Accuracy
from analysis.estimation import backtest, ensemble, fitted_laws
from analysis.estimation.approaches import CURVES, ENVELOPE, PARABOLAS, PARAMETRIC
from analysis.estimation.choices import Choice
from analysis.estimation.exponents import Exponents
from analysis.estimation.fitted_laws import FittedLaw
from analysis.estimation.isoflop import Parabola
from analysis.estimation.predict import Prediction
from analysis.laws import Law
from analysis.output.texts import shared
from analysis.study import Study

Runs = tuple[str, ...]  # ids, in order, each once
Part = tuple[str, Runs]  # words of a sentence or of a cell, and the runs that the numbers in them rest on
NONE: Runs = ()
NEAR = "near"  # the rule of parabolas alone


def runs(ids: Iterable[str]) -> Runs:
    """Names of runs as evidence; many sets are of the same runs, and share their names."""
    return tuple(sorted(set(shared(map(str, ids)))))


def words(parts: Iterable[Part]) -> str:
    """The sentence that parts make."""
    return "".join(said for said, _ in parts)


def of_fit(study: Study) -> Runs:
    """All that was fitted: the runs that passed the rules."""
    return runs(study.table.run_id)


def of_law(study: Study, law: FittedLaw) -> Runs:
    """Those that a law's parameters were fitted to."""
    return _of_law(study, law.fit.law)


def of_approach(study: Study, approach: str) -> Runs:
    """Those that an approach's exponent of N* ~ C^a was fitted to."""
    if approach == CURVES and study.training_curves is not None:
        return runs(study.training_curves.runs)
    if approach == ENVELOPE:
        return runs(study.envelope.points.run_id)
    if approach == PARABOLAS:
        return of_budgets(study.minima.used)
    joint = study.laws.get("chinchilla") if approach == PARAMETRIC else None
    return NONE if joint is None else of_law(study, joint)


def of_budgets(budgets: Iterable[Parabola]) -> Runs:
    """Those of their parabolas."""
    return runs(run for p in budgets for run in p.run_ids)


def of_exponents(study: Study, found: Exponents) -> tuple[Runs, Runs, Runs]:
    """Those behind the exponents of a convention: of N* by IsoFLOP, of N* by L(N,D), and of L*."""
    budgets = of_budgets(p for p, ok in zip(study.minima.parabolas, found.used, strict=True) if ok)
    return budgets, _of_law(study, study.options.joint), runs(found.best) or budgets


def of_prediction(study: Study, *, optimal: bool) -> Runs:
    """Those that the fits behind a prediction were fitted to, as far as these have a weight in it.

    Args:
        optimal: of a compute-optimal run, not of one of any N and D.
    """
    if study.ensemble is None:
        return NONE
    weights = (study.ensemble.optimal if optimal else study.ensemble.anywhere).weights
    heavy = [choice for choice, weight in zip(study.ensemble.choices, weights, strict=True) if weight > 0]
    return of_choices(study, heavy)


def of_scores(study: Study, task: str, shots: int) -> Runs:
    """Those that were asked the questions of a task."""
    return runs(run for t in study.trends if (t.task, t.shots) == (task, shots) for run in t.run_ids)


def of_accuracy(study: Study, found: Accuracy, through: Prediction | None) -> Runs:
    """Those that were asked, and those behind the loss that a predicted score goes through."""
    asked = of_scores(study, found.task, found.shots)
    return asked if through is None else runs([*asked, *of_prediction(study, optimal=through.optimal)])


def of_gain(study: Study, task: str, shots: int) -> Runs:
    """Those that answered a task with so many examples and with none."""
    evals = study.runs.evals
    known = evals[(evals.task == task) & evals.fits.astype(bool) & evals.run_id.isin(study.table.run_id)]
    return runs(set(known.run_id[known.shots == shots]) & set(known.run_id[known.shots == 0]))


def of_backtests(study: Study, *distances: float) -> Runs:
    """Those that were predicted from so far off; of the minimum of a budget its runs.

    Args:
        distances: of ``backtest.bins``.
    """
    there = study.tested.run_id[np.isin(backtest.bins(study.tested), distances)]
    minima = {ensemble.minimum_name(p.budget): p.run_ids for p in study.minima.parabolas}
    return runs(run for name in there for run in minima.get(name, (name,)))


def of_rule(study: Study, rule: str) -> Runs:
    """Those that it took out."""
    out = [run for r in study.rules if r.name == rule for run in r.excluded]
    far = [run for p in study.minima.parabolas for run in p.far] if rule == NEAR and NEAR not in study.rules_off else []
    return runs([*out, *far])


def of_choices(study: Study, choices: Sequence[Choice]) -> Runs:
    """Those that some of the ensemble's fits were fitted to."""
    assert study.ensemble is not None
    table = study.ensemble.runs
    taken = np.zeros(len(table), bool)
    for choice in choices:
        if not choice.frontier:
            taken |= choice.takes(table)
    through = of_budgets(study.minima.used) if any(choice.frontier for choice in choices) else NONE
    return runs([*table.run_id[taken], *through])


def _of_law(study: Study, law: Law) -> Runs:
    seen = fitted_laws.observe(law, study.table, study.minima, study.options.rho)
    if isinstance(seen, str):
        return NONE
    return of_budgets(study.minima.used) if seen.runs is None else runs(seen.runs.run_id)
