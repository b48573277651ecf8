"""What a sweep makes of its devices, from its history: how many are held, how well they are used, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards.downsample import downsample
from dashboards.figures.look import GREY, PALETTE, faint
from dashboards.figures.style import Page, axes
from dashboards.figures.timeline import clock, dated, moment, stamp
from gpt3core.words import cost, duration, number_of
from sweeps.watching import history as past
from sweeps.watching import said
from sweeps.watching import speed as speeds
from sweeps.watching.history import History
from sweeps.watching.speed import Speed

MOST = 2000  # points of a line
LOW = 340  # pixels
MOST_OFF = 3.0  # times what is to come that an interval is drawn of; beyond, an arrow


def utilisation(history: History) -> Page:
    """How many of the cluster's devices runs held, over time."""
    held = past.in_use(history)
    if held and (held[-1][1] > 0 or history.ends is not None):
        held = [*held, (history.now, held[-1][1])]
    figure = go.Figure()
    unit = f"{history.unit}s"
    drawn = [held[i] for i in downsample([t for t, _ in held], [n for _, n in held], MOST, log=False)]
    figure.add_scatter(
        x=[moment(t) for t, _ in drawn],
        y=[n for _, n in drawn],
        mode="lines",
        line={"shape": "hv", "color": PALETTE[0], "width": 1.5},
        fill="tozeroy",
        fillcolor=faint(PALETTE[0]),
        name="held by runs",
        hovertemplate="%{x|%m-%d %H:%M:%S}<br>%{y:g} held<extra></extra>",
    )
    if history.cluster and held:
        known = [*history.cluster, history.cluster[-1]]
        times = [max(held[0][0], has.time) for has in history.cluster] + [held[-1][0]]
        figure.add_scatter(
            x=[moment(t) for t in times],
            y=[has.devices for has in known],
            mode="lines",
            line={"shape": "hv", "color": GREY, "dash": "dash", "width": 1.5},
            name="of the living nodes",
            hovertemplate="%{x|%m-%d %H:%M:%S}<br>%{y:g} there<extra></extra>",
        )
    axes(figure, "", f"{unit} in use", log_x=False)
    dated(figure)
    figure.update_yaxes(range=[0, 1.08 * max([n for _, n in held] + [has.devices for has in history.cluster] + [1.0])])
    figure.update_layout(height=LOW)
    share = past.share_in_use(history)
    about = (
        f"Runs of this sweep held {share:.0%} of the {unit}' time since the first start."
        if share is not None
        else "How large the cluster was, this sweep's log does not say (an older driver wrote it)."
    )
    about = about if history.stays else "Nothing has started."
    rows = pd.DataFrame([{"time": stamp(t), unit: n} for t, n in held], columns=["time", unit])
    return Page(slug="utilisation", title=f"{unit[0].upper()}{unit[1:]} in use", about=about, figure=figure, rows=rows)


