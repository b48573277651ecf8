"""A figure as a browser draws it: of markers that lie on one another one, which says how many points it stands for.

A browser without a graphics card draws some thousand markers a second, and a figure of ten thousand runs has twenty
thousand. No point is made up and none is lost: a marker is one of its points, covers the others in part at least, has
the names of all of them, and a look closer parts them. Points that say nothing, as draws do, are all drawn, for how
dense they are is what they show; and so are those whose size or error differs from one to the next, and those along
an axis of names or times.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
View: TypeAlias = Mapping[str, list[float]]  # ranges by plotly's short names of axes (x, y2), as plotly has them

MOST = 600  # markers of a figure in view, where squares as large as a marker are enough for that
FAR = 32  # pixels of squares that are not in view
SIDES = (1, 1.5, 2, 3, 4, 6)  # pixels of squares, of which each has one marker of a look: markers are 8 wide
WIDTH, AROUND = 900, 140  # pixels: of a figure, and what axes and legend take of its height
SHADES = 8  # looks that a scale of colours has
BESIDE = 0.5  # of a view: what lies further beside it is there when a reader gets there
ONE_VALUE = ("colorbar", "colorscale")  # parts of a trace whose lists are not of points


def thinned(figure: dict[str, Any], view: View | None = None) -> tuple[dict[str, Any], int | None]:
    """The figure with fewer markers, and how many points have none of their own; None of a figure of few points.

    Args:
        figure: as plotly's JSON.
        view: the ranges that a reader looks at; others are of all points.
    """
    traces = {i: arrays(trace) for i, trace in enumerate(figure["data"]) if trace.get("visible", True) is True}
    crowds = {i: trace for i, trace in traces.items() if _is_crowd(trace)}
    if sum(len(trace["x"]) for trace in crowds.values()) <= MOST:
        return figure, None
    axes = _axes(traces.values(), figure["layout"], view or {})
    height = figure["layout"].get("height", WIDTH) - AROUND
    places = {i: _places(trace, axes, height) for i, trace in crowds.items()}
    for side in SIDES:
        found = {i: _squares(*place, side) for i, place in places.items()}
        if sum(np.count_nonzero(places[i][2][kept]) for i, (kept, _) in found.items()) <= MOST:
            break
    drawn = [_drawn(traces[i], *found[i]) if i in found else trace for i, trace in enumerate(figure["data"])]
    return {**figure, "data": drawn}, sum(len(of) - len(kept) for kept, of in found.values())


def _is_crowd(trace: Mapping[str, Any]) -> bool:
    """Whether it is of points that say something each, at numbers, and look alike but for colour and symbol."""
    points, marker = len(trace.get("x", ())), trace.get("marker", {})
    alike = not any(name in trace for name in ("error_x", "error_y")) and _each(marker.get("size"), points) is None
    said = trace.get("mode") == "markers" and points > 0 and _each(trace.get("text"), points) is not None
    return said and alike and all(_numbers(trace[letter]) is not None for letter in "xy")


def _numbers(values: Any) -> Floats | None:
    """As numbers, nan where there is none; None of names and times."""
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError):
        return None


# ---------------------------------------------------------------------------------------------------------- in pixels


class _Axis:
    """An axis whose visible part goes from 0 to 1."""

    def __init__(self, axis: Mapping[str, Any], values: Sequence[Floats], view: Sequence[float] | None) -> None:
        self._log, domain = axis.get("type") == "log", axis.get("domain", (0, 1))
        self.share = domain[1] - domain[0]  # of the figure
        there = np.concatenate([at[np.isfinite(at)] for at in map(self._at, values)])
        of_all = (there.min(), there.max()) if len(there) else (0.0, 1.0)
        ends = next(ends for ends in (view, axis.get("range"), of_all) if ends and _is_range(ends))
        low, high = map(float, ends)
        self._low, self._width = low, high - low or 1.0

    def places(self, values: Floats) -> Floats:
        """Where values are, (n,); nan where they are nowhere."""
        at = self._at(values)
        with np.errstate(all="ignore"):  # of the ranges that a request may name
            inside = np.clip((at - self._low) / self._width, -BESIDE, 1 + BESIDE)
        return np.where(np.isfinite(at), inside, np.nan)

    def _at(self, values: Floats) -> Floats:
        with np.errstate(all="ignore"):
            return np.log10(values) if self._log else values


def _is_range(ends: Sequence[Any]) -> bool:
    """Whether it is one of numbers: axes of time have words, and ends may be open."""
    return len(ends) == 2 and all(isinstance(end, int | float) for end in ends)


def _axes(traces: Iterable[Mapping[str, Any]], layout: Mapping[str, Any], view: View) -> dict[str, _Axis]:
    """Those of traces, by plotly's short names."""
    along: dict[str, list[Floats]] = {}
    for trace in traces:
        for letter in "xy":
            if trace.get(letter) is not None and (values := _numbers(trace[letter])) is not None and values.ndim == 1:
                along.setdefault(trace.get(f"{letter}axis", letter), []).append(values)
    looks = {name: layout.get(f"{name[0]}axis{name[1:]}", {}) for name in along}
    return {name: _Axis(looks[name], values, view.get(name)) for name, values in along.items()}


