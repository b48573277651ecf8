"""Figures as a browser is told of them, and no more: plotly's own hold an object for each part of each trace."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
import plotly.graph_objects as go


class Packed:
    """A figure that is kept to be sent."""

    def __init__(self, figure: go.Figure) -> None:
        self._text = zlib.compress(figure.to_json().encode(), 1)

    def to_plotly_json(self) -> dict[str, Any]:
        """As go.Figure's: plain JSON, with arrays in base64."""
        found: dict[str, Any] = json.loads(zlib.decompress(self._text))
        return found


def opened(figure: go.Figure | Packed) -> go.Figure:
    """A figure to draw on, which is nobody else's."""
    return go.Figure(_with_arrays(figure.to_plotly_json()) if isinstance(figure, Packed) else figure)


def _with_arrays(part: Any) -> Any:
    """Plain JSON with the arrays that it holds."""
    if isinstance(part, list):
        return [_with_arrays(one) for one in part] if part and isinstance(part[0], dict) else part
    if not isinstance(part, dict):
        return part
    if "bdata" not in part:
        return {name: _with_arrays(one) for name, one in part.items()}
    array = np.frombuffer(base64.b64decode(part["bdata"]), part["dtype"])
    return array.reshape([int(side) for side in str(part["shape"]).split(",")]) if "shape" in part else array
