"""What a reader must know beside the numbers; every note has a code for scripts, and the runs that it speaks of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.estimation import isoflop, optimal_size, predict, training_curves
from analysis.estimation.backtest import THIN_CUTS
from analysis.estimation.predict import Prediction
from analysis.estimation.solve import FitStatus
from analysis.note import Note
from analysis.output import evidence, run_notes
from analysis.runs.conventions import UNRECORDED, Parameters, counts
from analysis.study import Study
from gpt3core.words import Symbols, between, count, flops, number_of, some

MAIN_LAWS = ("chinchilla", "compute_frontier")  # the others are fitted for whoever looks for them
INFLATED = 1.1  # times: intervals of N* that are widened by more are pointed out
BIASED = 0.05  # ln N*: a parabola off by more than this is said to be biased
SPREAD = 0.01  # relative: fits that differ by more at a target are pointed out
MOVES = 0.01  # relative: something whose absence moves the prediction by more is pointed out
MOSTLY = 0.5  # of the runs
EXPLAINED = 0.5  # of the spread of ln loss: laws that explain less do not show that the loss depends on scale
FEW_STARTS = 0.2  # share of starts at the optimum under which a fit is called fragile


def notes(study: Study) -> list[Note]:
    """All notes of a study, in the order of its parts."""
    parts = (_rules, _isoflop, _scaling, _fits, _fixed, _predictions, run_notes.of_scores, run_notes.of_training)
    return [*study.runs.notes, *(note for part in parts for note in part(study))]


def _rules(study: Study) -> Iterator[Note]:
    for rule in study.rules:
        if rule.excluded:
            message = f"{number_of(len(rule.excluded), 'run')}: {rule.meaning}: {some(rule.excluded)}"
            yield Note(code=f"rule-{rule.name}", severity="info", message=message, runs=evidence.runs(rule.excluded))
        if rule.name == "worse-than-smaller" and len(rule.excluded) > MOSTLY * len(study.everything):
            message = (
                f"{len(rule.excluded)} of {len(study.everything)} runs are worse than a run with no more parameters "
                "and no more tokens, and are left out: most are badly tuned, or the loss is another column"
            )
            yield Note(code="mostly-worse", severity="warning", message=message, runs=evidence.runs(rule.excluded))
    if study.rules_off:
        would = [f"{r.name} would take out {len(r.would_exclude)}" for r in study.rules if r.would_exclude]
        message = "; ".join([f"rules that are off (rules=): {', '.join(study.rules_off)}", *would])
        out = evidence.runs(run for r in study.rules for run in r.would_exclude)
        yield Note(code="rules-off", severity="info", message=message, runs=out)
    if not study.runs.store and study.convention.n is not Parameters.GIVEN and "N" in counts(study.runs.table):
        message = f"the table has an N of its own beside the {study.convention.n} count fitted to: N=given takes it"
        yield Note(code="other-count", severity="info", message=message)
    for name in ("N_total", "N_nonembedding"):
        table = study.runs.table
        if name in table and len(lacking := table.run_id[table[name].isna()]):
            message = f"{name} is missing in {len(lacking)} rows: that count of parameters is left out"
            yield Note(code="count-incomplete", severity="info", message=message, runs=evidence.runs(lacking))
    if UNRECORDED in study.runs.table:
        yield Note(code="compute-6nd", severity="info", message="C is 6ND: the table has no column of compute")


def _isoflop(study: Study) -> Iterator[Note]:
    if study.table.loss.isna().all():
        return
    minima = study.minima
    by_chance = [] if minima.parabolas else isoflop.equal_compute(study.table)
    if by_chance:
        message = (
            f"{sum(map(len, by_chance))} of {len(study.table)} runs lie in {len(by_chance)} groups of equal compute: "
            "an accident and no budgets, so there is no approach 2; a column budget_flops says which runs are one"
        )
        grouped = evidence.runs(run for group in by_chance for run in group.run_id)
        yield Note(code="no-budgets", severity="info", message=message, runs=grouped)
    for p, implied in zip(minima.parabolas, study.implied, strict=True):
        if p.far:
            message = (
                f"C={flops(p.budget)}: {number_of(len(p.far), 'run')} over {isoflop.NEAR:.0%} above the best left out "
                f"of the parabola: {', '.join(p.far)}"
            )
            yield Note(code="rule-near", severity="info", message=message, runs=evidence.runs(p.far))
        if not p.ok:
            message = f"C={flops(p.budget)}: {p.reason}"
            yield Note(code="no-minimum", severity="warning", message=message, runs=evidence.of_budgets([p]))
        elif implied is not None and abs(implied.bias) > BIASED:
            message = (
                f"C={flops(p.budget)}: a parabola through L(N,D)'s own losses at these sizes puts N* "
                f"{np.expm1(implied.bias):+.0%} off the law's minimum: trust the parametric minimum more, or run sizes "
                f"centred on it"
            )
            yield Note(code="parabola-biased", severity="warning", message=message, runs=evidence.of_budgets([p]))
    yield from _training_curves(study)
    yield from _which_exponent(study)
    if minima.unsure:
        listed = ", ".join(flops(p.budget) for p in minima.unsure)
        left = "" if minima.trusted else ": N* is read off the laws of N and D instead"
        message = (
            f"the runs at C={listed} do not tell where their minimum lies, to within a factor "
            f"{np.exp(isoflop.MOST_DOUBT):.1f}{left}; run more sizes there, or farther out"
        )
        yield Note(code="minimum-unsure", severity="warning", message=message, runs=evidence.of_budgets(minima.unsure))
    if minima.family is not None and minima.family.inflation > INFLATED:
        missed = int((~minima.held_out.covered95.astype(bool)).sum())
        message = (
            f"{missed} of {len(minima.held_out)} minima of higher budgets lie outside what the lower ones said of "
            f"them: intervals of N* are widened {minima.family.inflation:.1f} times"
        )
        yield Note(code="n-star-held-out", severity="info", message=message, runs=evidence.of_budgets(minima.used))


def _training_curves(study: Study) -> Iterator[Note]:
    """What approach 1 rests on."""
    found = study.training_curves
    if found is None or found.reason:
        return
    by = (
        f"brought to the end of a schedule of their own (by up to {found.correction:.1%}) by {found.pairs} pairs of "
        "runs of one size"
        if found.pairs >= training_curves.LEAST_PAIRS
        else f"of the ends of schedules alone: {found.pairs} pairs of runs of one size and two lengths tell what a "
        f"schedule's end brings, {training_curves.LEAST_PAIRS} are needed"
    )
    message = (
        f"approach 1 takes the lowest of the training curves of {len(found.runs)} runs at every compute, smoothed, set "
        f"to end at the held-out losses, and {by}"
    )
    if found.repeated or found.without:
        message += f"; left out: {len(found.repeated)} that saw text twice, {len(found.without)} without a curve"
    yield Note(code="training-curves", severity="info", message=message, runs=evidence.runs(found.runs))


def _which_exponent(study: Study) -> Iterator[Note]:
    """One line: which of the three approaches to use, and why."""
    advice = study.advice
    if advice.approach:
        message = f"of Chinchilla's approaches to N* ~ C^a use a = {advice.a:.2f} ({advice.approach}): {advice.reason}"
        behind = evidence.of_approach(study, advice.approach)
        yield Note(code="which-exponent", severity="info", message=message, runs=behind)
    elif advice.reason and len(study.table):
        message = f"none of Chinchilla's approaches to N* ~ C^a is to be used: {advice.reason}"
        yield Note(code="which-exponent", severity="info", message=message)


def _scaling(study: Study) -> Iterator[Note]:
    """Losses that differ as much around the laws as they do at all."""
    if study.ensemble is None or study.options.law not in ("all", "chinchilla"):  # others may be too simple
        return
    found = study.explained
    if found is not None and found.left > (1 - EXPLAINED) * found.spread:
        message = (
            f"the runs scatter around the laws by {found.left:.2%} of the loss, and differ by {found.spread:.2%} at "
            "all: they show little or no dependence on scale; is it the loss of these runs, and is their range wide "
            "enough?"
        )
        yield Note(code="no-scaling", severity="warning", message=message, runs=evidence.of_fit(study))


def _fits(study: Study) -> Iterator[Note]:
    for law in study.laws.values():
        fit = law.fit
        if fit.status in (FitStatus.ILL_DETERMINED, FitStatus.NOT_CONVERGED, FitStatus.UNTESTED):
            message = f"{fit.law.equation} is {fit.status.value}: {fit.reason}"
            severity = "warning" if fit.law.name in (*MAIN_LAWS, study.options.law) else "info"
            code = f"fit-{fit.status.name.lower().replace('_', '-')}"
            yield Note(code=code, severity=severity, message=Symbols(message), runs=evidence.of_law(study, law))
        elif fit.status is FitStatus.NOT_APPLICABLE and study.options.law == fit.law.name and study.ensemble:
            message = f"the parameters of law={fit.law.name} are not told, only what it predicts: {fit.reason}"
            yield Note(
                code="fit-not-applicable",
                severity="warning",
                message=Symbols(message),
                runs=evidence.of_law(study, law),
            )
        elif fit.status is FitStatus.OK and fit.share_at_optimum < FEW_STARTS:
            message = f"{fit.law.equation}: {fit.share_at_optimum:.0%} of the starts found the optimum"
            yield Note(
                code="fragile-optimum", severity="info", message=Symbols(message), runs=evidence.of_law(study, law)
            )


def _fixed(study: Study) -> Iterator[Note]:
    if study.fixed is None:
        return
    cost = study.fixed
    said = "no cut leaves enough runs to backtest what fixing costs"
    if cost.cuts:
        said = f"in {cost.cuts} backtests the law misses by {cost.fixed:.2%} in the mean, and by {cost.free:.2%} with"
        said += " free exponents"
    message = f"{study.options.joint.equation}: {said}"
    yield Note(code="fixed-exponents", severity="info", message=Symbols(message), runs=evidence.of_fit(study))


def _predictions(study: Study) -> Iterator[Note]:
    if study.ensemble is None and study.table.loss.isna().all() and len(study.table):
        message = "the runs have no loss: accuracies are held against compute alone, and no law of the loss is fitted"
        yield Note(code="no-loss", severity="info", message=message)
        return
    if study.ensemble is None:
        message = Symbols(_why_nothing(study))
        yield Note(code="no-prediction", severity="warning", message=message, runs=evidence.of_fit(study))
        return
    if study.without_optimum:
        message = optimal_size.unanswered(study.ensemble, study.without_optimum)
        behind = evidence.of_prediction(study, optimal=True)
        yield Note(code="no-optimum", severity="warning", message=message, runs=behind)
    everywhere = [*study.predictions, *study.predicted_points]
    yield from _size_not_told(study, everywhere)
    yield from _few_points(study, everywhere)
    yield from _models(study)
    if everywhere:
        assert study.weighting is not None
        calibration = study.weighting.calibration
        yield Note(
            code="thin-calibration" if calibration.supported else "no-calibration",
            severity="info" if calibration.cuts >= THIN_CUTS else "warning",
            message=calibration.reason,
            runs=evidence.of_prediction(study, optimal=study.of_optima),
        )
        yield from _informed(study, everywhere)
    for p in study.predictions:
        low, high = p.spread
        if high / low - 1 > SPREAD:
            message = (
                f"C={p.compute:.3g}: the fits that hold {predict.HEAVY:.0%} of the weight differ by "
                f"{high / low - 1:.1%} there ({between(p.spread)})"
            )
            behind = evidence.of_prediction(study, optimal=p.optimal)
            yield Note(code="fits-differ", severity="info", message=message, runs=behind)
    for i in [i for i in study.influences if abs(i.loss_change) > MOVES][:3]:
        message = f"without {i.left_out} the prediction at the first target moves by {i.loss_change:+.1%}" + (
            f", its N* by {i.n_star_change:+.0%}" if np.isfinite(i.n_star_change) else ""
        )
        yield Note(code="influential", severity="warning", message=message, runs=evidence.runs(i.run_ids))


def _size_not_told(study: Study, everywhere: list[Prediction]) -> Iterator[Note]:
    """Best sizes whose ratio of tokens to parameters no run is near, by laws alone."""
    run = study.table.D / study.table.N
    ratios = {f"{p.compute:.3g}": p.unmeasured for p in everywhere if p.optimal and p.unmeasured is not None}
    if ratios:
        message = (
            f"C={some(list(ratios))}: nearest to the runs the laws have their best size at "
            f"{next(iter(ratios.values())):.2g} tokens per parameter, and the runs have {run.min():.3g} to "
            f"{run.max():.3g}: the size is the laws' form and not measured, and has no interval; run sizes on both "
            "sides of the best"
        )
        yield Note(code="size-not-told", severity="warning", message=message, runs=evidence.of_fit(study))


def _few_points(study: Study, everywhere: list[Prediction]) -> Iterator[Note]:
    """Intervals that are withheld for want of points."""
    ensemble = study.ensemble
    if ensemble is not None and everywhere and predict.few_points(ensemble):
        points = number_of(predict.count_points(ensemble), "point")
        message = (
            f"the runs are of {points} of N and D (seeds of one are no more), hardly more than a law has parameters: "
            f"the mean law and the best size have no interval; {predict.least_points(ensemble)} points are needed"
        )
        yield Note(code="few-points", severity="warning", message=message, runs=evidence.of_fit(study))


def _why_nothing(study: Study) -> str:
    """Why no law predicts."""
    law = study.laws.get(study.options.law)
    if law is None:
        runs, least = len(study.table), study.options.joint.dimension + 1
        few = f" to {number_of(runs, 'run')}: {least} are the least" if runs < least else ""
        return f"nothing can be predicted: no law of N and D, and none of C with budgets, could be fitted{few}"
    said, needs = f"law={study.options.law} predicts nothing", set(law.fit.law.needs)
    if law.fit.theta is None:
        return f"{said}, {law.fit.status.value}: {law.fit.reason}; law=all predicts by the others"
    if not needs <= {"N", "D", "U", "C"}:
        return f"{said}: it is one of {' and '.join(sorted(needs))}, which a point of N, D and C does not say"
    if needs == {"C"} and not study.minima.trusted:
        return (
            f"{said}: it is a law of the best runs of budgets, and here are no budgets whose minima can be trusted; "
            "law=all predicts by laws of N and D"
        )
    return f"{said}: {law.fit.reason or 'the loss does not fall with scale by it'}"


def _models(study: Study) -> Iterator[Note]:
    """How a published model is counted, and one that is not predicted itself."""
    own = {p.name for p in study.predictions if p.name and not p.optimal}
    for model in study.options.models:
        if model.name not in own:
            message = f"law={study.options.law} is of compute alone: {model.name} itself, its N and D, is not predicted"
            yield Note(code="target-not-predicted", severity="warning", message=message)
        elif study.convention.n is Parameters.GIVEN:
            message = (
                f"N of {model.name} is its {count(model.n)} parameters in total, and the table does not say what its N "
                "counts: N=total or N=nonembedding says it"
            )
            yield Note(code="target-count", severity="warning", message=message)


def _informed(study: Study, predictions: list[Prediction]) -> Iterator[Note]:
    """What runs along one line of ln N and ln D, or of one compute, say, and what they do not."""
    ensemble = study.ensemble
    assert ensemble is not None
    if ensemble.missing is not None and study.predictions and not study.minima.trusted:
        message = (
            "the runs vary along one line of ln N and ln D only, so that no size is known to be best: predictions at a "
            "compute continue that line, and exponents of L(N,D) mean nothing; run other ratios D/N too"
        )
        yield Note(code="one-line", severity="warning", message=message, runs=evidence.of_fit(study))
    told = ensemble.informed(pd.DataFrame([{"N": p.n, "D": p.d, "C": p.compute} for p in predictions]))
    outside = [f"N={p.n:.3g} D={p.d:.3g}" for p, known in zip(predictions, told, strict=True) if not known]
    if outside:
        line = "the runs vary along one line of ln N and ln D only and"
        why = optimal_size.ONE_COMPUTE if ensemble.of_one_compute else line
        message = (
            f"{why} tell nothing of {', '.join(outside[:5])}: "
            "no interval of a new run there, and the prediction rests on the form of the laws alone"
        )
        yield Note(code="off-line", severity="warning", message=message, runs=evidence.of_fit(study))
