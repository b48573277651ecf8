"""The whole analysis as one value: rules, laws, intervals, backtests, predictions, influence, few-shot trends."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from analysis.accuracy.overlap import Asked, overlaps
from analysis.accuracy.trends import Accuracy, Trend
from analysis.estimation import backtest, robust
from analysis.estimation.approaches import Advice
from analysis.estimation.ensemble import Ensemble, Weighting
from analysis.estimation.envelope import Envelope
from analysis.estimation.explained import Explained, explained
from analysis.estimation.exponents import Exponents
from analysis.estimation.fitted_laws import FittedLaw
from analysis.estimation.fixed_cost import FixedCost
from analysis.estimation.influence import Influence
from analysis.estimation.isoflop import Implied, Minima
from analysis.estimation.predict import Prediction
from analysis.estimation.robust import Rho
from analysis.estimation.training_curves import CurveEnvelope
from analysis.estimation.uncertainty import Noise
from analysis.laws import CHINCHILLA, Law
from analysis.note import Note
from analysis.runs.published import Model
from analysis.runs.selection import Selection


@dataclass(frozen=True, kw_only=True)
class Options:
    """The choices behind every number that is fitted; which runs these are is another matter."""

    law: str = "all"
    joint: Law = CHINCHILLA  # of N and D; with fixed exponents where the user fixed some
    fixed_a: float | None = None  # of N* ~ C^a
    rho: Rho = robust.HUBER
    bootstrap: int = 1000
    seed: int = 0
    target_compute: tuple[float, ...] = ()
    models: tuple[Model, ...] = ()  # to predict as they were trained, the optimum at their compute beside them


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """All that is estimated from the runs that passed the rules, and all that is kept on disk."""

    minima: Minima
    implied: list[Implied | None]  # by L(N, D), one a parabola
    envelope: Envelope  # of final results
    training_curves: CurveEnvelope | None  # the first approach proper; None for a table, which has no curves
    advice: Advice  # which of the three approaches to use
    laws: dict[str, FittedLaw]
    exponents: list[Exponents]  # one a convention
    noise: Noise
    ensemble: Ensemble | None
    predictions: list[Prediction]  # of published models, and compute-optimal ones at their compute and target_compute
    accuracies: list[list[Accuracy]]  # of each of these
    score_forecasts: list[Accuracy]  # at target_compute by the trends against it, where there is no loss to go through
    predicted_points: list[Prediction]  # of the file predict=, in its order
    without_optimum: list[float]  # FLOPs of targets that no size is best at
    influences: list[Influence]
    fixed: FixedCost | None  # what fixed exponents cost in backtest; None where none are fixed
    trends: list[Trend]
    gains: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Study(Selection, Fitted):
    """Everything the report, the figures and fit.json are made of: the runs, and what is estimated from them."""

    options: Options
    receipt: dict[str, Any]  # what was fitted, how, and by which versions
    forecasts: pd.DataFrame  # final losses of unfinished runs
    notes: list[Note] = field(default_factory=list)

    @property
    def of_optima(self) -> bool:
        """Whether what is predicted first is a compute-optimal run; else it is a point of a file."""
        first = next(iter([*self.predictions, *self.predicted_points]), None)
        return first is not None and first.optimal

    @property
    def weighting(self) -> Weighting | None:
        """How the ensemble is weighted for what is predicted first."""
        if self.ensemble is None:
            return None
        return self.ensemble.optimal if self.of_optima else self.ensemble.anywhere

    @cached_property
    def tested(self) -> pd.DataFrame:
        """What the backtests of that weighting predicted, beside what was measured; see backtest.judged."""
        if self.weighting is None:
            return pd.DataFrame()
        return backtest.judged(self.weighting.tests, self.weighting.weights, self.weighting.calibration.noise)

    @cached_property
    def coverage(self) -> pd.DataFrame:
        """Backtests of that weighting by decades of extrapolation; see backtest.coverage."""
        if self.weighting is None:
            return pd.DataFrame()
        return backtest.coverage(self.weighting.tests, self.weighting.weights, self.weighting.calibration.noise)

    @cached_property
    def judged(self) -> pd.DataFrame:
        """Every prediction of the backtests, of runs and (column optimal) of the best; see backtest.judged."""
        if self.ensemble is None:
            return pd.DataFrame()
        kinds = [kind for kind in (self.ensemble.anywhere, self.ensemble.at_optimum) if kind is not None]
        found = [backtest.judged(kind.tests, kind.weights, kind.calibration.noise) for kind in kinds]
        return pd.concat([rows for rows in found if len(rows)] or [pd.DataFrame()], ignore_index=True)

    @cached_property
    def overlaps(self) -> list[Asked]:
        """Accuracies on what is in the training text and what is not, where a store's evaluations tell them apart."""
        return overlaps(self.runs.evals, self.table)

    @cached_property
    def explained(self) -> Explained | None:
        """Whether the laws say anything of the losses; None where they speak of no run."""
        return None if self.ensemble is None else explained(self.table, self.ensemble)
