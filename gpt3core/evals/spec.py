"""What is measured of a finished run, and the identity of such a measurement. No torch.

Measurements live under the run as ``evals/<eval_id>.parquet``. They never enter the run's identity: asking for one
more task evaluates the finished checkpoint and trains nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from gpt3core import spec as specs
from gpt3core.checks import require_positive

EVALS_VERSION = 4  # raise when the same question would be asked or scored in another way
QUESTION = ("task", "shots", "items", "version", "draw", "content")  # the columns that say what a row answers
Question = tuple[str, int, int, int, int, str]
INSTRUCTED = "+instruction"  # after a task's name: its instruction comes first
CONTENT = 12  # hex digits of a file's sha256 that tell a row's questions from those of another file
SPLIT_ACCURACIES = ("accuracy_dirty", "accuracy_clean")  # of the questions in the training text, and of the others
OVERLAP = ("gram", "dirty", *SPLIT_ACCURACIES)  # the columns of a task whose questions were looked for there
HELD_OUT = "held_out"  # the row of an evaluation's table that has the loss on held-out text


@dataclass(frozen=True, kw_only=True)
class EvalSpec:
    """The held-out loss, and tasks at numbers of examples."""

    tasks: tuple[str, ...] = ()
    shots: tuple[int, ...] = (0, 1, 4, 16)
    items: int = 128  # per task and number of shots
    validation_tokens: int = 262_144
    version: int = EVALS_VERSION
    seeds: int = field(default=1, metadata=specs.ADDED)  # draws of the examples shown; without examples there is one
    contents: dict[str, str] = field(default_factory=dict, hash=False, metadata=specs.ADDED)  # task -> sha256 of files
    files: dict[str, list[str]] = field(default_factory=dict, compare=False, metadata=specs.LABEL)  # where they lie
    run_programs: bool = field(default=False, compare=False, metadata=specs.LABEL)  # that a model writes

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        object.__setattr__(self, "shots", tuple(int(k) for k in self.shots))
        require_positive(self, "items", "validation_tokens", "seeds", where="evals.")
        if any(k < 0 for k in self.shots):
            raise ValueError(f"evals.shots={list(self.shots)}: numbers of examples, 0 or more")
        for name in ("tasks", "shots"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"evals.{name}={list(values)}: each once")
        if set(self.files) != set(self.contents):
            raise ValueError(
                f"evals.files has {sorted(self.files)} and evals.contents {sorted(self.contents)}: a task in both"
            )

    def source(self, task: str) -> tuple[tuple[str, ...], str]:
        """The files of a task and the sha256 of their content; none and nothing where its items are generated."""
        plain = task.removesuffix(INSTRUCTED)
        return tuple(self.files.get(plain, ())), self.contents.get(plain, "")

    @property
    def questions(self) -> list[Question]:
        """Of every row: task, examples, items (tokens of held-out text), version, draw of examples, content of file."""
        asked = [(HELD_OUT, 0, self.validation_tokens, self.version, 0, "")]
        return asked + [
            (task, shots, self.items, self.version, draw, self.source(task)[1][:CONTENT])
            for task in self.tasks
            for shots in self.shots
            for draw in range(self.seeds if shots else 1)
        ]

    @property
    def parts(self) -> list[EvalSpec]:
        """An evaluation a task: the same questions in pieces, for whoever may be stopped in between."""
        return [self.of(task) for task in self.tasks]

    def of(self, *tasks: str) -> EvalSpec:
        """The same, of some tasks."""
        plain = {task.removesuffix(INSTRUCTED) for task in tasks}
        return replace(
            self,
            tasks=tasks,
            contents={name: sha256 for name, sha256 in self.contents.items() if name in plain},
            files={name: paths for name, paths in self.files.items() if name in plain},
        )

    @cached_property
    def eval_id(self) -> str:
        """12 hex digits of the sha256 of all fields."""
        return hashlib.sha256(specs.canonical_json(specs.hashed(self)).encode()).hexdigest()[:12]


def question(row: Mapping[str, Any]) -> Question:
    """What a row of a table answers; in tables of one draw, or without files, no column says so."""
    draw, content = row.get("draw"), row.get("content")
    known = tuple(row.get(name) for name in QUESTION[:4])
    drawn = 0 if draw is None or draw != draw else int(draw)  # nan is unlike itself
    return (*known, drawn, content if isinstance(content, str) else "")  # type: ignore[return-value]
