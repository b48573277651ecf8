"""The keys and values that a model has seen, so that one more token costs one position in place of all of them.

A layer that sees ``window`` keys keeps so many and no more: position p lies in slot ``p % window``, over the one that
has just left the window. Order does not matter to attention, and positions are in the embeddings already.

Shapes: B sequences, H heads, T positions, K head width, S slots, V vocabulary.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt3core import pulse
from gpt3core.model.patterns import Pattern


class _Taken(Exception):  # noqa: N818  # nothing went wrong
    """The last layer has what it keeps, and what would follow was not asked for."""


class LayerCache:
    """Keys and values of one layer, (B, H, S, K) each."""

    def __init__(self, slots: int, lengths: list[int], begun: list[int], pattern: Pattern) -> None:
        self.slots, self.pattern = slots, pattern
        self.sparse = pattern if pattern.kind in ("strided", "fixed") else None  # all keys are kept, some are seen
        self.lengths = lengths  # of each sequence before what is read now: the cache's own list
        self.begun = begun  # where the document of what is read now begins, the cache's own list too
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.enough = False  # to have taken in the prompts

    def read(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None] | None:
        """Take in the keys and values of whole prompts, or of one token a sequence.

        Returns:
            None for prompts, which need no others; for one token the keys and values (B, H, S, K) that its query sees,
            and a mask (B, 1, 1, S) where some sequences fill fewer slots than others, the pattern leaves some out, or
            some are of another document.
        """
        pulse.beat()  # the prompts of a batch may take minutes
        if self.keys is None or self.values is None:
            self.keys, self.values = self._newest(k), self._newest(v)
            if self.enough:
                raise _Taken
            return None
        assert k.size(2) == 1, "one token at a time after the prompt"
        shortest, longest = min(self.lengths), max(self.lengths)
        used = min(longest + 1, self.slots)
        lengths = torch.tensor(self.lengths, device=k.device)
        if shortest == longest:
            self.keys[:, :, longest % self.slots], self.values[:, :, longest % self.slots] = k[:, :, 0], v[:, :, 0]
        else:
            rows = torch.arange(k.size(0), device=k.device)
            self.keys[rows, :, lengths % self.slots] = k[:, :, 0]
            self.values[rows, :, lengths % self.slots] = v[:, :, 0]
        mask, slots = None, torch.arange(used, device=k.device)
        if self.sparse is not None:
            mask = self.sparse.sees(lengths[:, None], slots)[:, None, None]
        elif shortest + 1 < used:
            mask = (slots <= lengths[:, None])[:, None, None]
        if any(self.begun):
            positions = (
                lengths[:, None] - (lengths[:, None] - slots) % self.slots
            )  # of what the slots hold; below 0: none
            own = (positions >= torch.tensor(self.begun, device=k.device)[:, None])[:, None, None]
            mask = own if mask is None else mask & own
        return self.keys[:, :, :used], self.values[:, :, :used], mask

    def _newest(self, x: Tensor) -> Tensor:
        """What stays of prompts (B, H, T, K), padded on the right: the newest position of every slot (B, H, S, K)."""
        if x.size(2) == self.slots:
            return x
        if x.size(2) < self.slots:  # every position has a slot of its own
            return F.pad(x, (0, 0, 0, self.slots - x.size(2)))
        newest = torch.tensor(self.lengths, device=x.device)[:, None] - 1  # (B, 1)
        slots = torch.arange(self.slots, device=x.device)
        position = (newest - (newest - slots) % self.slots).clamp(min=0)  # (B, S), anything where there is none yet
        return x.gather(2, position[:, None, :, None].expand(-1, x.size(1), -1, x.size(3)))

    def select(self, rows: Tensor) -> None:
        """Keep these sequences, in this order; one may be taken several times."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)

    @property
    def nbytes(self) -> int:
        """What is kept, in bytes."""
        return sum(kept.nbytes for kept in (self.keys, self.values) if kept is not None)


