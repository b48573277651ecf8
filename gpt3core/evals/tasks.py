"""What an evaluation item is, and how K examples and a query become one prompt.

A task is a generator of items: GPT-3's own synthetic ones (``synthetic.py``) or a cloze on held-out text (here).
Items are a function of the task's name and the data, never of the model: every run answers the same questions.
"""

from __future__ import annotations

import functools
import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt3core.data import tokenizer as tokenizers

if TYPE_CHECKING:
    import tiktoken

    from gpt3core.data.shards import Shards

CLOZE_TOKENS = 24  # context of a cloze query
CLOZE_EXAMPLE_TOKENS = 4  # context of a cloze example: 16 of them and the query fit 128 tokens
MIN_WORDS = 24
PRIOR_POOL = 1000  # items whose answers make up the prior baseline


@dataclass(frozen=True, kw_only=True)
class Item:
    """A question: text before the answer, the answer (with its leading space), and the choices if there are any."""

    context: str
    answer: str
    choices: tuple[str, ...] = ()
    fillers: tuple[str, ...] = ()  # induction only: words between the occurrences of the pair
    short_context: str | None = None  # cloze only: the context when the item serves as an example


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the model reads and what is scored."""

    text: str
    answer: str
    choices: tuple[str, ...]


def names() -> list[str]:
    """The generated tasks; beside them there is ``cloze_<domain>`` for every domain of the corpus."""
    from gpt3core.evals.synthetic import MAKERS

    return list(MAKERS)


@functools.lru_cache(maxsize=64)
def items(task: str, count: int, data: Shards, tokenizer: str) -> tuple[list[Item], list[Item]]:
    """``count`` queries of a task and a pool of other items (for examples and the prior), always the same ones.

    Raises:
        ValueError: for an unknown task, or too little held-out text for a cloze.
    """
    from gpt3core.evals.synthetic import MAKERS, WORD_TASKS

    encoding = tokenizers.load(tokenizer)
    rng = random.Random(f"isoflop:{task}")
    if task.startswith("cloze_"):
        everything = _cloze(task.removeprefix("cloze_"), data, encoding, rng)
        if len(everything) < count + 32:
            raise ValueError(f"task {task}: the held-out text gives {len(everything)} items, {count + 32} are needed")
        return everything[:count], everything[count:]
    if task not in MAKERS:
        raise ValueError(f"task {task!r}: allowed are {', '.join(names())} and cloze_<domain of the corpus>")
    words = data.words
    if task in ("copy", "induction"):  # one-token words, so that the choices differ in one position
        words = [word for word in words if len(encoding.encode_ordinary(f" {word}")) == 1]
    if task in WORD_TASKS and len(words) < MIN_WORDS:
        raise ValueError(f"task {task}: the corpus has {len(words)} frequent words that serve, {MIN_WORDS} are needed")
    made = [MAKERS[task](rng, words) for _ in range(count + PRIOR_POOL)]
    return made[:count], made[count:]


def prompt(task: str, item: Item, shots: int, pool: list[Item], seed: int) -> Prompt:
    """K examples drawn at random from the pool for this query, then the query (Brown et al. 2020, section 2.4)."""
    rng = random.Random(f"isoflop:{task}:{seed}:{shots}")
    if task == "induction":
        parts = [f"{item.context}{item.answer} {' '.join(_shuffled(rng, item.fillers))}" for _ in range(shots)]
        return Prompt(text="".join(parts) + item.context, answer=item.answer, choices=item.choices)
    if shots > len(pool):
        raise ValueError(f"task {task}: K={shots} examples, and there are {len(pool)} items to draw them from")
    examples = rng.sample(pool, shots)
    shown = "".join((e.context if e.short_context is None else e.short_context) + e.answer for e in examples)
    return Prompt(text=shown + item.context, answer=item.answer, choices=item.choices)


def _shuffled(rng: random.Random, words: tuple[str, ...]) -> list[str]:
    return rng.sample(words, len(words))


def _cloze(domain: str, data: Shards, encoding: tiktoken.Encoding, rng: random.Random) -> list[Item]:
    """Which word comes next in held-out text: one-token words of three letters or more, against three other answers."""
    found: list[tuple[str, str, str]] = []
    documents = [d["text"] for d in data.validation_documents if d["domain"] == domain]
    if not documents:
        known = ", ".join(sorted({d["domain"] for d in data.validation_documents}))
        raise ValueError(f"task cloze_{domain}: no held-out text of that domain; there are {known}")
    for text in documents:
        places = [m for m in re.finditer(r" [A-Za-z]{3,}(?= )", text) if len(encoding.encode_ordinary(m[0])) == 1]
        for match in rng.sample(places, min(4, len(places))):
            before = encoding.encode_ordinary(text[: match.start()])
            if len(before) >= CLOZE_TOKENS:
                context, short = (
                    encoding.decode(before[-CLOZE_TOKENS:]),
                    encoding.decode(before[-CLOZE_EXAMPLE_TOKENS:]),
                )
                found.append((context, short, match[0]))
    rng.shuffle(found)
    answers = Counter(answer for _, _, answer in found)
    if len(answers) < 8:
        return []
    items = []
    for long, short, answer in found:
        others: list[str] = []
        while len(others) < 3:
            other = rng.choice(found)[2]
            if other != answer and other not in others:
                others.append(other)
        choices = [answer, *others]
        rng.shuffle(choices)
        items.append(Item(context=long, answer=answer, choices=tuple(choices), short_context="\n" + short))
    return items
