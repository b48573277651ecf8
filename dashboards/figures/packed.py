"""Figures as a browser is told of them, and no more: plotly's own hold an object for each part of each trace."""

from __future__ import annotations

import json
import zlib
from typing import Any

import plotly.graph_objects as go

from dashboards.figures.thinned import View, arrays, thinned


class Packed:
    """A figure that is kept to be sent."""

    def __init__(self, figure: go.Figure) -> None:
        whole = json.loads(figure.to_json())
        self._whole = _text(whole)
        found, self._under = thinned(whole)
        self._thinned = _text(found) if self._under else self._whole

    def to_plotly_json(self) -> dict[str, Any]:
        """As go.Figure's: plain JSON, with arrays in base64."""
        return _read(self._whole)

    @property
    def crowded(self) -> bool:
        """Whether some of its points lie under others."""
        return self._under > 0

    def drawn(self, view: View | None) -> tuple[dict[str, Any], int]:
        """As ``thinned`` makes it."""
        return thinned(self.to_plotly_json(), view) if self._under and view else (_read(self._thinned), self._under)


def drawn(figure: go.Figure | Packed, view: View | None = None) -> tuple[dict[str, Any], int]:
    """A figure as a browser draws it; see ``thinned``."""
    return figure.drawn(view) if isinstance(figure, Packed) else thinned(figure.to_plotly_json(), view)


def crowded(figure: go.Figure | Packed) -> bool:
    """Whether some of its points lie under others."""
    return figure.crowded if isinstance(figure, Packed) else thinned(figure.to_plotly_json())[1] > 0


def opened(figure: go.Figure | Packed) -> go.Figure:
    """A figure to draw on, which is nobody else's."""
    return go.Figure(arrays(figure.to_plotly_json()) if isinstance(figure, Packed) else figure)


def _text(figure: dict[str, Any]) -> bytes:
    return zlib.compress(json.dumps(figure, separators=(",", ":")).encode(), 1)


def _read(text: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zlib.decompress(text))
    return found
