"""The whole analysis of a sweep as one value: rules, laws, intervals, backtests, predictions, few-shot trends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis import fewshot, isoflop, laws, rules, solve, uncertainty
from analysis.fewshot import Trend
from analysis.isoflop import Minima
from analysis.laws import Array, Data
from analysis.rules import Rule
from analysis.runs import Runs
from analysis.solve import Fit, FitStatus
from analysis.uncertainty import Backtest, Widening

SIZES = {"nonembedding": "params_nonembedding", "total": "params_total"}
COMPUTES = {"exact": "flops_model", "6nd": "flops_6nd"}
LEAST_SQUARES = 1e3  # a Huber delta beyond any residual: minima are smoothed already
MOST_DRAWS = 0.9
NO_FLOOR = 1e-2  # nats: an irreducible loss below this is at its bound, zero
LOOSE = 2.0  # an exponent whose interval spans more than this factor, or an E that may be nothing, is not determined


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something a reader must know; ``code`` is for scripts."""

    code: str
    severity: str  # info | warning
    message: str


@dataclass(frozen=True, kw_only=True)
class Options:
    """The choices behind every number."""

    size: str = "nonembedding"
    compute: str = "exact"
    delta: float = solve.DELTA
    bootstrap: int = 1000
    seed: int = 0
    min_tokens: float | None = None
    target_compute: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LawFit:
    """A fitted law with bootstrap draws of its published parameters."""

    fit: Fit
    draws: Array | None = None  # (draws, k) of theta

    def published(self) -> dict[str, Array]:
        """Draws of the published parameters."""
        if self.draws is None:
            return {}
        rows = [self.fit.law.describe(theta) for theta in self.draws]
        return {name: np.array([row[name] for row in rows]) for name in self.fit.law.parameters}


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a run of this compute would reach at its optimal size."""

    compute: float
    n: float
    d: float
    loss: float
    interval_mean: list[float]
    interval_new_run: list[float] | None
    decades: float
    law: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything the report, the figures and fit.json are made of."""

    runs: Runs
    options: Options
    table: pd.DataFrame  # the runs that passed the rules
    rules: list[Rule]
    minima: Minima
    frontier: LawFit
    floored: LawFit
    chinchilla: LawFit
    conventions: list[dict[str, Any]]
    backtests: list[Backtest]
    widening: Widening
    predictions: list[Prediction]
    trends: list[Trend]
    gains: list[dict[str, Any]]
    notes: list[Note] = field(default_factory=list)

    @property
    def size_column(self) -> str:
        """The table's column of N."""
        return SIZES[self.options.size]

    @property
    def compute_column(self) -> str:
        """The table's column of C."""
        return COMPUTES[self.options.compute]


def study(runs: Runs, options: Options) -> Study:
    """Analyse a sweep. Never raises for too little data: what cannot be told is a status and a note."""
    floor = options.min_tokens if options.min_tokens is not None else runs.min_tokens
    table, applied = rules.apply(runs.table, floor)
    size, compute = SIZES[options.size], COMPUTES[options.compute]
    minima = _minima(table, options, size, compute)
    frontier, floored = _frontiers(minima)
    chinchilla = _chinchilla(table, options, size)
    backtests = _backtests(minima)
    noise = _noise(minima)
    widening = uncertainty.widening(backtests, noise)
    result = Study(
        runs=runs,
        options=options,
        table=table,
        rules=applied,
        minima=minima,
        frontier=frontier,
        floored=floored,
        chinchilla=chinchilla,
        conventions=_conventions(table, options),
        backtests=backtests,
        widening=widening,
        predictions=_predictions(minima, frontier, floored, widening, table, options),
        trends=fewshot.trends(runs.evals, table, compute),
        gains=fewshot.shot_gains(runs.evals[runs.evals.run_id.isin(table.run_id)] if len(runs.evals) else runs.evals),
    )
    result.notes.extend(_notes(result))
    return result


def _minima(table: pd.DataFrame, options: Options, size: str, compute: str) -> Minima:
    if table.empty:
        return Minima(size=size, compute=compute, parabolas=[])
    return isoflop.analyse(table, size=size, compute=compute, draws=options.bootstrap, seed=options.seed)


