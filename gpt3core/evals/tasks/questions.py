"""Questions without a passage in GPT-3's format (Brown et al. 2020, figures G.24, G.34, G.35), read from a file."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gpt3core.evals.item import Item
from gpt3core.evals.tasks.files import FromFile, Record, capital, listed, text
from gpt3core.evals.tasks.task import Task

WITHHELD = "<unk>"  # an answer of TriviaQA's test split
DOCUMENT = "Data"  # of TriviaQA's own files
DESCRIPTION = re.compile(r'\(description (?:"((?:[^"\\]|\\.)*)"|([^()]*))\)')  # an answer of WebQuestions' own files


def _unfold(record: Record) -> Iterable[Record]:
    """Of the files that TriviaQA and WebQuestions publish the records that Hugging Face makes of them."""
    if DOCUMENT in record:
        return [
            {
                "question": one["Question"],
                "answer": {"value": one["Answer"]["Value"], "aliases": one["Answer"]["Aliases"]},
            }
            for one in listed(record, DOCUMENT)
        ]
    if "targetValue" in record:
        found = DESCRIPTION.findall(text(record, "targetValue"))
        answers = [re.sub(r"\\(.)", r"\1", quoted) or plain for quoted, plain in found]
        return [{"question": record["utterance"], "answers": answers}]
    return [record]


def _answers(record: Record) -> list[str]:
    """A list of answers, TriviaQA's value and aliases, or one answer; what is blank is none.

    Raises:
        ValueError: when no answer is left.
    """
    given = record["answers"] if "answers" in record else record["answer"]
    if isinstance(given, dict):
        given = [given["value"], *(listed(given, "aliases") if "aliases" in given else ())]
    given = [given] if isinstance(given, str) else list(given)
    if not (found := [answer.strip() for answer in given if answer.strip() not in ("", WITHHELD)]):
        raise ValueError(f"it has no answer: {given!r:.50}")
    return found


def _question(record: Record) -> Item:
    """A question as it is written: data sets of searches have neither its capital nor its mark."""
    question = text(record, "question" if "question" in record else "qText").strip()
    question = f"{capital(question).removesuffix('?')}?"
    answer, *aliases = dict.fromkeys(f" {answer}" for answer in _answers(record))
    return Item(context=f"Q: {question}\n\nA:", answer=answer, aliases=tuple(aliases))


TASKS: dict[str, Task] = {
    name: Task(
        kind="generate",
        source=FromFile(
            read=_question,
            unfold=_unfold,
            document=DOCUMENT,
            fields="question, answer or answers (a text, a list, or value and aliases)",
        ),
        metric="match",
        answer_tokens=32,
        beams=4,
        paper_shots=64,
    )
    for name in ("triviaqa", "natural_questions", "web_questions")
}
