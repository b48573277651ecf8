"""The answer first: what was run, the law, what the target would reach, how far to trust it, the one thing to mend.

A few labelled sentences that the terminal and the report open with; the tables behind them are in ``text``. A sentence
is made in parts, each with the runs that its numbers rest on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from analysis.accuracy.trends import Accuracy
from analysis.estimation import uncertainty
from analysis.estimation.approaches import BY
from analysis.estimation.fitted_laws import FittedLaw
from analysis.estimation.predict import Prediction
from analysis.estimation.solve import FitStatus
from analysis.laws import REPEATS
from analysis.note import Note
from analysis.output import evidence
from analysis.output.evidence import NONE, Part, Runs, words
from analysis.output.trust import trust
from analysis.runs.conventions import LABELS
from analysis.study import Study
from gpt3core.words import Name, Symbols, between, count, flops, nats, number, number_of, outside, shares, size, span

Line = tuple[str, str]  # a label, and what it says
Spelt = tuple[str, list[Part]]  # a line in parts
MOST_TARGETS = 3
ELSEWHERE = ": tables=all, or fit.json"  # what a terminal says of what is left out
AT_BOUND = " (at its bound)"
TOLD_APART = 0.05  # of an exponent: two that are nearer are not shown beside one another
# warnings, the one that takes most away from an answer first; others come behind, in the order of the notes
GRAVEST = (
    "no-prediction",
    "loss-unit",
    "mostly-worse",
    "no-scaling",
    "no-optimum",
    "target-not-predicted",
    "one-line",
    "off-line",
    "size-not-told",
    "few-points",
    "no-calibration",
    "no-minimum",
    "minimum-unsure",
    "mixed-precision",
    "influential",
    "target-count",
    "unfinished",
    "parabola-biased",
    "unmeasured",
    "thin-calibration",
)


def answer(study: Study) -> list[Line]:
    """Labels with their sentences; what is not known has no line."""
    return [(label, words(parts)) for label, parts in spelt(study)]


def spelt(study: Study) -> list[Spelt]:
    """The same in parts."""
    lines = [("runs", _ran(study)), ("law", _law(study)), ("size", _exponent(study)), *_reached(study)]
    trusted = trust(study)
    lines += [("trust", trusted), ("weakest", _weakest(study, words(trusted)))]
    return [(label, parts) for label, parts in lines if words(parts)]


def _ran(study: Study) -> list[Part]:
    """What the fit rests on, and what stayed out."""
    every, fitted = evidence.runs(study.everything.run_id), evidence.of_fit(study)
    parts: list[Part] = [(f"{len(study.table)}", fitted), (" of ", NONE), (f"{len(every)}", every), (" fitted", NONE)]
    out = [rule for rule in study.rules if rule.excluded and rule.on]
    for i, rule in enumerate(out):
        parts.append((" (out: " if i == 0 else ", ", NONE))
        parts.append((f"{len(rule.excluded)} {rule.name}", evidence.runs(rule.excluded)))
    return [*parts, (")" if out else "", NONE), *_of_table(study, fitted)]


def _of_table(study: Study, fitted: Runs) -> list[Part]:
    """The sizes, tokens and computes of the runs that were fitted, their text, and what they took."""
    table, said, text = study.table, "", list[Part]()
    made = study.runs.table[study.runs.table.run_id.astype(str).isin(table.run_id)]
    if table.N.notna().any():
        said += f": {number_of(table.N.nunique(), 'size')}, N {_range(table.N)} ({LABELS[study.convention.n]})"
    if table.D.notna().any():
        said += f"; D {_range(table.D)} tokens"
        text, said = _text(made, said, fitted), ""
    if table.C.notna().any():
        budgets = int(table.budget_flops.nunique()) if "budget_flops" in table else 0
        at = f"{number_of(budgets, 'budget')} of " if budgets else ""
        said += f"; {at}C {_range(table.C, flops)} FLOPs ({LABELS[study.convention.c]})"
    said += _took(made)
    if study.rules_off:
        said += f"; rules that are off: {', '.join(study.rules_off)}"
    return [*text, (said, fitted)]


def _took(table: pd.DataFrame) -> str:
    """What runs took, as far as it was recorded: hours of GPUs, else of cores that trained, and dollars."""
    gpu, cores, usd = (
        float(table[name].sum()) / unit if name in table else 0.0
        for name, unit in (("gpu_hours", 1), ("device_seconds", 3600), ("cost", 1))
    )
    took = f"; {gpu:.3g} GPU-hours" if gpu else f"; {cores:.3g} core-hours of training" if cores else ""
    return took + (f", {usd:,.2f} USD" if usd else "")


def _text(table: pd.DataFrame, said: str, fitted: Runs) -> list[Part]:
    """What was said, on which text a store's runs were trained, whatever place it had, and how often they saw it."""
    if "corpus" not in table:
        return [(said, fitted)]
    names = table.drop_duplicates("corpus_sha256").corpus.unique()
    epochs = table.epochs
    often = f", {_range(epochs, lambda n: number(n, 2))} epochs" if epochs.notna().any() else ""
    return [(f"{said} of ", fitted), (Name(", ".join(sorted(names))), NONE), (often, fitted)]


