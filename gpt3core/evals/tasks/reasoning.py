"""Word problems, programs and translations, read from a file.

GSM8K and HumanEval are younger than GPT-3: their formats are those of their own papers. ``humaneval`` runs no program:
the log-probability of the reference solution tells, and exact says that it was written to the letter.
``humaneval_pass`` runs what the model writes: the accuracy is pass@1 of the greedy answer.
"""

from __future__ import annotations

from dataclasses import replace

from gpt3core.evals.item import Item
from gpt3core.evals.tasks.files import FromFile, Record, text
from gpt3core.evals.tasks.task import Task


def _gsm8k(record: Record) -> Item:
    """Cobbe et al. 2021: the answer's reasoning, and its number after ####."""
    if "####" not in record["answer"]:
        raise ValueError("its answer has no #### before the number")
    return Item(context=f"Question: {text(record, 'question')}\nAnswer:", answer=f" {record['answer'].strip()}")


def _humaneval(record: Record) -> Item:
    """Chen et al. 2021: the signature and docstring, and the body of the function."""
    return Item(context=record["prompt"].rstrip("\n"), answer="\n" + record["canonical_solution"].rstrip("\n"))


def _tested(record: Record) -> Item:
    """The same with its tests: a function ``check``, called with what was to be written."""
    return replace(_humaneval(record), test=f"\n{text(record, 'test')}\ncheck({text(record, 'entry_point')})\n")


def _translation(record: Record) -> Item:
    """Brown et al. 2020, figures G.36 to G.41."""
    return Item(context=f"{text(record, 'source')} =", answer=f" {text(record, 'target')}")


TASKS: dict[str, Task] = {
    "gsm8k": Task(
        kind="generate",
        source=FromFile(read=_gsm8k, fields="question, answer (with #### before its number)"),
        metric="number",
        stop="\n\n",
        answer_tokens=256,
    ),
    "humaneval": Task(
        kind="generate",
        source=FromFile(read=_humaneval, fields="prompt, canonical_solution"),
        metric="exact",
        stop="\ndef",
        answer_tokens=256,
    ),
    "humaneval_pass": Task(
        kind="generate",
        source=FromFile(read=_tested, fields="prompt, canonical_solution, test, entry_point"),
        metric="passes",
        stop="\ndef",
        other_stops=("\nclass", "\n#", "\nif", "\nprint"),  # Chen et al. 2021, section 3
        answer_tokens=256,
    ),
    "translation": Task(
        kind="generate",
        source=FromFile(read=_translation, fields="source, target"),
        metric="bleu",
        delimiter="\n",
        answer_tokens=128,
        beams=4,
        paper_shots=64,
    ),
}
