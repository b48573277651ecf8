"""A rank's part of every batch, in micro-batches, on their way to its device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gpt3core.data.loader import Loader
from gpt3core.parallel.mesh import Mesh
from gpt3core.train.objective import OBJECTIVES, Examples, told_apart


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one step trains on."""

    examples: list[Examples]  # this rank's, a micro-batch each
    counted: float  # targets that count in the global batch


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Where batches come from and how they are dealt out."""

    loader: Loader
    objective: str
    mesh: Mesh
    device: str
    micro_batch: int  # sequences
    document_end: int | None = None  # the token that ends a document, where documents do not see one another

    def take(self, first: int, last: int) -> Step:
        """The sequences from ``first`` until before ``last``."""
        batch = self.loader.batch(first, last)
        counted = float(batch.mask.sum())
        tokens = torch.split(self._sent(batch.tokens), self.micro_batch)  # (B, T+1) each
        masks: Sequence[Tensor | None] = [None] * len(tokens)  # nothing to multiply by
        if counted != batch.mask.size:
            masks = torch.split(self._sent(batch.mask.astype(np.float32, copy=False)), self.micro_batch)  # (B, T) each
        ask = OBJECTIVES[self.objective]
        numbers = range(first, last)[self.mesh.data_rank :: self.mesh.data_size]
        places = range(0, len(numbers), self.micro_batch)
        examples = [
            replace(self._own(ask(rows, mask)), rows=numbers[place : place + self.micro_batch])
            for rows, mask, place in zip(tokens, masks, places, strict=True)
        ]
        return Step(examples=examples, counted=counted)

    def _sent(self, batch: np.ndarray) -> Tensor:
        """This rank's rows of a batch on their way to its device, which the host does not wait for."""
        rows = torch.from_numpy(self.mesh.rows(batch))
        return rows.pin_memory().to(self.device, non_blocking=True) if self.device == "cuda" else rows

    def _own(self, examples: Examples) -> Examples:
        """This rank's positions of its rows; their documents as all positions tell them."""
        examples = told_apart(examples, self.document_end)
        degree, place = self.mesh.layout.context, self.mesh.place("context")
        if degree == 1:
            return examples
        inputs, targets = (whole.chunk(degree, dim=1)[place] for whole in (examples.inputs, examples.targets))
        mask = None if examples.mask is None else examples.mask.chunk(degree, dim=1)[place]
        return replace(examples, inputs=inputs, targets=targets, mask=mask)