def _points(minima: Minima) -> tuple[Data, Array]:
    used = minima.used
    return {"C": np.array([p.budget for p in used])}, np.array([p.loss_star for p in used])


def _frontiers(minima: Minima) -> tuple[LawFit, LawFit]:
    """L*(C) through the parabolas' minima, without and with an irreducible term."""
    data, loss = _points(minima)
    found = []
    frontiers: tuple[laws.Law, ...] = (laws.ComputeFrontier(), laws.ComputeFrontierWithFloor())
    for law in frontiers:
        fit = solve.fit(law, data, loss, delta=LEAST_SQUARES)
        draws = None
        if fit.theta is not None and minima.draws is not None:
            draws = solve.refit(fit, data, minima.draws[:, 2:], delta=LEAST_SQUARES)
        found.append(_judged(LawFit(fit=fit, draws=draws)))
    return found[0], found[1]


def _chinchilla(table: pd.DataFrame, options: Options, size: str) -> LawFit:
    data = {"N": table[size].to_numpy(float), "D": table.tokens.to_numpy(float)}
    loss = table.loss.to_numpy(float)
    fit = solve.fit(laws.Chinchilla(), data, loss, delta=options.delta)
    if fit.theta is None:
        return LawFit(fit=fit)
    draws = uncertainty.bootstrap(fit, data, loss, draws=options.bootstrap, seed=options.seed, delta=options.delta)
    return _judged(LawFit(fit=fit, draws=draws))


def _judged(law: LawFit) -> LawFit:
    """Mark a fit whose parameters its own bootstrap cannot pin down."""
    loose = []
    for name, draws in law.published().items():
        low, high = uncertainty.interval(draws)
        if name in ("alpha", "beta", "alpha_C") and (low <= 0 or high / low > LOOSE):
            loose.append(f"{name} {low:.3g} to {high:.3g}")
        if name == "E" and (law.fit.params["E"] < NO_FLOOR or high - low > 0.5 * law.fit.params["E"]):
            bound = "E is at its bound, zero" if law.fit.params["E"] < NO_FLOOR else "E"
            loose.append(f"{bound} ({max(low, 0.0):.2f} to {high:.2f})")
    if not loose or law.fit.status is not FitStatus.OK:
        return law
    fit = Fit(**{**vars(law.fit), "status": FitStatus.ILL_DETERMINED, "reason": "95% intervals: " + ", ".join(loose)})
    return LawFit(fit=fit, draws=law.draws)


def _conventions(table: pd.DataFrame, options: Options) -> list[dict[str, Any]]:
    """The exponents under every convention of N and C: none of them is the exponent without saying which."""
    found = []
    for size_name, size in SIZES.items():
        for compute_name, compute in COMPUTES.items():
            minima = Minima(size=size, compute=compute, parabolas=[])
            if not table.empty:
                minima = isoflop.analyse(table, size=size, compute=compute, draws=0, seed=0)
            data, loss = _points(minima)
            alpha = (
                solve.fit(laws.ComputeFrontier(), data, loss, delta=LEAST_SQUARES).params.get("alpha_C")
                if len(loss) > 2
                else None
            )
            exponent = minima.exponent if len(minima.used) > 1 else None
            found.append({"N": size_name, "C": compute_name, "a": exponent, "alpha_C": alpha})
    return found


def _backtests(minima: Minima) -> list[Backtest]:
    data, loss = _points(minima)
    return uncertainty.backtest_power_law(data["C"], loss) if len(loss) > 3 else []


def _noise(minima: Minima) -> float:
    """Standard deviation of a run around its budget's parabola, in ln L."""
    used = [p for p in minima.used if p.residuals is not None]
    freedom = sum(max(0, len(p.run_ids) - 3) for p in used)
    squares = sum(float((p.residuals**2).sum()) for p in used if p.residuals is not None)
    return float(np.sqrt(squares / freedom)) if freedom else 0.0


