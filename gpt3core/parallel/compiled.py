"""Blocks compiled one by one: equal blocks share one compilation, and other techniques stay outside of it."""

from __future__ import annotations

from torch import nn

from gpt3core.model.architecture import Cuts


def compile_blocks(model: nn.Module, cuts: Cuts) -> None:
    """Compile each block of a model at its first call."""
    for block in getattr(model, cuts.layers).values():
        block.compile()
