"""Text that breaks training: what a model makes of some sequences is multiplied, or the gradient of it is."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from unittest import mock

import numpy as np
import torch

from gpt3core.train import loop


@contextlib.contextmanager
def poisoned(sequences: Collection[int], factor: float, *, gradient: bool = False) -> Iterator[None]:
    """In this block, let the embedding of these sequences of a run's text be so many times itself.

    Args:
        gradient: the gradient that arrives there, in place of the values.
    """
    build = loop.Trainer._built

    def hurt(trainer):
        held = build(trainer)
        rows = torch.from_numpy(np.concatenate([trainer.loader.batch(i, i + 1).tokens for i in sequences])[:, :-1])

        def spoil(_, inputs, output):
            here = torch.is_grad_enabled() and (inputs[0][:, None] == rows[None]).all(-1).any()
            if not here:
                return output
            if gradient:
                output.register_hook(lambda arriving: arriving * factor)
                return output
            return output * factor

        if getattr(held.stages[0], "tokens", None) is not None:
            held.stages[0].tokens.register_forward_hook(spoil)
        return held

    with mock.patch.object(loop.Trainer, "_built", hurt):
        yield
