"""Compute-optimal runs: N* and D* at a compute, with intervals.

By the minima of the budgets where these are to be trusted (estimation.family), else where the laws of N and D are
lowest along C(N, D). A law that ties alpha to beta has a = 1/2 by its form and does not measure N*, and one that takes
repeated text for fresh measures another N*: neither has a say where another law has one. Runs that vary along one line
of ln N and ln D only do not tell an optimum: then points continue that line, without an interval. Nor has one where
the best ratio D/N at the highest compute lies outside of those run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis import laws
from analysis.estimation import optimum, solve, uncertainty
from analysis.estimation.choices import Choice, refitted
from analysis.estimation.ensemble import Ensemble
from analysis.estimation.family import Family
from analysis.estimation.isoflop import Minima
from analysis.estimation.predict import UNMEASURED, few_points
from analysis.laws import Array
from analysis.runs.ratio import Ratio, per_6nd, tokens

TIED = (laws.OVER_TRAINING, laws.HELD)
SAMPLES = 4000  # of ln N* by the budgets: cheap
MOST_WITHOUT = 0.025  # of the draws may have no optimum, or there is no interval
DOUBTS = 2.0  # standard errors of the highest budget's N* by which a larger run's may lie below it
LEAST_GROWN = 0.1  # of the draws
TARGETS = ("N", "D")
NEARLY = 2.0  # how far beyond the tokens per parameter that were run the best ones of the highest compute may lie
ONE_COMPUTE = "the runs are all of one compute, or nearly, and"
GRID_STEP = 0.025  # of ln N, where draws are looked at


def choice_draws(ensemble: Ensemble, minima: Minima, *, draws: int, seed: int) -> list[Array]:
    """Parameters of every choice refitted to the same resamples of runs, (draws, k) each."""
    counts = uncertainty.resamples(uncertainty.clusters(ensemble.runs, "run"), draws=draws, seed=seed)
    found = refitted(ensemble.choices, ensemble.fits, ensemble.runs, counts)
    for i, (choice, fit) in enumerate(zip(ensemble.choices, ensemble.fits, strict=True)):
        if choice.frontier and minima.draws is not None:
            used = {"C": np.array([p.budget for p in minima.used])}
            found[i] = solve.refit(fit, used, minima.draws[np.arange(draws) % len(minima.draws), 2:])
        elif choice.frontier:
            found[i] = np.full((draws, choice.law.dimension), np.nan)
    return [found[i] for i in range(len(found))]


def optimal_points(
    compute: Array,
    ensemble: Ensemble,
    table: pd.DataFrame,
    minima: Minima,
    thetas: list[Array] | None = None,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute-optimal runs of fresh text, a row each.

    Args:
        thetas: of ``choice_draws``; without them there are intervals by the budgets alone.

    Returns:
        N, D, C, U and ``optimal``, nan where there is no optimum; N_low, N_high, D_low, D_high of the 95% intervals,
        nan where the runs do not tell; UNMEASURED, D/N at the highest compute where none near it was run.
    """
    cost = per_6nd(table)
    nothing = np.full((len(compute), 2), np.nan)
    if minima.trusted and minima.family is not None:
        carried = minima.family.carried(np.log(compute))
        ln_n, rng = carried.mean, np.random.default_rng(seed)
        drawn = carried.draws(SAMPLES, minima.family.freedom, minima.family.inflation, rng)
        drawn = _growing(drawn, compute, minima.family, cost)
        share = np.full(len(drawn), 1 / len(drawn))
    elif (line := ensemble.on_line(compute, cost)) is not None:
        n, d = line
        return _points(np.log(n), d, compute, nothing, nothing)
    else:
        top = ensemble.ends[1]
        found, drawn, share = _by_laws(np.append(compute, top), ensemble, cost, table, thetas)
        ln_n, at_top = found[:-1], found[-1:]
        ratio = float(tokens(cost, at_top, top)[0] / np.exp(at_top[0]))
        told = _bracketed(table, ratio)
        if not told or few_points(ensemble):
            points = _points(ln_n, tokens(cost, ln_n, compute), compute, nothing, nothing)
            nearest = points.D / points.N if np.isnan(ratio) else ratio
            return points.assign(**{UNMEASURED: np.nan if told else nearest})
    sizes, fed = nothing.copy(), nothing.copy()
    for i, c in enumerate(compute):
        there = np.isfinite(drawn[:, i])
        if thetas is None and not minima.trusted:
            continue
        if not np.isfinite(ln_n[i]) or share[~there].sum() > MOST_WITHOUT:
            continue
        low, high = uncertainty.weighted_interval(drawn[there, i], share[there])
        between = np.array([min(low, ln_n[i]), max(high, ln_n[i])])
        sizes[i], fed[i] = np.exp(between), np.sort(tokens(cost, between, float(c)))
    return _points(ln_n, tokens(cost, ln_n, compute), compute, sizes, fed)


