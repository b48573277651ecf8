"""A run to fine-tune, and labelled examples for it, which the tests share."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from gpt3core.data import labelled
from gpt3core.data.labelled import Example
from gpt3core.evals import examples
from gpt3core.evals.spec import EvalSpec
from gpt3core.evals.tasks import files
from gpt3core.spec import RunSpec
from sweeps.planning import finetuned
from sweeps.planning.finetuned import Rules, Source

HELD_OUT = 16


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def sentiments(count: int, seed: int) -> list[dict[str, Any]]:
    """Lines whose class is told by one word."""
    rng = random.Random(seed)
    words = {"good": "glad", "bad": "sad"}
    drawn = [(rng.choice(list(words)), rng.randrange(10**4)) for _ in range(count)]
    return [{"text": f"a {word} day {number}", "label": words[word]} for word, number in drawn]


def pairs(count: int, seed: int) -> list[dict[str, Any]]:
    """Two texts that are of one word, or not."""
    rng, words = random.Random(seed), ["one", "two", "six"]
    drawn = [(rng.choice(words), rng.choice(words), rng.randrange(10**4)) for _ in range(count)]
    return [{"first": f"{a} {n}", "second": b, "label": "same" if a == b else "other"} for a, b, n in drawn]


def choices(count: int, seed: int) -> list[dict[str, Any]]:
    """Questions whose right choice repeats the context; some have two choices and some three."""
    rng, words = random.Random(seed), ["one", "two", "six", "ten", "red"]
    lines = []
    for _ in range(count):
        some = rng.sample(words, rng.choice([2, 3]))
        answer = rng.randrange(len(some))
        lines.append({"context": f"{some[answer]} {rng.randrange(10**4)}", "choices": some, "label": answer})
    return lines


def parsed(lines: list[dict[str, Any]], classes: tuple[str, ...] = ()) -> list[Example]:
    """Examples of the lines of a file."""
    return labelled.parsed("train.jsonl", [(f"line {n}", line) for n, line in enumerate(lines, 1)], classes)


def specified(parent: RunSpec, train: Path, test: Path, *, count: int = 48, seed: int = 0, **rules: Any) -> RunSpec:
    """A run that fine-tunes the end of another on these files."""
    paths = (str(test), str(train))
    found = examples.of_task("labelled", HELD_OUT, None, parent.data.tokenizer, paths)
    source = Source(task="labelled", files=paths, held_out=HELD_OUT, training=found.training, asked=found.asked)
    rules = {"batch": 16, "epochs": 2.0, **rules}
    *_, run = finetuned.runs([(parent, parent.steps)], source, [count], seed + 1, Rules(**rules))
    return run


def evaluation(run: RunSpec, items: int = HELD_OUT) -> EvalSpec:
    """What is asked of it."""
    assert run.labelled is not None
    paths = list(run.labelled.files)
    return EvalSpec(
        tasks=("labelled",),
        shots=(0,),
        items=items,
        validation_tokens=2048,
        files={"labelled": paths},
        contents={"labelled": files.fingerprint(paths)},
    )
