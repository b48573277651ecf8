"""Figure: trunks and the branches that start from their checkpoints (warm-up, stable, decay)."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from analysis.output.words import count, number_of
from analysis.study import Study
from dashboards.figures.curves import thinned
from dashboards.figures.style import Page, add_scale, axes, plain, shades


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
    for run in rows.to_dict("records"):
        _add_run(figure, run, losses, colors[run["N"]])
    branches = rows[rows.begins > 0]
    figure.add_scatter(
        x=branches.begins,
        y=branches.loss_there,
        mode="markers",
        name="a branch begins",
        marker={"symbol": "circle-open", "size": 9, "color": "#000000", "line": {"width": 1.5}},
        text=[
            f"{plain(run_id)}<br>begins from {plain(trunk)}<br>after {count(begins)} tokens"
            for run_id, trunk, begins in zip(branches.run_id, branches.trunk, branches.begins, strict=True)
        ],
        hoverinfo="text",
    )
    add_scale(figure, sizes)
    axes(figure, "training tokens", "training loss, nats per token", log_y=True)
    own, alone = float((rows.D - rows.begins).sum()), float(rows.D.sum())
    about = (
        f"{number_of(len(branches), 'run')} of {number_of(rows.N.nunique(), 'size')} began from a checkpoint of a "
        "longer run, at the rings, with its own decay of the learning rate: the result is the one that it would have "
        f"had alone. Together with their trunks they trained on {count(own)} tokens in place of {count(alone)} "
        f"({1 - own / alone:.0%} less)."
    )
    return Page(slug="trunks", title="Trunks and branches", about=about, figure=figure, rows=rows)


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
    rows["loss_there"] = [float(first[i].loss) if b else float("nan") for i, b in zip(rows.run_id, branch, strict=True)]
    rows = rows[branch | rows.run_id.isin(trunk[trunk.index.isin(rows.run_id[branch])])]
    return rows.sort_values(["N", "D"], ascending=[True, False], ignore_index=True)


def _add_run(figure: go.Figure, run: Mapping[object, object], losses: Mapping[str, pd.DataFrame], color: str) -> None:
    """A run's curve: a trunk's is thick."""
    name, thin = plain(run["run_id"]), thinned(losses[str(run["run_id"])])
    figure.add_scatter(
        x=thin.tokens,
        y=thin.loss,
        mode="lines",
        name=name,
        showlegend=False,
        line={"color": color, "width": 1.2 if run["trunk"] else 2.5},
        hovertemplate=f"<b>{name}</b><br>%{{x:,}} tokens<br>training loss %{{y:.3f}}<extra></extra>",
    )
