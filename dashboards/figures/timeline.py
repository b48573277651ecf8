"""The timeline of a sweep: who held which nodes when, and who is to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import pandas as pd
import plotly.graph_objects as go

from dashboards.figures.look import GREY, PALETTE, faint
from dashboards.figures.style import Page, add_scale, axes, plain, shades
from gpt3core.words import duration
from sweeps.watching import history as past
from sweeps.watching.history import PREPARATION, Coming, History, Stay

MOST = 2000  # stays that are drawn, the latest ones
LANE, LOWEST, TALLEST = 16, 320, 1400  # pixels: of a run's bar, and of the figure
SCALE = 170  # pixels of the bar of sizes
NAMED, MOST_NAMES = 8, 60  # characters of a node, as elsewhere; nodes that are named
NOWHERE, TO_COME = "node not known", "to come"
HATCH = "rgba(255,255,255,0.75)"


def _hatched(shape: str) -> dict[str, object]:
    """A pattern in white over the colour of a size; in its place the pattern alone would be there, and no legend."""
    return {"pattern": {"shape": shape, "fillmode": "overlay", "fgcolor": HATCH, "size": 6}}


# how a stay ended -> the look of its bar
LOOKS: dict[str, dict[str, object]] = {
    past.DONE: {},
    past.RUNNING: {"opacity": 0.55},
    past.STOPPED: _hatched("/"),
    past.FAILED: {**_hatched("x"), "line": {"color": PALETTE[1], "width": 2}},
    past.UNSEEN: _hatched("."),
}
CLEAR = "rgba(0,0,0,0)"


def moment(seconds: float) -> datetime:
    """A time of this machine's zone, as an axis has it."""
    return datetime.fromtimestamp(seconds)


def dated(figure: go.Figure) -> None:
    """Make x an axis of times of this machine's zone, with so few labels that a phone has room for them."""
    zone = datetime.now().astimezone().tzname()
    figure.update_xaxes(type="date", nticks=5, tickangle=0, title={"text": f"time, {zone}", "standoff": 6})


def stamp(seconds: float) -> str:
    """The same as rows have it, with its offset from UTC."""
    return moment(seconds).astimezone().isoformat(timespec="milliseconds")


# ---------------------------------------------------------------------------------------------------- runs over nodes


def timeline(history: History, sizes: Mapping[str, float] | None = None) -> Page:
    """Runs over the nodes that held them, as they went and as they were expected; each run a bar a node.

    Args:
        sizes: parameters by the label of a size, which colour the bars; without them all have one colour.
    """
    stays = history.stays[-MOST:]
    rows = _by_node(stays)
    if history.coming:
        rows.append((TO_COME, [*history.coming]))
    colors = _colors({run.size for _, runs in rows for run in runs}, sizes)
    figure, lanes, ticks = go.Figure(), 0, list[tuple[int, int, str]]()
    bars: dict[str, list[tuple[Stay, int]]] = {how: [] for how in LOOKS}
    coming: list[tuple[Coming, int]] = []
    for name, runs in rows:
        lane_of, count = _packed([_extent(run, history.now) for run in runs])
        for run, lane in zip(runs, lane_of, strict=True):
            if isinstance(run, Coming):
                coming.append((run, lanes + lane))
            else:
                bars[run.how].append((run, lanes + lane))
        ticks.append((lanes, count, name))
        lanes += count
    for how, some in bars.items():
        _add_stays(figure, how, some, colors, history.now)
    add_scale(figure, [n for label, n in (sizes or {}).items() if label in colors], pixels=SCALE)
    _add_expected(figure, [pair for some in bars.values() for pair in some], coming, colors)
    axes(figure, "", "", log_x=False)
    dated(figure)
    _name_rows(figure, ticks, lanes)
    height = min(TALLEST, max(LOWEST, 190 + LANE * lanes))
    figure.update_layout(height=height, barmode="overlay", bargap=0, margin={"t": 60})
    _now(figure, history)
    title, about = "Timeline", _about(history, len(stays))
    return Page(slug="timeline", title=title, about=about, figure=figure, rows=_table(history))


