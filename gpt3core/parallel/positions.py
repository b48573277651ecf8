"""Which positions of a sequence each device of a context group has: a run from either end, so that all do as much.

In a dense layer a position sees all before it, so the last neighbours would have the most to do. Of twice as many runs
as there are devices the first has the first and the last one, and so on inwards (Llama 3, Dubey et al. 2024, arXiv
2407.21783, section 3.3.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def runs(length: int, place: int, degree: int) -> list[range]:
    """The positions of a device among so many, of sequences of so many positions."""
    if degree == 1:
        return [range(length)]
    each = length // (2 * degree)
    return [range(first, first + each) for first in (place * each, length - (place + 1) * each)]


def parts(whole: Tensor, degree: int, dim: int = 1) -> list[Tensor]:
    """What each device has of whole sequences."""
    found = whole.chunk(2 * degree, dim)
    return [torch.cat([found[place], found[-1 - place]], dim) for place in range(degree)]


def whole(parts: Sequence[Tensor], dim: int = 1) -> Tensor:
    """Whole sequences of what each device has."""
    halves = [part.chunk(2, dim) for part in parts]
    return torch.cat([first for first, _ in halves] + [last for _, last in reversed(halves)], dim)
