"""A study as tables of words: what the command prints, the report shows and law.md holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from analysis.estimation import backtest, isoflop, uncertainty
from analysis.estimation.predict import Prediction
from analysis.estimation.solve import FitStatus
from analysis.laws import Array
from analysis.output import evidence
from analysis.output.answer import answer, value_of
from analysis.runs.conventions import LABELS
from analysis.study import Study
from gpt3core.words import Symbols, between, change, count, nats, number, outside, shares, size, some, span

Row = list[str]
MOST_INFLUENCES = 6
MOST_PREDICTIONS = 40
PREDICTIONS = "Predictions"
NONE = "none"  # of the runs that a rule takes out


Table = tuple[str, list[str], list[Row]]
"""Title, header, rows."""


def tables(study: Study) -> list[Table]:
    """The report; what has nothing to say is left out."""
    made = [(title.format(**_named(study)), header, make(study)) for title, header, make in _TABLES]
    return [table for table in made if table[2]]


def asked(study: Study) -> list[Table]:
    """The predictions, where points of a file were asked for."""
    return [t for t in tables(study) if t[0].startswith(PREDICTIONS)] if study.predicted_points else []


def _named(study: Study) -> dict[str, str]:
    return {"N": LABELS[study.convention.n], "C": LABELS[study.convention.c]}


def _floored(name: str, draws: Array, no_floor: float) -> list[float]:
    """The interval of a parameter; an irreducible loss too small to matter is printed as zero."""
    low, high = uncertainty.interval(draws)
    return [0.0 if v < no_floor else v for v in (low, high)] if name == "E" else [low, high]


def _laws(study: Study) -> list[Row]:
    rows = []
    without = [law.fit for law in study.laws.values() if law.fit.status is FitStatus.NOT_APPLICABLE]
    for law in study.laws.values():
        if law.fit in without:
            continue
        published = law.published
        rows.append(
            [
                law.fit.law.equation,
                _symbols(f"{name} {value_of(law, name, 4)}" for name in law.fit.params),
                _symbols(f"{name} {span(_floored(name, v, law.no_floor))}" for name, v in published.items()),
                Symbols(law.fit.status.value + (f" ({law.fit.reason})" if law.fit.reason else "")),
            ]
        )
    reasons = "; ".join(f"{fit.law.name}: {fit.reason}" for fit in without)
    return [*rows, ["others", "-", "-", f"not applicable ({reasons})"]] if without else rows


def _symbols(each: Iterable[str]) -> str:
    return Symbols(", ".join(each) or "-")


def _optimum(study: Study) -> list[Row]:
    """The exponent of N* by each of Hoffmann et al.'s approaches."""
    rows: list[Row] = []
    env, minima = study.envelope, study.minima
    if not study.laws and study.ensemble is None and study.score_forecasts:
        return rows  # there is no loss
    what = f"{len(env.points)} runs that no cheaper one beats"
    if (low := study.training_curves) is not None:
        seen = f"{len(low.runs)} curves, {low.sizes} sizes lowest"
        seen = low.reason or f"{seen} from C={span(low.compute)}"
        rows.append(["1, training curves", number(low.a), number(low.b), span(low.interval_a or None), seen])
    rows.append(["1, envelope", number(env.a), number(env.b), "-", env.reason or f"{what}; not tested"])
    spread = "-" if minima.draws is None else span(uncertainty.interval(minima.draws[:, 0]))
    seen = f"{len(minima.used)} budgets with a minimum"
    if len(minima.used) > 1:
        rows.append(["2, IsoFLOP parabolas", number(minima.exponent), number(1 - minima.exponent), spread, seen])
    else:
        rows.append(["2, IsoFLOP parabolas", "-", "-", "-", seen + ", 2 are needed"])
    joint = study.laws.get("chinchilla")
    if joint is not None and joint.fit.theta is not None:
        a, b = joint.a_and_b
        known = math.isfinite(a) and len(joint.a_draws) > 0
        inside = uncertainty.interval(joint.a_draws) if known else None
        rows.append(["3, parametric", number(a), number(b), span(inside), joint.fit.status.value])
    return [[name + (" *" if name == study.advice.approach else ""), *rest] for name, *rest in rows]


def _minima(study: Study) -> list[Row]:
    rows = []
    for p, implied in zip(study.minima.parabolas, study.implied, strict=True):
        if not p.ok:
            rows.append([f"{p.budget:.3g}", str(len(p.run_ids)), "-", "-", "-", "-", "-", p.reason])
            continue
        bias = "" if implied is None or not math.isfinite(implied.bias) else f"parabola {math.expm1(implied.bias):+.0%}"
        note = "; ".join(part for part in (bias, f"{len(p.far)} far runs out" if p.far else "") if part)
        rows.append(
            [
                f"{p.budget:.3g}",
                str(len(p.run_ids)),
                count(p.n_star),
                count(p.n_cubic) if math.isfinite(p.n_cubic) else "-",
                "-" if implied is None else count(implied.n_star),
                f"{p.d_star / p.n_star:.0f}",
                f"{p.loss_star:.4f}",
                note,
            ]
        )
    return rows