def _range(values: Iterable[float], spell: Callable[[float], str] = count) -> str:
    found = np.asarray(values, float)
    low, high = spell(float(np.nanmin(found))), spell(float(np.nanmax(found)))
    return low if low == high else f"{low} to {high}"


def _law(study: Study) -> list[Part]:
    """Of the laws whose parameters are all fitted the one that weighs most in the predictions."""
    weighting = study.weighting
    if study.ensemble is None or weighting is None:
        return []
    ordered = [study.ensemble.choices[i].law.name for i in np.argsort(-weighting.weights, kind="stable")]
    fitted = {law.fit.law.name: law for law in study.laws.values()}  # one with fixed exponents by its own name
    law = next((fitted[name] for name in ordered if name in fitted), None)
    if law is None or law.fit.theta is None:
        return []
    fit = law.fit
    if fit.status is not FitStatus.OK:
        use = "predict by it, " if study.predictions or study.predicted_points else ""
        told = f"{fit.law.equation} weighs most and is {fit.status.value}: {use}do not quote its parameters"
        return [(told, NONE)]
    parameters = Symbols(", ".join(_parameter(law, name) for name in fit.params))
    return [(f"{fit.law.equation}: ", NONE), (parameters, evidence.of_law(study, law))]


def _parameter(law: FittedLaw, name: str) -> str:
    draws, value = law.published.get(name), value_of(law, name)
    inside = "" if draws is None or value.endswith(AT_BOUND) else f" ({span(uncertainty.interval(draws))})"
    return f"{name} {value}{inside}"


def value_of(law: FittedLaw, name: str, digits: int = 3) -> str:
    """A fitted parameter in words; E may be nothing, and repetitions that never tire have no limit."""
    value = law.fit.params[name]
    if name == "E" and value < law.no_floor:
        return f"0{AT_BOUND}"
    if name in REPEATS and name in law.fit.at_bounds:
        return f"{'0' if value < 1 else 'without limit'}{AT_BOUND}"
    return number(value, digits)


def _exponent(study: Study) -> list[Part]:
    """How the best size grows, by the approach that foresaw it best."""
    name, a = study.advice.approach, study.advice.a
    if not name or a is None or not math.isfinite(a):
        return []
    joint = study.laws.get("chinchilla")
    draws = {"2": study.minima.draws, "3": joint.a_draws if joint else None}.get(name[0])
    inside = ""
    if name.startswith("1, training") and study.training_curves is not None:
        inside = span(study.training_curves.interval_a or None)
    elif draws is not None and len(draws):
        inside = span(uncertainty.interval(draws[:, 0] if draws.ndim > 1 else draws))
    inside = f" ({inside})" if inside not in ("", "-") else ""
    grows = (f"the best grows as N* ~ C^{a:.2f}{inside}", evidence.of_approach(study, name))
    return [grows, (f", by {BY[name]}", NONE), (_beyond(study, a), evidence.of_prediction(study, optimal=True))]


