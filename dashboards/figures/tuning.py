"""Figures of a search: the basins of loss about the best learning rate, and the laws of the best rate and batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.laws.base import Array
from analysis.tuning import study as studies
from analysis.tuning.study import Tuning
from dashboards.figures.look import GREY, PALETTE, faint
from dashboards.figures.style import Page, add_scale, axes, round_values, shades
from gpt3core.rule import DEEPSEEK, STEP_LAW
from gpt3core.words import count, number_of

TALL, SCALE = 760, 170  # pixels: of two panels, and of the bar of sizes
APART = 2**0.5  # factor between two learning rates of a line
MOST_ABOVE = 0.06  # share of the best loss up to which basins are shown
MOST_LEVELS = 4  # of D, or of N, for which a law that depends on both is drawn
BLACK, ORANGE = "#000000", PALETTE[1]
AXIS = {"lr": "learning rate", "batch": "batch, tokens"}
PUBLISHED = {"Li et al. 2025": STEP_LAW, "Bi et al. 2024": DEEPSEEK}
DASHES = ("dash", "dot")


# -------------------------------------------------------------------------------------------------------------- basins


def basins(found: Tuning) -> Page:
    """How far above the best of their pair learning rates end, each with its best batch; below, against the law's."""
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.14)
    pairs = _pairs(found)
    colors = dict(zip(sizes := sorted({p.n for p in pairs}), shades(sizes), strict=True))
    for pair in pairs:
        _add_basin(figure, found, pair, colors[pair.n])
    _add_section(figure, found)
    add_scale(figure, sizes, pixels=SCALE)
    axes(figure, "learning rate", "loss above the pair's best, %")
    figure.update_xaxes(title="learning rate, in units of the law's best", row=2, col=1)
    highest = max(float(np.max(trace.y)) for trace in figure.data if trace.y[0] is not None)
    figure.update_yaxes(range=[-0.03 * (most := min(100 * MOST_ABOVE, 1.05 * highest)), most])
    figure.update_layout(height=TALL, margin={"t": 60})
    about = (
        f"A line a pair of N and D, coloured by N: the best run of any batch at learning rates a factor of {APART:.2g} "
        f"apart; {number_of(len(found.table), 'run')} of {number_of(len(pairs), 'pair')}. Below, in units of what the "
        "law says for each N and D: where it holds, all basins lie over one another, lowest at one. Thick: the fitted "
        "surface at its best batch, at the level of the middle pair (zero is each pair's luckiest run)."
    )
    return Page(slug="basins", title="Learning-rate basins", about=about, figure=figure, rows=_trials(found))


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """One N and D of a search, its runs, the best of them, and what the law says of it."""

    n: float
    d: float
    rows: pd.DataFrame  # lr, batch_tokens, loss
    best: pd.Series
    law: tuple[float, float]  # lr, batch

    @property
    def name(self) -> str:
        return f"N {count(self.n)}, D {count(self.d)}"


def _pairs(found: Tuning) -> list[_Pair]:
    """The pairs in the order of N, then of D."""
    made = []
    for k, best in enumerate(studies.best_rows(found)):
        n, d = (float(x) for x in np.exp(found.data.z[k]))
        rows = found.table[found.data.pair == k]
        made.append(_Pair(n=float(rows.N.iloc[0]), d=d, rows=rows, best=best, law=found.fitted.best(n, d)))
    return sorted(made, key=lambda pair: (pair.n, pair.d))


def _add_basin(figure: go.Figure, found: Tuning, pair: _Pair, color: str) -> None:
    """The lowest losses of a pair along its learning rates, in both panels."""
    near = np.round(np.log(pair.rows.lr / pair.best.lr) / np.log(APART))
    lowest = pair.rows.loc[pair.rows.groupby(near).loss.idxmin()].sort_values("lr")
    above = 100 * (lowest.loss / pair.best.loss - 1)
    text = [
        f"<b>{pair.name}</b><br>lr {r.lr:.3g}, batch {r.batch_tokens:,.0f} tokens<br>loss {r.loss:.4f}, {a:.2f}% above"
        for r, a in zip(lowest.itertuples(), above, strict=True)
    ]
    for row, x in ((1, lowest.lr), (2, lowest.lr / pair.law[0])):
        figure.add_scatter(
            x=x,
            y=above,
            mode="lines+markers",
            line={"color": color, "width": 1.2},
            marker={"size": 5},
            showlegend=False,
            text=text,
            hoverinfo="text",
            row=row,
            col=1,
        )


