"""Intervals of the law of the optimum: pairs of N and D drawn again, and the noise of their runs with them.

A resample draws as many pairs as there are, with replacement, and gives each run inside the window its fitted loss and
the residual of another run of its pair; it is fitted by one of the forms that foresaw left out pairs as well as the
best, for where the window ends and how the surface bends is not known either. Few pairs make such intervals too narrow;
they are widened by sqrt(P / (P - k)), P pairs and k numbers of a law. With no more pairs than numbers there is none.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.laws.base import Array
from analysis.tuning import surface
from analysis.tuning.surface import Form, IntArray, Surface, Trials
from gpt3core.rule import PowerLaw

LEVEL = 0.95
MOST_DRAWS = 5  # tries of a resample that tells N and D apart
WILD = 20.0  # standard deviations (robust) beyond which a resample's fit has failed


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """Fits of resamples: (draws, 6), ln constant, exponents of N and of D, for lr and then for batch."""

    laws: Array
    fitted: Surface
    pairs: int

    @property
    def known(self) -> bool:
        """Whether there are intervals."""
        return len(self.laws) > 1

    def exponent(self, which: str, of: str) -> tuple[float, float]:
        """The interval of an exponent: of "N" or "D", of the law of "lr" or "batch"."""
        law = getattr(self.fitted, which)
        return self._interval(self.laws[:, (3 * (which == "batch")) + (1 if of == "N" else 2)], getattr(law, of))

    def at(self, which: str, n: float, d: float) -> tuple[float, float]:
        """The interval of the best learning rate or batch at N and D."""
        first = 3 * (which == "batch")
        drawn = self.laws[:, first : first + 3] @ np.array([1.0, np.log(n), np.log(d)])
        low, high = self._interval(drawn, float(np.log(getattr(self.fitted, which).at(n, d))))
        return float(np.exp(low)), float(np.exp(high))

    def _interval(self, drawn: Array, point: float) -> tuple[float, float]:
        if not self.known:
            return float("nan"), float("nan")
        numbers = 2 if self.fitted.on_a_line else 3
        wider = np.sqrt(self.pairs / max(1, self.pairs - numbers))
        low, high = np.quantile(drawn - point, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) * wider
        return point + float(low), point + float(high)


def resample(data: Trials, fitted: Surface, draws: int, seed: int = 0, forms: Sequence[Form] = ()) -> Resampled:
    """Fit resamples of the pairs and of their runs' noise.

    Args:
        forms: that are as good as the fit's own, in turn; by default that one.
    """
    numbers = 2 if fitted.on_a_line else 3
    if data.pairs <= numbers or draws < 2:
        return Resampled(laws=np.empty((0, 6)), fitted=fitted, pairs=data.pairs)
    random, found = np.random.default_rng(seed), []
    whole = [fitted, *(surface.fit(data, form) for form in forms if form != fitted.form)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for draw in range(draws):
            mine = whole[draw % len(whole)]
            noise = _shuffled(mine.residual, data.pair[mine.inside], random)
            drawn = surface.with_losses(data, mine, noise)
            for _ in range(MOST_DRAWS):
                kept = random.integers(data.pairs, size=data.pairs)
                again = surface.fit(drawn.of(kept), mine.form, _start(mine, kept, data.pairs))
                if again.on_a_line == fitted.on_a_line:
                    found.append([*_numbers(again.lr), *_numbers(again.batch)])
                    break
    laws = np.array(found)
    middle = np.median(laws, axis=0)
    deviation = 1.4826 * np.median(np.abs(laws - middle), axis=0) + 1e-12
    return Resampled(laws=laws[(np.abs(laws - middle) <= WILD * deviation).all(1)], fitted=fitted, pairs=data.pairs)


def _start(fitted: Surface, kept: IntArray, count: int) -> Array:
    """Where a resample's fit starts: in the laws of the whole, about another middle."""
    at = count + surface.SURFACE
    beside = fitted.theta[at + 6 :]
    theta = np.concatenate([fitted.theta[:count][kept], fitted.theta[count:at], np.zeros(6), beside])
    theta[at + 1 : at + 3] = fitted.theta[at + 1 : at + 3]
    theta[at + 4 : at + 6] = fitted.theta[at + 4 : at + 6]
    return theta


def _numbers(law: PowerLaw) -> tuple[float, float, float]:
    return float(np.log(law.constant)), law.N, law.D


def _shuffled(residual: Array, pair: IntArray, random: np.random.Generator) -> Array:
    """Residuals of other runs of the same pair."""
    found = residual.copy()
    for k in np.unique(pair):
        rows = np.flatnonzero(pair == k)
        found[rows] = random.choice(residual[rows], len(rows))
    return found
