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
        self._whole, self._layout = _text(whole), _text(whole["layout"])
        found, self._under = thinned(whole)
        self._thinned = self._whole if self._under is None else _text(found)

    def to_plotly_json(self) -> dict[str, Any]:
        """As go.Figure's: plain JSON, with arrays in base64."""
        return _read(self._whole)

    @property
    def layout(self) -> dict[str, Any]:
        """As plain JSON."""
        return _read(self._layout)

    def drawn(self, view: View | None) -> tuple[dict[str, Any], int | None]:
        """As ``thinned`` makes it."""
        if view and self._under is not None:
            return thinned(self.to_plotly_json(), view)
        return _read(self._thinned), self._under


def drawn(figure: go.Figure | Packed, view: View | None = None) -> tuple[dict[str, Any], int | None]:
    """A figure as a browser draws it; see ``thinned``."""
    return figure.drawn(view) if isinstance(figure, Packed) else thinned(figure.to_plotly_json(), view)


def layout(figure: go.Figure | Packed) -> dict[str, Any]:
    """A figure's layout as plain JSON."""
    return figure.layout if isinstance(figure, Packed) else figure.layout.to_plotly_json()


def opened(figure: go.Figure | Packed) -> go.Figure:
    """A figure to draw on, which is nobody else's."""
    return go.Figure(arrays(figure.to_plotly_json()) if isinstance(figure, Packed) else figure)


def _text(figure: dict[str, Any]) -> bytes:
    return zlib.compress(json.dumps(figure, separators=(",", ":")).encode(), 1)


def _read(text: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zlib.decompress(text))
    return found
