"""A study as tables of words: what the command prints, the report shows and law.md holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from analysis.estimation import backtest, isoflop, uncertainty
from analysis.estimation.approaches import CURVES, ENVELOPE, PARABOLAS, PARAMETRIC
from analysis.estimation.fitted_laws import FittedLaw
from analysis.estimation.isoflop import Implied, Parabola
from analysis.estimation.solve import FitStatus
from analysis.laws import Array
from analysis.output import evidence, score_tables
from analysis.output.answer import answer, value_of
from analysis.output.evidence import NONE, Runs
from analysis.output.table import LAWS, REACHED, RUNS, Cell, Row, Table, row
from analysis.runs.conventions import LABELS
from analysis.study import Study
from gpt3core.words import Name, Symbols, between, change, count, nats, number, number_of, outside, size, some, span

MOST_INFLUENCES = 6
MOST_PREDICTIONS = 40
LEAST_WEIGHT = 0.005  # of a fit whose share of the mean is told
ROUNDED = 1e-9  # relative: of a budget whose logarithm was taken
NONE_OUT = "none"  # of the runs that a rule takes out


def tables(study: Study) -> list[Table]:
    """The report; what has nothing to say is left out."""
    return [made for make in TABLES if (made := make(study)).rows]


def asked(study: Study) -> list[Table]:
    """The predictions, where points of a file were asked for."""
    return [predictions(study)] if study.predicted_points else []


def _counted(study: Study) -> str:
    return f"N {LABELS[study.convention.n]}, C {LABELS[study.convention.c]}"


def predictions(study: Study) -> Table:
    """Of the targets and of the points of a file."""
    every = [*study.predictions, *study.predicted_points]
    rows = [
        row(
            *(p.what, f"{p.compute:.3g}", outside(p.decades), size(p.n, p.interval_n), size(p.d, p.interval_d)),
            *(nats(p.loss), between(p.interval_mean), between(p.interval_new_run), between(p.spread)),
            behind=evidence.of_prediction(study, optimal=p.optimal),
        )
        for p in every[:MOST_PREDICTIONS]
    ]
    if more := len(every) - len(rows):
        rows.append(row(f"and {more} more in fit.json", *[""] * 8))
    return Table(
        group=REACHED,
        title=f"Predictions ({_counted(study)}): mean of the ensemble of fits below, weighted by their backtests",
        header=[
            *("of", "C", "of the data", "N (95%)", "D (95%)", "loss"),
            *("95% of the mean law", "95% of a new run", "range of the fits"),
        ],
        rows=rows,
    )


def choices(study: Study) -> Table:
    """The fits of the ensemble, the heaviest first."""
    ensemble, weighting, rows = study.ensemble, study.weighting, list[Row]()
    if ensemble is not None and weighting is not None:
        target = study.predictions[0].by_choice if study.predictions else {}
        for i in np.argsort(-weighting.weights, kind="stable"):
            choice, weight, error = ensemble.choices[i], weighting.weights[i], weighting.errors[i]
            rows.append(
                row(
                    choice.name,
                    f"{weight:.2f}",
                    "-" if math.isnan(error) else f"{math.expm1(error):.2%}",
                    "-" if (loss := target.get(choice.name)) is None else nats(loss),
                    behind=evidence.of_choices(study, [choice]),
                    quoted=weight >= LEAST_WEIGHT,
                )
            )
    return Table(
        group=REACHED,
        title="Ensemble of fits",
        header=["fit", "weight", "miss in backtests", "loss at the first target"],
        rows=rows,
        unquoted=f"with a weight below {LEAST_WEIGHT}",
    )


def coverage(study: Study) -> Table:
    """What the backtests came to, by distance."""
    rows = [
        row(
            *(backtest.spelt(r["decades"]), str(r["tests"])),
            *(f"{math.expm1(r['median_abs_error']):.2%}", f"{math.expm1(r['mean_miss']):+.2%}"),
            *("-" if math.isnan(share) else f"{share:.0%}" for share in (r["coverage80"], r["coverage95"])),
            behind=evidence.of_backtests(study, r["decades"]),
        )
        for r in study.coverage.to_dict("records")
    ]
    return Table(
        group=REACHED,
        title="Backtests (fitted below a cut, predicted above), by distance",
        header=["decades", "predictions", "median error", "bias", "80% intervals cover", "95% intervals cover"],
        rows=rows,
    )


def influence(study: Study) -> Table:
    """What moves the prediction most."""
    rows = [
        row(
            [(Name(i.left_out) if i.kind == "run" else i.left_out, behind := evidence.runs(i.run_ids))],
            *(i.kind, str(i.runs), change(i.loss_change, 2), change(i.n_star_change)),
            behind=behind,
        )
        for i in study.influences[:MOST_INFLUENCES]
    ]
    return Table(
        group=REACHED,
        title="Influence on the prediction at the first target (the weights of the fits kept)",
        header=["left out", "kind", "runs", "loss", "N*"],
        rows=rows,
    )


def laws(study: Study) -> Table:
    """Every law that could be tried."""
    without = [law.fit for law in study.laws.values() if law.fit.status is FitStatus.NOT_APPLICABLE]
    rows = [_law(study, law) for law in study.laws.values() if law.fit not in without]
    if without:
        reasons = "; ".join(f"{fit.law.name}: {fit.reason}" for fit in without)
        rows.append(row("others", "-", "-", f"not applicable ({reasons})", quoted=False))
    return Table(
        group=LAWS,
        title=f"Laws ({_counted(study)}, loss in nats per token)",
        header=["law", "parameters", "95% interval of the mean law", "status"],
        rows=rows,
        unquoted="ill-determined or not fitted",
    )


def _law(study: Study, law: FittedLaw) -> Row:
    fit, published = law.fit, law.published
    status = Symbols(fit.status.value + (f" ({fit.reason})" if fit.reason else ""))
    return row(
        fit.law.equation,
        _symbols(f"{name} {value_of(law, name, 4)}" for name in fit.params),
        _symbols(f"{name} {span(_floored(name, v, law.no_floor))}" for name, v in published.items()),
        status,
        behind=evidence.of_law(study, law),
        quoted=fit.status in (FitStatus.OK, FitStatus.UNTESTED),
    )


def _floored(name: str, draws: Array, no_floor: float) -> list[float]:
    """The interval of a parameter; an irreducible loss too small to matter is printed as zero."""
    low, high = uncertainty.interval(draws)
    return [0.0 if v < no_floor else v for v in (low, high)] if name == "E" else [low, high]


def _symbols(each: Iterable[str]) -> str:
    return Symbols(", ".join(each) or "-")


def optimum(study: Study) -> Table:
    """The exponent of N* by each of Hoffmann et al.'s approaches."""
    has_loss = bool(study.laws) or study.ensemble is not None or not study.score_forecasts
    found = _approaches(study) if has_loss else []
    return Table(
        group=LAWS,
        title=f"N* ~ C^a, D* ~ C^b ({_counted(study)}; * to be used)",
        header=["approach", "a", "b", "95% of a", "from"],
        rows=[
            row(
                name + (" *" if name == study.advice.approach else ""),
                *(a, *others),
                behind=NONE if a == "-" else evidence.of_approach(study, name),
            )
            for name, a, *others in found
        ],
    )


