"""What is shown of settings: the study, its figures and its answer."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from analysis.output.answer import Spelt, spelt
from analysis.settings import StudySettings
from analysis.study import Study
from dashboards import data
from dashboards.figures import catalogue
from dashboards.figures.style import Page

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, kw_only=True)
class Made:
    """All that pages show of one fit."""

    study: Study
    pages: list[Page]
    answer: list[Spelt]

    def packed(self) -> Made:
        """The same with its figures packed."""
        return replace(self, pages=[replace(page, figure=Packed(page.figure)) for page in self.pages])


class Packed:
    """A figure as a browser is told of it, and no more: plotly's own holds an object for each part of each trace."""

    def __init__(self, figure: go.Figure) -> None:
        self._text = zlib.compress(figure.to_json().encode(), 1)

    def to_plotly_json(self) -> dict[str, Any]:
        """As go.Figure's."""
        found: dict[str, Any] = json.loads(zlib.decompress(self._text))
        return found


def make(settings: StudySettings, reader: data.Reader | None = None) -> Made:
    """Fit, where that is not on disk, draw and say.

    Args:
        reader: of an earlier call, which has some of the curves.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    study = data.load(settings)[0]
    return Made(study=study, pages=catalogue.pages(study, data.losses(study.runs, reader)), answer=spelt(study))