def unanswered(ensemble: Ensemble, compute: Sequence[float]) -> str:
    """Why no size is best at these computes, and what would tell one."""
    at = f"C={', '.join(f'{c:.3g}' for c in compute)}"
    if ensemble.of_one_compute:
        return f"{ONE_COMPUTE} tell nothing of {at}: no prediction; run another budget"
    if ensemble.missing is not None:
        line = "the one line of ln N and ln D along which the runs vary"
        return f"{line} does not lead to {at}: no prediction; run other ratios D/N"
    return (
        f"no size is best at {at} by these laws, within a factor 1000 of the sizes that were run: no prediction; run "
        "sizes on both sides of the best, or give N and D of a point by predict="
    )


def _bracketed(table: pd.DataFrame, ratio: float) -> bool:
    """Whether runs have tokens per parameter on both sides of a ratio, or nearly; else the laws' form alone says it."""
    run = (table.D / table.N).to_numpy(float)
    return bool(run.min() / NEARLY <= ratio <= run.max() * NEARLY)


def _growing(drawn: Array, compute: Array, family: Family, cost: Ratio) -> Array:
    """Draws of ln N* (draws, n) without those of which N* or D* is less than at the highest budget, as far as known.

    More compute is never best spent on fewer parameters, nor on fewer tokens; an exponent that drifts does not know
    it. Others take their places; where hardly any is left, all stay.
    """
    top, at, found = float(family.centre[-1]), float(np.exp(family.ln_compute[-1])), drawn.copy()
    doubt = DOUBTS * float(np.sqrt(family.of_centre[-1, -1]))
    fewest = float(tokens(cost, np.array([top + doubt]), at)[0])
    for i in np.flatnonzero(compute > at):
        grown = (drawn[:, i] >= top - doubt) & (tokens(cost, drawn[:, i], float(compute[i])) >= fewest)
        if grown.sum() >= LEAST_GROWN * len(drawn):
            found[:, i] = np.resize(drawn[grown, i], len(drawn))
    return found


def _points(ln_n: Array, d: Array, compute: Array, sizes: Array, tokens: Array) -> pd.DataFrame:
    found = pd.DataFrame({"N": np.exp(ln_n), "D": d, "C": compute, "U": d, "optimal": True})
    for name, ends in zip(TARGETS, (sizes, tokens), strict=True):
        found[f"{name}_low"], found[f"{name}_high"] = ends[:, 0], ends[:, 1]
    return found


def _by_laws(
    compute: Array, ensemble: Ensemble, cost: Ratio, table: pd.DataFrame, thetas: list[Array] | None
) -> tuple[Array, Array, Array]:
    """ln N* (n,) by the mean of the laws, draws of it (draws, n) and their weights (draws,)."""
    ends = optimum.within_reach(table.N.to_numpy(float))
    with_n = [j for j, choice in enumerate(ensemble.choices) if not choice.frontier]
    measuring = [j for j in with_n if ensemble.choices[j].law not in TIED]
    measuring = [j for j in measuring if ensemble.choices[j].law is laws.DATA_CONSTRAINED] or measuring
    centres, weights, draws, shares = [], [], [], []
    for j in measuring or with_n:
        choice, fit, weight = ensemble.choices[j], ensemble.fits[j], float(ensemble.anywhere.weights[j])
        assert fit.theta is not None
        centres.append([_lowest(choice, fit.theta, float(c), cost, ends) for c in compute])
        weights.append(weight)
        theta = fit.theta[None] if thetas is None else thetas[j]
        draws.append(np.stack([lowest_of_draws(choice, theta, float(c), cost, ends) for c in compute], 1))
        shares.append(np.full(len(theta), weight / len(theta)))
    total = np.array(weights) @ np.isfinite(centres)
    with np.errstate(all="ignore"):
        mean = np.array(weights) @ np.nan_to_num(centres) / np.where(2 * total >= sum(weights), total, np.nan)
    return np.asarray(mean), np.vstack(draws), np.concatenate(shares) / sum(weights)


def _lowest(choice: Choice, theta: Array, compute: float, cost: Ratio, ends: tuple[float, float]) -> float:
    """ln N where a law is lowest along a compute; nan where it has no optimum."""
    found = optimum.lowest(lambda x: _ln_loss(choice, theta[None], x, tokens(cost, x, compute))[0], *ends)
    return np.nan if found is None else found


def lowest_of_draws(choice: Choice, theta: Array, compute: float, cost: Ratio, ends: tuple[float, float]) -> Array:
    """The same for many parameters (P, k), to a part of GRID_STEP, (P,).

    Args:
        cost: C/(6ND) by size.
        ends: ln N between which the optimum is looked for.
    """
    x = np.arange(ends[0], ends[1] + GRID_STEP, GRID_STEP)
    return optimum.on_grid(x, _ln_loss(choice, theta, x, tokens(cost, x, compute)))


def _ln_loss(choice: Choice, theta: Array, ln_n: Array, d: Array) -> Array:
    """ln L of fresh text along sizes, (P, n)."""
    data = choice.columns({"N": np.exp(ln_n), "D": d, "U": d})
    with np.errstate(all="ignore"):
        return np.asarray(choice.law.on(data)(theta)[0])
