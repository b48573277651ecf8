"""Approach 1 of Hoffmann et al. 2022, section 3.1: the size that reaches the lowest loss at every compute, by curves.

At LEVELS computes along the runs' training curves, the loss of every size is taken and the size of the lowest one
found; N*(C) = k C^a and D*(C) ~ C^b go through these. Where this differs from the paper, and why:

- A loss in the middle of a schedule lies above what a run planned to end there would reach (by 3 to 7% at a third of a
  cosine, on the laptop's ladder). The paper has four cosine lengths a size and lets the lowest win. Here each moment is
  brought down to the end of a schedule of its own by what runs of one size and several lengths show: the shorter
  one's final loss against the longer one's curve at the same tokens. In ln L that is
  (sqrt(lr) - sqrt(lr at the end)) x (c0 + c1 ln C + c2 ln D/N), rates relative to the highest, which also takes up
  that a long schedule has had a higher rate so far. With fewer than LEAST_PAIRS such pairs only moments are read at
  which the rate has all but fallen: the ends. Of a size's runs the one nearest to its end speaks.
- Training losses are of one batch. A curve is a cubic in ln D through bin means from a third of the run on (warm-up is
  over by then), shifted to end at the run's held-out loss, so that all approaches speak of the same losses; runs that
  saw text more than once are out, for their training loss is no longer one of new text.
- Between sizes the minimum is that of the parabola through the lowest and its two neighbours, and a level counts where
  it has both: the lowest size alone makes steps whose slope is 1 - 1/m^2 of the true one over m sizes, and the
  smallest and largest size are lowest far beyond their place.

The interval redraws every run's level by what is left over in those pairs, correction and all, DRAWS times; it is
t-distributed with the pairs left over as freedom. Where fewer than LEAST_OVER are left over it is a jackknife over the
points of N and D, two to three times as wide, for the grid of sizes is in it too. Neither is a test by higher budgets:
estimation.approaches has that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.estimation.uncertainty import LEVEL
from analysis.laws import Array
from analysis.runs.curves import FROM, PROGRESS, TrainingCurve, TrainingCurves

LEVELS = 400  # the paper's 1,500 give the same to the fourth digit
DEGREE = 3
LEAST_PAIRS = 3  # of one size and two lengths, for one coefficient of the correction
PAIRS_FOR_ALL = 6  # for all three
FALLEN = 0.035  # sqrt(lr) - sqrt(lr at the end) up to which no correction is worth it: 0.2% of the loss
APART = 1.05  # ratio of the tokens of two lengths
LEAST_SIZES = 3  # lowest somewhere, with a smaller and a larger one beside them
LEAST_CELLS = 6
DRAWS = 100
LEAST_OVER = 3
MOST_SHOWN = 60  # levels that are kept for a figure
MOST_LEFT_OUT = 50  # refits of the jackknife


@dataclass(frozen=True, kw_only=True)
class CurveEnvelope:
    """N*(C) = k C^a and D*(C) ~ C^b along the lowest curves."""

    a: float = float("nan")
    b: float = float("nan")
    k: float = float("nan")
    interval_a: list[float] = field(default_factory=list)  # 95%
    interval_b: list[float] = field(default_factory=list)
    compute: list[float] = field(default_factory=list)  # FLOPs of the first and the last level that count
    sizes: int = 0  # that are lowest somewhere
    runs: list[str] = field(default_factory=list)  # whose curves were read
    repeated: list[str] = field(default_factory=list)  # left out: text seen more than once
    without: list[str] = field(default_factory=list)  # left out: no curve, or too little of one
    pairs: int = 0  # of one size and two lengths, behind the correction
    correction: float = 0.0  # the largest used, in ln L
    lowest: Array = field(
        default_factory=lambda: np.empty((0, 3))
    )  # (m, 3) at levels that count: C, N*, and the loss as
    # trained of the size that is lowest: what the correction leaves tells sizes from one another, its level is rough
    reason: str = ""  # why there is no law


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """Points of N and D on the grid of levels; what a cell's curve does not reach is nan."""

    n: Array  # (r,)
    d: Array  # (r,)
    levels: Array  # (K,) ln C
    ln_loss: Array  # (r, K) as trained
    ln_d: Array  # (r, K)
    left: Array  # (r, K) of the schedule's fall still to come: sqrt(lr) - sqrt(lr at the end)
    pairs: Array  # (p, 6): shorter, longer, left, ln C, ln D/N, excess in ln L


