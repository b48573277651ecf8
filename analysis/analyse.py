"""All that is estimated from a selection of runs, in the order in which it is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.accuracy.trends import at_compute, predict_accuracies, shot_gains, trends
from analysis.estimation import (
    envelope,
    exponents,
    fitted_laws,
    influence,
    isoflop,
    optimal_size,
    predict,
    training_curves,
)
from analysis.estimation.approaches import Advice, advise
from analysis.estimation.design import FARTHER
from analysis.estimation.ensemble import Ensemble, fit_ensemble
from analysis.estimation.envelope import Envelope
from analysis.estimation.fitted_laws import FittedLaw, Request
from analysis.estimation.fixed_cost import fixed_cost
from analysis.estimation.isoflop import Minima
from analysis.estimation.predict import Prediction
from analysis.estimation.training_curves import CurveEnvelope
from analysis.estimation.uncertainty import Noise, noise
from analysis.laws import Array
from analysis.runs.curves import TrainingCurves
from analysis.runs.published import Model
from analysis.runs.rules import with_ruled_out
from analysis.runs.selection import Selection
from analysis.study import Fitted, Options
from gpt3core.errors import UsageError


def analyse(
    selection: Selection, options: Options, points: pd.DataFrame | None = None, curves: TrainingCurves | None = None
) -> Fitted:
    """Fit, test, predict. Too little data gives statuses and empty lists.

    Args:
        points: N, D, C, U to predict as well; N and D may be nan where C is given.
        curves: of the runs of ``selection.table``, where they are of a store.

    Raises:
        UsageError: when there are points and no law to predict them by.
    """
    table, evals = selection.table, selection.runs.evals
    if len(table) and table.loss.isna().all():
        return _of_scores(selection, options, points)
    request = _request(selection, options)
    minima = isoflop.analyse(table, draws=options.bootstrap, seed=options.seed, a=options.fixed_a)
    laws = fitted_laws.fit_laws(table, minima, request)
    joint = laws.get("chinchilla")
    ensemble = None
    if len(table):
        runs = with_ruled_out(table, selection.everything, selection.rules)
        ensemble = fit_ensemble(runs, law=options.law, joint=options.joint, rho=options.rho, frontier=minima.trusted)
    targets = _targets(options, table, with_default=points is None)
    thetas = drawn(ensemble, minima, options)
    found, without = best_runs(targets, ensemble, table, minima, options, thetas)
    found = [*_as_trained(options, ensemble, thetas), *found]
    scores = trends(evals, table)
    along, lowest, advice = _approaches(table, minima, joint, curves)
    return Fitted(
        minima=minima,
        implied=[isoflop.implied(p, joint.fit) if joint else None for p in minima.parabolas],
        envelope=along,
        training_curves=lowest,
        advice=advice,
        laws=laws,
        exponents=exponents.by_convention(selection.runs.table, table, selection.convention, minima, laws, request),
        noise=noise(table),
        ensemble=ensemble,
        predictions=found,
        score_forecasts=[],
        accuracies=[predict_accuracies(scores, p.ln_loss, p.sigma, options.seed) for p in found],
        predicted_points=_at_points(points, ensemble, table, minima, options, thetas),
        without_optimum=without,
        influences=_influences(ensemble, table, minima, (*targets, *_beyond(table))),
        fixed=fixed_cost(table, options.joint, options.rho),
        trends=scores,
        gains=shot_gains(evals[evals.run_id.isin(table.run_id)] if len(evals) else evals),
    )


def _approaches(
    table: pd.DataFrame, minima: Minima, joint: FittedLaw | None, curves: TrainingCurves | None
) -> tuple[Envelope, CurveEnvelope | None, Advice]:
    """Approach 1 by final results and by training curves, and which approach to use."""
    along = envelope.envelope(table) if len(table) else Envelope(points=table, reason="no runs")
    lowest = None if curves is None else training_curves.envelope_of(curves)
    return along, lowest, advise(table, minima, along, joint, curves, lowest)


def _request(selection: Selection, options: Options) -> Request:
    """What is fitted and how."""
    return Request(
        law=options.law,
        joint=options.joint,
        fixed_a=options.fixed_a,
        rho=options.rho,
        bootstrap=options.bootstrap,
        seed=options.seed,
        rules_off=selection.rules_off,
    )


def _of_scores(selection: Selection, options: Options, points: pd.DataFrame | None) -> Fitted:
    """The trends of accuracies against compute, for runs without a loss, and what they say at the targets."""
    if points is not None:
        raise UsageError("predict=: these runs have no loss, so only scores can be predicted, at target_compute=[...]")
    table, evals = selection.table, selection.runs.evals
    scores = trends(evals, table)
    targets = _targets(options, table, with_default=True)
    return Fitted(
        minima=Minima(parabolas=[]),
        implied=[],
        envelope=Envelope(points=table.head(0), reason="the runs have no loss"),
        training_curves=None,
        advice=Advice(reason="the runs have no loss"),
        laws={},
        exponents=[],
        noise=Noise(seed=float("nan"), evaluation=float("nan"), replicated=0),
        ensemble=None,
        predictions=[],
        accuracies=[],
        score_forecasts=[a for c in targets for a in at_compute(scores, c, options.seed)],
        predicted_points=[],
        without_optimum=[],
        influences=[],
        fixed=None,
        trends=scores,
        gains=shot_gains(evals[evals.run_id.isin(table.run_id)]),
    )


def _influences(
    ensemble: Ensemble | None, table: pd.DataFrame, minima: Minima, targets: tuple[float, ...]
) -> list[influence.Influence]:
    """On the prediction at the first target, where its best size is known."""
    if ensemble is None:
        return []
    first = optimal_size.optimal_points(np.array(targets[:1]), ensemble, table, minima)
    return influence.influences(ensemble, table, first, minima)


def _beyond(table: pd.DataFrame) -> tuple[float, ...]:
    """The target where none is given."""
    return (FARTHER * float(table.C.max()),) if len(table) else ()


def _targets(options: Options, table: pd.DataFrame, *, with_default: bool) -> tuple[float, ...]:
    given = (*(model.c for model in options.models), *options.target_compute)
    return given or (_beyond(table) if with_default else ())


def drawn(ensemble: Ensemble | None, minima: Minima, options: Options) -> list[Array]:
    """Draws of every choice's parameters, which all predictions share."""
    if ensemble is None:
        return []
    few = predict.mean_share(options.bootstrap)
    return optimal_size.choice_draws(ensemble, minima, draws=few, seed=options.seed)