def _add_section(figure: go.Figure, found: Tuning) -> None:
    """The fitted surface along the best batch, against lr over its best; at the level of the middle pair."""
    theta, pairs = found.fitted.theta, found.data.pairs
    l11, _, _, cubic = theta[pairs : pairs + 4]
    u = np.linspace(np.log(0.25), np.log(4.0), 81)
    level = float(np.median(theta[:pairs]))
    figure.add_scatter(
        x=np.exp(u),
        y=100 * np.expm1(level + 0.5 * (l11 * u) ** 2 + cubic * u**3),
        mode="lines",
        line={"color": BLACK, "width": 2.5},
        name="fitted surface",
        hovertemplate="%{x:.2f} of the best lr: %{y:.2f}% above the pair's best<extra></extra>",
        row=2,
        col=1,
    )


def _trials(found: Tuning) -> pd.DataFrame:
    """Every run that counts."""
    known = [name for name in ("run_id", "N", "D", "lr", "batch_tokens", "loss") if name in found.table]
    rows = found.table[known].assign(above_best=np.expm1(found.data.y))
    return rows.sort_values(["N", "D", "lr"], ignore_index=True)


# --------------------------------------------------------------------------------------------- the law of the optimum


def optimum(found: Tuning) -> Page:
    """The best learning rate and batch against N and D: best runs, the laws with their intervals, published ones."""
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.14)
    pairs = _pairs(found)
    along = [_add_law(figure, found, which, pairs, row) for row, which in enumerate(AXIS, start=1)]
    axes(figure, "", "")
    for row, (which, of) in enumerate(zip(AXIS, along, strict=True), start=1):
        name = "N, parameters" if of == "N" else "D, training tokens"
        values = sorted(pair.n if of == "N" else pair.d for pair in pairs)
        ticks = round_values(values[0], values[-1])
        marks = {"tickmode": "array", "tickvals": ticks, "ticktext": [count(tick) for tick in ticks]}
        figure.update_xaxes(title=name, row=row, col=1, **marks)
        figure.update_yaxes(title=AXIS[which], type="log", exponentformat="power", dtick="D2", row=row, col=1)
    figure.update_layout(height=TALL)
    lr, batch = found.fitted.lr, found.fitted.batch
    about = (
        f"lr* = {lr.words}; batch* = {batch.words} tokens. Points are the best runs of the pairs, which lie where "
        "something was tried; the law is of the surface through all runs, with its 95% interval where there are pairs "
        "enough. Grey: published laws at the same N and D, fitted to other models and text."
    )
    title = "Laws of the best learning rate and batch"
    return Page(slug="tuned-optimum", title=title, about=about, figure=figure, rows=_optima(found, pairs))


