"""What resampling leaves of the exponents: alpha against beta of L(N,D) as clouds, and a of N* ~ C^a by approach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.estimation import uncertainty
from analysis.estimation.fitted_laws import FittedLaw, described
from analysis.laws import Array
from analysis.study import Study
from dashboards.figures.drawing import Panel, arrange, panelled
from dashboards.figures.look import GREY, INK, PALETTE
from dashboards.figures.style import Page, name_places, printed
from gpt3core.words import Symbols, span

SLUG, TITLE = "clouds", "Exponents under resampling"
COLORS = dict(zip(uncertainty.CLUSTERS, (PALETTE[0], PALETTE[1], PALETTE[2]), strict=True))
DASHES = dict(zip(uncertainty.CLUSTERS, ("solid", "dash", "dot"), strict=True))
MOST_SHOWN = 150  # draws of a cloud, any of which are as good as others
AROUND = np.linspace(0, 2 * np.pi, 121)


@dataclass(frozen=True, kw_only=True)
class Ellipse:
    """The ellipse of the draws' own covariance that holds LEVEL of them."""

    centre: Array  # (2,)
    factor: Array  # (2, 2), of the covariance
    radius: float  # in standard deviations; 2.45 of a Gaussian cloud

    @property
    def outline(self) -> Array:
        """Points around it, (n, 2)."""
        circle = np.stack([np.cos(AROUND), np.sin(AROUND)])
        return np.asarray(self.centre + self.radius * (self.factor @ circle).T)


def ellipse(draws: Array) -> Ellipse | None:
    """The ellipse of a cloud (n, 2); None where the draws lie on a line."""
    if len(draws) < 3:
        return None
    centre, covariance = np.median(draws, axis=0), np.cov(draws.T)
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return None
    away = np.linalg.solve(factor, (draws - centre).T)
    return Ellipse(
        centre=centre, factor=np.asarray(factor, float), radius=float(np.quantile(np.hypot(*away), uncertainty.LEVEL))
    )


def clouds(study: Study) -> Page:
    """Draws of (alpha, beta) with 95% ellipses, by run, size and budget; below, draws and intervals of a."""
    figure, joint = panelled(2), study.laws.get("chinchilla")
    drawn = {} if joint is None else _exponents(joint)
    rows = [_add_cloud(figure, by, draws) for by, draws in drawn.items()]
    if joint is not None and {"alpha", "beta"} <= set(joint.fit.params):
        rows.append(_add_estimate(figure, joint))
    of_a = _of_a(study)
    rows += [_add_strip(figure, *approach) for approach in of_a]
    above = Panel(x="α, of N", y="β, of D", height=380, log_x=False)
    arrange(figure, [above, Panel(x=printed("a, of N* ~ C^a"), y="", height=60 + 40 * len(of_a), log_x=False)])
    figure.update_yaxes(autorange="reversed", row=2, col=1)
    name_places(figure, [name for name, _, _ in of_a], row=2)
    if of_a:
        figure.add_vline(x=0.5, line={"color": GREY, "dash": "dot", "width": 1}, row=2, col=1)
    behind = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()
    return Page(slug=SLUG, title=TITLE, about=_about(study, drawn, of_a), figure=figure, rows=behind)


def _about(study: Study, drawn: dict[str, Array], of_a: list[tuple[str, Array, list[float]]]) -> str:
    joint = study.laws.get("chinchilla")
    reason = "L(N,D) was not asked for" if joint is None else f"L(N,D) is {joint.fit.status.value}: {joint.fit.reason}"
    said = [
        f"Above, each point is L(N,D) fitted to resampled runs, {MOST_SHOWN} of a kind at most; ellipses hold 95% "
        "of all draws by run, size and budget (whole sizes or budgets drawn together, as their misfit is shared). "
        "The cross is the fit."
        if drawn
        else f"No cloud above: {reason}."
    ]
    if of_a:
        listed = "; ".join(f"{name} {span(interval, 2)}" for name, _, interval in of_a)
        said.append(f"Below, a of N* ~ C^a with 95% intervals: {listed}. Dotted: 1/2, N and D growing alike.")
    else:
        said.append("No approach gives an interval of a.")
    return Symbols(" ".join(said))


