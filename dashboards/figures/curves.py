"""Loss against tokens and against compute, by size (Kaplan et al. 2020, figure 2)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.runs.conventions import LABELS
from analysis.study import Study
from dashboards.downsample import downsample
from dashboards.figures import published as overlay
from dashboards.figures.drawing import Panel, arrange, label, law_line, panelled
from dashboards.figures.style import LOSS, PALETTE, Page, behind, of_size, plain, shades
from gpt3core.words import count

CURVE_POINTS = 400
MOST_POINTS = 100_000  # of a figure
MOST_RUNS = 400  # whose curves are drawn
LEAST_POINTS = 50  # of a curve
HOVER = "<b>%{fullData.name}</b><br>%{x:.4s} %{meta}<br>loss %{y:.3f}<extra></extra>"


def curves(
    study: Study, losses: Mapping[str, pd.DataFrame], *, exact: bool = False, published: Sequence[str] = ()
) -> Page:
    """Training loss against tokens and against compute; the final losses of each size where there are no curves.

    Args:
        losses: of each run, columns tokens and loss; a run without any is left out.
        exact: show measured points alone (``kept``) instead of means over neighbouring batches.
        published: results laid over the panel of compute, of published.PUBLISHED.
    """
    figure = panelled(2)
    table = study.everything.sort_values(["N", "C"])
    drawn = table[table.run_id.astype(str).isin(losses)]
    shown = drawn.iloc[np.unique(np.linspace(0, len(drawn) - 1, min(len(drawn), MOST_RUNS)).astype(int))]
    if len(shown):
        most = int(np.clip(MOST_POINTS // (2 * len(shown)), LEAST_POINTS, CURVE_POINTS))
        fewer, made = kept if exact else thinned, zip(shown.to_dict("records"), shades(shown.N), strict=True)
        traces = [t for run, color in made for t in _curve(run, fewer(losses[str(run["run_id"])], most), color)]
    else:
        most, traces = 0, _finals(table[table.loss.notna()])
    figure.add_traces(traces)
    _add_bar(figure, shown if len(shown) else table)
    _add_law(figure, study)
    overlay.add(figure, published, row=2)
    loss = f"training {LOSS}" if len(shown) else LOSS
    compute = f"C, {LABELS[study.convention.c]}"
    panels = [Panel(x=x, y=loss, height=340, log_y=True) for x in ("training tokens", compute)]
    arrange(figure, panels)
    about = _about(len(shown), len(drawn), most, exact)
    if published:
        about += f" {overlay.words(published, study)}"
    return Page(slug="curves", title="Loss curves", about=about, figure=figure, rows=behind(study.everything))


def _about(shown: int, there: int, most: int, exact: bool) -> str:
    law = "The line below is the law of compute with the 95% interval of its mean; it is one of held-out losses."
    if not shown:
        return (
            "These runs have no training curves: lines join the final losses of runs of one size, coloured by size. "
            f"{law}"
        )
    how = (
        f"as measured: the lowest and the highest loss of every stretch of ln(tokens), both ends, gaps and restarts, "
        f"at most {most} points a run"
        if exact
        else f"smoothed over neighbouring batches to at most {most} points"
    )
    left = f" {there - shown} of {there} runs are not drawn." if there > shown else ""
    return f"One line a run, coloured by size, {how}; the files hold every step.{left} {law}"


def _curve(run: Mapping[Hashable, object], curve: pd.DataFrame, color: str) -> list[dict[str, object]]:
    """A run in both panels; its compute grows with its tokens."""
    flops = float(str(run["C"])) / float(str(run["D"]))
    look = {
        "mode": "lines",
        "name": plain(run["run_id"]),
        "line": {"color": color, "width": 1.2},
        "legendgroup": plain(run["size"]),
    }
    return _in_both(curve.tokens, curve.tokens * flops, curve.loss, look)


def _finals(table: pd.DataFrame) -> list[dict[str, object]]:
    """Final losses of runs, those of one size joined."""
    sizes, found = [group.sort_values("D") for _, group in table.groupby("N")], []
    for runs, color in zip(sizes, shades(float(runs.N.iloc[0]) for runs in sizes), strict=True):
        look = {
            "mode": "lines+markers",
            "name": f"N {count(runs.N.iloc[0])}",
            "line": {"color": color, "width": 1.2},
            "marker": {"size": 5},
        }
        found += _in_both(runs.D, runs["C"], runs.loss, look)
    return found


def _in_both(
    tokens: pd.Series, flops: pd.Series, loss: pd.Series, look: Mapping[str, object]
) -> list[dict[str, object]]:
    """A line against tokens and against compute; a dictionary each, for plotly takes a third of the time over many."""
    both = {"type": "scatter", "y": loss, "hovertemplate": HOVER, "showlegend": False, **look}
    return [
        {**both, "x": tokens, "meta": "tokens", "xaxis": "x", "yaxis": "y"},
        {**both, "x": flops, "meta": "FLOPs", "xaxis": "x2", "yaxis": "y2"},
    ]


def _add_bar(figure: go.Figure, table: pd.DataFrame) -> None:
    """No point, but the bar of the scale of sizes."""
    if table.empty:
        return
    marker = {**of_size(table.N), "color": np.log10(table.N)}
    marker["colorbar"] |= {"len": 0.45, "y": 1.0, "yanchor": "top"}
    nowhere = [None] * len(table)
    figure.add_scatter(x=nowhere, y=nowhere, mode="markers", marker=marker, showlegend=False, row=1, col=1)


def _add_law(figure: go.Figure, study: Study) -> None:
    """The law of compute over the runs."""
    law, compute = study.laws.get("compute_frontier"), study.everything["C"]
    if law is None or law.fit.theta is None or compute.empty:
        return
    grid = np.geomspace(float(compute.min()), float(compute.max()) * 3, 60)
    law_line(figure, law, "C", grid, color=PALETTE[1], name="law of compute", row=2)
    figure.data[-1].showlegend = False
    height = float(law.fit.predict({"C": grid[20:21]})[0])
    text = f"L ~ C<sup>−{law.fit.params['alpha_C']:.3g}</sup>"
    label(figure, grid[20], height, text, row=2, corner="top right", color=PALETTE[1])


def thinned(curve: pd.DataFrame, most: int = CURVE_POINTS) -> pd.DataFrame:
    """Mean loss in buckets of equal width in ln(tokens): as even on a log axis as on a linear one."""
    if len(curve) <= most:
        return curve[["tokens", "loss"]]
    tokens = curve.tokens.to_numpy(float)
    edges = np.geomspace(max(tokens.min(), 1.0), tokens.max() * (1 + 1e-9), most)
    bucket, loss = np.searchsorted(edges, tokens, side="right"), curve.loss.to_numpy(float)
    last, there = np.flatnonzero(np.diff(bucket, append=-1)), np.isfinite(loss)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bucket[there], loss[there], most + 1) / np.bincount(bucket[there], minlength=most + 1)
    return pd.DataFrame({"tokens": curve.tokens.to_numpy()[last], "loss": mean[bucket[last]]})


def kept(curve: pd.DataFrame, most: int = CURVE_POINTS) -> pd.DataFrame:
    """Some of the rows as they were measured, those that show what happened; see downsample."""
    restarts = np.flatnonzero(np.diff(curve.attempt)) + 1 if "attempt" in curve else np.empty(0, int)
    return curve.iloc[downsample(curve.tokens.to_numpy(float), curve.loss.to_numpy(float), most, restarts=restarts)]
