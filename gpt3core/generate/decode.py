"""Texts continued token by token, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gpt3core.generate.reader import Reader

END, LENGTH, CONTEXT, STOP = "end of text", "tokens", "context", "stop"  # why a text ends

Choose = Callable[[Tensor, Sequence[int]], list[int]]  # logits (B, V) and the rows' numbers to a token each


@dataclass(kw_only=True)
class Continuation:
    """What follows a prompt, without the end of text; ``ended`` says why it ends there."""

    tokens: list[int] = field(default_factory=list)
    ended: str = LENGTH


def stream(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    choose: Choose,
    end: int | None = None,
    vocab: int | None = None,
    cached: bool = True,
    roll: bool = False,
    over: Callable[[Sequence[int]], bool] | None = None,
) -> Iterator[list[Continuation]]:
    """Continue prompts of any lengths; yields all of them after every step, and at last as they end.

    Args:
        tokens: of each text at most.
        choose: the next token of each; a ``Sampler``.
        end: the token that ends a text.
        vocab, cached, roll: see ``Reader``.
        over: whether a text ends with the tokens that it has now.

    Raises:
        ValueError: for a prompt that cannot be read.
    """
    texts = [Continuation() for _ in prompts]
    reader = Reader(model, prompts, tokens=tokens, vocab=vocab, cached=cached, roll=roll)
    rows = list(range(len(prompts)))  # the text of each line of the reader
    for left in range(tokens - 1, -1, -1):
        kept, chosen = [], choose(reader.logits, rows)
        for line, (row, token) in enumerate(zip(rows, chosen, strict=True)):
            if token == end:
                texts[row].ended = END
                continue
            texts[row].tokens.append(token)
            if over is not None and over(texts[row].tokens):
                texts[row].ended = STOP
            elif left and reader.full(line):
                texts[row].ended = CONTEXT
            else:
                kept.append(line)
        yield texts
        if not kept or not left:
            return
        rows = [rows[line] for line in kept]
        reader.extend(kept, [texts[row].tokens[-1] for row in rows])


def complete(model: Any, prompts: Sequence[Sequence[int]], **options: Any) -> list[Continuation]:
    """The continuations of prompts when all have ended; options as for ``stream``."""
    texts = [Continuation() for _ in prompts]
    for texts in stream(model, prompts, **options):  # noqa: B007  # the last one is what counts
        pass
    return texts
