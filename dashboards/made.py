"""What is shown of settings: the study, its figures and its answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from analysis.output.answer import Spelt, spelt
from analysis.settings import StudySettings
from analysis.study import Study
from dashboards import data
from dashboards.figures import catalogue
from dashboards.figures.packed import Packed
from dashboards.figures.style import Page


@dataclass(frozen=True, kw_only=True)
class Made:
    """All that pages show of one fit."""

    study: Study
    pages: list[Page]
    answer: list[Spelt]

    def packed(self) -> Made:
        """The same for an app: figures packed, and without the summaries, which only a report prints."""
        return replace(self, pages=[replace(page, figure=Packed(page.figure), summary=None) for page in self.pages])


def make(settings: StudySettings, reader: data.Reader | None = None) -> Made:
    """Fit, where that is not on disk, draw and say.

    Args:
        reader: of an earlier call, which has some of the curves.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    study = data.load(settings)[0]
    return Made(study=study, pages=catalogue.pages(study, data.losses(study.runs, reader)), answer=spelt(study))
