"""Which runs of a table, in which order, by what together, which page of them: from words to rows, without a browser.

A filter is words with spaces between: ``loss<3.2`` ``size=d64`` ``status!=done`` ``lr>=1e-3`` ``sweep~lap``
``loss=none``, and anything else, which is looked for in names, states and notes. ``"two words"`` are one, and
``size=d8|d64`` is either; ``set=NAME`` are the runs behind a number, by the name that its address has of them.
"""

from __future__ import annotations

import math
import operator
import re
import shlex
import statistics
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dashboards.columns import COLUMNS, TEXT, WHOLE, Column
from gpt3core.hints import nearest
from sweeps.watching.run_table import Row

T = TypeVar("T")
Condition = Callable[[Row], bool]
LETTERS = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
NONE, EITHER = "none", "|"
SET = "set"
Sets = Callable[[str], Collection[str] | None]  # the runs of a set by its name; None where it is not known
SEARCHED = ("run_id", "sweep", "status", "note", "corpus")
_CONDITION = re.compile(r"(?P<name>[A-Za-z_]\w*)(?P<how>!=|<=|>=|=|<|>|~)(?P<value>.*)", re.DOTALL)
_ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A filter, as far as it was understood."""

    conditions: tuple[Condition, ...] = ()  # one a word
    problem: str = ""  # what was not, in a sentence

    def keep(self, rows: Iterable[Row]) -> list[Row]:
        """The runs for which every word holds."""
        found = list(rows)
        for condition in self.conditions:
            found = [row for row in found if condition(row)]
        return found


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that have a value in common."""

    value: str  # as it is printed
    word: str  # the filter that gives these runs
    runs: int
    done: int
    lowest: float | None  # loss
    median: float | None
    gpu_hours: float
    cost: float


def parse(text: str, sets: Sets = lambda _: None) -> Filter:
    """A filter from its words."""
    found, problems = [], []
    for word in _words(text):
        match = _CONDITION.fullmatch(word)
        try:
            if match and match["name"] == SET:
                found.append(_within(match["how"], match["value"], sets))
            else:
                found.append(_condition(**match.groupdict()) if match else _searching(word))
        except ValueError as error:
            problems.append(str(error))
    return Filter(conditions=tuple(found), problem="; ".join(problems))


def of_runs(run_ids: Iterable[str]) -> str:
    """The filter that gives these runs and no others."""
    return f"run_id={EITHER.join(run_ids)}"


def of_set(name: str) -> str:
    """The filter that gives the runs of a set."""
    return f"{SET}={name}"


def ordered(rows: Iterable[Row], by: str) -> list[Row]:
    """Runs in the order of columns, ``-loss,size``; minus is descending. What has no value comes last either way."""
    found = list(rows)
    for column, descending in reversed(orders(by)):
        have = [row for row in found if column.order(row) is not None]
        rest = [row for row in found if column.order(row) is None]
        have.sort(key=column.order, reverse=descending)
        found = [*have, *rest]
    return found


def orders(by: str) -> list[tuple[Column, bool]]:
    """The columns of an order, and whether each descends; unknown ones are left out."""
    names = [(word.lstrip("-"), word.startswith("-")) for word in by.split(",")]
    return [(COLUMNS[name], descending) for name, descending in names if name in COLUMNS]


def grouped(rows: Iterable[Row], by: Column) -> list[Group]:
    """Runs by their value in a column, in its order; those without one last."""
    groups: dict[str, list[Row]] = {}
    for row in ordered(rows, by.name):
        groups.setdefault(by.shown(row), []).append(row)
    return [_group(value, by, members) for value, members in groups.items()]


