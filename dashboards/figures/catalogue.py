"""All figures of a study, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from analysis.study import Study
from dashboards.data import losses
from dashboards.figures.accuracy import accuracy_compute, accuracy_shots
from dashboards.figures.accuracy_size import accuracy_size
from dashboards.figures.backtest import backtest
from dashboards.figures.clouds import clouds
from dashboards.figures.compute import compute_bars
from dashboards.figures.contours import contours
from dashboards.figures.curves import curves
from dashboards.figures.finetuned import finetuned
from dashboards.figures.frontier import frontier
from dashboards.figures.influence import influence
from dashboards.figures.isoflop import isoflop
from dashboards.figures.lowest import lowest
from dashboards.figures.published import beside_published
from dashboards.figures.residuals import residuals
from dashboards.figures.style import Page
from dashboards.figures.triptych import triptych
from dashboards.figures.trunks import trunks
from gpt3core.errors import UsageError

PAGES: dict[str, Callable[[Study], Page]] = {
    "frontier": frontier,
    "published": beside_published,
    "isoflop": isoflop,
    "triptych": triptych,
    "contours": contours,
    "residuals": residuals,
    "clouds": clouds,
    "backtest": backtest,
    "influence": influence,
    "compute": compute_bars,
    "accuracy-compute": accuracy_compute,
    "accuracy-shots": accuracy_shots,
    "accuracy-size": accuracy_size,
}
OF_SCORES = ("accuracy-compute", "accuracy-shots", "accuracy-size")  # of a store's sweep, or a table with scores
SLUGS = (  # of a store's sweep
    *("frontier", "isoflop", "curves", "triptych", "lowest-curves", "contours", "residuals"),
    *("clouds", "backtest", "influence", "published", "compute"),
    *OF_SCORES,
)


def pages(study: Study, curves_of: Mapping[str, pd.DataFrame] | None = None) -> list[Page]:
    """The figures of a study; a table of finished runs has no curves and no evaluations.

    Args:
        curves_of: the loss curve of each run (columns tokens, loss), where there are any.
    """
    scored = study.runs.store or len(study.runs.evals)
    if study.everything.loss.isna().all():  # scores alone, of a table
        return [PAGES[slug](study) for slug in (*OF_SCORES, "compute")]
    made = {slug: make(study) for slug, make in PAGES.items() if scored or slug not in OF_SCORES}
    made["curves"] = curves(study, curves_of or {})
    if curves_of is not None:
        made["lowest-curves"] = lowest(study, curves_of)
    # of sweeps whose runs start from one another's checkpoints, or were fine-tuned
    beside = [trunks(study, curves_of) if curves_of is not None else None, finetuned(study)]
    return [*(made[slug] for slug in SLUGS if slug in made), *(page for page in beside if page is not None)]


def page(study: Study, slug: str) -> Page:
    """One figure of a study, by its slug.

    Raises:
        UsageError: when the study has no such figure.
    """
    made = {page.slug: page for page in pages(study, losses(study.runs))}
    if slug not in made:
        raise UsageError(f"{slug!r} is no figure of {study.runs.name}: there are {', '.join(made)}")
    return made[slug]