def _points_of(models: Sequence[Model]) -> pd.DataFrame:
    """Published models as points of their own N and D, each token seen once."""
    rows = [{"N": model.n, "D": model.d, "C": model.c, "U": model.d, "optimal": False} for model in models]
    return pd.DataFrame(rows)


def best_runs(
    targets: tuple[float, ...],
    ensemble: Ensemble | None,
    table: pd.DataFrame,
    minima: Minima,
    options: Options,
    thetas: list[Array],
) -> tuple[list[Prediction], list[float]]:
    """Predictions of compute-optimal runs, and the targets that have no optimum.

    Args:
        thetas: of ``drawn``.
    """
    if ensemble is None or not targets:
        return [], []
    points = optimal_size.optimal_points(np.array(targets), ensemble, table, minima, thetas, seed=options.seed)
    without = [float(c) for c in points.C[points.N.isna()]]
    points = points[points.N.notna()].reset_index(drop=True)
    if points.empty:
        return [], without
    found = predict.predict(ensemble, points, thetas)
    names = {model.c: model.name for model in options.models}
    return [replace(p, optimal=True, name=names.get(p.compute, "")) for p in found], without


def _as_trained(options: Options, ensemble: Ensemble | None, thetas: list[Array]) -> list[Prediction]:
    """The models asked for with their own N and D; none where no law of N and D predicts."""
    if ensemble is None or not options.models or all(choice.frontier for choice in ensemble.choices):
        return []
    found = predict.predict(ensemble, _points_of(options.models), thetas)
    return [replace(p, name=model.name) for p, model in zip(found, options.models, strict=True)]


def _at_points(
    points: pd.DataFrame | None,
    ensemble: Ensemble | None,
    table: pd.DataFrame,
    minima: Minima,
    options: Options,
    thetas: list[Array],
) -> list[Prediction]:
    """Points by the laws of N and D; those that give C alone are compute-optimal runs."""
    if points is None or points.empty:
        return []
    if ensemble is None:
        raise UsageError("no law could be fitted, so there is nothing to predict the points with")
    whole = points.assign(optimal=points.N.isna())
    if whole.optimal.any():
        compute = points.C[whole.optimal].to_numpy(float)
        found = optimal_size.optimal_points(compute, ensemble, table, minima, thetas, seed=options.seed)
        estimated = ["N", "D", "N_low", "N_high", "D_low", "D_high", predict.UNMEASURED]
        whole = whole.reindex(columns=[*whole.columns, *estimated[2:]])
        whole.loc[whole.optimal, estimated] = found.reindex(columns=estimated).to_numpy()
    if whole.N.isna().any():
        row = int(np.flatnonzero(whole.N.isna())[0])
        raise UsageError(f"point {row + 1}: {optimal_size.unanswered(ensemble, [whole.C.iloc[row]])}")
    if all(choice.frontier for choice in ensemble.choices) and not whole.optimal.all():
        raise UsageError(f"law={options.law} is a law of compute alone: give points by C, without N and D")
    whole["U"] = whole.U.fillna(whole.D)
    predicted = predict.predict(ensemble, whole, thetas)
    return [replace(p, optimal=bool(best)) for p, best in zip(predicted, whole.optimal, strict=True)]
