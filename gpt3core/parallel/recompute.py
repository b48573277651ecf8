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


def wrap(model: nn.Module, cuts: Cuts, recompute: str) -> None:
    """Make a model's blocks compute activations again: "none", "selective" or "full"."""
    for block in getattr(model, cuts.layers).values():
        if recompute == "full":
            block.forward = _again(block.forward)
        elif recompute == "selective":
            attention = block.get_submodule(cuts.attention)
            attention.attend = _again(attention.attend)


def _again(function: Any) -> Any:
    # nothing in a block is random, so no random state has to be kept
    return functools.partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False)
