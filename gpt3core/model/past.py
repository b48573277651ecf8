"""What a decoder needs of whoever keeps the keys and values that it has seen (``gpt3core.generate.cache``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Seen(Protocol):
    """What one layer has seen. B sequences, H heads, T new positions, S seen ones, K head width."""

    def read(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None] | None:
        """Take in keys and values (B, H, T, K); those that one query sees (B, H, S, K) and a mask, None for prompts."""


class Past(Protocol):
    """What a model has read."""

    @property
    def layers(self) -> Mapping[str, Seen]:
        """What each layer has seen, by its name."""

    def places(self, t: int) -> Tensor:
        """Positions (T) or (B, T) of the T tokens that come now."""
