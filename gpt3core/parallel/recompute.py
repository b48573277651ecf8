"""Activations computed again in the backward pass in place of being kept (Chen et al. 2016, arXiv 1604.06174).

selective: what is inside the attention only, scores and softmax, most of the memory for little of the work (Korthikanti
et al. 2022, arXiv 2205.05198, section 5). full: a block's whole forward pass, from its input.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from gpt3core.model.architecture import Cuts
from gpt3core.model.dropout import Dropout


def wrap(model: nn.Module, cuts: Cuts, recompute: str, dropout: Dropout | None = None) -> None:
    """Make a model's blocks compute activations again: "none", "selective" or "full".

    Args:
        dropout: draws its masks again, for the sequences that the forward pass drew them for.
    """
    again = functools.partial(_again, {} if dropout is None else {"context_fn": dropout.contexts})
    for block in getattr(model, cuts.layers).values():
        if recompute == "full":
            block.forward = again(block.forward)
        elif recompute == "selective":
            attention = block.get_submodule(cuts.attention)
            attention.attend = again(attention.attend)


def _again(words: dict[str, Any], function: Any) -> Any:
    # nothing in a block depends on the random state, so none has to be kept
    return functools.partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False, **words)