def _approaches(study: Study) -> Iterator[tuple[str, str, str, str, str]]:
    """Name, a, b, the interval of a, and what it comes from."""
    env, minima, low = study.envelope, study.minima, study.training_curves
    if low is not None:
        seen = low.reason or f"{len(low.runs)} curves, {low.sizes} sizes lowest from C={span(low.compute)}"
        yield CURVES, number(low.a), number(low.b), span(low.interval_a or None), seen
    seen = env.reason or f"{len(env.points)} runs that no cheaper one beats; not tested"
    yield ENVELOPE, number(env.a), number(env.b), "-", seen
    inside = "-" if minima.draws is None else span(uncertainty.interval(minima.draws[:, 0]))
    seen = f"{number_of(len(minima.used), 'budget')} with a minimum{'' if len(minima.used) > 1 else ', 2 are needed'}"
    yield PARABOLAS, number(minima.exponent), number(1 - minima.exponent), inside, seen
    joint = study.laws.get("chinchilla")
    if joint is not None and joint.fit.theta is not None:
        a, b = joint.a_and_b
        known = math.isfinite(a) and len(joint.a_draws) > 0
        inside = span(uncertainty.interval(joint.a_draws) if known else None)
        yield PARAMETRIC, number(a), number(b), inside, joint.fit.status.value


def minima(study: Study) -> Table:
    """The budgets."""
    joint = study.laws.get("chinchilla")
    through = NONE if joint is None else evidence.of_law(study, joint)
    found = zip(study.minima.parabolas, study.implied, strict=True)
    return Table(
        group=LAWS,
        title=f"IsoFLOP minima ({_counted(study)})",
        header=["C", "runs", "N* parabola", "cubic", "L(N,D)", "D/N at N*", "L*", "note"],
        rows=[_minimum(p, implied, through) for p, implied in found],
        unquoted="without a minimum inside their sizes",
    )


