"""GPT-1's input formats: a labelled example as token sequences (Radford et al. 2018, section 3.3 and figure 1).

classification     start text extract
entailment         start premise delimiter hypothesis extract
similarity         start first delimiter second extract, and start second delimiter first extract
multiple choice    start context delimiter choice extract, one sequence a choice

The three tokens come after the parent's own. A classifier reads the stream at the extract token. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt3core.data import tokenizer as tokenizers
from gpt3core.data.labelled import Example
from gpt3core.labelled import MULTIPLE_CHOICE


@dataclass(frozen=True, kw_only=True)
class Special:
    """The tokens around texts."""

    start: int
    delimiter: int
    extract: int

    @staticmethod
    def after(vocab_size: int) -> Special:
        """The first ones that a vocabulary does not have."""
        return Special(start=vocab_size, delimiter=vocab_size + 1, extract=vocab_size + 2)


@dataclass(frozen=True, kw_only=True)
class Filled:
    """Examples of as many sequences and tokens each: N examples, W sequences, T tokens."""

    tokens: np.ndarray  # int64 (N, W, T + 1), zeros after the extract token
    ends: np.ndarray  # int64 (N, W) the place of the extract token; -1 for a choice that an example does not have
    answers: np.ndarray  # int64 (N)


def sequences(example: Example, tokenizer: str) -> list[list[int]]:
    """The token sequences of an example."""
    encode, special = tokenizers.load(tokenizer).encode_ordinary, Special.after(tokenizers.vocab_size(tokenizer))
    if example.form == MULTIPLE_CHOICE:
        pieces = [(*example.texts, choice) for choice in example.choices]
    elif example.form == "similarity":
        pieces = [example.texts, example.texts[::-1]]
    else:
        pieces = [example.texts]
    found = []
    for texts in pieces:
        first, *others = (encode(text) for text in texts)
        rest = [token for other in others for token in (special.delimiter, *other)]
        found.append([special.start, *first, *rest, special.extract])
    return found


def shape(examples: Sequence[Example], tokenizer: str, n_ctx: int) -> tuple[int, int]:
    """Sequences of an example, and tokens of the longest one.

    Raises:
        ValueError: for one that is longer than the context.
    """
    encoded = [sequences(example, tokenizer) for example in examples]
    longest = max(range(len(encoded)), key=lambda i: max(map(len, encoded[i])))
    length = max(map(len, encoded[longest]))
    if length > n_ctx:
        too_long = sum(max(map(len, some)) > n_ctx for some in encoded)
        raise ValueError(
            f"{too_long} of {len(encoded)} examples do not fit the context of {n_ctx} tokens: the longest has {length} "
            f"with start, delimiter and extract, and begins with {examples[longest].texts[0][:40]!r}; shorten them or "
            "leave them out"
        )
    return max(map(len, encoded)), length


def filled(examples: Sequence[Example], tokenizer: str, ways: int, length: int) -> Filled:
    """Examples filled up to W = ``ways`` sequences of T = ``length`` tokens."""
    tokens = np.zeros((len(examples), ways, length + 1), dtype=np.int64)
    ends = np.full((len(examples), ways), -1, dtype=np.int64)
    for n, example in enumerate(examples):
        for w, sequence in enumerate(sequences(example, tokenizer)):
            tokens[n, w, : len(sequence)] = sequence
            ends[n, w] = len(sequence) - 1
    return Filled(tokens=tokens, ends=ends, answers=np.array([e.answer for e in examples], dtype=np.int64))
