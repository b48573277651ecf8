"""Figure: a run's loss and gradient norm by step, with its spikes, restarts, and what it did about anomalies.

Where its gradient noise scale was measured, that too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from analysis.laws.base import Array
from dashboards.downsample import downsample
from dashboards.figures import noise_scale
from dashboards.figures.look import GREY, PALETTE
from dashboards.figures.style import LOSS, Page, axes, plain, round_values
from gpt3core.anomaly import AnomalySpec
from gpt3core.words import number_of
from sweeps.watching.incidents import START, Incident

DEVIATIONS = 9.0  # median absolute deviations above the median: 6 standard deviations
LEAST_DEVIATION = 1e-3  # of the median, where values hardly vary, as for anomaly.spike
WINDOW = AnomalySpec().window
MOST = 500  # spikes that are drawn, the highest ones
ORANGE = PALETTE[1]
SHOWN = ("loss", "grad_norm")
COLUMNS = ("step", "what", "value", "attempt", "said", "steps_again")  # of the rows


def spikes(
    run_id: str, curve: pd.DataFrame, met: Sequence[Incident] = (), gone: Sequence[Sequence[tuple[int, float]]] = ()
) -> Page:
    """What a run went through, step by step.

    Args:
        curve: of the store, every step: step, loss, grad_norm; skipped where updates were left out.
        met: of ``incidents.read``.
        gone: of ``incidents.gone``: parts of the curve from which the run went back.
    """
    noise = noise_scale.measured(curve)
    heights = [0.65, 0.35] if noise.empty else [0.5, 0.25, 0.25]
    figure = make_subplots(rows=len(heights), cols=1, shared_xaxes=True, vertical_spacing=0.05, row_heights=heights)
    found = {name: _spikes(curve, name) for name in SHOWN}
    drawn = {name: _shown(curve, name, met) for name in SHOWN}
    _add_curve(figure, drawn["loss"], "loss", 1)
    _add_spikes(figure, found["loss"], "loss", 1)
    for part in gone:
        figure.add_scatter(
            x=[step for step, _ in part],
            y=[loss for _, loss in part],
            mode="lines",
            line={"color": GREY, "width": 1, "dash": "dot"},
            name="gone back from",
            legendgroup="gone",
            showlegend=part is gone[0],
            hovertemplate="step %{x:,}<br>loss %{y:.4f}, gone back from<extra></extra>",
            row=1,
            col=1,
        )
    axes(figure, "step", LOSS, log_x=False, log_y=True)  # its ticks are those of the losses
    _add_curve(figure, drawn["grad_norm"], "grad_norm", 2)
    _add_spikes(figure, found["grad_norm"], "grad_norm", 2)
    _add_incidents(figure, curve, met)
    for row in range(1, len(heights)):
        figure.update_xaxes(title=None, row=row)
    norms = curve.grad_norm[curve.grad_norm.gt(0) & np.isfinite(curve.grad_norm)]
    ticks = round_values(norms.min(), norms.max()) if len(norms) else []
    figure.update_yaxes(title="gradient norm", tickvals=ticks, tickformat="~g", row=2)
    about = _about(found, met, len(curve))
    if not noise.empty:
        noise_scale.add(figure, noise, 3)
        about = f"{about} {noise_scale.said(noise)}"
    summary, title = _rows(found, met), f"Spikes and restarts of {run_id}"
    points = [part.rename(columns={name: "value"}).assign(what=_words(name)) for name, part in drawn.items()]
    points += [noise[["step", name]].rename(columns={name: "value"}).assign(what=name) for name in noise_scale.NAMES]
    rows = pd.concat([*points, summary], ignore_index=True).reindex(columns=list(COLUMNS))
    return Page(slug="spikes", title=title, about=about, figure=figure, rows=rows, summary=summary)


def spiked(values: Array, window: int = WINDOW, deviations: float = DEVIATIONS) -> NDArray[np.bool_]:
    """Which values (n,) are spikes: so many median absolute deviations above the median of the window before them.

    The rule of ``anomaly.spike``, applied afterwards to a run that may have had none. A value that is not finite is a
    spike; it enters no window.
    """
    values = np.asarray(values, float)
    found = ~np.isfinite(values)
    there = np.flatnonzero(~found)
    known = values[there]
    middle = pd.Series(known).rolling(window).median().shift(1).to_numpy()
    above = known > middle + deviations * LEAST_DEVIATION * np.abs(middle)  # no deviation is taken for less
    for i in np.flatnonzero(above):
        before = known[i - window : i]
        deviation = max(float(np.median(np.abs(before - middle[i]))), LEAST_DEVIATION * abs(float(middle[i])))
        found[there[i]] = known[i] > middle[i] + deviations * deviation
    return found


def _spikes(curve: pd.DataFrame, name: str) -> pd.DataFrame:
    """The steps at which a column spikes: step, and the value."""
    chosen = spiked(curve[name].to_numpy(float))
    return pd.DataFrame({"step": curve.step[chosen], "value": curve[name][chosen].astype(float)})


def _shown(curve: pd.DataFrame, name: str, met: Sequence[Incident]) -> pd.DataFrame:
    """The steps of a column that are drawn: all of a short run, else with the extremes and both sides of restarts."""
    steps, values = curve.step.to_numpy(float), curve[name].to_numpy(float)
    restarts = np.searchsorted(steps, [m.step for m in met if m.what == START and m.attempt > 1], side="right")
    shown: pd.DataFrame = curve[["step", name]].iloc[downsample(steps, values, log=False, restarts=restarts)]
    return shown.astype({name: float})


def _add_curve(figure: go.Figure, shown: pd.DataFrame, name: str, row: int) -> None:
    """A column against the step."""
    figure.add_scatter(
        x=shown.step,
        y=shown[name],
        mode="lines",
        line={"color": PALETTE[0], "width": 1.2},
        showlegend=False,
        hovertemplate=f"step %{{x:,}}<br>{_words(name)} %{{y:.4g}}<extra></extra>",
        row=row,
        col=1,
    )


def _words(name: str) -> str:
    return {"grad_norm": "gradient norm"}.get(name, name)


def _add_spikes(figure: go.Figure, rows: pd.DataFrame, name: str, row: int) -> None:
    """Spikes, the highest ones."""
    finite = rows[np.isfinite(rows.value)].nlargest(MOST, "value")
    figure.add_scatter(
        x=finite.step,
        y=finite.value,
        mode="markers",
        marker={"symbol": "triangle-up", "size": 8, "color": ORANGE},
        name="spike",
        legendgroup="spike",
        showlegend=len(finite) > 0 and not any(trace.name == "spike" and trace.showlegend for trace in figure.data),
        hovertemplate=f"step %{{x:,}}<br>{_words(name)} %{{y:.4g}}: a spike<extra></extra>",
        row=row,
        col=1,
    )


def _add_incidents(figure: go.Figure, curve: pd.DataFrame, met: Sequence[Incident]) -> None:
    """Restarts as lines over both panels, and marks on the curve that say what happened."""
    for incident in met:
        if incident.what == START and incident.attempt > 1:
            figure.add_vline(x=incident.step, line={"color": GREY, "width": 1, "dash": "dash"})
    if curve.empty:
        return
    steps, losses = curve.step.to_numpy(float), curve.loss.to_numpy(float)
    kinds = dict.fromkeys(incident.what for incident in met)
    for i, what in enumerate(kinds):
        these = [m for m in met if m.what == what and (what != START or m.attempt > 1)]
        if these:
            figure.add_scatter(
                x=[m.step for m in these],
                y=[losses[min(len(steps) - 1, int(np.searchsorted(steps, m.step)))] for m in these],
                mode="markers",
                marker={
                    "symbol": ("circle-open", "x", "diamond", "square", "star")[i % 5],
                    "size": 10,
                    "color": "#000000",
                },
                name="restart" if what == START else what,
                text=[_said(m) for m in these],
                hoverinfo="text",
                row=1,
                col=1,
            )


def _said(m: Incident) -> str:
    """A hover text."""
    if m.what != START:
        return f"step {m.step:,}: {m.what}<br>{plain(m.said)}"
    again = f"<br>{number_of(m.lost, 'step')} done again" if m.lost else ""
    return f"attempt {m.attempt} from step {m.step:,}<br>on {plain(m.said)}{again}"


def _about(found: dict[str, pd.DataFrame], met: Sequence[Incident], steps: int) -> str:
    """What was met, in sentences."""
    spikes_of = ", ".join(f"{len(rows)} of the {_words(name)}" for name, rows in found.items())
    attempts = max((m.attempt for m in met), default=1)
    lost = sum(m.lost for m in met)
    parts = [
        f"{number_of(steps, 'step')}; spikes: {spikes_of} ({DEVIATIONS:g} median absolute deviations above the median "
        f"of the {WINDOW} steps before, or not finite). The rows are the points drawn."
    ]
    if attempts > 1:
        again = f", after which {number_of(lost, 'step')} were done again" if lost else ""
        parts.append(f"{number_of(attempts - 1, 'restart')}{again}.")
    others = pd.Series([m.what for m in met if m.what != START], dtype=str).value_counts()
    if len(others):
        parts.append(f"Logged: {', '.join(f'{what} {n} times' if n > 1 else str(what) for what, n in others.items())}.")
    return " ".join(parts)


def _rows(found: dict[str, pd.DataFrame], met: Sequence[Incident]) -> pd.DataFrame:
    """Spikes and incidents, by step."""
    parts = [rows.assign(what=f"spike of the {_words(name)}") for name, rows in found.items()]
    logged = [
        {"step": m.step, "what": m.what, "attempt": m.attempt, "said": m.said, "steps_again": m.lost} for m in met
    ]
    every = pd.concat([*parts, pd.DataFrame(logged)], ignore_index=True)
    return every.reindex(columns=list(COLUMNS)).sort_values("step", ignore_index=True)