def _add_law(figure: go.Figure, found: Tuning, which: str, pairs: list[_Pair], row: int) -> str:
    """One panel; along which of N and D it runs."""
    law = getattr(found.fitted, which)
    along = "N" if law.N and len({pair.n for pair in pairs}) > 1 else "D"
    other = "D" if along == "N" else "N"
    levels = _levels([pair.d if along == "N" else pair.n for pair in pairs]) if getattr(law, other) else [None]
    colors = dict(zip(levels, shades([level or 1.0 for level in levels]), strict=True))
    at = {"row": row, "col": 1}
    x = [pair.n if along == "N" else pair.d for pair in pairs]
    grid = np.geomspace(min(x), max(x), 40)
    for level in levels:
        points = [_at(along, value, level, pairs) for value in grid]
        color = BLACK if level is None else colors[level]
        figure.add_scatter(
            x=grid,
            y=[law.at(*point) for point in points],
            mode="lines",
            line={"color": color, "width": 2},
            name=f"{AXIS[which].partition(',')[0]}*" + ("" if level is None else f" at {other} {count(level)}"),
            hoverinfo="skip",
            **at,
        )
        if found.resampled.known and level in (None, levels[len(levels) // 2]):
            _add_interval(figure, np.array([found.resampled.at(which, *p) for p in points]), grid, at)
    _add_published(figure, which, along, levels[len(levels) // 2], pairs, grid, at)
    _add_best(figure, which, x, pairs, other if levels != [None] else "", at)
    return along


def _levels(values: list[float]) -> list[float | None]:
    """A few of the values that the other variable has, from the lowest to the highest."""
    known = sorted(set(values))
    if len(known) <= MOST_LEVELS:
        return list(known)
    return [known[round(i * (len(known) - 1) / (MOST_LEVELS - 1))] for i in range(MOST_LEVELS)]


def _at(along: str, value: float, level: float | None, pairs: list[_Pair]) -> tuple[float, float]:
    """N and D of a point of a line; where a law does not depend on the other, that of a line through the pairs."""
    if level is None:
        x, y = np.log([(pair.n, pair.d) if along == "N" else (pair.d, pair.n) for pair in pairs]).T
        slope, constant = np.polyfit(x, y, 1) if np.ptp(x) > 0 else (0.0, y.mean())
        level = float(np.exp(constant + slope * np.log(value)))
    return (value, level) if along == "N" else (level, value)


def _add_interval(figure: go.Figure, band: Array, grid: Array, at: dict[str, int]) -> None:
    """The 95% interval of a line, (points, 2)."""
    figure.add_scatter(
        x=np.concatenate([grid, grid[::-1]]),
        y=np.concatenate([band[:, 1], band[::-1, 0]]),
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=faint("#000000"),
        name="95% of the law",
        legendgroup="band",
        showlegend=at["row"] == 1,
        hoverinfo="skip",
        **at,
    )


def _add_published(
    figure: go.Figure,
    which: str,
    along: str,
    level: float | None,
    pairs: list[_Pair],
    grid: Array,
    at: dict[str, int],
) -> None:
    """What published rules say at the same points."""
    for dash, (name, rule) in zip(DASHES, PUBLISHED.items(), strict=True):
        law = rule.lr if which == "lr" else rule.batch_tokens
        figure.add_scatter(
            x=grid,
            y=[law.at(*_at(along, value, level, pairs)) for value in grid],
            mode="lines",
            line={"color": GREY, "width": 1.2, "dash": dash},
            name=name,
            legendgroup=name,
            showlegend=at["row"] == 1,
            hoverinfo="skip",
            **at,
        )


def _add_best(
    figure: go.Figure, which: str, x: list[float], pairs: list[_Pair], other: str, at: dict[str, int]
) -> None:
    """The best run of every pair, coloured by the other variable where the law depends on it."""
    values = [pair.n if other == "N" else pair.d for pair in pairs]
    figure.add_scatter(
        x=x,
        y=[float(pair.best.lr if which == "lr" else pair.best.batch_tokens) for pair in pairs],
        mode="markers",
        marker={"color": shades(values) if other else ORANGE, "size": 8, "line": {"width": 1, "color": BLACK}},
        name="best run of a pair",
        legendgroup="best",
        showlegend=at["row"] == 1,
        text=[
            f"<b>{pair.name}</b><br>best run: lr {pair.best.lr:.3g}, batch {pair.best.batch_tokens:,.0f}, loss "
            f"{pair.best.loss:.4f}<br>law: lr {pair.law[0]:.3g}, batch {pair.law[1]:,.0f}"
            for pair in pairs
        ],
        hoverinfo="text",
        **at,
    )


def _optima(found: Tuning, pairs: list[_Pair]) -> pd.DataFrame:
    """A row a pair: its best run, the law, and the interval of the law."""
    rows = []
    for pair in pairs:
        row = {"N": pair.n, "D": pair.d, "runs": len(pair.rows), "best_loss": float(pair.best.loss)}
        for which, best, law in (
            ("lr", pair.best.lr, pair.law[0]),
            ("batch_tokens", pair.best.batch_tokens, pair.law[1]),
        ):
            low, high = found.resampled.at(which.partition("_")[0], pair.n, pair.d)
            row |= {f"best_{which}": float(best), f"law_{which}": law}
            row |= {f"law_{which}_low95": low, f"law_{which}_high95": high}
        rows.append(row)
    return pd.DataFrame(rows)