def spending(history: History) -> Page:
    """Device-hours taken over time, those to come, and the limit."""
    taken = past.taken(history)
    unit = history.unit
    figure = go.Figure()
    drawn = [*taken[: -1 : max(1, len(taken) // MOST)], *taken[-1:]]
    figure.add_scatter(
        x=[moment(t) for t, _, _ in drawn],
        y=[hours for _, hours, _ in drawn],
        mode="lines",
        line={"color": PALETTE[0], "width": 2},
        name="taken",
        text=[cost(hours, usd, unit) for _, hours, usd in drawn],
        hovertemplate="%{x|%m-%d %H:%M:%S}<br>%{text}<extra></extra>",
    )
    last = taken[-1] if taken else (history.now, 0.0, 0.0)
    more = history.to_come or {}
    spoke = _spoke(history)
    then = _taken_at(taken, spoke)  # what is to come is counted from there on
    end = (then[0] + more.get("hours", 0.0), then[1] + more.get("usd", 0.0))
    if history.ends is not None and more.get("hours"):
        figure.add_scatter(
            x=[moment(spoke), moment(max(spoke, history.ends))],
            y=[then[0], end[0]],
            mode="lines+markers",
            line={"color": PALETTE[0], "dash": "dash", "width": 2},
            marker={"symbol": ["circle", "star"], "size": [1, 12]},
            name="expected",
            text=[cost(*then, unit), f"ends {clock(history.ends)}<br>{cost(*end, unit)}"],
            hovertemplate="%{text}<extra></extra>",
        )
        if history.off_by is not None:
            _add_interval(figure, history, then, more)
    if (limit := (history.limit or {}).get("hours")) is not None:
        figure.add_hline(
            y=limit, line={"color": PALETTE[1], "dash": "dot"}, annotation_text=f"limit {limit:g} {unit}-hours"
        )
    axes(figure, "", f"{unit}-hours", log_x=False)
    dated(figure)
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(height=LOW)
    about = f"Taken until now: {cost(last[1], last[2], unit)}, over {number_of(len(history.of_runs), 'start')}."
    if history.ends is not None and more.get("hours"):
        about += _expected(history, then, more)
    rows = pd.DataFrame(
        [{"time": stamp(t), "hours": hours, "usd": usd} for t, hours, usd in taken],
        columns=["time", "hours", "usd"],
    )
    return Page(slug="spending", title="Cost and end", about=about, figure=figure, rows=rows)


def _expected(history: History, then: tuple[float, float], more: Mapping[str, float]) -> str:
    """When the sweep ends, and what it has taken then.

    Args:
        then: hours and dollars as the driver spoke last; ``more`` is to come from there on.
    """
    assert history.ends is not None
    left = history.ends - history.now
    end = cost(then[0] + more.get("hours", 0.0), then[1] + more.get("usd", 0.0), history.unit)
    told = f"in {duration(left)}" if left >= 0 else f"overdue by {duration(-left)}"
    inside = "" if history.off_by is None else f" {_between(history, then, more)}."
    return f" Expected: {end} by {clock(history.ends)}, {told}, by the driver's last word.{inside}"


def _add_interval(figure: go.Figure, history: History, then: tuple[float, float], more: Mapping[str, float]) -> None:
    """Where the end lies with 90%, along the line to it: time and cost that are to come are off by one factor."""
    assert history.ends is not None and history.off_by is not None
    spoke, high = _spoke(history), min(history.off_by, MOST_OFF)
    cut = high < history.off_by
    factors = (1 / history.off_by, 1.0, high)
    figure.add_scatter(
        x=[moment(spoke + factor * (history.ends - spoke)) for factor in factors],
        y=[then[0] + factor * more.get("hours", 0.0) for factor in factors],
        mode="lines+markers",
        line={"color": faint(PALETTE[0]), "width": 12},
        marker={
            "symbol": ["line-ns", "circle", "arrow-bar-right" if cut else "line-ns"],
            "size": [12, 1, 14 if cut else 12],
            "line": {"color": PALETTE[0], "width": 1.5},
            "color": PALETTE[0],
        },
        name="90%",
        text=[_between(history, then, more)] * len(factors),
        hovertemplate="%{text}<extra></extra>",
    )


def _between(history: History, then: tuple[float, float], more: Mapping[str, float]) -> str:
    """The interval in words."""
    assert history.ends is not None and history.off_by is not None
    hours, usd = more.get("hours", 0.0), more.get("usd", 0.0)
    factors = (1 / history.off_by, history.off_by)
    times = said.between(_spoke(history), history.ends, history.now, history.off_by)
    costs = " to ".join(cost(then[0] + f * hours, then[1] + f * usd, history.unit) for f in factors)
    return f"90%: in {' to '.join(map(duration, times))}, {costs}"


def speed(history: History, of_runs: Mapping[str, Speed]) -> Page:
    """How well the devices that runs hold are used, over time: model-FLOPs utilisation, else the speed itself."""
    along = speeds.over_time(history, dict(of_runs))
    rated = any(at.mfu is not None for at in along)
    values = [100 * (np.nan if at.mfu is None else at.mfu) if rated else at.flops_per_second / 1e9 for at in along]
    drawn = downsample([at.time for at in along], values, MOST, log=False)
    points = list[tuple[float, float, str]]()
    for i in drawn:
        if np.isnan(values[i]) and points:  # the step before it goes on until here
            points.append((along[i].time, *points[-1][1:]))
        text = f"{along[i].flops_per_second / 1e9:,.3g} GFLOP/s on {along[i].devices:g} {history.unit}s"
        points.append((along[i].time, values[i], text))
    figure, unit = go.Figure(), "MFU, %" if rated else "GFLOP/s"
    figure.add_scatter(
        x=[moment(time) for time, _, _ in points],
        y=[value for _, value, _ in points],
        mode="lines",
        line={"shape": "hv", "color": PALETTE[2], "width": 1.5},
        text=[text for _, _, text in points],
        hovertemplate="%{x|%m-%d %H:%M:%S}<br>%{y:.3g} " + ("%" if rated else "GFLOP/s") + "<br>%{text}<extra></extra>",
    )
    axes(figure, "", unit, log_x=False)
    dated(figure)
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(height=LOW)
    starts = history.of_runs
    told = f"{sum(stay.run_id in of_runs for stay in starts):,} of {number_of(len(starts), 'start')}"
    what = "Model-FLOPs utilisation of the devices that runs held" if rated else "Training FLOPs a second of all runs"
    how = "as its logs place it (nothing is trained while it starts or is asked questions)"
    how = how if any(run.along for run in of_runs.values()) else "by the mean of its training"
    about = f"{what}: each run {how}, which is told of {told}."
    about += "" if rated else f" The peak of these {history.unit}s is not known, so neither is the share of it."
    columns = {"time": [stamp(at.time) for at in along], "devices": [at.devices for at in along]}
    columns |= {"flops_per_second": [at.flops_per_second for at in along], "mfu": [at.mfu for at in along]}
    title = "Model-FLOPs utilisation" if rated else "Training speed"
    return Page(slug="speed", title=title, about=about, figure=figure, rows=pd.DataFrame(columns))


def _spoke(history: History) -> float:
    """When the driver spoke last, from where on it told what is to come."""
    return history.now if history.spoke is None else min(history.spoke, history.now)


def _taken_at(taken: Sequence[tuple[float, float, float]], time: float) -> tuple[float, float]:
    """Hours and dollars until a moment."""
    if not taken:
        return 0.0, 0.0
    times, hours, usd = np.array(taken).T
    return float(np.interp(time, times, hours)), float(np.interp(time, times, usd))