class Cache:
    """What a model has read of a batch of sequences, a layer each."""

    def __init__(self, model: Any, limit: int) -> None:
        """For sequences of at most ``limit`` tokens; the model's ``spec`` knows what each layer sees."""
        self.device, spec = device_of(model), model.spec
        self.lengths: list[int] = []
        self.begun: list[int] = []
        self.end: int | None = spec.document_end
        self.layers = {
            str(layer): LayerCache(min(spec.window(layer), limit), self.lengths, self.begun, spec.pattern(layer))
            for layer in range(spec.n_layer)
        }

    def places(self, t: int) -> Tensor:
        """The positions of what is read now: (T) of prompts, (B, 1) of one token a sequence."""
        if t > 1 or not self.layers["0"].nbytes:
            return torch.arange(t, device=self.device)
        return torch.tensor(self.lengths, device=self.device)[:, None]

    def read_prompts(self, model: Any, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read whole prompts, each of one token or more; the logits (B, V) of what follows each."""
        return _last(model, self._hidden(model, prompts), prompts)

    def take_in(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        """Read whole prompts for what may follow them: of the last layer only its keys and values are computed."""
        last = list(self.layers.values())[-1]
        last.enough = True
        with contextlib.suppress(_Taken):
            self._hidden(model, prompts)
        last.enough = False

    def _hidden(self, model: Any, prompts: Sequence[Sequence[int]]) -> Tensor:
        """What the head would read of whole prompts: (B, T, D)."""
        self.lengths[:] = [len(prompt) for prompt in prompts]
        self.begun[:] = [
            max((place + 1 for place, token in enumerate(prompt) if token == self.end), default=0) for prompt in prompts
        ]
        hidden: Tensor = model.hidden(padded(prompts).to(self.device), self)
        return hidden

    def read_tokens(self, model: Any, tokens: Sequence[int]) -> Tensor:
        """Read one more token of each sequence; the logits (B, V) of what follows each."""
        hidden = model.hidden(torch.tensor(tokens, device=self.device)[:, None], self)  # (B, 1, D)
        self.lengths[:] = [length + 1 for length in self.lengths]
        ended = [token == self.end for token in tokens]
        self.begun[:] = [n if over else b for n, b, over in zip(self.lengths, self.begun, ended, strict=True)]
        logits: Tensor = model.head(hidden[:, 0])
        return logits

    def select(self, rows: Sequence[int]) -> None:
        """Keep these sequences, in this order; one may be taken several times."""
        self.lengths[:] = [self.lengths[row] for row in rows]
        self.begun[:] = [self.begun[row] for row in rows]
        for layer in self.layers.values():
            layer.select(torch.tensor(rows, device=self.device))

    @property
    def nbytes(self) -> int:
        """What is kept, in bytes."""
        return sum(layer.nbytes for layer in self.layers.values())


def last_logits(model: Any, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Read whole sequences of any lengths; the logits (B, V) of what follows each."""
    return _last(model, model.hidden(padded(sequences).to(device_of(model))), sequences)


def _last(model: Any, hidden: Tensor, sequences: Sequence[Sequence[int]]) -> Tensor:
    """The logits (B, V) after the last token of each sequence, of what was read of them (B, T, D)."""
    last = torch.tensor([len(sequence) - 1 for sequence in sequences], device=hidden.device)
    logits: Tensor = model.head(hidden[torch.arange(len(sequences), device=hidden.device), last])
    return logits


def padded(sequences: Sequence[Sequence[int]]) -> Tensor:
    """Sequences of any lengths as one tensor (B, T), filled up on the right: causal models do not see it."""
    ids = np.zeros((len(sequences), max(map(len, sequences))), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
    return torch.from_numpy(ids)


def keeps(model: Any) -> bool:
    """Whether a model can go on from what it has read; one in parts reads all anew."""
    return "past" in inspect.signature(model.hidden).parameters


def device_of(model: Any) -> torch.device:
    """Where a model's weights lie."""
    device: torch.device = next(model.parameters()).device
    return device