def _exponents(study: Study) -> list[Row]:
    if len(study.exponents) == 1:
        return []  # they are those of the tables above
    return [
        [
            str(e.convention.n) + (" *" if e.chosen else ""),
            str(e.convention.c),
            number(e.isoflop),
            number(e.parametric),
            number(e.alpha_c, 4),
        ]
        for e in study.exponents
    ]


def _predictions(study: Study) -> list[Row]:
    every = [*study.predictions, *study.predicted_points]
    rows = [
        [
            _what(p),
            f"{p.compute:.3g}",
            outside(p.decades),
            size(p.n, p.interval_n),
            size(p.d, p.interval_d),
            nats(p.loss),
            between(p.interval_mean),
            between(p.interval_new_run),
            between(p.spread),
        ]
        for p in every[:MOST_PREDICTIONS]
    ]
    more = len(every) - len(rows)
    return [*rows, [f"and {more} more in fit.json", *[""] * 8]] if more else rows


def _what(p: Prediction) -> str:
    """Which model a prediction is of."""
    if not p.optimal:
        return p.name or "as given"
    return f"best at C of {p.name}" if p.name else "best at C"


def _choices(study: Study) -> list[Row]:
    weighting = study.weighting
    if study.ensemble is None or weighting is None:
        return []
    target = study.predictions[0].by_choice if study.predictions else {}
    order = np.argsort(-weighting.weights, kind="stable")
    return [
        [
            study.ensemble.choices[i].name,
            f"{weighting.weights[i]:.2f}",
            "-" if math.isnan(weighting.errors[i]) else f"{weighting.errors[i]:.2%}",
            "-" if (loss := target.get(study.ensemble.choices[i].name)) is None else nats(loss),
        ]
        for i in order
    ]


def _held_out(study: Study) -> list[Row]:
    return [
        [
            f"{r['fitted_to']:.3g}",
            f"{r['compute']:.3g}",
            count(r["predicted"]),
            count(r["measured"]),
            change(r["measured"] / r["predicted"] - 1),
            "inside" if r["covered95"] else "outside",
        ]
        for r in study.minima.held_out.to_dict("records")
    ]


def _coverage(study: Study) -> list[Row]:
    return [
        [
            backtest.spelt(r["decades"]),
            str(r["tests"]),
            f"{r['median_abs_error']:.2%}",
            f"{r['mean_miss']:+.2%}",
            *("-" if math.isnan(share) else f"{share:.0%}" for share in (r["coverage80"], r["coverage95"])),
        ]
        for r in study.coverage.to_dict("records")
    ]


def _influence(study: Study) -> list[Row]:
    return [
        [i.left_out, i.kind, str(i.runs), change(i.loss_change, 2), change(i.n_star_change)]
        for i in study.influences[:MOST_INFLUENCES]
    ]


def _forecasts(study: Study) -> list[Row]:
    return [
        [r["run_id"], f"{r['done']:.0%}", f"{r['loss']:.4f}", span([r["low"], r["high"]], 4), r["method"]]
        for r in study.forecasts.to_dict("records")
    ]


def _few_shot(study: Study) -> list[Row]:
    rows = []
    for t in study.trends:
        accuracy = f"{t.accuracy_small:.3f} -> {t.accuracy_large:.3f} +- {t.accuracy_large_se:.3f}"
        known = math.isfinite(t.logprob_per_decade)
        logprob = f"{t.logprob_per_decade:+.2f} +- {t.logprob_per_decade_se:.2f}" if known else "-"
        if t.verdict == "not measured":
            accuracy, logprob = "-", "-"
            verdict = f"not measured: {t.reason}"
        else:
            verdict = (
                t.verdict if t.slope is None else f"{t.verdict}: logit {t.slope:+.2f} +- {t.slope_se:.2f} a decade"
            )
            if t.by_compute is not None:
                verdict += f", ceiling {span(t.by_compute.ceiling_interval, 2)}"
        rows.append([t.task, str(t.shots), f"{t.chance:.2f}", f"{t.baseline:.3f}", accuracy, logprob, verdict])
    return rows


def _accuracies(study: Study) -> list[Row]:
    rows = []
    chained = [
        (_what(p), p.compute, a) for p, each in zip(study.predictions, study.accuracies, strict=True) for a in each
    ]
    for what, compute, a in [*chained, *(("compute", a.compute, a) for a in study.score_forecasts)]:
        score = "-" if a.accuracy is None else f"{a.accuracy:.3f}"
        spans = [shares(a.interval_mean), shares(a.interval_new_run)]
        note = a.reason or ("by compute alone" if study.score_forecasts else "")
        rows.append([what, f"{compute:.3g}", a.task, str(a.shots), score, *spans, note])
    return rows


