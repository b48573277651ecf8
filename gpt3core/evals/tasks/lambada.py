"""LAMBADA, the last word of a passage: as it stands, and as a blank to fill (Brown et al. 2020, 3.1.1, figure G.21)."""

from __future__ import annotations

from gpt3core.evals.item import Item
from gpt3core.evals.tasks.files import FromFile, Record, text
from gpt3core.evals.tasks.task import Task


def _last_word(record: Record) -> Item:
    context, _, word = text(record, "text").rstrip().rpartition(" ")
    if not context:
        raise ValueError(f"nothing comes before the last word: {word!r:.50}")
    return Item(context=context, answer=f" {word}")


def _blank(record: Record) -> Item:
    item = _last_word(record)
    return Item(context=f"{item.context} ____. ->", answer=item.answer)


TASKS: dict[str, Task] = {
    "lambada": Task(kind="cloze", source=FromFile(read=_last_word, fields="text"), stop="", paper_shots=15),
    "lambada_blank": Task(
        kind="cloze",
        source=FromFile(read=_blank, fields="text"),
        delimiter="\n\n",
        instruction="Fill in blank:",
        paper_shots=15,
    ),
}
