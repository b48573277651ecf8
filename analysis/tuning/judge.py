"""How much loss a choice of learning rate and batch gives away, and which form of the law gives away least.

The loss of a choice between the runs of a pair is interpolated: linearly within the triangles (Delaunay) that the runs
form in (ln lr, ln batch), which lies above a convex surface and so errs against the choice; outside of them the
nearest run's loss counts. It is compared with the best run of the pair, whose luck is thereby the choice's misfortune.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import pandas as pd
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import QhullError

from analysis.laws.base import Array
from analysis.runs import tuned
from analysis.tuning import surface
from analysis.tuning.surface import Form, Trials

WINDOWS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05)
WIDE = (0.1, 0.2, 0.5)  # where no narrower one holds runs enough; a surface of this form hardly holds so far out
LEAST_PAIRS = 5  # that a form can be chosen by
SPARE = 1.3  # runs within the window, over the numbers of the fit
Choice = Callable[[float, float], tuple[float, float]]


class Losses:
    """The losses of one pair, anywhere about its runs."""

    def __init__(self, x: Array, loss: Array) -> None:
        """Of runs at x (n, 2), ln lr and ln batch."""
        self._x, self._loss = x, loss
        self._width = np.maximum(np.ptp(x, axis=0), 1e-9)
        try:
            self._inside: LinearNDInterpolator | None = LinearNDInterpolator(x, loss)
        except (QhullError, ValueError):  # fewer than three runs, or all on a line
            self._inside = None

    def at(self, lr: float, batch: float) -> float:
        """The interpolated loss of a choice."""
        point = np.log([lr, batch])
        found = np.nan if self._inside is None else float(self._inside(point[None])[0])
        return self.nearest(lr, batch) if np.isnan(found) else found

    def nearest(self, lr: float, batch: float) -> float:
        """The loss of the run next to it."""
        distance = (((self._x - np.log([lr, batch])) / self._width) ** 2).sum(1)
        return float(self._loss[np.argmin(distance)])

    @property
    def best(self) -> float:
        """The lowest of any run."""
        return float(self._loss.min())

    def given_away(self, choice: tuple[float, float], *, nearest: bool = False) -> float:
        """The choice's loss over the best run's, less one."""
        return (self.nearest(*choice) if nearest else self.at(*choice)) / self.best - 1


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A form, and what it gave away on every pair that was left out of its fit."""

    form: Form
    given_away: Array  # (pairs,)

    @property
    def mean(self) -> float:
        """Over pairs."""
        return float(self.given_away.mean()) if len(self.given_away) else float("nan")


def losses(table: pd.DataFrame) -> list[Losses]:
    """Of every pair, in the order of ``surface.trials``."""
    pair = tuned.pairs(table)
    return [
        Losses(np.log(rows[list(surface.X)].to_numpy(float)), rows.loss.to_numpy(float))
        for _, rows in table.groupby(pair, sort=True)
    ]


def left_out(data: Trials, known: Sequence[Losses], form: Form) -> Array:
    """What the law of all other pairs gives away on each pair (pairs,)."""
    found = []
    for k in range(data.pairs):
        law = surface.fit(data.of([i for i in range(data.pairs) if i != k]), form)
        found.append(known[k].given_away(law.best(*np.exp(data.z[k]))))
    return np.array(found)


def from_smaller(data: Trials, known: Sequence[Losses], form: Form) -> Array:
    """What the law of all smaller sizes gives away on each pair of the next size (any number,)."""
    n, found = np.exp(data.z[:, 0]), []
    order = np.unique(np.round(np.log(n), 6))
    for below, here in pairwise(order):
        kept = np.flatnonzero(data.z[:, 0] <= below + 1e-5)
        if len(kept) < LEAST_PAIRS:
            continue
        law = surface.fit(data.of(kept), form)
        pairs = np.flatnonzero(np.abs(data.z[:, 0] - here) < 1e-5)
        found += [known[k].given_away(law.best(*np.exp(data.z[k]))) for k in map(int, pairs)]
    return np.array(found)


def forms(data: Trials, *, batch_of_n: bool) -> list[Form]:
    """The forms that these runs can be asked for: runs enough in the window, of every pair a few."""
    found = []
    for window, cubic in product(WINDOWS, (False, True)):
        form = Form(window=window, cubic=cubic, batch_of_n=batch_of_n)
        if _enough(data, form):
            found.append(form)
    return found


def _enough(data: Trials, form: Form) -> bool:
    inside = data.y <= np.log1p(form.window)
    numbers = data.pairs + 8 + form.size + data.beside.shape[1]
    return bool(inside.sum() >= SPARE * numbers and np.bincount(data.pair[inside], minlength=data.pairs).min() >= 2)


def choose(data: Trials, known: Sequence[Losses], *, batch_of_n: bool = False) -> tuple[Judged, list[Judged]]:
    """The window and the surface that gave away least where a pair at a time was left out; and all that were judged.

    The exponents are asked for, not chosen: Li et al. 2025 and Zhang et al. 2024 (arXiv 2410.21676) find a best, and a
    critical, batch that D alone decides, and among sizes within a factor of a few the runs themselves hardly tell.
    """
    asked = forms(data, batch_of_n=batch_of_n)
    if data.pairs < LEAST_PAIRS or not asked:
        plain = [Form(window=window, cubic=False, batch_of_n=batch_of_n) for window in (*WINDOWS, *WIDE)]
        enough = [form for form in plain if _enough(data, form)] or plain[-1:]
        return Judged(form=enough[0], given_away=np.array([])), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        judged = [Judged(form=form, given_away=left_out(data, known, form)) for form in asked]
    return min(judged, key=lambda j: j.mean), judged


def as_good(best: Judged, judged: Sequence[Judged]) -> list[Form]:
    """The forms that gave away no more than the best by one standard error of the paired difference, the best first."""
    found = [best.form]
    for other in judged:
        worse = other.given_away - best.given_away
        if other is not best and worse.mean() <= worse.std(ddof=1) / np.sqrt(len(worse)):
            found.append(other.form)
    return found


def nearest_smaller(data: Trials, known: Sequence[Losses], table: pd.DataFrame) -> Choice:
    """The plain way: the best run of the nearest pair that has no more parameters and no more tokens."""
    pair = tuned.pairs(table)
    best = [rows.iloc[int(rows.loss.argmin())] for _, rows in table.groupby(pair, sort=True)]

    def choice(n: float, d: float) -> tuple[float, float]:
        point = np.log([n, d])
        smaller = [k for k in range(data.pairs) if (data.z[k] <= point + 1e-9).all()] or list(range(data.pairs))
        k = min(smaller, key=lambda i: float(((data.z[i] - point) ** 2).sum()))
        return float(best[k].lr), float(best[k].batch_tokens)

    return choice