def _name_rows(figure: go.Figure, rows: Sequence[tuple[int, int, str]], lanes: int) -> None:
    """Names at the middle of the lanes of each row, as many as there is room for, and lines between rows."""
    every = max(1, -(-len(rows) // MOST_NAMES))
    named = [(first + (count - 1) / 2, name) for first, count, name in rows][::every]
    short = [name if name in (NOWHERE, TO_COME, PREPARATION) else name[:NAMED] for _, name in named]
    marks = {"tickvals": [y for y, _ in named], "ticktext": list(map(plain, short))}
    figure.update_yaxes(tickmode="array", range=[lanes - 0.5, -0.5], **marks)
    if every == 1:
        line = {"color": GREY, "width": 0.5}
        common = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "line": line}
        between = [first - 0.5 for first, _, _ in rows[1:]]
        figure.update_layout(shapes=[{**common, "y0": y, "y1": y} for y in between])


def _about(history: History, shown: int) -> str:
    """What was drawn, in sentences."""
    ends = [s.ended - s.expected for s in history.of_runs if s.how == past.DONE and s.ended and s.expected]
    late = sum(1 for seconds in ends if seconds > 0)
    how = pd.Series([s.how for s in history.of_runs], dtype=str).value_counts()
    told = ", ".join(f"{n} {name}" for name, n in how.items())
    parts = [f"A bar is a run on a node, coloured by its size; {told or 'nothing has started'}."]
    if shown < len(history.stays):
        parts.append(f"Drawn are the last {shown:,} of {len(history.stays):,}; the rows are all of them.")
    if ends:
        parts.append(
            f"Ticks: when a run was expected to end as it started; {late} of {len(ends)} that ended well took longer."
        )
    if len(history.drivers) > 1:
        parts.append(f"Drivers: {len(history.drivers)}, the last since {clock(history.drivers[-1])}.")
    if history.coming:
        many = len(history.coming)
        some = f"{many:,} of the {history.waiting:,} runs" if history.waiting > many else "runs"
        parts.append(f"Outlined: when {some} that wait are expected to run, by the driver's last word.")
    return " ".join(parts)


def _by_node(stays: Sequence[Stay]) -> list[tuple[str, list[Stay | Coming]]]:
    """The stays of every node, the node first used first."""
    found: dict[str, list[Stay | Coming]] = {}
    for stay in stays:
        for node in stay.nodes or (stay.run_id if stay.prepares else NOWHERE,):
            found.setdefault(node, []).append(stay)
    return list(found.items())


def _extent(run: Stay | Coming, now: float) -> tuple[float, float]:
    """From when to when a bar goes."""
    if isinstance(run, Coming):
        return run.starts, run.ends
    return run.began, run.until(now)


def _packed(extents: Sequence[tuple[float, float]]) -> tuple[list[int], int]:
    """A lane for each of them, none over another in its lane, and how many lanes that takes."""
    free: list[float] = []  # from when each lane is
    found = []
    for began, ended in extents:
        lane = next((i for i, until in enumerate(free) if until <= began), len(free))
        if lane == len(free):
            free.append(ended)
        free[lane] = ended
        found.append(lane)
    return found, max(1, len(free))


def _colors(labels: Iterable[str], sizes: Mapping[str, float] | None) -> dict[str, str]:
    """Of every size: on the scale of N where that is known, else the first colour."""
    known = {label: n for label in sorted(labels) if (n := (sizes or {}).get(label))}
    on_scale = dict(zip(known, shades(known.values()), strict=True))
    return {label: on_scale.get(label, PALETTE[0]) for label in labels}


def _add_stays(
    figure: go.Figure, how: str, some: Sequence[tuple[Stay, int]], colors: Mapping[str, str], now: float
) -> None:
    """Bars of runs that ended, or go on, alike."""
    if not some:
        return
    extents = [_extent(stay, now) for stay, _ in some]
    look = LOOKS[how]
    figure.add_bar(
        orientation="h",
        base=[moment(began) for began, _ in extents],
        x=[1000 * (ended - began) for began, ended in extents],  # a date axis counts in milliseconds
        y=[lane for _, lane in some],
        width=0.84,
        showlegend=False,
        marker={"color": [colors[stay.size] for stay, _ in some], **look},
        hovertext=[_said(stay, now) for stay, _ in some],
        hoverinfo="text",
    )
    grey = faint(GREY, float(str(look["opacity"]))) if "opacity" in look else GREY  # of which a legend knows nothing
    figure.add_bar(orientation="h", x=[None], y=[None], name=how, marker={**look, "color": grey})


def _said(stay: Stay, now: float) -> str:
    """A hover text."""
    ended = stay.until(now)
    words = [f"<b>{plain(stay.run_id)}</b>: {stay.how}", f"{clock(stay.began)} to {clock(ended)}"]
    words[1] += f", {duration(ended - stay.began)}"
    if stay.expected is not None:
        words.append(f"expected {duration(stay.expected - stay.began)}")
    words.append(f"{stay.devices:g} devices on {plain(', '.join(node[:NAMED] for node in stay.nodes)) or NOWHERE}")
    return "<br>".join([*words, *([plain(stay.reason[:160])] if stay.reason else [])])


def clock(seconds: float) -> str:
    """A moment in short."""
    return f"{moment(seconds):%m-%d %H:%M:%S}"


def _add_expected(
    figure: go.Figure, bars: Sequence[tuple[Stay, int]], coming: Sequence[tuple[Coming, int]], colors: Mapping[str, str]
) -> None:
    """Ticks where runs were expected to end, and outlines of those that wait."""
    known = [(s, s.expected, lane) for s, lane in bars if s.expected is not None and s.how in (past.DONE, past.RUNNING)]
    if known:
        figure.add_scatter(
            x=[moment(end) for _, end, _ in known],
            y=[lane for _, _, lane in known],
            mode="markers",
            name="expected end",
            marker={"symbol": "line-ns", "size": 10, "line": {"width": 1.5, "color": PALETTE[1]}},
            text=[f"<b>{plain(stay.run_id)}</b><br>expected to end at {clock(end)}" for stay, end, _ in known],
            hoverinfo="text",
        )
    if coming:
        figure.add_bar(
            orientation="h",
            base=[moment(run.starts) for run, _ in coming],
            x=[1000 * (run.ends - run.starts) for run, _ in coming],
            y=[lane for _, lane in coming],
            width=0.84,
            showlegend=False,
            marker={"color": CLEAR, "line": {"color": [colors[run.size] for run, _ in coming], "width": 1.2}},
            hovertext=[
                f"<b>{plain(run.run_id)}</b> waits<br>expected {clock(run.starts)} to {clock(run.ends)}"
                for run, _ in coming
            ],
            hoverinfo="text",
        )
        look = {"color": CLEAR, "line": {"color": GREY, "width": 1.2}}
        figure.add_bar(orientation="h", x=[None], y=[None], name="expected", marker=look)


def _now(figure: go.Figure, history: History) -> None:
    """A line at the present of a sweep that goes on."""
    if history.ends is not None:
        figure.add_vline(x=moment(history.now), line={"color": GREY, "dash": "dot", "width": 1})


def _table(history: History) -> pd.DataFrame:
    rows = [
        {
            "run_id": s.run_id,
            "size": s.size,
            "nodes": " ".join(s.nodes),
            "devices": s.devices,
            "began": stamp(s.began),
            "seconds": round(s.until(history.now) - s.began, 1),
            "expected_seconds": None if s.expected is None else round(s.expected - s.began, 1),
            "how": s.how,
            "reason": s.reason,
        }
        for s in history.stays
    ]
    rows += [
        {
            "run_id": run.run_id,
            "size": run.size,
            "began": stamp(run.starts),
            "expected_seconds": round(run.ends - run.starts, 1),
            "how": TO_COME,
        }
        for run in history.coming
    ]
    columns = ("run_id", "size", "nodes", "devices", "began", "seconds", "expected_seconds", "how", "reason")
    return pd.DataFrame(rows, columns=list(columns))