def _minimum(p: Parabola, implied: Implied | None, through: Runs) -> Row:
    """A budget.

    Args:
        implied: what L(N, D) says of it.
        through: the runs that L(N, D) was fitted to.
    """
    own, runs = evidence.runs(p.run_ids), str(len(p.run_ids))
    first = [(f"{p.budget:.3g}", own)]
    if not p.ok:
        return row(first, runs, *["-"] * 5, [(p.reason, NONE)], behind=own, quoted=False)
    known = implied is not None and math.isfinite(implied.bias)
    note: Cell = [(f"parabola {math.expm1(implied.bias):+.0%}", through)] if implied is not None and known else []
    if p.far:
        note += [("; " if note else "", NONE), (f"{len(p.far)} far runs out", evidence.runs(p.far))]
    return row(
        first,
        *(runs, count(p.n_star), count(p.n_cubic) if math.isfinite(p.n_cubic) else "-"),
        [("-" if implied is None else count(implied.n_star), through)],
        *(f"{p.d_star / p.n_star:.0f}", f"{p.loss_star:.4f}", note),
        behind=own,
    )


def held_out(study: Study) -> Table:
    """What lower budgets say of the best sizes of higher ones."""
    rows = []
    used = study.minima.used
    for r in study.minima.held_out.to_dict("records"):
        below = evidence.of_budgets(p for p in used if p.budget <= r["fitted_to"] * (1 + ROUNDED))
        above = evidence.of_budgets(p for p in used if math.isclose(p.budget, r["compute"], rel_tol=ROUNDED))
        rows.append(
            row(
                [(f"{r['fitted_to']:.3g}", below)],
                [(f"{r['compute']:.3g}", above)],
                [(count(r["predicted"]), below)],
                [(count(r["measured"]), above)],
                change(r["measured"] / r["predicted"] - 1),
                "inside" if r["covered95"] else "outside",
                behind=evidence.runs([*below, *above]),
            )
        )
    return Table(
        group=LAWS,
        title="N* of held-out budgets (by the budgets up to a compute)",
        header=["fitted up to C", "budget", "N* predicted", "measured", "off by", "95% interval"],
        rows=rows,
    )


def exponents(study: Study) -> Table:
    """Under every convention, where there are several."""
    rows = []
    for e in study.exponents if len(study.exponents) > 1 else []:  # one alone is that of the tables above
        spelt = (number(e.isoflop), number(e.parametric), number(e.alpha_c, 4))
        cells = [[cell] for cell in zip(spelt, evidence.of_exponents(study, e), strict=True)]
        rows.append(row(str(e.convention.n) + (" *" if e.chosen else ""), str(e.convention.c), *cells))
    return Table(
        group=LAWS,
        title="Exponents by convention (* chosen; budgets are the chosen convention's in all of them)",
        header=["N", "C", "a, IsoFLOP", "a, parametric", Symbols("alpha_C")],
        rows=rows,
    )


def forecasts(study: Study) -> Table:
    """Where runs under way will end."""
    rows = [
        row(
            *(Name(r["run_id"]), f"{r['done']:.0%}", f"{r['loss']:.4f}", span([r["low"], r["high"]], 4), r["method"]),
            behind=evidence.runs([r["run_id"], *r["beside"]]),
        )
        for r in study.forecasts.to_dict("records")
    ]
    title = "Unfinished runs: final training loss"
    return Table(group=RUNS, title=title, header=["run", "done", "forecast", "95%", "from"], rows=rows)


def rules(study: Study) -> Table:
    """Those that took runs out or are off, and the names of the others."""
    every = [(r.name, r.meaning, r.on) for r in study.rules]
    if study.minima.parabolas:
        near = f"parabolas only: within {isoflop.NEAR:.0%} of the budget's best loss"
        every.append((evidence.NEAR, near, evidence.NEAR not in study.rules_off))
    rows, idle = list[Row](), list[str]()
    for name, meaning, on in every:
        out = evidence.of_rule(study, name) if on else NONE
        if out or not on:
            counted: Cell = [(f"{len(out):,}", out), (": ", NONE), (Name(some(out)), NONE)] if on else [("off", NONE)]
            rows.append(row(name, [(meaning, NONE)], counted))
        else:
            idle.append(name)
    if idle:
        rows.append(row("others", ", ".join(idle), NONE_OUT))
    return Table(group=RUNS, title="Rules", header=["rule", "meaning", "runs out"], rows=rows)


TABLES: tuple[Callable[[Study], Table], ...] = (  # in the order in which they are read
    *(predictions, score_tables.accuracies, choices, coverage, influence),
    *(laws, optimum, minima, held_out, exponents),
    *(score_tables.few_shot, score_tables.gains, score_tables.overlaps),
    *(forecasts, rules),
)


def to_markdown(study: Study) -> str:
    """The answer and the tables as Markdown, ready for a paper's appendix."""
    lines = [f"# Scaling law of {study.runs.name}", "", *(f"- **{name}**: {said}" for name, said in answer(study)), ""]
    for table in tables(study):
        lines += [f"## {table.title}", "", "| " + " | ".join(table.header) + " |", "|" + "---|" * len(table.header)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row.words) + " |" for row in table.rows] + [""]
    lines += ["## Notes", "", *[f"- {n.severity} `{n.code}`: {n.message}" for n in study.notes], ""]
    return "\n".join(lines)
