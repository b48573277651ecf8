"""What the figures share: axes, texts, and the page that carries a figure and the rows behind it."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import east_asian_width

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.output.texts import shared
from dashboards.figures.look import AXIS, GRID, INK, PALETTE, PAPER, SCALE, SHADES, STEPS, VEIL
from dashboards.typeset import pieces, tagged
from gpt3core.words import count, powers

MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
LOSS = "loss, nats per token"
CROWDED, A_LABEL = 2.9, 0.31  # decades of which plotly labels each digit, and decades a label for 2s and 5s alone
NARROW, ROOM = 0.1, 0.3  # decades between points that are told apart by many digits, and beside them
DIGITS = 4  # of a loss after its point, at most
# pixels, which labels of most axes take: where they take more, plotly draws all of a figure twice
MARGIN = {"l": 74, "r": 30, "t": 30, "b": 64}
A_LETTER, MOST_LETTERS = 0.66, 24  # of a font's size, as wide as letters are; of a label for which room is made
MOST_DECADES, MOST_TICKS = 6, 10  # of an axis with 2s and 5s on it; of one of more decades
BEHIND = ("run_id", "size", "N", "D", "C", "U", "epochs", "seed", "loss", "loss_se")


@dataclass(frozen=True, kw_only=True)
class Page:
    """A figure with its title, a sentence on how to read it, and the rows behind it; ``group`` is the page it is on."""

    slug: str
    title: str
    about: str
    figure: go.Figure  # or one that is packed
    rows: pd.DataFrame  # what is exported
    summary: pd.DataFrame | None = None  # what is printed below the figure where the rows are too many
    group: str = "laws"  # or few-shot
    # of a panel each, what its axes have, both logarithmic: two of N, D, C and loss; None of another panel
    panels: tuple[tuple[str, str] | None, ...] = ()


def plain(name: object) -> str:
    """A name from outside as text for plotly, which reads some HTML in names, hover texts and annotations."""
    return html.escape(str(name), quote=False)


def printed(text: str) -> str:
    """A label of plotly's with its powers raised, as ``typeset`` has them on a page: 1e14, C^-0.05."""
    return "".join(map(tagged, pieces(text)))


def spelt(variable: str, values: Iterable[float]) -> list[str]:
    """What hover texts say of points: C in powers of ten, N and D as counts, which plotly's formats do not know."""
    spell = powers if variable == "C" else count
    return [f"{variable} {spell(value)}" for value in values]


