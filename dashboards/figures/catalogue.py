"""All figures of a study, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from analysis.study import Study
from dashboards.data import losses
from dashboards.figures.accuracy import accuracy_compute, accuracy_shots
from dashboards.figures.curves import curves
from dashboards.figures.finetuned import finetuned
from dashboards.figures.frontier import frontier
from dashboards.figures.isoflop import isoflop
from dashboards.figures.lowest import lowest
from dashboards.figures.residuals import residuals
from dashboards.figures.style import Page
from gpt3core.errors import UsageError

PAGES: dict[str, Callable[[Study], Page]] = {
    "frontier": frontier,
    "isoflop": isoflop,
    "residuals": residuals,
    "accuracy-compute": accuracy_compute,
    "accuracy-shots": accuracy_shots,
}
OF_STORES = ("accuracy-compute", "accuracy-shots")
SLUGS = ("frontier", "isoflop", "curves", "lowest-curves", "residuals", *OF_STORES)  # of a store's sweep


def pages(study: Study, curves_of: Mapping[str, pd.DataFrame] | None = None) -> list[Page]:
    """The figures of a study; a table of finished runs has no curves and no evaluations.

    Args:
        curves_of: the loss curve of each run (columns tokens, loss), where there are any.
    """
    made = {slug: make(study) for slug, make in PAGES.items() if study.runs.store or slug not in OF_STORES}
    if curves_of is not None:
        made["curves"] = curves(study, curves_of)
        made["lowest-curves"] = lowest(study, curves_of)
    beside = finetuned(study)  # of sweeps whose runs were fine-tuned
    return [*(made[slug] for slug in SLUGS if slug in made), *([] if beside is None else [beside])]


def page(study: Study, slug: str) -> Page:
    """One figure of a study, by its slug.

    Raises:
        UsageError: when the study has no such figure.
    """
    made = {page.slug: page for page in pages(study, losses(study.runs))}
    if slug not in made:
        raise UsageError(f"{slug!r} is no figure of {study.runs.name}: there are {', '.join(made)}")
    return made[slug]
