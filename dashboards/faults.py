"""What goes wrong with a request: one that no page sends is refused in a sentence, a defect is told to all concerned.

A defect is a line on the terminal, once, with the place in the code, and a warning on the page of whoever met it.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from inspect import Parameter, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, Unpack, get_args, get_origin, get_type_hints

from gpt3core.errors import CODE, PACKAGES, LostError, StoreError
from gpt3core.hints import short
from sweeps.watching.words import printable

CALLBACK = "/_dash-update-component"
PLACE = "failed"  # of the warning on a page, which the clock there takes away
FAILED = "X-Failed"  # a header of an answer that warns
MOST_BYTES = 32 << 20  # of a request: a lasso around ten thousand points takes a tenth
KNOWN = (StoreError, LostError, OSError)  # what may go wrong without a defect, though nobody typed it: said as it is
MOST_TOLD = 100  # lines of defects, and as many of what is known to go wrong
_told: dict[bool, set[str]] = {True: set(), False: set()}  # known errors by their words, defects by their place


def watch(app: Any) -> None:
    """Stand between the requests and a Dash app whose callbacks are all registered."""
    import flask

    app.server.config["MAX_CONTENT_LENGTH"] = MOST_BYTES

    @app.server.before_request
    def check() -> Any:
        if flask.request.path != CALLBACK or flask.request.method != "POST":
            return None
        wrong = _wrong(app.callback_map)
        return flask.Response(f"no page sends this: {wrong}\n", 400, mimetype="text/plain") if wrong else None

    @app.server.errorhandler(Exception)
    def failed(error: Exception) -> Any:
        return _answer(error)


def _answer(error: Exception) -> Any:
    """What is sent where a request failed; a page shows its part of it (Dash's sideUpdate)."""
    import flask
    from werkzeug.exceptions import HTTPException

    if isinstance(error, HTTPException):
        return error
    said = tell(error)
    if flask.request.path != CALLBACK:
        return flask.Response(f"{said}\n", 500, mimetype="text/plain")
    warning = f"A part of this page stays as it was: {said}"
    answer = flask.jsonify(multi=True, response={}, sideUpdate={PLACE: {"children": warning}})
    answer.headers[FAILED] = "1"
    return answer


class DefectError(Exception):
    """A defect that another process met: its ``defect``."""


def defect(error: BaseException) -> tuple[str, str, str]:
    """Of what kind a defect is, what it says, and its place in the code."""
    if isinstance(error, DefectError):
        kind, said, place = error.args
        return kind, said, place
    return type(error).__name__, str(error), _place(error)


def tell(error: BaseException) -> str:
    """A line on the terminal, the first time; and its words. Texts of one defect may be many, its place is one."""
    if known := isinstance(error, KNOWN):
        this = said = printable(short(str(error), 300))
    else:
        kind, text, place = defect(error)
        said, this = f"{printable(short(f'{kind}: {text}', 300))} ({place})", f"{kind} {place}"
    told = _told[known]
    if this not in told and len(told) <= MOST_TOLD:
        told.add(this)
        rest = f"more than {MOST_TOLD} different errors: others are told on the pages alone"
        with contextlib.suppress(OSError):  # nobody reads the terminal any more: who tells goes on all the same
            print(f"error: {said if len(told) <= MOST_TOLD else rest}", file=sys.stderr, flush=True)
    return said


def _place(error: BaseException) -> str:
    """The last line of ours that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if any(Path(f.filename).is_relative_to(CODE / name) for name in PACKAGES)]
    last = (ours or frames)[-1]
    path = Path(last.filename)
    return f"{path.relative_to(CODE) if ours else path.name}:{last.lineno}"


def sent(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces of a file that is made while it is sent: where that fails, the reader sees that it is not whole."""
    try:
        yield from pieces
    except Exception as error:
        tell(error)
        raise ConnectionAbortedError from error  # the server then ends the connection in the midst


# ------------------------------------------------------------------------------------------- the request of a callback


def _wrong(callbacks: Mapping[str, Any]) -> str:
    """What is wrong with a request to Dash, in words; empty for one that a page may send."""
    import flask

    try:
        body = flask.request.get_json(silent=True)
    except (RecursionError, OSError):  # chunks that are none
        body = None
    if not isinstance(body, dict):
        return "no JSON object"
    output, changed = body.get("output"), body.get("changedPropIds", [])
    known = callbacks.get(output) if isinstance(output, str) else None
    if known is None or "callback" not in known:
        return "no such output"
    given = [*_listed(body.get("inputs", [])), *_listed(body.get("state", []))]
    asked = [f"{one['id']}.{one['property']}" for one in (*known["inputs"], *known["state"])]
    if [_name(one) for one in given] != asked:
        return "other inputs than this output has"
    if not (isinstance(changed, list) and all(one in asked for one in changed)):
        return "changes of other inputs"
    outputs = [f"{one.component_id_str()}.{one.component_property}" for one in _listed(known["output"])]
    if [_name(one) for one in _listed(body.get("outputs"))] != [one.partition("@")[0] for one in outputs]:
        return "other outputs"
    kinds = kinds_of(known["callback"].__wrapped__, len(given))
    unfit = [name for name, one, kind in zip(asked, given, kinds, strict=True) if not fits(one.get("value"), kind)]
    return f"{unfit[0]} has no such values" if unfit else ""


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _name(one: Any) -> str | None:
    """ID.PROPERTY of a part of a request, as Dash spells it; None where it is none."""
    from dash._utils import stringify_id

    if not isinstance(one, dict) or not isinstance(one.get("id"), str | dict):
        return None
    return f"{stringify_id(one['id'])}.{str(one.get('property')).partition('@')[0]}"


@cache
def kinds_of(function: Callable[..., Any], count: int) -> list[Any]:
    """The annotations of a function by its arguments, of which it is given so many."""
    hints, kinds = get_type_hints(function, include_extras=True), list[Any]()
    for parameter in signature(function).parameters.values():
        kind = hints.get(parameter.name, Any)
        if parameter.kind is not Parameter.VAR_POSITIONAL:
            kinds.append(kind)
        elif get_origin(kind) is Unpack:
            kinds += _unpacked(kind)
        else:
            kinds += [kind] * (count - len(kinds))
    return kinds


def _unpacked(kind: Any) -> list[Any]:
    """The kinds of ``*tuple[int, *tuple[str, str]]``, in their order."""
    if get_origin(kind) is not Unpack:
        return [kind]
    return [one for part in get_args(get_args(kind)[0]) for one in _unpacked(part)]


def fits(value: Any, kind: Any) -> bool:
    """Whether what JSON says is of a kind; ``Annotated[list, (str, int)]`` is a list of a text and a whole number."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inside)
    if origin is Annotated:
        return isinstance(value, list) and len(value) == len(inside[1]) and all(map(fits, value, inside[1]))
    if origin is list:
        return isinstance(value, list) and all(fits(one, inside[0]) for one in value)
    if origin is not None:
        return isinstance(value, dict) and all(fits(one, inside[1]) for one in value.values())
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max  # nan is not
    if kind is str:
        return isinstance(value, str) and _is_text(value)
    return value is None if kind in (None, NoneType) else type(value) is kind


def _is_text(value: str) -> bool:
    """Whether it can be written down: half of a pair of UTF-16 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
