"""Figure: fine-tuned beside zero-, one- and few-shot accuracy, against the size of the model."""

from __future__ import annotations

import plotly.graph_objects as go

from analysis.runs.conventions import LABELS
from analysis.runs.finetuned import beside_prompts
from analysis.study import Study
from dashboards.figures.look import AXIS, PALETTE
from dashboards.figures.style import MARKERS, Page, axes, plain


def finetuned(study: Study) -> Page | None:
    """What GPT-1, GPT-2 and GPT-3 did, on one page: None where no run of the sweep was fine-tuned."""
    rows = beside_prompts(study.runs)
    if rows.empty:
        return None
    rows = rows.merge(study.everything[["run_id", "size", "N", "C", "loss"]], on="run_id").sort_values("N")
    figure = go.Figure()
    for t, (_, of_task) in enumerate(rows.groupby("asked", sort=False)):
        task = plain(of_task.task.iloc[0])
        for w, ((tuned, _, way), line) in enumerate(of_task.groupby(["tuned", "examples", "way"])):
            figure.add_scatter(
                x=line.N,
                y=line.accuracy,
                error_y={"type": "data", "array": line.accuracy_se, "width": 0, "thickness": 1},
                mode="lines+markers",
                name=f"{task}: {way}",
                marker={"color": PALETTE[w % len(PALETTE)], "symbol": MARKERS[t % len(MARKERS)], "size": 8},
                line={"width": 2 if tuned else 1, "dash": "solid" if tuned else "dash"},
                text=[
                    f"<b>{plain(r.run_id)}</b><br>{task}, {way}<br>{r.accuracy:.3f} ± {r.accuracy_se:.3f} of "
                    f"{r.items:.0f} questions; runs: {r.runs}"
                    for r in line.itertuples()
                ],
                hoverinfo="text",
            )
        figure.add_scatter(
            x=[rows.N.min(), rows.N.max()],
            y=[of_task.baseline.max()] * 2,
            mode="lines",
            line={"color": AXIS, "width": 1, "dash": "dot"},
            name=f"{task}: best trivial baseline",
            hoverinfo="skip",
        )
    axes(figure, f"N, parameters, {LABELS[study.convention.n]}", "accuracy")
    about = (
        "The same questions to the same models: answered by a classifier after training on labelled examples "
        "(Radford et al. 2018), and by prompts with as many examples as said (Brown et al. 2020, section 2). Bars are "
        "standard errors of the questions, or of the seeds where these scatter more."
    )
    return Page(
        slug="finetuned",
        title="Fine-tuned beside prompts",
        about=about,
        figure=figure,
        rows=rows,
        group="few-shot",
    )
