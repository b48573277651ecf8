"""N*(C) and D*(C) by the three approaches of Hoffmann et al. 2022, as panels of a figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy import special

from analysis.estimation import uncertainty
from analysis.estimation.choices import Choice
from analysis.estimation.fitted_laws import FittedLaw
from analysis.estimation.optimal_size import lowest_of_draws, optimal_points
from analysis.estimation.optimum import within_reach
from analysis.estimation.solve import FitStatus
from analysis.laws import Array
from analysis.runs.conventions import LABELS
from analysis.runs.ratio import per_6nd, tokens
from analysis.study import Study
from dashboards.figures.drawing import Panel, band, in_corner, of_minimum
from dashboards.figures.look import PALETTE
from dashboards.figures.style import spelt
from gpt3core.words import count, powers, span

POINTS, BY_LAW = 40, 14  # of a line; of one that is all but straight and takes longer
MOST_DRAWS = 200  # of the law, for a band
WAYS = {  # of an approach: its colour, its dash, and the corner and line of its name
    "1": (PALETTE[2], "dot", "top left", 1),
    "2": (PALETTE[0], "solid", "top left", 0),
    "3": (PALETTE[1], "dash", "bottom right", 0),
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """N* and D* along computes by one approach, with the ends of 95% intervals; nan where it has none."""

    approach: str
    exponent: float
    interval: list[float] | None
    doubt: str  # what is wrong with it; empty where nothing is
    points: pd.DataFrame  # C, N, N_low, N_high, D, D_low, D_high


def panels(study: Study) -> list[Panel]:
    """N*(C), and D*(C) along the same computes."""
    compute = f"C, {LABELS[study.convention.c]}"
    return [
        Panel(x=compute, y="N*, parameters", log_y=True, height=230),
        Panel(x=compute, y="D*, tokens", log_y=True, height=230, under=True),
    ]


def lines(study: Study) -> list[Line]:
    """What each approach says, from the lowest budget to the farthest prediction."""
    table = study.table
    if table.empty or table.loss.isna().all():
        return []
    computes = [*table.C, *(p.compute for p in study.predictions)]
    grid = np.geomspace(min(computes), max(computes), POINTS)
    made = (_by_curves(study, grid), _by_minima(study, grid), _by_law(study, grid))
    return [line for line in made if line is not None]


def _by_curves(study: Study, grid: Array) -> Line | None:
    found = study.training_curves
    if found is None or found.reason:
        return None
    n = found.k * grid**found.a
    d = tokens(per_6nd(study.table), np.log(n), grid)
    points = _points(grid, n, d)
    return Line(approach="1", exponent=found.a, interval=found.interval_a or None, doubt="", points=points)


def _by_minima(study: Study, grid: Array) -> Line | None:
    """As predictions have it: the line through the minima whose slope may drift."""
    minima = study.minima
    if not minima.trusted or study.ensemble is None:
        return None
    found = optimal_points(grid, study.ensemble, study.table, minima, seed=study.options.seed)
    drawn = None if minima.draws is None else uncertainty.interval(minima.draws[:, 0])
    columns = ["C", "N", "N_low", "N_high", "D", "D_low", "D_high"]
    return Line(approach="2", exponent=minima.exponent, interval=drawn, doubt="", points=found[columns])


def _by_law(study: Study, grid: Array) -> Line | None:
    """By L(N,D), without a band where it is not determined."""
    joint = study.laws.get("chinchilla")
    if joint is None or not np.isfinite(joint.a_and_b[0]):
        return None
    grid = np.geomspace(grid[0], grid[-1], BY_LAW)
    whole, determined = by_law(joint, study.table, grid), joint.fit.status is FitStatus.OK
    return Line(
        approach="3",
        exponent=joint.a_and_b[0],
        interval=uncertainty.interval(joint.a_draws) if determined and len(joint.a_draws) else None,
        doubt="" if determined else joint.fit.status.value,
        points=whole if determined else _points(grid, whole.N.to_numpy(float), whole.D.to_numpy(float)),
    )


def by_law(joint: FittedLaw, table: pd.DataFrame, grid: Array) -> pd.DataFrame:
    """Where L(N,D) is lowest along the runs' own C(N,D), with 95% of the mean law: the columns of Line.points."""
    assert joint.fit.theta is not None
    cost, ends = per_6nd(table), within_reach(table.N.to_numpy(float))
    choice = Choice(law=joint.fit.law, rho=joint.fit.rho)
    theta = joint.fit.theta[None] if joint.draws is None else np.vstack([joint.fit.theta, joint.draws[:MOST_DRAWS]])
    ln_n = np.stack([lowest_of_draws(choice, theta, float(c), cost, ends) for c in grid], 1)
    low, high = np.array([uncertainty.interval(column[1:]) for column in ln_n.T]).T if len(theta) > 1 else ln_n[[0, 0]]
    return pd.DataFrame(
        {
            "C": grid,
            "N": np.exp(ln_n[0]),
            "N_low": np.exp(low),
            "N_high": np.exp(high),
            "D": tokens(cost, ln_n[0], grid),
            "D_low": tokens(cost, high, grid),
            "D_high": tokens(cost, low, grid),
        }
    )


