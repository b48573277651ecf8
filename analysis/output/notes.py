"""What a reader must know beside the numbers; every note has a code for scripts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.accuracy.trends import BELOW, MEAN, averaged
from analysis.estimation import isoflop, optimal_size, predict, training_curves
from analysis.estimation.backtest import THIN_CUTS
from analysis.estimation.ensemble import Ensemble
from analysis.estimation.predict import Prediction
from analysis.estimation.solve import FitStatus
from analysis.note import Note
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
    parts = (_rules, _isoflop, _scaling, _fits, _fixed, _predictions, _scores, _runs)
    return [*study.runs.notes, *(note for part in parts for note in part(study))]


def _rules(study: Study) -> Iterator[Note]:
    for rule in study.rules:
        if rule.excluded:
            message = f"{number_of(len(rule.excluded), 'run')}: {rule.meaning}: {some(rule.excluded)}"
            yield Note(code=f"rule-{rule.name}", severity="info", message=message)
        if rule.name == "worse-than-smaller" and len(rule.excluded) > MOSTLY * len(study.everything):
            message = (
                f"{len(rule.excluded)} of {len(study.everything)} runs are worse than a run with no more parameters "
                "and no more tokens, and are left out: most are badly tuned, or the loss is another column"
            )
            yield Note(code="mostly-worse", severity="warning", message=message)
    if study.rules_off:
        would = [f"{r.name} would take out {len(r.would_exclude)}" for r in study.rules if r.would_exclude]
        message = "; ".join([f"rules that are off (rules=): {', '.join(study.rules_off)}", *would])
        yield Note(code="rules-off", severity="info", message=message)
    if not study.runs.store and study.convention.n is not Parameters.GIVEN and "N" in counts(study.runs.table):
        message = f"the table has an N of its own beside the {study.convention.n} count fitted to: N=given takes it"
        yield Note(code="other-count", severity="info", message=message)
    for name in ("N_total", "N_nonembedding"):
        if name in study.runs.table and (lacking := int(study.runs.table[name].isna().sum())):
            message = f"{name} is missing in {lacking} rows: that count of parameters is left out"
            yield Note(code="count-incomplete", severity="info", message=message)
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
        yield Note(code="no-budgets", severity="info", message=message)
    for p, implied in zip(minima.parabolas, study.implied, strict=True):
        if p.far:
            message = (
                f"C={flops(p.budget)}: {number_of(len(p.far), 'run')} over {isoflop.NEAR:.0%} above the best left out "
                f"of the parabola: {', '.join(p.far)}"
            )
            yield Note(code="rule-near", severity="info", message=message)
        if not p.ok:
            yield Note(code="no-minimum", severity="warning", message=f"C={flops(p.budget)}: {p.reason}")
        elif implied is not None and abs(implied.bias) > BIASED:
            message = (
                f"C={flops(p.budget)}: a parabola through L(N,D)'s own losses at these sizes puts N* "
                f"{np.expm1(implied.bias):+.0%} off the law's minimum: trust the parametric minimum more, or run sizes "
                f"centred on it"
            )
            yield Note(code="parabola-biased", severity="warning", message=message)
    yield from _training_curves(study)
    yield from _which_exponent(study)
    if minima.unsure:
        listed = ", ".join(flops(p.budget) for p in minima.unsure)
        left = "" if minima.trusted else ": N* is read off the laws of N and D instead"
        message = (
            f"the runs at C={listed} do not tell where their minimum lies, to within a factor "
            f"{np.exp(isoflop.MOST_DOUBT):.1f}{left}; run more sizes there, or farther out"
        )
        yield Note(code="minimum-unsure", severity="warning", message=message)
    if minima.family is not None and minima.family.inflation > INFLATED:
        missed = int((~minima.held_out.covered95.astype(bool)).sum())
        message = (
            f"{missed} of {len(minima.held_out)} minima of higher budgets lie outside what the lower ones said of "
            f"them: intervals of N* are widened {minima.family.inflation:.1f} times"
        )
        yield Note(code="n-star-held-out", severity="info", message=message)


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
    yield Note(code="training-curves", severity="info", message=message)


def _which_exponent(study: Study) -> Iterator[Note]:
    """One line: which of the three approaches to use, and why."""
    advice = study.advice
    if advice.approach:
        message = f"of Chinchilla's approaches to N* ~ C^a use a = {advice.a:.2f} ({advice.approach}): {advice.reason}"
        yield Note(code="which-exponent", severity="info", message=message)
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
        yield Note(code="no-scaling", severity="warning", message=message)


def _fits(study: Study) -> Iterator[Note]:
    for law in study.laws.values():
        fit = law.fit
        if fit.status in (FitStatus.ILL_DETERMINED, FitStatus.NOT_CONVERGED, FitStatus.UNTESTED):
            message = f"{fit.law.equation} is {fit.status.value}: {fit.reason}"
            severity = "warning" if fit.law.name in (*MAIN_LAWS, study.options.law) else "info"
            code = f"fit-{fit.status.name.lower().replace('_', '-')}"
            yield Note(code=code, severity=severity, message=Symbols(message))
        elif fit.status is FitStatus.NOT_APPLICABLE and study.options.law == fit.law.name and study.ensemble:
            message = f"the parameters of law={fit.law.name} are not told, only what it predicts: {fit.reason}"
            yield Note(code="fit-not-applicable", severity="warning", message=Symbols(message))
        elif fit.status is FitStatus.OK and fit.share_at_optimum < FEW_STARTS:
            message = f"{fit.law.equation}: {fit.share_at_optimum:.0%} of the starts found the optimum"
            yield Note(code="fragile-optimum", severity="info", message=Symbols(message))


def _fixed(study: Study) -> Iterator[Note]:
    if study.fixed is None:
        return
    cost = study.fixed
    said = "no cut leaves enough runs to backtest what fixing costs"
    if cost.cuts:
        said = f"in {cost.cuts} backtests the law misses by {cost.fixed:.2%} in the mean, and by {cost.free:.2%} with"
        said += " free exponents"
    message = f"{study.options.joint.equation}: {said}"
    yield Note(code="fixed-exponents", severity="info", message=Symbols(message))


def _predictions(study: Study) -> Iterator[Note]:
    if study.ensemble is None and study.table.loss.isna().all() and len(study.table):
        message = "the runs have no loss: accuracies are held against compute alone, and no law of the loss is fitted"
        yield Note(code="no-loss", severity="info", message=message)
        return
    if study.ensemble is None:
        yield Note(code="no-prediction", severity="warning", message=Symbols(_why_nothing(study)))
        return
    if study.without_optimum:
        message = optimal_size.unanswered(study.ensemble, study.without_optimum)
        yield Note(code="no-optimum", severity="warning", message=message)
    everywhere = [*study.predictions, *study.predicted_points]
    yield from _size_not_told(study, everywhere)
    yield from _few_points(study.ensemble, everywhere)
    yield from _models(study)
    if everywhere:
        assert study.weighting is not None
        calibration = study.weighting.calibration
        yield Note(
            code="thin-calibration" if calibration.supported else "no-calibration",
            severity="info" if calibration.cuts >= THIN_CUTS else "warning",
            message=calibration.reason,
        )
        yield from _informed(study, everywhere)
    for p in study.predictions:
        low, high = p.spread
        if high / low - 1 > SPREAD:
            message = (
                f"C={p.compute:.3g}: the fits that hold {predict.HEAVY:.0%} of the weight differ by "
                f"{high / low - 1:.1%} there ({between(p.spread)})"
            )
            yield Note(code="fits-differ", severity="info", message=message)
    for i in [i for i in study.influences if abs(i.loss_change) > MOVES][:3]:
        message = f"without {i.left_out} the prediction at the first target moves by {i.loss_change:+.1%}" + (
            f", its N* by {i.n_star_change:+.0%}" if np.isfinite(i.n_star_change) else ""
        )
        yield Note(code="influential", severity="warning", message=message)


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
        yield Note(code="size-not-told", severity="warning", message=message)


def _few_points(ensemble: Ensemble, everywhere: list[Prediction]) -> Iterator[Note]:
    """Intervals that are withheld for want of points."""
    if everywhere and predict.few_points(ensemble):
        points = number_of(predict.count_points(ensemble), "point")
        message = (
            f"the runs are of {points} of N and D (seeds of one are no more), hardly more than a law has parameters: "
            f"the mean law and the best size have no interval; {predict.least_points(ensemble)} points are needed"
        )
        yield Note(code="few-points", severity="warning", message=message)


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
        yield Note(code="one-line", severity="warning", message=message)
    told = ensemble.informed(pd.DataFrame([{"N": p.n, "D": p.d, "C": p.compute} for p in predictions]))
    outside = [f"N={p.n:.3g} D={p.d:.3g}" for p, known in zip(predictions, told, strict=True) if not known]
    if outside:
        line = "the runs vary along one line of ln N and ln D only and"
        why = optimal_size.ONE_COMPUTE if ensemble.of_one_compute else line
        message = (
            f"{why} tell nothing of {', '.join(outside[:5])}: "
            "no interval of a new run there, and the prediction rests on the form of the laws alone"
        )
        yield Note(code="off-line", severity="warning", message=message)


def _scores(study: Study) -> Iterator[Note]:
    evals = study.runs.evals
    if evals.empty:
        return
    asked, evals = list(dict.fromkeys(evals.task)), evals[evals.run_id.isin(study.table.run_id)]
    counts = evals.groupby("task", sort=False).run_id.nunique().reindex(asked, fill_value=0)
    partly = [f"{task} on {count}" for task, count in counts.items() if count < len(study.table)]
    if partly:
        message = f"not every one of the {len(study.table)} runs fitted has every score: {', '.join(partly)}"
        yield Note(code="scores-partly", severity="info", message=message)
    yield from _below_chance(study)
    yield from _mean_of_tasks(evals)


def _below_chance(study: Study) -> Iterator[Note]:
    """Scores that are worse than guessing."""
    found = [
        f"{t.task} (K={t.shots}) {t.accuracy_large:.3f} for {t.chance:.3g}"
        for t in study.trends
        if t.verdict == BELOW and t.task != MEAN
    ]
    if found:
        message = (
            f"the highest-compute runs score below chance on {', '.join(found)}: no ignorance does that; look at the "
            "answer key, at how answers are scored (their length, a letter that is always chosen) and at chance.TASK="
        )
        yield Note(code="below-chance", severity="warning", message=message)


def _mean_of_tasks(evals: pd.DataFrame) -> Iterator[Note]:
    """Which tasks the mean is of, where it is not of all."""
    found = averaged(evals) if len(evals) else None
    if found is None or not (found.left_out or found.without):
        return
    listed = ", ".join(map(str, found.shots))
    message = (
        f"the mean of tasks is that of {', '.join(found.tasks)}, which every run measured at every K shown ({listed})"
    )
    if found.left_out:
        message += f"; left out: {', '.join(found.left_out)}"
    if found.without:
        message += f"; no mean at K={', '.join(map(str, found.without))}, where fewer tasks are measured"
    yield Note(code="mean-of-tasks", severity="info", message=message)


def _parametrisations(study: Study) -> Iterator[Note]:
    """Runs of muP beside others."""
    if "mup_base_width" not in study.table or study.table.mup_base_width.nunique() < 2:
        return
    groups = study.table.groupby("mup_base_width").run_id.apply(list).sort_values(key=lambda ids: ids.map(len))
    names = {width: f"muP of base width {width}" if width else "the standard one" for width in groups.index}
    listed = ", ".join(f"{names[width]} ({number_of(len(ids), 'run')})" for width, ids in groups.items())
    message = (
        f"the runs fitted were trained in different parametrisations, {listed}: each has learning rates of its own, "
        f"so fit them apart; exclude=[{','.join(groups.iloc[0][:30])}] leaves the fewest out"
    )
    yield Note(code="mixed-parametrisation", severity="warning", message=message)


def _generated(study: Study) -> Iterator[Note]:
    """Runs with generated episodes mixed into their text."""
    if "episodes" not in study.table or not (study.table.episodes > 0).any():
        return
    shares = " and ".join(f"{share:.0%}" for share in sorted(study.table.episodes.unique()))
    message = (
        f"{shares} of the training tokens are generated episodes, mixed in so that small models learn from examples "
        "(data.episodes): D and C count them, losses are of held-out text alone, so the law is that of such a mixture"
    )
    yield Note(code="generated-episodes", severity="warning" if "and" in shares else "info", message=message)


def _runs(study: Study) -> Iterator[Note]:
    if "precision" in study.table and study.table.precision.nunique() > 1:
        counts = study.table.precision.value_counts().sort_index()
        listed = ", ".join(f"{name} ({number_of(count, 'run')})" for name, count in counts.items())
        message = (
            f"the runs fitted were trained in different precisions, {listed}: their losses may differ for that alone; "
            f"precision={counts.idxmax()} leaves the others out"
        )
        yield Note(code="mixed-precision", severity="warning", message=message)
    yield from _parametrisations(study)
    yield from _generated(study)
    repeated = study.table[study.table.epochs > 1]
    if len(repeated):
        listed = some([f"{r.run_id} {r.epochs:.2f}" for r in repeated.itertuples()], 30)
        seen = "saw the text, or a source of it, more than once (epochs)"
        yield Note(code="repeated-data", severity="info", message=f"{number_of(len(repeated), 'run')} {seen}: {listed}")
    if study.runs.unmeasured:
        message = (
            f"{len(study.runs.unmeasured)} runs are trained and not measured on every task that is asked for now "
            f"(start the sweep again): {some(study.runs.unmeasured)}"
        )
        yield Note(code="unmeasured", severity="warning", message=message)
    if study.runs.missing:
        without = some(study.runs.missing)
        message = f"{number_of(len(study.runs.missing), 'run')} of the sweep without a result yet: {without}"
        yield Note(code="unfinished", severity="warning", message=message)