def _places(trace: Mapping[str, Any], axes: Mapping[str, _Axis], height: float) -> tuple[Floats, Ints, Bools]:
    """Where points lie, (n, 2) in pixels; a number for the look of each, (n,); and which are in view, (n,)."""
    along = [axes[trace.get(f"{letter}axis", letter)] for letter in "xy"]
    parts = np.stack([axis.places(np.asarray(trace[x], float)) for axis, x in zip(along, "xy", strict=True)], 1)
    there, looks = np.isfinite(parts).all(axis=1), _looks(trace.get("marker", {}), len(parts))
    seen = np.all((parts >= 0) & (parts <= 1), axis=1)
    pixels = np.nan_to_num(parts) * [WIDTH * along[0].share, height * along[1].share]
    return pixels, np.where(there, looks, -1 - np.arange(len(parts))), np.asarray(seen)


def _looks(marker: Mapping[str, Any], points: int) -> Ints:
    """A number for each colour, as far as these are told apart, and symbol."""
    looks = np.zeros(points, np.int64)
    if (color := _each(marker.get("color"), points)) is not None:
        if isinstance(color[0], str):
            looks = np.unique(np.asarray(color), return_inverse=True)[1]
        else:
            value = np.asarray(color, float)
            low, high = marker.get("cmin", np.nanmin(value)), marker.get("cmax", np.nanmax(value))
            looks = np.nan_to_num((value - low) / ((high - low) or 1.0) * SHADES).astype(np.int64)
    if (symbol := _each(marker.get("symbol"), points)) is not None:
        looks = looks * 64 + np.unique(np.asarray(symbol, str), return_inverse=True)[1]
    return looks


def _squares(places: Floats, looks: Ints, seen: Bools, side: float) -> tuple[Ints, Ints]:
    """Of each square with points of one look the point that is drawn, (k,) indices; and each point's place in these.

    The lowest and the highest of all that lie above one another are, and both ends of x, else the first: which is any.
    """
    x, y = np.floor(places / np.where(seen, side, FAR)[:, None]).astype(np.int64).T
    upward = np.lexsort((places[:, 1], x))
    first = np.flatnonzero(np.diff(x[upward], prepend=x.min() - 1))
    inner = np.ones(len(x), bool)
    inner[upward[np.concatenate([first, np.append(first[1:], len(x)) - 1])]] = False
    inner[[places[:, 0].argmin(), places[:, 0].argmax()]] = False
    order = np.argsort(inner, kind="stable")
    _, chosen, square = np.unique(
        (((2 * looks + seen) << 40) + (x << 20) + y)[order], return_index=True, return_inverse=True
    )
    kept = order[chosen]
    upper = np.argsort(kept)  # what is drawn over others still is
    rank, of = np.empty_like(upper), np.empty(len(x), np.int64)
    rank[upper] = np.arange(len(upper))
    of[order] = rank[square]
    return kept[upper], of


# ---------------------------------------------------------------------------------------------------------- the traces


def _drawn(trace: dict[str, Any], kept: Ints, of: Ints) -> dict[str, Any]:
    """A trace with some of its points, each with the names of those that it stands for."""
    many, points = np.bincount(of), len(of)
    found: dict[str, Any] = _some(trace, kept, points)
    said = zip(found["text"], many, strict=True)
    found["text"] = [f"{text}<br>and {n - 1:,} more here" if n > 1 else text for text, n in said]
    if (names := _each(trace.get("customdata"), points)) is not None:
        inside = np.split(np.argsort(of, kind="stable"), np.cumsum(many)[:-1])
        listed = ([names[i], *(names[j] for j in some if j != i)] for i, some in zip(kept, inside, strict=True))
        found["customdata"] = [some if len(some) > 1 else some[0] for some in listed]
    return found


def _some(part: Any, kept: Ints, points: int) -> Any:
    """A part of a trace with what it has of some of the points."""
    if isinstance(part, dict):
        return {name: one if name in ONE_VALUE else _some(one, kept, points) for name, one in part.items()}
    if isinstance(part, np.ndarray):
        return (part[kept] if len(part) == points else part).tolist()
    return part if _each(part, points) is None else [part[i] for i in kept.tolist()]


def _each(part: Any, points: int) -> Sequence[Any] | NDArray[Any] | None:
    """What has a value for each of so many points; None for anything else."""
    return part if isinstance(part, list | np.ndarray) and len(part) == points else None


def arrays(part: Any) -> Any:
    """Plotly's JSON with the arrays that it holds."""
    if isinstance(part, list):
        return [arrays(one) for one in part] if part and isinstance(part[0], dict) else part
    if not isinstance(part, dict):
        return part
    if "bdata" not in part:
        return {name: arrays(one) for name, one in part.items()}
    array = np.frombuffer(base64.b64decode(part["bdata"]), part["dtype"])
    return array.reshape([int(side) for side in str(part["shape"]).split(",")]) if "shape" in part else array
