"""A rank's part of every batch, in micro-batches, on their way to its device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gpt3core.data.loader import Batch, Seen
from gpt3core.parallel.mesh import Mesh
from gpt3core.parallel.positions import parts
from gpt3core.train.objective import OBJECTIVES, Examples, numbered, told_apart


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one step trains on."""

    examples: list[Examples]  # this rank's, a micro-batch each
    counted: float  # what the loss is a mean over: targets that count in the global batch, or labelled examples


class Loader(Protocol):
    """Deals the batches of a run, each a function of its place."""

    def batch(self, first: int, last: int) -> Batch:
        """The sequences, or labelled examples, ``first`` ... ``last - 1`` of the run."""

    def seen(self, sequences: int) -> dict[str, Seen]:
        """What the first sequences, or examples, of a run have seen of each source."""


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Where batches come from and how they are dealt out."""

    loader: Loader
    objective: str
    mesh: Mesh
    device: str
    micro_batch: int  # sequences, or labelled examples
    document_end: int | None = None  # the token that ends a document, where documents do not see one another

    def take(self, first: int, last: int) -> Step:
        """The sequences, or labelled examples, from ``first`` until before ``last``."""
        batch = self.loader.batch(first, last)
        tokens = self._split(batch.tokens)  # (B, T+1) each, or (B, W, T+1)
        masks: Sequence[Tensor | None] = [None] * len(tokens)  # nothing to multiply by
        if batch.counted != batch.mask.size:
            masks = self._split(batch.mask.astype(np.float32, copy=False))  # (B, T) each
        ask = OBJECTIVES[self.objective]
        numbers = range(first, last)[self.mesh.data_rank :: self.mesh.data_size]
        places = range(0, len(numbers), self.micro_batch)
        beside = [self._split(part) for part in (batch.ends, batch.answers) if part is not None]
        examples = [
            numbered(self._own(ask(rows, mask, *more)), numbers[place : place + self.micro_batch])
            for place, rows, mask, *more in zip(places, tokens, masks, *beside, strict=True)
        ]
        return Step(examples=examples, counted=batch.counted)

    def _split(self, part: np.ndarray) -> tuple[Tensor, ...]:
        return torch.split(self._sent(part), self.micro_batch)

    def _sent(self, batch: np.ndarray) -> Tensor:
        """This rank's rows of a batch on their way to its device, which the host does not wait for."""
        # rows of several replicas alternate: a strided copy would go through memory that is not pinned, and wait
        rows = torch.from_numpy(np.ascontiguousarray(self.mesh.rows(batch)))
        return rows.pin_memory().to(self.device, non_blocking=True) if self.device == "cuda" else rows

    def _own(self, examples: Examples) -> Examples:
        """This rank's positions of its rows; their documents as all positions tell them."""
        examples = told_apart(examples, self.document_end)
        degree, place = self.mesh.layout.context, self.mesh.place("context")
        if degree == 1:
            return examples
        inputs, targets = (parts(whole, degree)[place] for whole in (examples.inputs, examples.targets))
        mask = None if examples.mask is None else parts(examples.mask, degree)[place]
        return replace(examples, inputs=inputs, targets=targets, mask=mask)
