"""A figure as a browser draws it: of markers that lie on one another one, which says how many points it stands for.

A browser without a graphics card draws some thousand markers in a blink, and a figure of ten thousand runs has twenty
thousand. No point is made up and none is lost: a marker is one of its points, has the names of all of them, and a look
closer parts them. Points that say nothing, as draws do, are all drawn: how dense they are is what they show.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
View: TypeAlias = Mapping[str, list[float]]  # ranges by plotly's short names of axes (x, y2), as plotly has them

MOST = 600  # markers of a figure that has more, where they lie on one another
SIDES = (1, 1.5, 2, 3, 4, 6, 8)  # pixels of squares of which each has one marker of a look, up to a marker's own size
FAR = 32  # of squares that are not in view
WIDTH, AROUND = 900, 140  # pixels: of a figure, and what axes and legend take of its height
SHADES = 8  # looks that a scale of colours has
BESIDE = 0.5  # of a view: what lies further beside it is there when a reader gets there
ONE_VALUE = ("colorbar", "colorscale")  # parts of a trace whose lists are not of points


def thinned(figure: dict[str, Any], view: View | None = None) -> tuple[dict[str, Any], int]:
    """The figure with MOST markers in view, or more that lie beside one another, and how many points are under others.

    Args:
        figure: as plotly's JSON.
        view: the ranges that a reader looks at; others are of all points.
    """
    traces, layout = figure["data"], figure["layout"]
    marked = {i: arrays(trace) for i, trace in enumerate(traces) if trace.get("mode") == "markers"}
    places = {i: _places(trace, layout, view or {}) for i, trace in marked.items() if _says(trace)}
    if sum(np.count_nonzero(looks >= 0) for _, looks, _ in places.values()) <= MOST:
        return figure, 0
    for side in SIDES:
        found = {i: _squares(*place, side) for i, place in places.items()}
        if sum(np.count_nonzero(places[i][2][kept]) for i, (kept, _) in found.items()) <= MOST:
            break
    drawn = [_drawn(trace, *found[i]) if i in found else trace for i, trace in enumerate(traces)]
    return {**figure, "data": drawn}, sum(len(of) - len(kept) for kept, of in found.values())


def _places(trace: Mapping[str, Any], layout: Mapping[str, Any], view: View) -> tuple[Floats, Ints, Bools]:
    """Where points lie, (n, 2) in pixels; the look of each, below zero where one is nowhere; which are in view."""
    sides, seen = [], np.ones(len(trace["x"]), bool)
    for letter, pixels in (("x", WIDTH), ("y", layout.get("height", WIDTH) - AROUND)):
        name = trace.get(f"{letter}axis", letter)
        axis = layout.get(f"{letter}axis{name[1:]}", {})
        low, high = axis.get("domain", (0, 1))
        along = _along(trace[letter], axis, view.get(name))
        sides.append(along * pixels * (high - low))
        seen &= (along >= 0) & (along <= 1)
    place = np.stack(sides, 1)
    there, looks = np.isfinite(place).all(axis=1), _looks(trace.get("marker", {}), len(place))
    return np.where(there[:, None], place, 0.0), np.where(there, looks, -1 - np.arange(len(place))), seen


def _along(values: Any, axis: Mapping[str, Any], view: Sequence[float] | None) -> Floats:
    """The places of values along an axis, whose visible part goes from 0 to 1, (n,)."""
    at = _numbers(values)
    with np.errstate(all="ignore"):
        at = np.log10(at) if axis.get("type") == "log" else at
        at[np.isinf(at)] = np.nan  # the logarithm of zero
        there = at[np.isfinite(at)]
        of_all = (there.min(), there.max()) if len(there) else (0.0, 1.0)
        low, high = map(float, next(ends for ends in (view, axis.get("range"), of_all) if ends and _is_range(ends)))
        return np.asarray(np.clip((at - low) / (high - low or 1.0), -BESIDE, 1 + BESIDE))


def _numbers(values: Any) -> Floats:
    """Values of an axis as numbers, which are a copy; names by their order."""
    try:
        return np.array(values, float)
    except (TypeError, ValueError):
        pass
    try:
        times = np.array(values, "datetime64[us]")
    except (TypeError, ValueError):
        return np.unique(np.asarray(values, str), return_inverse=True)[1].astype(float)
    return np.where(np.isnat(times), np.nan, times.astype(np.int64))


def _is_range(ends: Sequence[Any]) -> bool:
    """Whether it is one of numbers: axes of time have words, and ends may be open."""
    return len(ends) == 2 and all(isinstance(end, int | float) for end in ends)


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

    It is the one farthest from the middle of all, or the first or last along x: where points end stays where it is.
    """
    x, y = np.floor(places / np.where(seen, side, FAR)[:, None]).astype(np.int64).T
    key = ((2 * looks + seen) << 40) + (x << 20) + y
    outside = np.abs(places[:, 1] - np.median(places[:, 1]))
    outside[[places[:, 0].argmin(), places[:, 0].argmax()]] = np.inf
    outward = np.argsort(-outside, kind="stable")
    _, first, square = np.unique(key[outward], return_index=True, return_inverse=True)
    kept = outward[first]
    order = np.argsort(kept)  # what lies above others stays above
    rank, of = np.empty_like(order), np.empty(len(key), np.int64)
    rank[order] = np.arange(len(order))
    of[outward] = rank[square]
    return kept[order], of


def _drawn(trace: dict[str, Any], kept: Ints, of: Ints) -> dict[str, Any]:
    """A trace with some of its points, each with the names of those that it stands for."""
    many, points = np.bincount(of), len(of)
    if len(kept) == points:
        return trace
    found: dict[str, Any] = _some(arrays(trace), kept, points)
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


def _says(trace: Mapping[str, Any]) -> bool:
    """Whether each of its points has words of its own."""
    return len(trace.get("x", ())) > 0 and _each(trace.get("text"), len(trace["x"])) is not None


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
