"""What may follow a text that a cache holds, every alternative in one pass: the text is read once, not once for each.

A tree is a trunk, which goes on where the cache ends, and branches, each of which goes on where the trunk ends. Its
tokens lie in one line, the trunk first; a token sees the cached text, the trunk before it, and its own branch.

Shapes: B trees, T places of a line, S slots of the cache, H heads, K head width, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from gpt3core.generate.cache import Cache, LayerCache, padded
from gpt3core.model.patterns import Pattern


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Tokens after a cached text: a trunk of one or more, and branches, which may be empty."""

    trunk: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...] = ()

    @property
    def tokens(self) -> tuple[int, ...]:
        """All of them in one line."""
        return sum(self.branches, self.trunk)

    @property
    def starts(self) -> list[int]:
        """Where in the line each branch begins."""
        return list(accumulate((len(branch) for branch in self.branches[:-1]), initial=len(self.trunk)))


def read(model: Any, cache: Cache, rows: Sequence[int], trees: Sequence[Tree]) -> Tensor:
    """What the head reads at every place of the trees: (B, T, D). The cache stays as it is.

    Args:
        rows: the sequence of the cache that each tree goes on from.
    """
    found: Tensor = model.hidden(
        padded([tree.tokens for tree in trees]).to(cache.device), _Branches(cache, rows, trees)
    )
    return found


class _Branches:
    """Trees after the sequences of a cache, as a decoder's past."""

    def __init__(self, cache: Cache, rows: Sequence[int], trees: Sequence[Tree]) -> None:
        read = zip(rows, trees, strict=True)
        lines = [_line(tree, cache.lengths[row], cache.begun[row], cache.end) for row, tree in read]
        # what fills a line up lies after it, so no one sees it; it is a trunk of its own, for it must see something
        self._places, self._branch, self._begun = (
            padded([line[kind] for line in lines]).to(cache.device) for kind in range(3)
        )  # (B, T) each
        self._newest = torch.tensor([cache.lengths[row] - 1 for row in rows], device=cache.device)[:, None]  # (B, 1)
        moved = None if list(rows) == list(range(len(cache.lengths))) else torch.tensor(rows, device=cache.device)
        masks: dict[tuple[Pattern, int], Tensor] = {}
        self.layers: dict[str, _Layer] = {}
        for name, layer in cache.layers.items():
            key = layer.pattern, layer.slots
            if key not in masks:
                masks[key] = self._mask(*key, min(max(cache.lengths), layer.slots))
            self.layers[name] = _Layer(layer, moved, masks[key])

    def places(self, t: int) -> Tensor:
        """The positions of the T tokens of every line: (B, T)."""
        assert t == self._places.size(1)
        return self._places

    def _mask(self, pattern: Pattern, slots: int, used: int) -> Tensor:
        """Whether a place sees a key: (B, 1, T, used + T), the slots of the cache first."""
        b, t = self._places.shape
        cached = self._newest - (self._newest - torch.arange(used, device=self._newest.device)) % slots  # below 0: none
        keys = torch.cat([cached, self._places], dim=1)[:, None]  # (B, 1, used + T)
        after = torch.ones(t, t, dtype=torch.bool, device=keys.device).tril()
        own = (self._branch[:, None] == self._branch[:, :, None]) | (self._branch[:, None] == 0)  # (B, T, T)
        seen = torch.cat([(cached >= 0)[:, None].expand(b, t, used), own & after], dim=2)
        seen &= pattern.sees(self._places[:, :, None], keys)
        seen &= keys >= self._begun[:, :, None]
        return seen[:, None]


def _line(tree: Tree, length: int, begun: int, end: int | None) -> tuple[list[int], list[int], list[int]]:
    """Of each token of a line its position, its branch (0: the trunk), and where its document begins."""
    places, branch, begins = [], [], []
    for number, part in enumerate((tree.trunk, *tree.branches)):
        place, start = (length, begun) if number == 0 else (length + len(tree.trunk), begun)
        for token in part:
            places.append(place)
            branch.append(number)
            begins.append(start)
            place += 1
            start = place if token == end else start
        if number == 0:
            begun = start
    return places, branch, begins


class _Layer:
    """What one layer has seen before the trees: nothing is taken in."""

    def __init__(self, layer: LayerCache, rows: Tensor | None, mask: Tensor) -> None:
        self._layer, self._rows, self._mask = layer, rows, mask

    def read(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The keys and values (B, H, S + T, K) of the cache and of the lines, and who sees which."""
        used = self._mask.size(3) - k.size(2)
        assert self._layer.keys is not None and self._layer.values is not None
        kept = (x[:, :, :used] for x in (self._layer.keys, self._layer.values))
        if self._rows is not None:
            kept = (x.index_select(0, self._rows) for x in kept)
        keys, values = (torch.cat([old, new], dim=2) for old, new in zip(kept, (k, v), strict=True))
        return keys, values, self._mask