def page(items: Sequence[T], number: int, size: int) -> tuple[list[T], int, int]:
    """A page of some items, its number from zero, and how many there are; beyond the last one it is the last."""
    pages = max(1, -(-len(items) // size))
    number = min(max(0, number), pages - 1)
    return list(items[number * size : (number + 1) * size]), number, pages


def _group(value: str, by: Column, members: list[Row]) -> Group:
    losses = [row.loss for row in members if row.loss is not None]
    first = by.value(members[0])
    given = NONE if first is None else str(first) if by.kind == TEXT else _short(by, first)
    return Group(
        value=value or NONE,
        word=shlex.quote(f"{by.name}={given}") if re.search(r"[\s\"'\\]", given) else f"{by.name}={given}",
        runs=len(members),
        done=sum(row.status == "done" for row in members),
        lowest=min(losses, default=None),
        median=statistics.median(losses) if losses else None,
        gpu_hours=sum(row.gpu_hours or 0.0 for row in members),
        cost=sum(row.cost or 0.0 for row in members),
    )


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quote without its end: as it is typed
        return text.split()


def _searching(word: str) -> Condition:
    wanted = word.casefold()
    return lambda row: any(wanted in getattr(row, name).casefold() for name in SEARCHED)


def _within(how: str, name: str, sets: Sets) -> Condition:
    """Whether a run is in a set, or is not.

    Raises:
        ValueError: in one sentence, for a set that is not known.
    """
    if how not in ("=", "!="):
        raise ValueError(f"{SET}{how}{name:.40}: give {SET}= or {SET}!=")
    known = sets(name)
    if known is None:
        raise ValueError(
            f"{SET}={name:.40}: no number rests on these runs now, and nobody has opened them before: their link is of "
            "another store, or of a study since changed (or not yet fitted)"
        )
    return lambda row: (row.run_id in known) == (how == "=")


def _condition(name: str, how: str, value: str) -> Condition:
    """``name<value``.

    Raises:
        ValueError: in one sentence, for an unknown column, or a value that is none of its kind.
    """
    column = COLUMNS.get(name) or next((c for c in COLUMNS.values() if c.title == name), None)
    if column is None:
        raise ValueError(f"{name}{how}{value:.40}: no such column{nearest(name, tuple(COLUMNS))}")
    if EITHER in value and how in ("=", "!=") and column.kind != TEXT:
        each = [_condition(name, "=", part) for part in value.split(EITHER)]
        return lambda row: any(one(row) for one in each) == (how == "=")
    if value == NONE and how in ("=", "!="):
        return lambda row: (column.value(row) is None) == (how == "=")
    if column.kind == TEXT:
        return _of_text(column, how, value)
    if how == "~":
        raise ValueError(f"{name}~{value:.40}: {name} is a number; give {name}=, {name}< or {name}>")
    wanted = _number(name, how, value)
    if how in _ORDERS:
        test = _ORDERS[how]
        return lambda row: (found := column.value(row)) is not None and test(found, wanted)

    def equal(row: Row) -> bool:
        found = column.value(row)
        return found is not None and _alike(column, found, wanted)

    return equal if how == "=" else lambda row: not equal(row)


def _alike(column: Column, a: float, b: float) -> bool:
    """Whether two numbers are equal: printed alike in their column; whole ones are not rounded."""
    if a == b or column.kind == WHOLE or not (math.isfinite(a) and math.isfinite(b)):
        return a == b
    return column.words(a) == column.words(b)


def _short(column: Column, value: float) -> str:
    """Digits that a filter reads as the same number, few where they are enough."""
    few = f"{value:.6g}"
    return few if _alike(column, float(few), value) else repr(float(value))


def _of_text(column: Column, how: str, value: str) -> Condition:
    wanted = value.casefold()
    if how in _ORDERS:
        raise ValueError(f"{column.name}{how}{value:.40}: {column.name} is text; give {column.name}= or {column.name}~")
    if how == "~":
        return lambda row: wanted in str(getattr(row, column.name)).casefold()

    either = {wanted, *wanted.split(EITHER)}
    either |= {""} if NONE in either - {wanted} else set()

    def equal(row: Row) -> bool:
        found = str(getattr(row, column.name)).casefold()
        return found in either or (column.name == "sweep" and not either.isdisjoint(found.split(", ")))

    return equal if how == "=" else lambda row: not equal(row)


def _number(name: str, how: str, value: str) -> float:
    word = value.strip().casefold().replace("_", "").replace(",", "")
    scale = LETTERS.get(word[-1:], 1.0)
    try:
        found = float(word[:-1] if word[-1:] in LETTERS else word) * scale
    except ValueError:
        raise ValueError(f"{name}{how}{value:.40}: a number is expected, like 3.2, 1e12 or 1.5M") from None
    if math.isnan(found):
        raise ValueError(f"{name}{how}{value:.40}: a number is expected, and {name}={NONE} where there is none")
    return found