def _gains(study: Study) -> list[Row]:
    return [
        [
            str(g["task"]),
            str(g["shots"]),
            f"{g['accuracy_gain']:+.3f} +- {g['accuracy_gain_se']:.3f}",
            f"{g['logprob_gain']:+.2f} +- {g['logprob_gain_se']:.2f}",
        ]
        for g in study.gains
    ]


def _overlaps(study: Study) -> list[Row]:
    rows = []
    for asked in study.overlaps:
        row = asked.row
        score, dirty, clean = (number(value) for value in (row.score, row.dirty_score, row.clean_score))
        difference = f"{row.difference:+.0%}" if math.isfinite(row.difference) else "-"
        rows.append(
            [
                *(row.name, str(asked.shots), str(row.n), score, f"{row.total:,}", dirty, f"{row.dirty:,}"),
                *(clean, f"{row.clean:,}", f"{row.clean_share:.0%}", difference),
            ]
        )
    return rows


def _rules(study: Study) -> list[Row]:
    """Those that took runs out or are off, and the names of the others."""
    rows = [[r.name, r.meaning, _out(r.on, r.excluded)] for r in study.rules]
    if study.minima.parabolas:
        near = f"parabolas only: within {isoflop.NEAR:.0%} of the budget's best loss"
        far = list(evidence.of_rule(study, evidence.NEAR))
        rows.append([evidence.NEAR, near, _out(evidence.NEAR not in study.rules_off, far)])
    idle = [name for name, _, out in rows if out == NONE]
    return [*(row for row in rows if row[2] != NONE), ["others", ", ".join(idle), NONE]] if idle else rows


def _out(on: bool, runs: list[str]) -> str:
    """How many runs a rule took out, and the first of them."""
    if not (on and runs):
        return NONE if on else "off"
    return f"{len(runs):,}: {some(runs)}"


_TABLES: tuple[tuple[str, list[str], Callable[[Study], list[Row]]], ...] = (
    (
        "Laws (N {N}, C {C}, loss in nats per token)",
        ["law", "parameters", "95% interval of the mean law", "status"],
        _laws,
    ),
    ("N* ~ C^a, D* ~ C^b (N {N}, C {C}; * to be used)", ["approach", "a", "b", "95% of a", "from"], _optimum),
    (
        "IsoFLOP minima (N {N}, C {C})",
        ["C", "runs", "N* parabola", "cubic", "L(N,D)", "D/N at N*", "L*", "note"],
        _minima,
    ),
    (
        "N* of held-out budgets (by the budgets up to a compute)",
        ["fitted up to C", "budget", "N* predicted", "measured", "off by", "95% interval"],
        _held_out,
    ),
    (
        "Exponents by convention (* chosen; budgets are the chosen convention's in all of them)",
        ["N", "C", "a, IsoFLOP", "a, parametric", Symbols("alpha_C")],
        _exponents,
    ),
    (
        PREDICTIONS + " (N {N}, C {C}): mean of the ensemble of fits below, weighted by their backtests",
        [
            *("of", "C", "of the data", "N (95%)", "D (95%)", "loss"),
            *("95% of the mean law", "95% of a new run", "range of the fits"),
        ],
        _predictions,
    ),
    ("Ensemble of fits", ["fit", "weight", "miss in backtests", "loss at the first target"], _choices),
    (
        "Backtests (fitted below a cut, predicted above), by distance",
        ["decades", "predictions", "median error", "bias", "80% intervals cover", "95% intervals cover"],
        _coverage,
    ),
    (
        "Influence on the prediction at the first target (the weights of the fits kept)",
        ["left out", "kind", "runs", "loss", "N*"],
        _influence,
    ),
    ("Unfinished runs: final training loss", ["run", "done", "forecast", "95%", "from"], _forecasts),
    (
        "Few-shot accuracy against compute",
        ["task", "K", "chance", "best baseline", "accuracy, small -> large runs", "ln p(answer) per decade", "verdict"],
        _few_shot,
    ),
    (
        "Predicted accuracy (compute -> loss -> accuracy, where there is a loss)",
        ["of", "C", "task", "K", "accuracy", "95% of the trend", "95% of a new run", "note"],
        _accuracies,
    ),
    ("What K examples bring over none (mean over runs)", ["task", "K", "accuracy", "ln p(answer)"], _gains),
    (
        "Questions in the training text (dirty) and not (clean), runs of most compute",
        [
            *("task", "K", "words", "accuracy", "questions", "dirty accuracy", "dirty", "clean accuracy", "clean"),
            *("clean share", "clean over all"),
        ],
        _overlaps,
    ),
    ("Rules", ["rule", "meaning", "runs out"], _rules),
)


def to_markdown(study: Study) -> str:
    """The answer and the tables as Markdown, ready for a paper's appendix."""
    lines = [f"# Scaling law of {study.runs.name}", "", *(f"- **{name}**: {said}" for name, said in answer(study)), ""]
    for title, header, rows in tables(study):
        lines += [f"## {title}", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows] + [""]
    lines += ["## Notes", "", *[f"- {n.severity} `{n.code}`: {n.message}" for n in study.notes], ""]
    return "\n".join(lines)