def _points(grid: Array, n: Array, d: Array) -> pd.DataFrame:
    empty = dict.fromkeys(("N_low", "N_high", "D_low", "D_high"), np.nan)
    return pd.DataFrame({"C": grid, "N": n, "D": d, **empty})


def add(figure: go.Figure, study: Study, found: list[Line], row: int) -> None:
    """Draw N*(C) in a panel and D*(C) in the one below: lines with bands, minima of the budgets, predictions."""
    for variable, at in (("N", row), ("D", row + 1)):
        for line in found:
            _add_line(figure, line, variable, at)
        _add_minima(figure, study, variable, at)
        _add_predictions(figure, study, variable, at)


def _add_line(figure: go.Figure, line: Line, variable: str, row: int) -> None:
    color, dash, corner, place = WAYS[line.approach]
    points = line.points
    x, y = points["C"].to_numpy(float), points[variable].to_numpy(float)
    band(
        figure, x, points[f"{variable}_low"].to_numpy(float), points[f"{variable}_high"].to_numpy(float), color, row=row
    )
    name = f"approach {line.approach}"
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        name=name,
        line={"color": color, "width": 2, "dash": dash},
        showlegend=False,
        text=[f"{c}<br>{variable}* {count(best)}" for c, best in zip(spelt("C", x), y, strict=True)],
        hovertemplate=f"{name}<br>%{{text}}<extra></extra>",
        row=row,
        col=1,
    )
    if variable == "N":
        inside = f" ({span(line.interval, 2)})" if line.interval else f" ({line.doubt})" if line.doubt else ""
        text = f"{name}: C<sup>{line.exponent:.2f}</sup>{inside}"
        in_corner(figure, text, row=row, corner=corner, color=color, line=place)


def _add_minima(figure: go.Figure, study: Study, variable: str, row: int) -> None:
    """The minima of the budgets with the 95% interval of each."""
    used, family = study.minima.used, study.minima.family
    if not used:
        return
    y = np.array([p.n_star if variable == "N" else p.d_star for p in used])
    error = None
    if family is not None:
        doubt = special.stdtrit(family.freedom, 0.975) * np.sqrt(np.diag(family.of_centre))
        up, down = y * np.expm1(doubt), -y * np.expm1(-doubt)
        error = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1, "width": 3}
    figure.add_scatter(
        x=[p.budget for p in used],
        y=y,
        error_y=error,
        mode="markers",
        name=f"{variable}* of a budget",
        marker={"symbol": "circle", "size": 7, "color": WAYS["2"][0]},
        showlegend=False,
        text=list(map(of_minimum, used)),
        hoverinfo="text",
        row=row,
        col=1,
    )


def _add_predictions(figure: go.Figure, study: Study, variable: str, row: int) -> None:
    """Stars with the intervals that the answer has."""
    best = [p for p in study.predictions if p.optimal]
    if not best:
        return
    y = np.array([p.n if variable == "N" else p.d for p in best])
    ends = [(p.interval_n if variable == "N" else p.interval_d) or [v, v] for p, v in zip(best, y, strict=True)]
    figure.add_scatter(
        x=[p.compute for p in best],
        y=y,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [high - v for (_, high), v in zip(ends, y, strict=True)],
            "arrayminus": [v - low for (low, _), v in zip(ends, y, strict=True)],
        },
        mode="markers",
        name=f"predicted {variable}*",
        marker={"symbol": "star-diamond", "size": 11, "color": PALETTE[1]},
        showlegend=False,
        text=[
            f"prediction at C {powers(p.compute)} FLOPs<br>{variable}* {count(v)} ({' to '.join(map(count, e))})"
            for p, v, e in zip(best, y, ends, strict=True)
        ],
        hoverinfo="text",
        row=row,
        col=1,
    )