def behind(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of runs that a page lists, small sizes first."""
    return table.sort_values(["N", "C"])[[name for name in BEHIND if name in table]]


def axes(figure: go.Figure, x: str, y: str, *, log_x: bool = True, log_y: bool = False) -> go.Figure:
    """Set the axes and the look; returns the figure."""
    figure.update_layout(
        template=TEMPLATE,
        margin=MARGIN,
        height=560,
        legend={"font": {"size": 11}, "orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0.0},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(title=x_title(x, log=log_x), type="log" if log_x else "linear", exponentformat="power")
    if log_x:
        figure.update_xaxes(**log_x_ticks(figure.data))
    figure.update_yaxes(
        title={"text": y, "standoff": 8},
        type="log" if log_y else "linear",
        automargin=True,
        minexponent=6,  # 0.0002 and not 200 micro
    )
    if log_y:
        figure.update_yaxes(**log_ticks(y, figure.data))
    return figure


def x_title(text: str, *, log: bool) -> dict[str, Any]:
    """A title as far below all axes: labels of logarithmic ones are taller by their powers."""
    return {"text": text, "standoff": 6 if log else 10}


def name_places(figure: go.Figure, names: Sequence[str], *, font: int = 13, row: int | None = None) -> None:
    """Room for the names along a y; plotly makes it, and draws twice, where one is long or has wide letters."""
    shown = [html.unescape(re.sub("<[^>]*>", "", name)) for name in names]
    longest = max(map(len, shown), default=0)
    if not 0 < longest <= MOST_LETTERS or any(east_asian_width(letter) in "WF" for letter in "".join(shown)):
        return
    room = max(MARGIN["l"], round(24 + A_LETTER * font * longest))
    figure.update_layout(margin={"l": room})
    figure.update_yaxes(automargin=False, row=row)


def log_ticks(title: str, traces: Iterable[Any]) -> dict[str, Any]:
    """The labels of a logarithmic axis: round losses where it is of losses, else as plotly has them.

    Args:
        traces: along the axis.
    """
    shown = [float(v) for trace in visible(traces) if trace.y is not None for v in trace.y if v is not None]
    values = [v for v in shown if 0 < v < math.inf]
    if LOSS not in title or not values:
        return {"exponentformat": "power"}
    ticks = loss_ticks(min(values), max(values))
    return {"tickmode": "array", "tickvals": ticks, "tickformat": tick_format(ticks)}


def tick_format(ticks: Sequence[float]) -> str:
    """The format of labels: steps between which there is one distance have as many digits each, 2.8 3.0 3.2."""
    if ticks[-1] >= 1e4:
        return ".3~g"
    if not np.allclose(np.diff(ticks, 2), 0.0, atol=10.0**-DIGITS / 2):
        return f".{DIGITS}~f"
    return f".{max(len(f'{tick:.{DIGITS}f}'.rstrip('0').partition('.')[2]) for tick in ticks)}f"


def visible(traces: Iterable[Any]) -> list[Any]:
    """Those that axes reach for: all but what a reader has to ask for in the legend."""
    return [trace for trace in traces if trace.visible != "legendonly"]


def log_x_ticks(traces: Iterable[Any]) -> dict[str, Any]:
    """What a logarithmic x takes to have few labels.

    There is room beside points so close that labels between them would be of many digits.

    Args:
        traces: along the axis.
    """
    shown = [np.asarray(trace.x, float) for trace in visible(traces) if trace.x is not None and len(trace.x)]
    known = np.concatenate(shown) if shown else np.empty(0)
    known = np.log10(known[known > 0])
    decades = float(np.ptp(known)) if len(known) else math.inf
    if decades <= NARROW:
        return {"range": [float(known.min()) - ROOM, float(known.max()) + ROOM], "nticks": 3}
    if decades < 1:  # whose labels are whole numbers: 4k and no 0.4 x 10^4
        return {"nticks": 5, "exponentformat": "B"}
    return {"nticks": int(decades / A_LABEL)} if decades < CROWDED else {}


def loss_ticks(low: float, high: float) -> list[float]:
    """About eight round values between two losses, which would have one label within a decade; see round_values."""
    if high > 10 * low:
        return round_values(low, high)
    if high == low:
        return [round(low, DIGITS)]
    least = max((high - low) / 9, 10.0**-DIGITS)
    unit = 10.0 ** np.floor(np.log10(least))
    step = float(unit * next(s for s in (1, 2, 5, 10) if s * unit > 0.999 * least))
    return [round(k * step, DIGITS) for k in range(int(low / step), int(high / step) + 2)]


def round_values(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: 1, 2 and 5 of every decade, and one beyond either end; of many decades, fewer."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    digits: tuple[int, ...] = (1, 2, 5)
    if len(decades) > MOST_DECADES:
        decades, digits = decades[1 :: -(-len(decades) // MOST_TICKS)], (1,)
    known = [digit * 10.0**decade for decade in decades for digit in digits]
    return [tick for tick in known if low / 2.5 < tick < high * 2.5]


def hover(rows: pd.DataFrame) -> list[str]:
    """A hover text a run: most of what figures take, so those of one fit and the next share them."""
    return shared(_said(run) for run in rows.to_dict("records"))


def _said(run: Mapping[Hashable, Any]) -> str:
    error = f" ± {run['loss_se']:.4f}" if math.isfinite(run.get("loss_se", math.nan)) else ""
    return (
        f"<b>{plain(run['run_id'])}</b><br>N {count(run['N'])}, D {count(run['D'])} tokens, {run['epochs']:.2f} epochs"
        f"<br>C {powers(run['C'])} FLOPs<br>loss {run['loss']:.4f}{error}<br>seed {plain(run['seed'])}"
    )


def add_runs(figure: go.Figure, rows: pd.DataFrame, x: pd.Series, y: pd.Series) -> None:
    """Points of runs, coloured by size."""
    marker = {**of_size(rows.N), "color": np.log10(rows.N), "size": 8, "opacity": 0.8}
    figure.add_scatter(x=x, y=y, mode="markers", name="runs", marker=marker, **of_runs(rows))


def of_runs(rows: pd.DataFrame) -> dict[str, Any]:
    """What points of runs say, and whose they are: the app asks for the names (as text) inside a reader's lasso."""
    return {"text": hover(rows), "hoverinfo": "text", "customdata": shared(map(plain, rows.run_id))}


def of_size(sizes: Iterable[float]) -> dict[str, Any]:
    """The scale of colours of points that are coloured by log10 N, with its bar where there are two sizes."""
    log = np.log10(np.asarray(list(sizes), float))
    low, high = float(log.min()), float(log.max())
    whole = np.arange(np.ceil(low), np.floor(high) + 1)
    ticks = whole if len(whole) > 1 else np.linspace(low, high, 3) if high > low else np.array([low])
    bar = {
        "title": {"text": "N"},
        "tickvals": ticks.tolist(),
        "ticktext": [count(10**t) for t in ticks],
        "thickness": 12,
        "outlinewidth": 0,
        **{"len": 0.88, "y": 1, "yanchor": "top"},  # a legend below that wraps takes room from the panel, not from it
    }
    ends = {"cmin": low, "cmax": max(high, low + 1e-9)}
    return {"colorscale": scale(), **ends, "colorbar": bar, "showscale": high > low}


def add_scale(figure: go.Figure, sizes: Iterable[float], *, pixels: int | None = None) -> None:
    """The bar of the colours of sizes, where no points carry it.

    Args:
        pixels: how long it is, above the figure; by default it stands beside it, as high.
    """
    sizes = list(sizes)
    if not sizes:
        return
    marker = {**of_size(sizes), "color": np.log10(sizes)}
    if pixels is not None:
        above = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom", "ypad": 22}
        marker["colorbar"] |= {**above, "lenmode": "pixels", "len": pixels, "thickness": 8, "title": {"text": ""}}
        marker["colorbar"]["ticktext"][0] = f"N {marker['colorbar']['ticktext'][0]}"
    figure.add_scatter(x=[None] * len(sizes), y=[None] * len(sizes), mode="markers", marker=marker, showlegend=False)


def scale() -> list[list[Any]]:
    """SCALE as plotly takes one."""
    return [[i / (len(SCALE) - 1), color] for i, color in enumerate(SCALE)]


_AXES = {
    "automargin": True,
    "title": {"standoff": 12},
    "gridcolor": GRID,
    "linecolor": AXIS,
    "zerolinecolor": GRID,
    "showline": True,
    "ticks": "outside",
    "tickcolor": AXIS,
}
TEMPLATE = go.layout.Template(
    layout={
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "colorway": PALETTE,
        "xaxis": _AXES,
        "yaxis": _AXES,
        "annotationdefaults": {"bgcolor": VEIL},  # words stand on lines, and are read all the same
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": AXIS, "font": {"color": INK}},
    }
)


def shades(values: Iterable[float]) -> list[str]:
    """A colour a value, by the place of its logarithm between the lowest and the highest."""
    log = np.log(np.asarray(list(values), float))
    if not len(log):
        return []
    place = (log - log.min()) / max(float(np.ptp(log)), 1e-9)
    return [STEPS[round(at * (SHADES - 1))] for at in place.tolist()]
