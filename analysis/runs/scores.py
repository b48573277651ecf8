"""Accuracy columns of anybody's table, read as a store's evaluations are: a row a run and task.

``scores=[MMLU,GSM8K/100,1-err_piqa]`` names them: a column, a column in percent, or one of errors. A task is called by
its column; ``chance.MMLU``, ``items.MMLU`` and ``shots.MMLU`` say what a guesser scores, how many questions there are
and how many examples were shown. What is not said is known of a few published tasks, or said to have been assumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.note import Note
from analysis.runs.foreign import listed
from analysis.settings import ScoredSettings
from gpt3core.errors import UsageError
from gpt3core.hints import nearest

# name without punctuation -> (chance, items) of the split that is usually reported; chance is one over the choices
KNOWN: dict[str, tuple[float, int]] = {
    "mmlu": (0.25, 14042),  # Hendrycks et al. 2021
    "arcc": (0.25, 1172),  # Clark et al. 2018
    "arcchallenge": (0.25, 1172),
    "arce": (0.25, 2376),
    "arceasy": (0.25, 2376),
    "hellaswag": (0.25, 10042),  # Zellers et al. 2019
    "openbookqa": (0.25, 500),  # Mihaylov et al. 2018
    "winogrande": (0.5, 1267),  # Sakaguchi et al. 2020
    "winograd": (0.5, 273),  # Levesque et al. 2012
    "piqa": (0.5, 1838),  # Bisk et al. 2020
    "copa": (0.5, 100),  # Roemmele et al. 2011
    "boolq": (0.5, 3270),  # Clark et al. 2019
    "xwinograd": (0.5, 2325),  # Tikhonov and Ryabinin 2021, English
    "gsm8k": (0.0, 1319),  # Cobbe et al. 2021
    "humaneval": (0.0, 164),  # Chen et al. 2021
    "lambada": (0.0, 5153),  # Paperno et al. 2016
    "lambadaopenai": (0.0, 5153),
}
LIKE_SCORES = re.compile(
    r"(^|[^a-z])(acc|accuracy|em|exact_match|f1|err|error_rate|score|pass@\d+|truthfulqa|triviaqa|race|bbh|math)([^a-z]|$)"
)
LIKE_ERRORS = re.compile(r"(^|[^a-z])(err|errors?|error_rate)([^a-z]|$)")
_SCORE = re.compile(r"^(?P<one>1\s*-\s*)?(?P<column>.+?)(?P<percent>\s*/\s*100)?$")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which columns are accuracies, and what is known of their tasks."""

    scores: Sequence[str] = ()
    chance: Mapping[str, float] = field(default_factory=dict)
    items: Mapping[str, int] = field(default_factory=dict)
    shots: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def of(settings: ScoredSettings) -> Asked:
        """What settings ask for."""
        return Asked(scores=settings.scores, chance=settings.chance, items=settings.items, shots=settings.shots)

    @property
    def settings(self) -> dict[str, Any]:
        """The same as key=value would give it."""
        words = {"chance": self.chance, "items": self.items, "shots": self.shots}
        return {"scores": list(self.scores), **{name: dict(given) for name, given in words.items()}}

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: in one sentence.
        """
        for key in ("chance", "items", "shots"):
            for task, value in getattr(self, key).items():
                if (key == "chance" and not 0 <= value < 1) or (key == "items" and value < 1) or value < 0:
                    allowed = {"chance": "0 or more and below 1", "items": "one or more", "shots": "zero or more"}[key]
                    raise UsageError(f"{key}.{task}={value:g}: {allowed}")
            if getattr(self, key) and not self.scores:
                raise UsageError(
                    f"{key}.{next(iter(getattr(self, key)))}: there are no scores; name them by scores=[...]"
                )


def read(raw: pd.DataFrame, run_ids: Sequence[str], asked: Asked, path: Path) -> pd.DataFrame:
    """The columns asked for as evaluations: run_id, task, shots, items, fits, metric, accuracy, chance, ...

    Args:
        raw: the table as it was read, a row a run.
        run_ids: (rows,) their names.

    Raises:
        UsageError: for an unknown column, one that is no number between 0 and 1, or a task that nobody scored.
    """
    parts: list[pd.DataFrame] = []
    columns: dict[str, str] = {}
    for expression in asked.scores:
        column, values = _accuracy(raw, expression, path)
        if column in columns:
            raise UsageError(f"scores: {columns[column]} and {expression} are the same column; leave one out")
        columns[column] = expression
        parts.append(_evals(column, values, run_ids, asked))
    _check_tasks(asked, columns)
    return pd.concat(parts, ignore_index=True)


def unread(raw: pd.DataFrame, asked: Asked, used: Sequence[str]) -> list[str]:
    """Columns that look like scores and are read neither as these nor as anything else (``used``)."""
    known = {*used, *(_column(raw, expression) for expression in asked.scores)}
    return [str(name) for name in raw.columns if name not in known and looks_like(raw[name], str(name))]


def remarks(raw: pd.DataFrame, asked: Asked, unread: Sequence[str]) -> list[Note]:
    """What a reader must know of how the scores were read, and which were not."""
    tasks = [match["column"] for match in map(_SCORE.match, asked.scores) if match]
    found = [Note(code="scores-assumed", severity="info", message=sentence) for sentence in _assumed(tasks, asked)]
    for expression, column in ((e, _column(raw, e)) for e in asked.scores):
        most = pd.to_numeric(raw[column], errors="coerce").max() if column in raw else float("nan")
        if column != expression and expression.endswith("100") and 0 < most <= 1:
            message = f"scores={expression}: {column} is at most {most:g}: is it a fraction already ({column})?"
            found.append(Note(code="scores-scale", severity="warning", message=message))
        if not expression.startswith("1") and LIKE_ERRORS.search(column.lower()):
            message = f"scores={expression}: is it a share of errors? then give scores=[1-{expression}]"
            found.append(Note(code="scores-errors", severity="warning", message=message))
    if unread:
        message = (
            f"{len(unread)} columns look like scores and are not read: {', '.join(unread)}; scores=[...] reads them"
        )
        found.append(Note(code="scores-unread", severity="info", message=message))
    return found


def looks_like(column: pd.Series, name: str) -> bool:
    """Whether a column that nobody named may hold scores: by its name, and by its values."""
    plain = name.lower()
    if "loss" in plain or not (_known(name) or LIKE_SCORES.search(plain)):
        return False
    values = pd.to_numeric(column, errors="coerce").dropna()
    return bool(len(values) and values.between(0, 100).all())


def _column(raw: pd.DataFrame, expression: str) -> str:
    """The column of an expression like 1-err_piqa."""
    match = _SCORE.match(expression)
    return expression if match is None or expression in raw.columns else match["column"]


def _accuracy(raw: pd.DataFrame, expression: str, path: Path) -> tuple[str, pd.Series]:
    """A column and its values between 0 and 1; missing ones stay missing."""
    match = _SCORE.match(expression)
    assert match is not None, "any text is a column's name"
    errors, column, percent = bool(match["one"]), match["column"], bool(match["percent"])
    if expression in raw.columns:
        errors, column, percent = False, expression, False
    if column not in raw.columns:
        known = [str(name) for name in raw.columns]
        raise UsageError(
            f"scores={expression}: {path} has no column {column!r}{nearest(column, known)}; it has {listed(known)}"
        )
    values = pd.to_numeric(raw[column], errors="coerce").astype(float)
    wrong = raw[column].notna() & values.isna()
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UsageError(f"{path}, row {row + 1}: {column} is {raw[column].iloc[row]!r}, a number is expected")
    if values.isna().all():
        raise UsageError(f"scores={expression}: {path} has no number in column {column!r}: leave it out")
    _check_scale(column, values, percent=percent, path=path)
    values = values / 100 if percent else values
    return column, 1 - values if errors else values


def _check_scale(column: str, values: pd.Series, *, percent: bool, path: Path) -> None:
    """Question what is neither a fraction nor, where that is said, a percentage."""
    most = 100.0 if percent else 1.0
    outside = values.notna() & ~values.between(0, most)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        said = f"{path}, row {row + 1}: {column} is {values.iloc[row]:g}"
        if not percent and values.dropna().between(0, 100).all():
            raise UsageError(
                f"{said}, an accuracy lies between 0 and 1: is it in percent? then give scores=[{column}/100]"
            )
        raise UsageError(
            f"{said}, {'a percentage lies between 0 and 100' if percent else 'an accuracy lies between 0 and 1'}"
        )


def _evals(task: str, values: pd.Series, run_ids: Sequence[str], asked: Asked) -> pd.DataFrame:
    known = _known(task)
    chance = float(asked.chance.get(task, known[0] if known else 0.0))
    items = float(asked.items.get(task, known[1] if known else np.nan))
    accuracy = values.to_numpy(float)
    found = pd.DataFrame({"run_id": list(run_ids), "task": task, "shots": int(asked.shots.get(task, 0))})
    found = found.assign(items=items, fits=True, metric="given", accuracy=accuracy)
    share = (accuracy * items + 1) / (items + 2)  # Laplace's estimate, so that none of n has an error too
    found = found.assign(accuracy_se=np.sqrt(share * (1 - share) / items), logprob=np.nan, logprob_se=np.nan)
    found = found.assign(chance=chance, prior_accuracy=chance, prior_logprob=np.nan)
    return pd.DataFrame(found[np.isfinite(accuracy)])


def _check_tasks(asked: Asked, columns: Mapping[str, str]) -> None:
    for key in ("chance", "items", "shots"):
        for task in getattr(asked, key):
            if task not in columns:
                near = nearest(task, list(columns))
                raise UsageError(f"{key}.{task}: no score has this name{near}; there are {', '.join(columns)}")


def _assumed(columns: Sequence[str], asked: Asked) -> list[str]:
    """What was taken for known of the tasks, in sentences."""
    said = []
    published = [t for t in columns if _known(t) and not (t in asked.chance and t in asked.items)]
    if published:
        listed = ", ".join(f"{t} {(_known(t) or (0.0, 0))[0]:g} and {(_known(t) or (0.0, 0))[1]}" for t in published)
        said.append(
            f"chance and number of items as published where not given: {listed} (chance.TASK=, items.TASK= say others)"
        )
    no_chance = [t for t in columns if not _known(t) and t not in asked.chance]
    if no_chance:
        said.append(f"chance is taken as 0 for {', '.join(no_chance)}: give chance.TASK=0.25 for four choices")
    no_items = [t for t in columns if not _known(t) and t not in asked.items]
    if no_items:
        said.append(
            f"how many items {', '.join(no_items)} has is not known: the scatter of the runs is taken for the noise; "
            "give items.TASK="
        )
    return said


def _known(task: str) -> tuple[float, int] | None:
    return KNOWN.get(re.sub(r"[^a-z0-9]", "", task.lower()))
