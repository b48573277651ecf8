"""Questions about a passage in GPT-3's formats (Brown et al. 2020, appendix G), read from a file."""

from __future__ import annotations

from collections.abc import Iterable

from gpt3core.evals.item import Item
from gpt3core.evals.tasks.files import FromFile, Record, chosen, listed, meant, text, texts
from gpt3core.evals.tasks.task import Task

DOCUMENT = "data"  # of SQuAD's own files


def _boolq(record: Record) -> Item:
    """Figure G.29: the passage begins with its title, as SuperGLUE has it."""
    passage, question = text(record, "passage"), text(record, "question").removesuffix("?")
    if "title" in record and not passage.startswith(begin := f"{text(record, 'title')} -- "):
        passage = begin + passage
    right = meant(record, "answer" if "answer" in record else "label", {True: 0, False: 1})
    return chosen(f"{passage}\nquestion: {question}?\nanswer:", ["yes", "no"], right)


def _rte(record: Record) -> Item:
    """Figure G.31."""
    right = meant(record, "label", {0: 0, 1: 1, "entailment": 0, "not_entailment": 1})
    context = f"{text(record, 'premise')}\nquestion: {text(record, 'hypothesis')} True or False?\nanswer:"
    return chosen(context, ["True", "False"], right)


def _race(record: Record) -> Item:
    """Figures G.1 and G.3, one question after an article."""
    right = meant(record, "answer", {"A": 0, "B": 1, "C": 2, "D": 3})
    context = f"Article:\n\n{text(record, 'article')}\n\nQ: {text(record, 'question')}\n\nA:"
    return chosen(context, texts(record, "options"), right)


def _of_article(record: Record) -> Iterable[Record]:
    """An article with all its questions, as RACE's own files have it."""
    if "questions" not in record:
        return [record]
    asked = [listed(record, name) for name in ("questions", "options", "answers")]
    if len({len(column) for column in asked}) > 1:
        raise ValueError(f"it has {len(asked[0])} questions, {len(asked[1])} options and {len(asked[2])} answers")
    return [
        {"article": record["article"], "question": question, "options": options, "answer": answer}
        for question, options, answer in zip(*asked, strict=True)
    ]


def _of_paragraphs(record: Record) -> Iterable[Record]:
    """Articles of paragraphs with all their questions, as SQuAD's own files have them."""
    if DOCUMENT not in record:
        return [record]
    return [
        {
            "title": article["title"],
            "context": paragraph["context"],
            "question": asked["question"],
            "answers": {"text": [answer["text"] for answer in listed(asked, "answers")]},
        }
        for article in listed(record, DOCUMENT)
        for paragraph in listed(article, "paragraphs")
        for asked in listed(paragraph, "qas")
    ]


def _squad(record: Record) -> Item:
    """Figure G.28, one question after a passage; the empty answer of SQuAD 2.0 is "unknown"."""
    title, passage = text(record, "title").replace("_", " "), text(record, "context")
    answers = [f" {answer}" for answer in texts(record["answers"], "text")] or [" unknown"]
    context = f"Title: {title}\n\nBackground: {passage}\n\nQ: {text(record, 'question')}\n\nA:"
    return Item(context=context, answer=answers[0], aliases=tuple(dict.fromkeys(answers[1:])))


TASKS: dict[str, Task] = {
    "boolq": Task(
        kind="multiple_choice",
        source=FromFile(read=_boolq, fields="passage, question, answer (true or false)"),
        metric="choice",
        paper_shots=32,
    ),
    "rte": Task(
        kind="multiple_choice",
        source=FromFile(read=_rte, fields="premise, hypothesis, label (0 or entailment, 1 or not_entailment)"),
        metric="choice",
        paper_shots=32,
    ),
    "race": Task(
        kind="multiple_choice",
        source=FromFile(read=_race, unfold=_of_article, fields="article, question, options, answer (A, B, C or D)"),
        score="normalised",
        metric="choice",
        answer_context="A:",
        paper_shots=10,
    ),
    "squad": Task(
        kind="generate",
        source=FromFile(
            read=_squad,
            unfold=_of_paragraphs,
            document=DOCUMENT,
            fields="title, context, question, answers (with text)",
        ),
        metric="f1",
        beams=4,
        paper_shots=16,
    ),
}
