"""Labelled examples: a user's JSONL file, or anything that gives them, as texts with a right answer. No torch.

A line a file is one of these, all lines of the same fields:

{"text": ..., "label": ...}                             classification
{"premise": ..., "hypothesis": ..., "label": ...}       entailment
{"first": ..., "second": ..., "label": ...}             similarity
{"context": ..., "choices": [..., ...], "label": 0}     multiple choice: the right one's place, counted from 0
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt3core.labelled import MULTIPLE_CHOICE

TEXTS = {  # the fields of a form that hold its texts
    "classification": ("text",),
    "entailment": ("premise", "hypothesis"),
    "similarity": ("first", "second"),
    MULTIPLE_CHOICE: ("context",),
}
LABEL = "label"


@dataclass(frozen=True, kw_only=True)
class Example:
    """Texts, the answers that are allowed, and which of them is right."""

    form: str
    texts: tuple[str, ...]
    choices: tuple[str, ...]  # of its own; of the other forms the classes, the same for all examples
    answer: int  # the place of the right one among them

    @property
    def question(self) -> tuple[str, ...]:
        """What is asked, without the answer: equal ones must not be trained on and asked."""
        texts = sorted(self.texts) if self.form == "similarity" else self.texts  # it is read in both orders
        return (*texts, *(sorted(self.choices) if self.form == MULTIPLE_CHOICE else ()))


def parsed(path: str, lines: Sequence[tuple[str, Mapping[str, Any]]], classes: Sequence[str] = ()) -> list[Example]:
    """The examples of a JSONL file, of which there is one at least.

    Args:
        path: for errors.
        lines: its objects, with their places.
        classes: that labels may be, where another file has said so; by default those that the file has.

    Raises:
        ValueError: for a line that is none, a label that is not among the classes, or a file of one class.
    """
    form = _form(path, lines[0][1])
    for place, line in lines:
        _check(f"{path}, {place}", line, form)
    if form == MULTIPLE_CHOICE:
        return [_with_choices(f"{path}, {place}", line) for place, line in lines]
    found = list(classes) or sorted({str(line[LABEL]) for _, line in lines})
    if len(found) < 2:
        raise ValueError(
            f"{path} has {len(lines)} examples of one class, {found[0]!r}: nothing can be learnt from them but that "
            "class; give examples of two classes or more"
        )
    examples = []
    for place, line in lines:
        label = str(line[LABEL])
        if label not in found:
            raise ValueError(f"{path}, {place}: label {label!r} is none of {', '.join(found)}")
        texts = tuple(line[name] for name in TEXTS[form])
        examples.append(Example(form=form, texts=texts, choices=tuple(found), answer=found.index(label)))
    return examples


def unasked(examples: Iterable[Example], asked: Iterable[Example]) -> list[Example]:
    """Those examples whose question is not among those that are asked."""
    known = {example.question for example in asked}
    return [example for example in examples if example.question not in known]


def fingerprint(examples: Iterable[Example]) -> str:
    """The sha256 of the content of examples, in whatever order."""
    each = sorted(json.dumps([e.form, e.texts, e.choices, e.answer]) for e in examples)
    return hashlib.sha256("\n".join(each).encode()).hexdigest()


def drawn(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """The first ``count`` in an order set by the seed: of fewer, the same ones first.

    Raises:
        ValueError: when there are not as many, or those are all of one class.
    """
    if count > len(examples):
        raise ValueError(f"examples={count}: there are {len(examples)} to train on; give at most as many")
    order = sorted(examples, key=lambda e: hashlib.sha256(f"{seed}:{fingerprint([e])}".encode()).digest())
    found = order[:count]
    if found[0].form != MULTIPLE_CHOICE and len({e.answer for e in found}) == 1:
        name = found[0].choices[found[0].answer]
        raise ValueError(
            f"examples={count}: those that seed {seed} draws are all of the class {name!r}; give more examples"
        )
    return found


def _form(path: str, first: Mapping[str, Any]) -> str:
    """What the fields of a line make it."""
    for form, names in TEXTS.items():
        if set(first) == _fields(form):
            return form
        if set(names) <= set(first):
            raise ValueError(
                f"{path}: examples with {', '.join(names)} are of the form {form} and have the fields "
                f"{', '.join(sorted(_fields(form)))}, not {', '.join(sorted(first))}"
            )
    known = "; ".join(f"{form}: {', '.join(sorted(_fields(form)))}" for form in TEXTS)
    raise ValueError(f"{path}: fields {', '.join(sorted(first))} are of no form; there are {known}")


def _fields(form: str) -> set[str]:
    return {*TEXTS[form], LABEL, *(("choices",) if form == MULTIPLE_CHOICE else ())}


def _check(where: str, line: Mapping[str, Any], form: str) -> None:
    if set(line) != _fields(form):
        raise ValueError(
            f"{where} has the fields {', '.join(sorted(line))}; the first line is of the form {form}, "
            f"with {', '.join(sorted(_fields(form)))}"
        )
    for name in TEXTS[form]:
        if not isinstance(line[name], str) or not line[name].strip():
            raise ValueError(f"{where}: {name} is {line[name]!r:.40}; a text is needed")
    if not isinstance(line[LABEL], str | int) or not str(line[LABEL]).strip():
        raise ValueError(f"{where}: {LABEL} is {line[LABEL]!r:.40}; a name or a whole number is needed")


def _with_choices(where: str, line: Mapping[str, Any]) -> Example:
    choices, answer = line["choices"], line[LABEL]
    sound = isinstance(choices, list) and all(isinstance(choice, str) and choice.strip() for choice in choices)
    if not sound or len(choices) < 2 or len(set(choices)) < len(choices):
        raise ValueError(f"{where}: choices is {choices!r:.60}; a list of two different texts or more")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise ValueError(f"{where}: label {answer!r} is the place of no choice; there are 0 to {len(choices) - 1}")
    return Example(form=MULTIPLE_CHOICE, texts=(line["context"],), choices=tuple(choices), answer=answer)
