"""Loss against tokens and against compute, by size (Kaplan et al. 2020, figure 2)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.output.texts import shared
from analysis.runs.conventions import LABELS
from analysis.study import Study
from dashboards.downsample import downsample
from dashboards.figures.drawing import Panel, arrange, in_corner, law_line, law_points, panelled
from dashboards.figures.look import PALETTE
from dashboards.figures.style import LOSS, Page, behind, of_size, plain, shades
from gpt3core.words import count

CURVE_POINTS = 400
MOST_POINTS = 24_000  # of a figure
MOST_RUNS = 200  # whose curves are drawn
LEAST_POINTS = 40  # of a curve
BETWEEN = 2  # two curves, and what else is drawn
HOVER = "<b>%{customdata}</b><br>%{x:.2e} %{meta}<br>loss %{y:.3f}<extra></extra>"


def curves(study: Study, losses: Mapping[str, pd.DataFrame]) -> Page:
    """Training loss against tokens and against compute; the final losses of each size where there are no curves.

    Args:
        losses: of each run, columns tokens and loss; a run without any is left out.
    """
    figure = panelled(2)
    table = study.everything.sort_values(["N", "C"])
    there = table[[run_id in losses for run_id in table.run_id.astype(str)]]
    chosen = some_of(there)
    read = {run_id: curve for run_id in chosen.run_id.astype(str) if len(curve := losses[run_id])}
    shown = chosen[chosen.run_id.astype(str).isin(read)]
    if len(shown):
        most = points_each(2 * len(shown))
        points = [_points(run, kept(read[str(run["run_id"])], most)) for run in shown.to_dict("records")]
        traces = [t for curves_of_it, color in by_size(points) for t in _curves(curves_of_it, color)]
        rows = pd.concat(points, ignore_index=True).assign(what="training loss")
    else:
        most, finals = 0, table[table.loss.notna()]
        sizes = some_of(finals.drop_duplicates("N")).N
        traces = _finals(finals[finals.N.isin(sizes)])
        rows = behind(finals).rename(columns={"D": "tokens"}).assign(what="final loss")
    figure.add_traces(traces)
    add_bar(figure, shown if len(shown) else table)
    law = _add_law(figure, study)
    loss = f"training {LOSS}" if len(shown) else LOSS
    compute = f"C, {LABELS[study.convention.c]}"
    panels = [Panel(x=x, y=loss, height=340, log_y=True) for x in ("training tokens", compute)]
    arrange(figure, panels)
    about = _about(len(shown), len(there) - len(chosen), len(table), most)
    if not len(shown) and len(sizes) < finals.N.nunique():
        about += f" {len(sizes)} of {finals.N.nunique():,} sizes are drawn."
    rows, summary = pd.concat([rows, law], ignore_index=True), behind(study.everything)
    return Page(
        slug="curves",
        title="Loss curves",
        about=about,
        figure=figure,
        rows=rows,
        summary=summary,
        panels=(("D", "loss"), ("C", "loss")),
    )


def some_of(runs: pd.DataFrame) -> pd.DataFrame:
    """As many runs as are drawn, from all over the table."""
    return runs.iloc[np.unique(np.linspace(0, len(runs) - 1, min(len(runs), MOST_RUNS)).astype(int))]


def points_each(lines: int) -> int:
    """How many points each of so many lines has."""
    return int(np.clip(MOST_POINTS // max(1, lines) - BETWEEN, LEAST_POINTS, CURVE_POINTS))


def _about(shown: int, passed: int, runs: int, most: int) -> str:
    law = "The line below is the law of compute with the 95% interval of its mean; it is one of held-out losses."
    if not shown:
        return (
            "These runs have no training curves: lines join the final losses of runs of one size, coloured by size. "
            f"{law}"
        )
    left, looked_at = f" {passed} of {runs} runs are not drawn." if passed else "", runs - passed
    if shown < looked_at:
        left += f" {looked_at - shown} of {looked_at} runs have no curve, or one that cannot be read."
    return (
        f"One line a run, coloured by size, as measured: the lowest and the highest loss of every stretch of "
        f"ln(tokens), both ends, gaps and restarts, at most {most} points a run. The rows are these points; the app's "
        f"page of runs hands out every step.{left} {law}"
    )


def _points(run: Mapping[Hashable, object], curve: pd.DataFrame) -> pd.DataFrame:
    """What is drawn of a run; its compute grows with its tokens."""
    tokens, flops = curve.tokens.to_numpy(float), float(str(run["C"])) / float(str(run["D"]))
    known = {name: run[name] for name in ("run_id", "size", "N")}
    return pd.DataFrame({**known, "tokens": tokens, "C": tokens * flops, "loss": curve.loss.to_numpy(float)})


def by_size(curves: Iterable[pd.DataFrame]) -> Iterator[tuple[pd.DataFrame, str]]:
    """The curves of each size, a row without a loss between two, and the colour of that size.

    One trace for all of them is drawn several times as fast as a trace each.

    Args:
        curves: one a run, columns run_id, N and loss.
    """
    sizes: dict[float, list[pd.DataFrame]] = {}
    for curve in curves:
        if len(curve):
            sizes.setdefault(float(curve.N.iloc[0]), []).extend([curve, curve.tail(1).assign(loss=np.nan)])
    for parts, color in zip(sizes.values(), shades(sizes), strict=True):
        yield pd.concat(parts[:-1], ignore_index=True), color


def _curves(points: pd.DataFrame, color: str) -> list[dict[str, object]]:
    """The runs of a size in both panels."""
    size = plain(points["size"].iloc[0])
    look = {
        "mode": "lines",
        "name": size,
        "line": {"color": color, "width": 1.2},
        "legendgroup": size,
        "customdata": shared(map(plain, points.run_id)),
    }
    return _in_both(points.tokens, points["C"], points.loss, look)


def _finals(table: pd.DataFrame) -> list[dict[str, object]]:
    """Final losses of runs, those of one size joined."""
    sizes, found = [group.sort_values("D") for _, group in table.groupby("N")], []
    for runs, color in zip(sizes, shades(float(runs.N.iloc[0]) for runs in sizes), strict=True):
        look = {
            "mode": "lines+markers",
            "name": f"N {count(runs.N.iloc[0])}",
            "line": {"color": color, "width": 1.2},
            "marker": {"size": 5},
            "customdata": shared(map(plain, runs.run_id)),
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


def add_bar(figure: go.Figure, table: pd.DataFrame) -> None:
    """No point, but the bar of the scale of sizes."""
    if table.empty:
        return
    marker = {**of_size(table.N), "color": np.log10(table.N)}
    marker["colorbar"] |= {"len": 0.45, "y": 1.0, "yanchor": "top"}
    nowhere = [None] * len(table)
    figure.add_scatter(x=nowhere, y=nowhere, mode="markers", marker=marker, showlegend=False, row=1, col=1)


def _add_law(figure: go.Figure, study: Study) -> pd.DataFrame:
    """The law of compute over the runs; returns its points."""
    law, compute = study.laws.get("compute_frontier"), study.everything["C"]
    if law is None or law.fit.theta is None or compute.empty:
        return pd.DataFrame()
    grid = np.geomspace(float(compute.min()), float(compute.max()) * 3, 60)
    law_line(figure, law, "C", grid, color=PALETTE[1], name="law of compute", row=2)
    figure.data[-1].showlegend = False
    text = f"L ~ C<sup>−{law.fit.params['alpha_C']:.3g}</sup>"
    in_corner(figure, text, row=2, corner="bottom left", color=PALETTE[1])
    return law_points(law, "C", grid, "law of compute")


def kept(curve: pd.DataFrame, most: int = CURVE_POINTS) -> pd.DataFrame:
    """Some of the rows as they were measured, those that show what happened; see downsample."""
    restarts = np.flatnonzero(np.diff(curve.attempt)) + 1 if "attempt" in curve else np.empty(0, int)
    return curve.iloc[downsample(curve.tokens.to_numpy(float), curve.loss.to_numpy(float), most, restarts=restarts)]