def envelope_of(curves: TrainingCurves) -> CurveEnvelope:
    """Approach 1 with its interval, or the reason why there is none."""
    empty = CurveEnvelope(runs=[c.run_id for c in curves.found], repeated=curves.repeated, without=curves.without)
    groups = _grouped(curves.found)
    if len(groups) < LEAST_CELLS:
        why = f"{len(groups)} points of N and D have a training curve, {LEAST_CELLS} are needed"
        return replace(empty, reason=why)
    cells = _cells(groups)
    whole = _fit(cells, np.ones(len(cells.n), bool))
    if isinstance(whole, str):
        return replace(empty, reason=whole)
    line, correction, along = whole.line, whole.correction, whole.ln_c
    over = len(cells.pairs) - _terms(len(cells.pairs))
    if len(cells.pairs) >= LEAST_PAIRS and over >= LEAST_OVER:
        spread, freedom = _redrawn(cells, over), over
    else:
        spread, freedom = _jackknife(cells, line), max(1, len(np.unique(whole.size)) - 2)
    half = special.stdtrit(freedom, (1 + LEVEL) / 2) * spread
    return replace(
        empty,
        a=float(line[0, 0]),
        b=float(line[0, 1]),
        k=float(np.exp(line[1, 0])),
        interval_a=[float(line[0, 0] - half[0]), float(line[0, 0] + half[0])],
        interval_b=[float(line[0, 1] - half[1]), float(line[0, 1] + half[1])],
        compute=[float(np.exp(along[0])), float(np.exp(along[-1]))],
        sizes=len(np.unique(whole.size)),
        pairs=len(cells.pairs),
        correction=correction,
        lowest=np.exp(np.column_stack([along, whole.ln_n, whole.as_trained]))[:: -(-len(along) // MOST_SHOWN)],
    )


def below(curves: TrainingCurves, compute: float) -> TrainingCurves:
    """The curves of runs of at most this compute, FLOPs."""
    return replace(curves, found=[curve for curve in curves.found if curve.c <= compute])


def foreseen(curves: TrainingCurves, compute: float) -> float:
    """N* at a compute by these curves; nan where they give no law."""
    groups = _grouped(curves.found)
    found = "" if len(groups) < LEAST_CELLS else _fit(cells := _cells(groups), np.ones(len(cells.n), bool))
    if isinstance(found, str):
        return float("nan")
    return float(np.exp(found.line[1, 0] + found.line[0, 0] * np.log(compute)))


def _grouped(curves: Sequence[TrainingCurve]) -> list[list[TrainingCurve]]:
    """The runs of each point of N and D, in an order that rows do not change."""
    groups: dict[tuple[float, float], list[TrainingCurve]] = {}
    for curve in curves:
        groups.setdefault((curve.n, curve.d), []).append(curve)
    return [groups[key] for key in sorted(groups)]


def _cells(groups: list[list[TrainingCurve]]) -> _Cells:
    """Smoothed curves on one grid of levels, and the pairs that tell what the end of a schedule brings."""
    n, d, c = (np.array([getattr(g[0], name) for g in groups]) for name in ("n", "d", "c"))
    loss = np.array([np.mean([np.log(run.loss) for run in g]) for g in groups])
    shapes = [np.mean([_shape(run) for run in g], axis=0) for g in groups]
    rates = [np.mean([np.sqrt(run.rate) - np.sqrt(run.rate[-1]) for run in g], axis=0) for g in groups]
    levels = np.linspace(np.log(c.min() * FROM), np.log(c.max()), LEVELS)
    back = levels[None] - np.log(c)[:, None]  # ln of the progress at each level
    inside = (back >= np.log(FROM)) & (back <= 1e-9)

    def on_grid(i: int, values: Array) -> Array:
        return np.where(inside[i], values, np.nan)

    pairs = [
        (
            *(i, j, np.interp(d[i] / d[j], PROGRESS, rates[j]), np.log(c[i]), np.log(d[i] / n[i])),
            loss[j] + np.polyval(shapes[j], np.log(d[i] / d[j])) - loss[i],
        )
        for i in range(len(n))
        for j in range(len(n))
        if n[i] == n[j] and d[i] * APART < d[j] and d[i] >= FROM * d[j]
    ]
    rows = range(len(n))
    return _Cells(
        n=n,
        d=d,
        levels=levels,
        ln_loss=np.array([on_grid(i, loss[i] + np.polyval(shapes[i], back[i])) for i in rows]),
        ln_d=np.array([on_grid(i, np.log(d[i]) + back[i]) for i in rows]),
        left=np.array([on_grid(i, np.interp(np.exp(back[i]), PROGRESS, rates[i])) for i in rows]),
        pairs=np.array(pairs).reshape(-1, 6),
    )


def _shape(run: TrainingCurve) -> Array:
    """A polynomial in ln(progress) for ln L above its end: through the bins, zero at the end."""
    cubic = np.polyfit(np.log(run.progress), run.ln_loss, DEGREE, w=np.sqrt(run.steps))
    return np.asarray([*cubic[:-1], 0.0])


@dataclass(frozen=True, kw_only=True)
class _Lowest:
    """The lowest size along the levels that count, (m,) each, and what goes through it."""

    line: Array  # (2, 2): ln N* and ln D* as lines in ln C
    ln_c: Array
    size: Array  # ln N of the size that is lowest
    ln_n: Array  # between the sizes
    as_trained: Array  # ln L of the size that is lowest
    correction: float  # the largest used


def _fit(cells: _Cells, kept: NDArray[np.bool_]) -> _Lowest | str:
    """The lowest sizes, or why there are none."""
    ln_loss, correction = _at_the_end(cells, kept)
    sizes = np.unique(cells.n[kept])
    # (S, K): of each size the run nearest to the end of its schedule
    by_size = np.full((3, len(sizes), LEVELS), np.nan)
    for s, size in enumerate(sizes):
        rows = np.flatnonzero((cells.n == size) & kept)
        left = np.where(np.isfinite(ln_loss[rows]), cells.left[rows], np.inf)
        nearest = rows[left.argmin(0)], np.arange(LEVELS)
        by_size[:, s] = ln_loss[nearest], cells.ln_d[nearest], correction[nearest]
    at, lowest, ln_n, ln_d = _minima(np.log(sizes), by_size[0], by_size[1])
    if len(np.unique(lowest)) < LEAST_SIZES:
        few = f"{len(np.unique(lowest))} sizes are lowest somewhere between a smaller and a larger one"
        return f"{few}, {LEAST_SIZES} are needed"
    line = np.polyfit(cells.levels[at], np.stack([ln_n, ln_d], 1), 1)
    return _Lowest(
        line=line,
        ln_c=cells.levels[at],
        size=lowest,
        ln_n=ln_n,
        as_trained=(by_size[0] + by_size[2])[np.searchsorted(np.log(sizes), lowest), np.flatnonzero(at)],
        correction=float(np.nanmax(np.abs(by_size[2][:, at]))),
    )


def _at_the_end(cells: _Cells, kept: NDArray[np.bool_]) -> tuple[Array, Array]:
    """ln L (r, K) as at the end of a schedule of its own, nan where that is not known; and what was taken off."""
    pairs = cells.pairs
    if len(pairs):
        pairs = pairs[kept[pairs[:, 0].astype(int)] & kept[pairs[:, 1].astype(int)]]
    if len(pairs) < LEAST_PAIRS:
        off = np.where(np.isfinite(cells.left), 0.0, np.nan)
        return np.where(cells.left <= FALLEN, cells.ln_loss, np.nan), off
    c, middle, _ = _correction(pairs)
    ratio = cells.ln_d - np.log(cells.n)[:, None]
    off = cells.left * (c[0] + c[1] * (cells.levels - middle[0]) + c[2] * (ratio - middle[1]))
    return cells.ln_loss - off, off


def _terms(pairs: int) -> int:
    """Coefficients of the correction that so many pairs tell."""
    return 3 if pairs >= PAIRS_FOR_ALL else 1


def _correction(pairs: Array) -> tuple[Array, Array, Array]:
    """Its coefficients (3,), the ln C and ln D/N that they are centred on (2,), and what is left over, (p,)."""
    middle, terms = pairs[:, 3:5].mean(0), _terms(len(pairs))
    rows = pairs[:, 2:3] * np.column_stack([np.ones(len(pairs)), pairs[:, 3:5] - middle])[:, :terms]
    c = np.zeros(3)
    c[:terms] = np.linalg.lstsq(rows, pairs[:, 5], rcond=None)[0]
    return c, middle, pairs[:, 5] - rows @ c[:terms]


def _minima(x: Array, y: Array, ln_d: Array) -> tuple[NDArray[np.bool_], Array, Array, Array]:
    """Where the lowest of the sizes x (S,) has one on either side, and there: its ln N, and ln N* and ln D*.

    Args:
        y, ln_d: ln L and ln D of each size at each level, (S, K).
    """
    there = np.isfinite(y)
    row = np.arange(len(x))[:, None]
    before = np.maximum.accumulate(np.where(there, row, -1), 0)
    after = np.minimum.accumulate(np.where(there, row, len(x))[::-1], 0)[::-1]
    best = np.where(there, y, np.inf).argmin(0)
    level = np.arange(y.shape[1])
    left = np.where(best > 0, before[best - 1, level], -1)
    right = np.where(best < len(x) - 1, after[np.minimum(best + 1, len(x) - 1), level], len(x))
    at = there.any(0) & (left >= 0) & (right < len(x))
    trio, level = np.stack([left[at], best[at], right[at]]), level[at]
    u = x[trio] - x[trio[1]]  # (3, levels), the middle one zero
    values, tokens = y[trio, level], ln_d[trio, level]

    def quadratic(v: Array) -> tuple[Array, Array]:
        rise = [(v[i] - v[1]) / u[i] for i in (0, 2)]
        bend = (rise[1] - rise[0]) / (u[2] - u[0])
        return bend, rise[0] - bend * u[0]

    bend, slope = quadratic(values)
    opens = bend > 0
    move = np.where(opens, -slope / np.where(opens, 2 * bend, 1.0), 0.0)
    curved, straight = quadratic(tokens)
    return at, x[best[at]], x[best[at]] + move, tokens[1] + straight * move + curved * move**2


def _redrawn(cells: _Cells, over: int) -> Array:
    """Standard errors of a and b, (2,), by redrawing the level of every cell.

    Args:
        over: degrees of freedom left over in the pairs; a pair's excess is the difference of two levels.
    """
    noise = np.sqrt((_correction(cells.pairs)[2] ** 2).sum() / over / 2)
    rng, every = np.random.default_rng(0), np.ones(len(cells.n), bool)
    shorter, longer = cells.pairs[:, 0].astype(int), cells.pairs[:, 1].astype(int)
    slopes = []
    for levels in noise * rng.standard_normal((DRAWS, len(cells.n))):
        excess = cells.pairs[:, 5] + levels[longer] - levels[shorter]
        pairs = np.column_stack([cells.pairs[:, :5], excess])
        found = _fit(replace(cells, ln_loss=cells.ln_loss + levels[:, None], pairs=pairs), every)
        if not isinstance(found, str):
            slopes.append(found.line[0])
    return np.std(slopes, axis=0, ddof=1) if len(slopes) > DRAWS / 2 else np.full(2, np.inf)


def _jackknife(cells: _Cells, line: Array) -> Array:
    """Standard errors of a and b, (2,), by leaving out cells, in MOST_LEFT_OUT groups at most."""
    group = np.arange(len(cells.n)) % min(len(cells.n), MOST_LEFT_OUT)
    fits = [_fit(cells, group != g) for g in np.unique(group)]
    slopes = np.array([found.line[0] for found in fits if not isinstance(found, str)] or [line[0]])
    count = len(slopes)
    if count < len(fits) / 2:
        return np.full(2, np.inf)
    return np.asarray(np.sqrt((count - 1) / count * ((slopes - slopes.mean(0)) ** 2).sum(0)))
