"""Backtests: what lower-compute runs said of higher-compute ones, by how far these lie beyond them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.estimation.backtest import LEVELS, held
from analysis.laws import Array
from analysis.output.texts import shared
from analysis.study import Study
from dashboards.figures.drawing import Panel, arrange, nothing, panelled
from dashboards.figures.look import GREY, PALETTE
from dashboards.figures.style import LOSS, Page, plain, scale
from gpt3core.words import number_of, powers

SLUG, TITLE = "backtest", "Backtests: predicted against measured"
MISS, PART = "measured − predicted, %", "inside, %"
ROWS = ("run_id", "fitted_to", "fitted_runs", "N", "D", "C", "optimal", "decades", "measured", "predicted", "miss")
HALVES = tuple(f"half{round(100 * level)}" for level in LEVELS)
COLORS = (PALETTE[1], PALETTE[0])  # of the levels
BIN, NEARLY = 0.25, 0.02  # decades; the part of one by which budgets lie beside the round computes that were asked for


def backtest(study: Study, rows: pd.DataFrame | None = None) -> Page:
    """Measured against predicted loss, the misses with their intervals, and how many of these hold, by decades.

    Args:
        rows: some of ``study.judged``, like those of one cut (column fitted_to); all of them by default.
    """
    rows = study.judged if rows is None else rows
    if rows.empty:
        reason = study.weighting.calibration.reason if study.weighting is not None else "no law could be fitted"
        return nothing(SLUG, TITLE, reason)
    figure = panelled(3)
    inside = held(rows)
    _add_pairs(figure, rows, inside[:, -1])
    _add_misses(figure, rows, inside[:, -1])
    bins = _coverage(rows, inside)
    _add_coverage(figure, bins)
    decades = "decades beyond the fitted runs"
    panels = [
        Panel(x=f"predicted {LOSS}", y=f"measured {LOSS}", height=330, log_x=False),
        Panel(x=decades, y=MISS, height=230, log_x=False),
        Panel(x=decades, y=PART, height=130, log_x=False, under=True),
    ]
    arrange(figure, panels)
    figure.update_yaxes(range=[0, 105], row=3, col=1)
    for row in (2, 3):
        figure.update_xaxes(rangemode="tozero", row=row, col=1)
    last = pd.array(inside[:, -1].tolist(), dtype="boolean")  # empty where there is no interval
    found = rows[[name for name in (*ROWS, *HALVES) if name in rows]].assign(inside95=last)
    about, drawn = _about(rows, inside), pd.concat([_in_percent(found), _shares(bins)], ignore_index=True)
    return Page(slug=SLUG, title=TITLE, about=about, figure=figure, rows=drawn, summary=found)


def _in_percent(found: pd.DataFrame) -> pd.DataFrame:
    """Predictions with their misses and the ends of the 95% interval as they are drawn."""
    half = found[HALVES[-1]].where(np.isfinite(found[HALVES[-1]]))
    ends = {"miss": found.miss, "low95": -half, "high95": half}
    return found.assign(what="prediction", **{f"{name}_percent": 100 * np.expm1(end) for name, end in ends.items()})


def _shares(bins: pd.DataFrame) -> pd.DataFrame:
    """The lines at the bottom, as rows."""
    inside = {half.replace("half", "inside") + "_percent": 100 * bins[half] for half in HALVES}
    return pd.DataFrame({"what": "share inside", "decades": bins.index, "tests": bins.tests, **inside})


def _about(rows: pd.DataFrame, inside: Array) -> str:
    cuts, off, best = int(rows.fitted_to.nunique()), np.expm1(rows.miss.abs()), rows.optimal.to_numpy(bool)
    minima = "1 minimum of a budget" if best.sum() == 1 else f"{best.sum()} minima of budgets"
    kinds = [
        f"{what}: median miss {off[of].median():.2%}, at most {off[of].max():.1%}, up to "
        f"{rows.decades[of].max():.1f} decades beyond"
        for of, what in (
            (~best, number_of(int((~best).sum()), "run")),
            (best, f"{minima} (the answer at the best size)"),
        )
        if of.any()
    ]
    said = f"The laws, fitted below {number_of(cuts, 'cut')} of compute, asked for what lies above. {'; '.join(kinds)}."
    judged = np.isfinite(inside[:, -1])
    if not judged.any():
        return f"{said} One cut judges itself by no other: there are no intervals to test."
    shares = [
        " and ".join(f"{inside[of, j].mean():.0%}" for j in range(len(LEVELS))) + what
        for of, what in ((judged & ~best, " of the runs (circles)"), (judged & best, " of the minima (diamonds)"))
        if of.any()
    ]
    without = int((~judged).sum())
    alone = f" {without:,} {'has' if without == 1 else 'have'} no interval, for no other cut could calibrate it."
    alone = alone if without else ""
    levels = " and ".join(f"{level:.0%}" for level in LEVELS)
    return (
        f"{said}{alone} Inside intervals of {levels} of a new run, calibrated "
        f"on the other cuts: {'; '.join(shares)}. The laws' weights are from all cuts. Crossed: outside that of 95%, "
        "whose ends are the grey lines. At the bottom the share inside by decades, larger where it rests on more; "
        "dotted, the nominal levels."
    )


def _marks(rows: pd.DataFrame, inside: Array) -> dict[str, object]:
    """Points coloured by decades; a crossed one lies outside its interval."""
    kinds = zip(rows.optimal.astype(bool), inside != 0, strict=True)
    return {
        "color": rows.decades.tolist(),
        "colorscale": scale(),
        "cmin": 0.0,
        "cmax": float(rows.decades.max()),
        "size": 8,
        "symbol": [("diamond" if ok else "diamond-x") if best else "circle" if ok else "x" for best, ok in kinds],
        "opacity": 0.8,
    }


def _texts(rows: pd.DataFrame) -> list[str]:
    return shared(
        f"<b>{plain(r['run_id'])}</b><br>C {powers(r['C'])} FLOPs, {r['decades']:.2f} decades beyond "
        f"{powers(r['fitted_to'])}<br>"
        f"predicted {r['predicted']:.4f}, measured {r['measured']:.4f} ({100 * np.expm1(r['miss']):+.2f}%)"
        for r in rows.to_dict("records")
    )


def _add_pairs(figure: go.Figure, rows: pd.DataFrame, inside: Array) -> None:
    """Measured against predicted with the line of equal ones."""
    ends = [
        float(min(rows.predicted.min(), rows.measured.min())),
        float(max(rows.predicted.max(), rows.measured.max())),
    ]
    line = {"color": GREY, "width": 1}
    figure.add_scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip", showlegend=False, row=1, col=1)
    bar = {"title": {"text": "decades"}, "thickness": 12, "outlinewidth": 0, "len": 0.4, "y": 1.0, "yanchor": "top"}
    figure.add_scatter(
        x=rows.predicted,
        y=rows.measured,
        mode="markers",
        name="predictions",
        marker={**_marks(rows, inside), "colorbar": bar},
        text=_texts(rows),
        hoverinfo="text",
        showlegend=False,
        row=1,
        col=1,
    )


def _add_misses(figure: go.Figure, rows: pd.DataFrame, inside: Array) -> None:
    """Misses by decades, and the ends of the 95% interval of each cut."""
    for _, cut in rows.groupby(["optimal", "fitted_to"]):
        cut = cut[np.isfinite(cut[HALVES[-1]])].sort_values("decades")
        for sign in (-1, 1):
            figure.add_scatter(
                x=cut.decades,
                y=100 * np.expm1(sign * cut[HALVES[-1]]),
                mode="lines",
                line={"color": GREY, "width": 0.7},
                opacity=0.6,
                hoverinfo="skip",
                showlegend=False,
                row=2,
                col=1,
            )
    figure.add_scatter(
        x=rows.decades,
        y=100 * np.expm1(rows.miss),
        mode="markers",
        name="misses",
        marker=_marks(rows, inside),
        text=_texts(rows),
        hoverinfo="text",
        showlegend=False,
        row=2,
        col=1,
    )
    figure.add_hline(y=0, line={"color": GREY, "width": 1}, row=2, col=1)


def _coverage(rows: pd.DataFrame, inside: Array) -> pd.DataFrame:
    """The share inside each level's interval by quarters of a decade; none where no interval could be tested."""
    tested = np.isfinite(inside[:, -1])
    shares = pd.DataFrame(inside, columns=list(HALVES))[tested]
    at = (np.floor(rows.decades.to_numpy(float)[tested] / BIN + NEARLY) + 0.5) * BIN
    grouped = shares.groupby(at)
    found: pd.DataFrame = grouped.mean().assign(tests=grouped.size())
    return found


def _add_coverage(figure: go.Figure, bins: pd.DataFrame) -> None:
    """A line a level, its nominal one dotted."""
    for half, level, color in zip(HALVES, LEVELS, COLORS, strict=True):
        figure.add_scatter(
            x=bins.index,
            y=100 * bins[half],
            mode="lines+markers",
            name=f"inside the {level:.0%} interval",
            line={"color": color, "width": 1.5},
            marker={"size": np.clip(4 + np.sqrt(bins.tests.to_numpy(float)), 5, 12)},
            text=[f"{number_of(int(many), 'prediction')}" for many in bins.tests],
            hovertemplate="%{y:.0f}% of %{text}<extra></extra>",
            row=3,
            col=1,
        )
        figure.add_hline(y=100 * level, line={"color": color, "dash": "dot", "width": 1}, row=3, col=1)