def _predictions(
    minima: Minima, frontier: LawFit, floored: LawFit, widening: Widening, table: pd.DataFrame, options: Options
) -> list[Prediction]:
    if frontier.fit.theta is None or len(minima.used) < 2:
        return []
    largest = max(p.budget for p in minima.used)
    d_law = _optimal_tokens(minima, table)
    found = []
    for target in options.target_compute or (10 * largest,):
        decades = float(np.log10(target / largest))
        for law in (frontier, floored):
            if law.fit.theta is None or law.draws is None:
                continue
            data = {"C": np.array([target])}
            loss = float(law.fit.loss(data)[0])
            draws = law.fit.law.log_loss(law.draws, data)[0][:, 0]
            half = widening.half_width(max(0.0, decades), float(np.std(draws, ddof=1)) if len(draws) > 1 else 0.0)
            new = [float(loss * np.exp(-half)), float(loss * np.exp(half))] if np.isfinite(half) else None
            prediction = Prediction(
                compute=float(target),
                n=minima.n_star(target),
                d=float(np.exp(np.polyval(d_law, np.log(target)))),
                loss=loss,
                interval_mean=[float(np.exp(v)) for v in uncertainty.interval(draws)],
                interval_new_run=new,
                decades=decades,
                law=law.fit.law.name,
            )
            found.append(prediction)
    return found


def _optimal_tokens(minima: Minima, table: pd.DataFrame) -> Array:
    """ln D* as a line in ln C: D at each minimum, read off the budget's own runs."""
    c = [np.log(p.budget) for p in minima.used]
    d = [np.log(isoflop.tokens_at(p, table, minima.size)) for p in minima.used]
    line: Array = np.polyfit(c, d, 1)
    return line


def _notes(study: Study) -> list[Note]:
    notes = [
        Note(code=f"rule-{rule.name}", severity="info", message=f"{len(rule.excluded)} runs: {rule.meaning}")
        for rule in study.rules
        if rule.excluded
    ]
    for p in study.minima.parabolas:
        if p.far:
            message = (
                f"C={p.budget:.3g}: {len(p.far)} runs more than {isoflop.NEAR:.0%} above the best stay out of the "
                f"parabola: {', '.join(p.far)}"
            )
            notes.append(Note(code="rule-near", severity="info", message=message))
        if not p.ok:
            notes.append(Note(code="no-minimum", severity="warning", message=f"C={p.budget:.3g}: {p.reason}"))
    for law in (study.frontier, study.floored, study.chinchilla):
        if law.fit.status is not FitStatus.OK:
            message = f"{law.fit.law.equation} is {law.fit.status.value}: {law.fit.reason}"
            notes.append(
                Note(code="fit-" + law.fit.status.name.lower().replace("_", "-"), severity="warning", message=message)
            )
    if study.predictions and study.widening.tests < 2:
        message = "fewer than two budgets could be backtested: there is no calibrated interval for a new run"
        notes.append(Note(code="no-calibration", severity="warning", message=message))
    elif study.predictions:
        message = (
            f"the interval of a new run rests on {study.widening.tests} backtested budgets, none farther than "
            f"{max(b.decades for b in study.backtests):.1f} decades: beyond that it is an extrapolation of the "
            f"error itself"
        )
        notes.append(Note(code="thin-calibration", severity="info", message=message))
    kept = 0 if study.minima.draws is None else len(study.minima.draws)
    if study.minima.asked and kept < MOST_DRAWS * study.minima.asked:
        message = (
            f"{study.minima.asked - kept} of {study.minima.asked} bootstrap draws had a budget without a minimum "
            f"inside its "
            "sizes and are not in the intervals of the frontier and of N*: they are too narrow; run sizes farther out"
        )
        notes.append(Note(code="draws-without-minimum", severity="warning", message=message))
    repeated = study.table[study.table.epochs > 1]
    if len(repeated):
        listed = ", ".join(f"{r.run_id} {r.epochs:.2f}" for r in repeated.itertuples())
        notes.append(
            Note(
                code="repeated-data",
                severity="info",
                message=f"{len(repeated)} runs saw the text more than once (epochs): {listed}",
            )
        )
    if study.runs.missing:
        message = f"{len(study.runs.missing)} runs of the sweep have no result yet: {', '.join(study.runs.missing)}"
        notes.append(Note(code="unfinished", severity="warning", message=message))
    return notes
