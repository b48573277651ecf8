"""Which questions of a task are in the training text, and how those and the others are answered: Table C.1 of GPT-3.

What a prepared folder says of an evaluation set holds for a task whose questions come from a file of the same content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt3core.evals.item import Item
from gpt3core.evals.spec import OVERLAP
from gpt3core.evals.tasks import files

Mean = Callable[[Sequence[int]], tuple[float, float]]  # accuracy and standard error of some of the questions


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Which questions are dirty."""

    gram: int  # words in a row that tell dirty ones
    dirty: tuple[bool, ...]  # (questions,)


def known(manifest: Mapping[str, Any], paths: Sequence[str], questions: Iterable[Item]) -> Overlap | None:
    """What the manifest of the training text says of questions; None where it was not asked about their file.

    Args:
        paths: the file of the questions first; none for generated ones.
        questions: with their numbers in that file; where a task does not keep them nothing is known.
    """
    sets = manifest.get("evaluation_sets")
    numbers = [question.number for question in questions]
    if not paths or not sets or None in numbers:
        return None
    content = files.digest(paths[0])
    about = next((one for one in sets.values() if one.get("sha256") == content), None)
    if about is None:
        return None
    dirty = set(about["dirty"])
    return Overlap(gram=about["n"], dirty=tuple(number in dirty for number in numbers))


def given(found: Overlap | None, mean: Mean) -> dict[str, Any]:
    """OVERLAP of a task's row: words of a gram, dirty questions, the accuracy of either kind (None of no question)."""
    if found is None:
        return {}
    kinds = {kind: [n for n, dirty in enumerate(found.dirty) if dirty == kind] for kind in (True, False)}
    of_dirty, of_clean = (mean(kinds[kind])[0] if kinds[kind] else None for kind in (True, False))
    return dict(zip(OVERLAP, (found.gram, len(kinds[True]), of_dirty, of_clean), strict=True))


def columns(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """OVERLAP where any row has it."""
    return OVERLAP if any(row.get(OVERLAP[0]) is not None for row in rows) else ()