def _beyond(study: Study, a: float) -> str:
    """How the best size grows from the highest budget to the first target, where that is another exponent."""
    family = study.minima.family
    if not study.predictions or family is None or not study.minima.trusted:
        return ""
    p, end = study.predictions[0], float(np.exp(family.ln_compute[-1]))
    if not (p.optimal and p.compute > end and math.isfinite(p.n)):
        return ""
    growth = (math.log(p.n) - float(family.centre[-1])) / math.log(p.compute / end)
    if abs(growth - a) < TOLD_APART:
        return ""
    return f"; from {flops(end)} to {flops(p.compute)} it is expected to grow as C^{growth:.2f}"


def _reached(study: Study) -> list[Spelt]:
    """A line a target: the loss with the interval of a new run, and the size; and the scores at the first."""
    lines: list[Spelt] = [(f"at {flops(p.compute)}", _prediction(study, p)) for p in study.predictions[:MOST_TARGETS]]
    if more := len(study.predictions) - len(lines):
        lines.append(("", [(f"and {more} more targets{ELSEWHERE}", NONE)]))
    if study.predictions:
        scores = _scores(study, study.accuracies[0])
        return [*lines, ("scores", [("not backtested: ", NONE), *scores] if scores else [])]
    computes = list(dict.fromkeys(a.compute for a in study.score_forecasts))
    told = [(c, _scores(study, [a for a in study.score_forecasts if a.compute == c])) for c in computes]
    return [(f"at {flops(c)}", scores) for c, scores in told if scores][:MOST_TARGETS]


def _scores(study: Study, every: Sequence[Accuracy]) -> list[Part]:
    """Those of a run that are known."""
    found = [a for a in every if a.accuracy is not None]
    shown = zip([None, *found], found[:MOST_TARGETS], strict=False)
    scores = [part for before, a in shown for part in (*_score(study, a, before), ("; ", NONE))]
    return [*scores, (f"and others{ELSEWHERE}", NONE)] if len(found) > MOST_TARGETS else scores[:-1]


def _score(study: Study, found: Accuracy, before: Accuracy | None = None) -> list[Part]:
    """A score, which rests on the runs that were asked, and on those behind a loss that it goes through.

    Args:
        before: the one that stands before it; what both have in common is not said again.
    """
    behind = evidence.of_accuracy(study, found, next(iter(study.predictions), None))
    said = f"{found.accuracy:.3f} ({shares(found.interval_new_run)}{'' if before else ' for a new run'})"
    task = "" if before is not None and before.task == found.task else f"{found.task}, "
    return [(f"{task}K={found.shots}: ", NONE), (said, behind)]


def _prediction(study: Study, p: Prediction) -> list[Part]:
    what = f"{'the best of its compute' if p.optimal else p.name}: " if p.name else ""
    said = f"loss {nats(p.loss)}"
    if p.interval_new_run is not None:
        said += f" ({between(p.interval_new_run)} for a new run)"
    if p.optimal and p.interval_n is not None:
        said += f", best size {size(p.n, p.interval_n)} on {size(p.d, p.interval_d)} tokens"
    else:
        said += f", {count(p.n)} parameters on {count(p.d)} tokens"
    said += f"; {outside(p.decades)} the data"
    return [(what, NONE), (said, evidence.of_prediction(study, optimal=p.optimal))]


def _weakest(study: Study, trusted: str) -> list[Part]:
    """The warning that takes most away from the answer, but for what ``trusted`` says; budgets without one together."""
    warnings = [note for note in study.notes if note.severity == "warning" and note.message not in trusted]
    if not warnings:
        return []
    first = min(warnings, key=_gravity)
    bad = [p for p in study.minima.parabolas if not p.ok]
    if first.code != "no-minimum" or len(bad) == 1:
        return [(first.message, first.runs)]
    said = f"{len(bad)} of {len(study.minima.parabolas)} budgets have no minimum inside their sizes: C="
    each = [part for p in bad for part in ((", ", NONE), (flops(p.budget), evidence.of_budgets([p])))]
    return [(said, evidence.of_budgets(bad)), *each[1:]]


def _gravity(note: Note) -> int:
    return GRAVEST.index(note.code) if note.code in GRAVEST else len(GRAVEST)
