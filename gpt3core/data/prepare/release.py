"""What stages left for later ones goes from the disk as soon as these are done; it is made again where one is not.

A file that is emptied keeps its name, and a table what was counted, so that its task counts as done. That files of a
stage are emptied is said in its folder, before the first of them is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpt3core.data.prepare import parts
from gpt3core.data.prepare.task import Task, explained
from gpt3core.store import files

RELEASED = "released"


class NeededError(Exception):
    """Tasks are to be done that read what was released: the stages that left it were removed, and are to be done."""


def release(work: Path, left: Sequence[Path]) -> None:
    """Empty the files of stages that are read by no task any more."""
    with explained(work):
        for stage in sorted({_stage(work, path) for path in left}):
            if not (stage / RELEASED).exists():
                files.write_bytes(stage / RELEASED, b"")
        for path in left:
            parts.empty(path)


def take_back(work: Path, tasks: Sequence[Task]) -> None:
    """Remove the stages that were released and that tasks which are not done read: they are to be done again.

    Raises:
        NeededError: where there were any.
    """
    paths = (path for task in tasks if not task.done for path in _paths(task.given))
    read = {_stage(work, path) for path in paths if work in path.parents}
    gone = [stage for stage in sorted(read) if (stage / RELEASED).exists()]
    for stage in gone:
        begun = stage.with_name(f".{stage.name}.tmp")  # which a later command clears, if this one is killed here
        os.rename(stage, begun)
        shutil.rmtree(begun)
    if gone:
        raise NeededError


def _stage(work: Path, path: Path) -> Path:
    return work / path.relative_to(work).parts[0]


def _paths(given: Any) -> Iterator[Path]:
    """All paths in what a task is given."""
    if isinstance(given, Path):
        yield given
    elif isinstance(given, dict):
        yield from _paths(list(given.values()))
    elif isinstance(given, list | tuple):
        for one in given:
            yield from _paths(one)