def _exponents(joint: FittedLaw) -> dict[str, Array]:
    """(draws, 2) of alpha and beta, by what was resampled."""
    every = {} if joint.draws is None else {"run": joint.draws, **joint.by_cluster}
    found = {}
    for by, theta in every.items():
        published = described(joint.fit.law, theta)
        if {"alpha", "beta"} <= set(published):
            pairs = np.stack([published["alpha"], published["beta"]], 1)
            found[by] = pairs[np.isfinite(pairs).all(1)]
    return found


def _of_a(study: Study) -> list[tuple[str, Array, list[float]]]:
    """Approach, draws of a where there are any, and its 95% interval."""
    found: list[tuple[str, Array, list[float]]] = []
    low, minima, joint = study.training_curves, study.minima, study.laws.get("chinchilla")
    if low is not None and not low.reason and low.interval_a:
        found.append(("approach 1", np.empty(0), low.interval_a))
    if minima.draws is not None:
        found.append(("approach 2", minima.draws[:, 0], uncertainty.interval(minima.draws[:, 0])))
    if joint is not None and np.isfinite(joint.a_draws).any():
        drawn = joint.a_draws[np.isfinite(joint.a_draws)]
        found.append(("approach 3", drawn, uncertainty.interval(drawn)))
    return found


def _add_cloud(figure: go.Figure, by: str, draws: Array) -> pd.DataFrame:
    """The draws and the ellipse around them; returns their rows."""
    color = COLORS[by]
    rows = pd.DataFrame({"what": "draw", "alpha": draws[:, 0], "beta": draws[:, 1]})
    figure.add_scatter(
        x=draws[:MOST_SHOWN, 0],
        y=draws[:MOST_SHOWN, 1],
        mode="markers",
        marker={"color": color, "size": 4, "opacity": 0.35},
        name=f"by {by}",
        legendgroup=by,
        hovertemplate="α %{x:.3f}<br>β %{y:.3f}<extra></extra>",
        row=1,
        col=1,
    )
    found = ellipse(draws)
    if found is not None:
        x, y = found.outline.T
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": color, "width": 2, "dash": DASHES[by]},
            name=f"95% by {by}",
            legendgroup=by,
            hoverinfo="skip",
            row=1,
            col=1,
        )
        rows = pd.concat([rows, pd.DataFrame({"what": "ellipse", "alpha": x, "beta": y})])
    return rows.assign(resampled=by)


def _add_estimate(figure: go.Figure, joint: FittedLaw) -> pd.DataFrame:
    """The fit's cross; returns its row."""
    params = joint.fit.params
    figure.add_scatter(
        x=[params["alpha"]],
        y=[params["beta"]],
        mode="markers",
        marker={"symbol": "x-thin", "size": 12, "line": {"width": 3, "color": "#000000"}},
        name="the fit",
        hovertemplate="α %{x:.4f}<br>β %{y:.4f}<extra>the fit</extra>",
        row=1,
        col=1,
    )
    return pd.DataFrame([{"what": "fit", "alpha": params["alpha"], "beta": params["beta"]}])


def _add_strip(figure: go.Figure, name: str, draws: Array, interval: list[float]) -> pd.DataFrame:
    """One approach: its draws as a cloud of ticks, and the interval over them; returns their rows."""
    shown = draws[:MOST_SHOWN]
    figure.add_scatter(
        x=shown,
        y=[name] * len(shown),
        mode="markers",
        marker={"symbol": "line-ns", "size": 14, "opacity": 0.25, "line": {"width": 1, "color": GREY}},
        name=name,
        showlegend=False,
        hoverinfo="skip",
        row=2,
        col=1,
    )
    figure.add_scatter(
        x=interval,
        y=[name] * 2,
        mode="lines+markers",
        line={"color": INK, "width": 4},
        name=f"95% of {name}",
        showlegend=False,
        hovertemplate=f"{name}<br>95% of a: {span(interval, 3)}<extra></extra>",
        row=2,
        col=1,
    )
    what = ["draw"] * len(draws) + ["end of the 95% interval"] * len(interval)
    return pd.DataFrame({"what": what, "approach": name, "a": [*draws, *interval]})
