"""Figure: trunks and the branches that start from their checkpoints (warm-up, stable, decay)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.study import Study
from dashboards.figures.style import Page, add_scale, axes, plain, round_values, shades
from gpt3core.words import count, number_of

BEFORE = 2.0  # factor in tokens between where curves begin to be drawn and the first branch
POINTS = 60  # of a curve: branches are short, and single batches scatter more than they fall


def trunks(study: Study, losses: Mapping[str, pd.DataFrame]) -> Page | None:
    """Training loss against tokens of the runs that share their first steps; None where no run started from another.

    Args:
        losses: of each run, columns tokens and loss, from where it began by itself.
    """
    rows = _families(study, losses)
    if rows.empty:
        return None
    figure = go.Figure()
    colors = dict(zip(sizes := sorted(set(rows.N)), shades(sizes), strict=True))
    branches = rows[rows.begins > 0]
    shown = float(branches.begins.min()) / BEFORE
    runs = rows.to_dict("records")
    drawn = [_add_run(figure, run, losses[str(run["run_id"])], colors[run["N"]], shown) for run in runs]
    figure.add_scatter(
        x=branches.begins,
        y=branches.loss_there,
        mode="markers",
        name="a branch begins",
        marker={"symbol": "circle-open", "size": 9, "color": "#000000", "line": {"width": 1.5}},
        text=[
            f"<b>{plain(run_id)}</b><br>begins from <b>{plain(trunk)}</b><br>after {count(begins)} tokens"
            for run_id, trunk, begins in zip(branches.run_id, branches.trunk, branches.begins, strict=True)
        ],
        hoverinfo="text",
    )
    add_scale(figure, sizes)
    axes(figure, "training tokens", "training loss, nats per token", log_y=True)
    ticks = round_values(shown, float(rows.D.max()))
    figure.update_xaxes(tickvals=ticks, ticktext=[count(tick) for tick in ticks])
    own, alone = float((rows.D - rows.begins).sum()), float(rows.D.sum())
    about = (
        f"{number_of(len(branches), 'run')} of {number_of(rows.N.nunique(), 'size')} began from a checkpoint of a "
        "longer run (thick), at the rings, with its own decay of the learning rate: the result is what it would have "
        f"been alone. With their trunks they trained on {count(own)} tokens in place of {count(alone)} "
        f"({1 - own / alone:.0%} less). Shown from shortly before the first branch on, extremes of every stretch."
    )
    whole = pd.concat([rows.assign(what="run"), *drawn], ignore_index=True)
    return Page(slug="trunks", title="Trunks and branches", about=about, figure=figure, rows=whole, summary=rows)


def _families(study: Study, losses: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Branches and the runs that they began from: run_id, size, N, D, trunk, begins (tokens, 0 of a trunk), ..."""
    table = study.runs.table
    if "parent" not in table or table.parent.isna().all():
        return pd.DataFrame()
    parent = table.set_index("run_id").parent.dropna()
    trunk = parent.str.rpartition("@")[0]
    known = study.everything[["run_id", "size", "N", "D", "C", "loss"]]
    known = known[known.run_id.isin([*trunk.index, *trunk]) & known.run_id.isin(list(losses))]
    rows = known.assign(trunk=known.run_id.map(trunk).fillna(""))
    first = {run_id: losses[run_id].iloc[0] for run_id in rows.run_id if len(losses[run_id])}
    branch = rows.trunk.ne("") & rows.run_id.isin(list(first))
    step = parent.str.rpartition("@")[2].astype(float)  # the first row of a branch is of the step after it
    rows["begins"] = [
        float(first[i].tokens) * step[i] / (step[i] + 1) if b else 0.0 for i, b in zip(rows.run_id, branch, strict=True)
    ]
    rows["loss_there"] = [_at_first(losses[i]) if b else float("nan") for i, b in zip(rows.run_id, branch, strict=True)]
    rows = rows[branch | rows.run_id.isin(trunk[trunk.index.isin(rows.run_id[branch])])]
    return rows.sort_values(["N", "D"], ascending=[True, False], ignore_index=True)


def _add_run(
    figure: go.Figure, run: Mapping[Hashable, Any], curve: pd.DataFrame, color: str, shown: float
) -> pd.DataFrame:
    """A run's curve from so many tokens on, a trunk's thick; returns its points."""
    name, thin = plain(run["run_id"]), _means(curve[curve.tokens >= shown])
    figure.add_scatter(
        x=thin.tokens,
        y=thin.loss,
        mode="lines",
        name=name,
        showlegend=False,
        line={"color": color, "width": 1.2 if run["trunk"] else 2.5},
        hovertemplate=f"<b>{name}</b><br>%{{x:,}} tokens<br>training loss %{{y:.3f}}<extra></extra>",
    )
    return thin.assign(what="training loss", run_id=run["run_id"], N=run["N"])


def _at_first(curve: pd.DataFrame) -> float:
    """The loss where a branch begins: of its first steps, for single batches scatter."""
    return float(curve.loss.iloc[: max(1, len(curve) // POINTS)].mean())


def _means(curve: pd.DataFrame) -> pd.DataFrame:
    """The first point of a curve, and the means of so many parts of it."""
    if len(curve) <= POINTS:
        return curve[["tokens", "loss"]]
    part = np.arange(len(curve)) * POINTS // len(curve)
    means = curve.groupby(part).agg(tokens=("tokens", "mean"), loss=("loss", "mean"))
    return pd.concat([curve[["tokens", "loss"]].iloc[:1], means])
