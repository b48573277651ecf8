"""Multiple choices of everyday knowledge in GPT-3's formats (Brown et al. 2020, appendix G), read from a file."""

from __future__ import annotations

import re
from typing import Any

from gpt3core.evals.item import Item
from gpt3core.evals.tasks.files import FromFile, Record, capital, chosen, counted, meant, text, texts
from gpt3core.evals.tasks.task import Score, Task

ANSWER = "Answer:"  # what a choice is likely after, whatever was asked (section 2.4)
POSSESSIVE = ("my", "your", "his", "her", "its", "our", "their")
OPENER = re.compile(  # a determiner or pronoun, which has a capital only where a sentence begins with it
    r"(a|an|the|my|your|his|her|its|our|their|this|that|these|those|some|any|no|each|every|all|both|either|neither|many"
    r"|much|most|more|few|several|another|other|such|one|you|he|she|it|we|they|there|none"
    r"|(some|any|every|no)(one|body|thing))\b",
    re.IGNORECASE,
)
ARTICLES = ("A", "An", "The", "My", "Your", "His", "Her", "Its", "Our", "Their")


def _task(read: Any, fields: str, shots: int, score: Score = "per_token", answer_context: str = "") -> Task:
    return Task(
        kind="multiple_choice",
        source=FromFile(read=read, fields=fields),
        score=score,
        metric="choice",
        answer_context=answer_context,
        delimiter="\n\n",
        paper_shots=shots,
    )


def _hellaswag(record: Record) -> Item:
    """Figure G.9; where the second sentence begins by itself (ctx_b), it has a capital letter as there."""
    context = text(record, "ctx")
    if record.get("ctx_b", "") != "":
        context = f"{text(record, 'ctx_a')} {capital(text(record, 'ctx_b'))}"
    return _labelled(f"{text(record, 'activity_label')}: {context}", texts(record, "endings"), record)


def _labelled(context: str, choices: list[str], record: Record) -> Item:
    return chosen(context, choices, counted(record, "label", choices))


def _piqa(record: Record) -> Item:
    return _labelled(record["goal"], [text(record, name) for name in ("sol1", "sol2")], record)


def _options(record: Record) -> tuple[list[str], int]:
    """The choices of AI2's files, or of the same as ``datasets`` has them, and which is right."""
    listed = record["choices"]
    if isinstance(listed, list):
        listed = {name: [choice[name] for choice in listed] for name in ("text", "label")}
    choices, labels = texts(listed, "text"), texts(listed, "label")
    if not len(choices) == len(labels) == len(set(labels)):
        raise ValueError(f"its {len(choices)} choices have the labels {', '.join(labels):.80}: one of its own for each")
    return choices, meant(record, "answerKey", {label: place for place, label in enumerate(labels)})


def _arc(record: Record) -> Item:
    if isinstance(record["question"], dict):
        record = {**record["question"], "question": record["question"]["stem"], "answerKey": record["answerKey"]}
    return chosen(f"Question: {text(record, 'question')}\nAnswer:", *_options(record))


def _openbookqa(record: Record) -> Item:
    if isinstance(record.get("question"), dict):
        record = {**record["question"], "question_stem": record["question"]["stem"], "answerKey": record["answerKey"]}
    return chosen(record["question_stem"], *_options(record))


def _copa(record: Record) -> Item:
    """Figure G.5: the premise goes on in a clause."""
    link = meant(record, "question", {"cause": "because", "effect": "therefore"})
    premise = text(record, "premise").strip().removesuffix(".")
    clauses = [_clause(text(record, name).strip()) for name in ("choice1", "choice2")]
    return _labelled(f"{premise} {link}", clauses, record)


def _clause(sentence: str) -> str:
    """A sentence that another goes on in: without its capital, unless that may be a name's."""
    return sentence[0].lower() + sentence[1:] if OPENER.match(sentence) else sentence


def _winogrande(record: Record) -> Item:
    """Figure G.14: what comes after the blank is scored, given each option in it."""
    if (blanks := text(record, "sentence").count("_")) != 1:
        raise ValueError(f"its sentence has {blanks} _, where one stands for the options")
    before, after = record["sentence"].split("_")
    options = [text(record, name) for name in ("option1", "option2")]
    return _partial(before, options, after, counted(record, "answer", options, first=1))


def _winograd(record: Record) -> Item:
    """Figure G.13: what comes after the pronoun is scored, given each option in its place."""
    whole, pronoun = text(record, "text"), text(record, "pronoun")
    start = int(record["pronoun_loc"])
    before, there, after = whole[:start], whole[start : start + len(pronoun)], whole[start + len(pronoun) :]
    if there != pronoun:
        raise ValueError(f"at its pronoun_loc stands {there!r:.50}, and its pronoun is {pronoun!r:.50}")
    inside = bool(before.strip()) and not before.rstrip().endswith((".", "!", "?"))
    options = [o[0].lower() + o[1:] if inside and o.split()[0] in ARTICLES else o for o in texts(record, "options")]
    if pronoun.lower() in POSSESSIVE and not (pronoun.lower() == "her" and not after.strip(" .,;!?")):
        options = [f"{option}'s" for option in options]
    return _partial(before, options, after, counted(record, "label", options))


def _partial(before: str, options: list[str], ending: str, right: int) -> Item:
    if not ending.strip():
        raise ValueError("nothing comes after the place of the options, so there is nothing to score")
    choices = tuple(f" {option.strip()}" for option in options)
    return Item(context=before.rstrip(), answer=choices[right], choices=choices, ending=ending.rstrip())


CHOICES = "choices (text and label), answerKey"
TASKS: dict[str, Task] = {
    "hellaswag": _task(_hellaswag, "activity_label, ctx, endings, label (and ctx_a, ctx_b)", 20),
    "piqa": _task(_piqa, "goal, sol1, sol2, label (0 or 1, a line of the file of labels)", 50),
    "arc_easy": _task(_arc, f"question, {CHOICES}", 50, "normalised", ANSWER),
    "arc_challenge": _task(_arc, f"question, {CHOICES}", 50, "normalised", ANSWER),
    "openbookqa": _task(_openbookqa, f"question_stem, {CHOICES}", 100, "normalised", ANSWER),
    "copa": _task(_copa, "premise, question (cause or effect), choice1, choice2, label", 32),
    "winogrande": _task(_winogrande, "sentence with a _, option1, option2, answer (1 or 2)", 50),
    "winograd": _task(_winograd, "text, pronoun, pronoun_loc, options, label", 7),
}
