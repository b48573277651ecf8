"""Batches as a function of their place: no state to save, so resume is exact by construction.

Sequences are packed and always full, documents delimited by end-of-text (and masked only where a model is told to:
``gpt3core.model.documents``), drawn without replacement until a source's epoch ends (Brown et al. 2020, section 2.4 and
appendix B). What batch comes when does not depend on how many ranks share it, and nothing grows with the text.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt3core.data import mixture
from gpt3core.data.stream import Stream

BLOCK = 1024  # sequences whose places are worked out at once


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences, and which of their targets count."""

    tokens: np.ndarray  # int64 (B, T+1): inputs and targets overlap by one
    mask: np.ndarray  # bool (B, T): whether the loss of target t+1 counts
    # of labelled examples, of which each is W sequences, (B, W, T+1), and the mask says how much a target counts:
    ends: np.ndarray | None = None  # int64 (B, W): where the token is that the classifier reads; -1 where no sequence
    answers: np.ndarray | None = None  # int64 (B): the place of the right answer

    @property
    def counted(self) -> float:
        """What the loss of a batch is a mean over: its targets that count, or its labelled examples."""
        return float(self.mask.sum() if self.answers is None else len(self.answers))


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a run has seen of one source."""

    epochs: float
    tokens: int  # drawn, repeats among them
    unique_tokens: int


class Loader:
    """Cuts every source into sequences of ``n_ctx`` and deals them by weight, in an order set by the seed."""

    def __init__(self, streams: Sequence[Stream], *, n_ctx: int, seed: int) -> None:
        self.streams = sorted((s for s in streams if s.weight), key=lambda s: (-s.weight, s.name))
        self.n_ctx, self.seed = n_ctx, seed
        self.n_sequences = [stream.sequences(n_ctx) for stream in self.streams]
        for stream, sequences in zip(self.streams, self.n_sequences, strict=True):
            if sequences < 1:
                raise ValueError(
                    f"the training text of {stream.name} has {stream.tokens} tokens, one sequence needs {n_ctx + 1}: "
                    "give more text"
                )
        self._shares = mixture.shares([stream.weight for stream in self.streams])
        self._ends = [np.array(stream.ends(n_ctx)) for stream in self.streams]
        self._places = functools.lru_cache(maxsize=2)(self._block)

    def batch(self, first: int, last: int) -> Batch:
        """The B sequences first ... last - 1 of the run, of T = n_ctx positions; in packed text every target counts."""
        tokens = np.empty((last - first, self.n_ctx + 1), dtype=np.int64)
        for row, index in enumerate(range(first, last)):
            number, place = divmod(index, BLOCK)
            piece, start = self._places(number)[place]
            tokens[row] = piece[start : start + self.n_ctx + 1]
        return Batch(tokens=tokens, mask=np.ones((last - first, self.n_ctx), dtype=np.bool_))

    def seen(self, sequences: int) -> dict[str, Seen]:
        """What the first sequences of a run have seen of each source."""
        found = {}
        drawn = mixture.counts(sequences, self._shares)
        for stream, own, count in zip(self.streams, self.n_sequences, drawn, strict=True):
            unique = min(count, own) * self.n_ctx
            found[stream.name] = Seen(epochs=count / own, tokens=count * self.n_ctx, unique_tokens=unique)
        return found

    def _block(self, number: int) -> list[tuple[np.ndarray, int]]:
        """The pieces that BLOCK sequences lie in, and where they start there."""
        source, ordinal = mixture.dealt(number * BLOCK, (number + 1) * BLOCK, self._shares)
        found: list[tuple[np.ndarray, int]] = [(np.empty(0), 0)] * BLOCK
        for which, (stream, ends) in enumerate(zip(self.streams, self._ends, strict=True)):
            rows = np.flatnonzero(source == which)
            own = mixture.shuffled(ordinal[rows], self.n_sequences[which], seed=self.seed, name=stream.name)
            piece = np.searchsorted(ends, own, side="right")
            start = (own - np.where(piece > 0, ends[piece - 1], 0)) * self.n_ctx
            for row, p, s in zip(rows.tolist(), piece.tolist(), start.tolist(), strict=True):
                found[row] = (stream.pieces[p], s)
        return found
