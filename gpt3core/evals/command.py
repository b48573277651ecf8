"""Prompts of a task, exactly as a model reads them: ``python -m gpt3core.evals task=NAME shots=K items=N``.

Without task= the tasks are listed.

task=random_insertion  a task; task=random_insertion+instruction has its line in natural language first
shots=8                examples (default 0), drawn for every item; fewer where the context is full, and said so
items=3                so many of its questions (default 1): the first ones of any evaluation
draw=1                 another draw of the examples (default 0)
file=PATH              where the task's items lie, as its benchmark publishes them in JSON, .gz or not;
                       file=[QUESTIONS,EXAMPLES] draws examples from a file of their own; generated tasks read GPT-3's
                       released {"context": ..., "completion": ...}
n_ctx=2048             tokens of the context
tokenizer=gpt2         what they are counted in
corpus=starter         the text that copy, induction and cloze_DOMAIN take their words from, or a path
--json                 a line an item: context, answer, choices and what else is scored

A model reads an end of text before each prompt.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpt3core import cli
from gpt3core.errors import UsageError

if TYPE_CHECKING:
    from gpt3core.data.shards import Shards
    from gpt3core.evals.item import Prompt
    from gpt3core.evals.tasks.task import Task

MOST_ITEMS, MOST_SHOTS = 1_000_000, 100_000


@dataclass(kw_only=True)
class ShowSettings:
    """Which prompts."""

    task: str | None = None
    shots: int = 0
    items: int = 1
    draw: int = 0
    file: list[str] = field(default_factory=list)
    n_ctx: int = 2048
    tokenizer: str = "gpt2"
    corpus: str | None = None

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: in one sentence.
        """
        for name, least, most in (
            ("shots", 0, MOST_SHOTS),
            ("items", 1, MOST_ITEMS),
            ("draw", 0, MOST_ITEMS),
            ("n_ctx", 1, MOST_ITEMS),
        ):
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"{name}={getattr(self, name)}: it must lie from {least} to {most}")
        if self.draw and not self.shots:
            raise UsageError(f"draw={self.draw} has no effect with shots=0: without examples none are drawn")


def main(argv: Sequence[str]) -> int:
    """The command."""
    if not argv:
        _list()
        return 0
    words, flags = cli.split(argv, ("--json", "--help", "--keys"))
    if "--help" in flags:
        print(__doc__)
        return 0
    given = cli.settings(ShowSettings(), [*words, *(["--keys"] if "--keys" in flags else [])])
    if given.task is None:
        raise UsageError("task=NAME is needed; python -m gpt3core.evals alone lists the tasks")
    given.check()

    from gpt3core.data import tokenizer
    from gpt3core.evals import prompts, tasks
    from gpt3core.evals.tasks import files

    task = tasks.named(given.task)
    paths = files.located(given.file)
    split = tasks.items(given.task, given.items, _corpus(given, task), given.tokenizer, paths)
    encode = tokenizer.load(given.tokenizer).encode_ordinary
    found = prompts.asked(given.task, task, split, given.shots, encode, given.n_ctx, given.draw)
    for number, prompt in enumerate(found, 1):
        tokens = 1 + len(encode(prompt.text))
        sys.stdout.write(
            _line(given, number, prompt, task, tokens) if "--json" in flags else _page(given, number, prompt, tokens)
        )
    return 0


def _corpus(given: ShowSettings, task: Task) -> Shards | None:
    """The text that a task takes its words from; one that it takes none from would have no effect."""
    from gpt3core.data import corpus, shards
    from gpt3core.evals import tasks
    from gpt3core.spec import DataSpec

    if given.corpus is None:
        return None
    if not tasks.of_text(task):
        raise UsageError(f"corpus={given.corpus} has no effect: {given.task} takes no words from it")
    fingerprint = corpus.fingerprint(given.corpus)
    return shards.prepare(DataSpec(corpus=given.corpus, corpus_sha256=fingerprint, tokenizer=given.tokenizer))


def _page(given: ShowSettings, number: int, prompt: Prompt, tokens: int) -> str:
    """A prompt for a reader: what goes before it, the very text, and what is right."""
    few = f" of the {given.shots} asked, for the context is full" if prompt.shown < given.shots else ""
    lines = [f"--- item {number} of {given.items}: {prompt.shown} examples{few}, {tokens} tokens", prompt.text]
    lines.append(f"--- answer {prompt.answer!r}{_beside(prompt)}")
    return "\n".join(lines) + "\n"


def _beside(prompt: Prompt) -> str:
    """What is scored beside the answer."""
    words = [f"; choices {', '.join(map(repr, prompt.choices))}"] if prompt.choices else []
    words += [f"; scored is what follows each: {prompt.ending!r}"] if prompt.ending else []
    words += ["; the context ends before as long an answer as may be written"] if prompt.cut else []
    words += [f"; it is run, and then {prompt.program[1]!r}"] if prompt.program[1] else []
    words += [f"; right too: {', '.join(map(repr, prompt.aliases))}"] if prompt.aliases else []
    return "".join(words)


def _line(given: ShowSettings, number: int, prompt: Prompt, task: Task, tokens: int) -> str:
    """A prompt for a program; the names context and completion are those of GPT-3's released files."""
    said: dict[str, Any] = {
        "task": given.task,
        "item": number,
        "shots": given.shots,
        "shots_shown": prompt.shown,
        "tokens": tokens,
        "context": prompt.text,
        "completion": prompt.answer,
    }
    beside = {"choices": prompt.choices, "ending": prompt.ending, "aliases": prompt.aliases, "test": prompt.program[1]}
    if task.kind == "multiple_choice":
        beside["answer_context"] = task.answer_context
    else:
        beside |= {"stop": task.stop, "other_stops": task.other_stops}
    return json.dumps(said | {name: value for name, value in beside.items() if value}, ensure_ascii=False) + "\n"


def _list() -> None:
    """The tasks, a line each."""
    from gpt3core.evals import tasks

    print(f"{'task':<24} {'kind':<16} {'scored by':<12} {'newlines':>8} {'K':>4}  items")
    for name, task in tasks.TASKS.items():
        scored = task.score if task.kind == "multiple_choice" else task.metric
        shots = "" if task.paper_shots is None else str(task.paper_shots)
        fields = f"JSON lines: {needed}" if (needed := tasks.fields(task)) else "generated"
        print(f"{name:<24} {task.kind:<16} {scored:<12} {len(task.delimiter):>8} {shots:>4}  {fields}")
    having = ", ".join(name for name, task in tasks.TASKS.items() if task.instruction)
    print(f"and cloze_DOMAIN for every domain of a corpus; K is GPT-3's\nNAME+instruction shows a line first: {having}")
