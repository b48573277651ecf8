"""Which word comes next in held-out text of a domain: one-token words, against three other answers."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt3core.evals.item import Item
from gpt3core.evals.tasks.task import Material, Split, Task

if TYPE_CHECKING:
    import tiktoken

QUERY_TOKENS = 24  # context of a query
EXAMPLE_TOKENS = 4  # context of an example: 16 of them and the query fit 128 tokens
PER_DOCUMENT = 4
OTHERS = 3
MIN_ANSWERS = 8  # different ones, so that there are others to choose from
MIN_POOL = 32
WORD = re.compile(r" [A-Za-z]{3,}(?= )")


def of_domain(domain: str) -> Task:
    """The cloze on one domain of the held-out text: a choice of four words."""
    return Task(kind="multiple_choice", source=HeldOut(domain), metric="choice", delimiter="\n")


@dataclass(frozen=True)
class HeldOut:
    """Places of the held-out text of a domain."""

    domain: str

    def items(self, rng: random.Random, count: int, material: Material) -> Split:
        """``count`` queries, and the other items that the held-out text gives."""
        if material.data is None or material.encoding is None:
            raise ValueError("its words are those of held-out text: give a corpus, like corpus=starter")
        known, encoding = material.data.validation_documents, material.encoding
        documents = [d["text"] for d in known if d["domain"] == self.domain]
        if not documents:
            raise ValueError(
                f"no held-out text of that domain; there are {', '.join(sorted({d['domain'] for d in known}))}"
            )
        found: list[tuple[str, str, str]] = []
        for text in documents:
            found += _places(text, rng, encoding)
            if material.glance and len(found) >= count + MIN_POOL and _answers(found) >= MIN_ANSWERS:
                break
        rng.shuffle(found)
        if len(found) < count + MIN_POOL:
            raise ValueError(
                f"the held-out text gives {len(found)} items, {count + MIN_POOL} are needed: give more text, or set "
                "evals.items lower"
            )
        if (answers := _answers(found)) < MIN_ANSWERS:
            raise ValueError(
                f"the held-out text has {answers} different words of one token, {MIN_ANSWERS} are needed: give more "
                "text, or a larger tokenizer"
            )
        items = [_item(place, found, rng) for place in found]
        return Split(queries=items[:count], pool=items[count:])


def _places(text: str, rng: random.Random, encoding: tiktoken.Encoding) -> Iterator[tuple[str, str, str]]:
    """Some words of a document: (context of a query, context of an example, the word)."""
    places = [m for m in WORD.finditer(text) if len(encoding.encode_ordinary(m[0])) == 1]
    for match in rng.sample(places, min(PER_DOCUMENT, len(places))):
        before = encoding.encode_ordinary(text[: match.start()])
        if len(before) >= QUERY_TOKENS:
            yield encoding.decode(before[-QUERY_TOKENS:]), encoding.decode(before[-EXAMPLE_TOKENS:]), match[0]


def _answers(found: list[tuple[str, str, str]]) -> int:
    """How many different ones there are."""
    return len({answer for _, _, answer in found})


def _item(place: tuple[str, str, str], found: list[tuple[str, str, str]], rng: random.Random) -> Item:
    """The word against answers of other places."""
    context, short, answer = place
    others: list[str] = []
    while len(others) < OTHERS:
        other = rng.choice(found)[2]
        if other != answer and other not in others:
            others.append(other)
    choices = [answer, *others]
    rng.shuffle(choices)
    return Item(context=context, answer=answer, choices=tuple(choices), short_context=short)
