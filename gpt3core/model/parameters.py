"""Parameters by name: each of them once, and initial values that depend on the seed and the name only.

A value depends on its place in the whole parameter and not on who draws it, so a device can draw just its own part:
rows or columns cost what they are, and have the bits that the whole would have there.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

BLOCK = 8  # normals from one Philox counter: four words of 64 bits, a pair from each (Box and Muller 1958)
WRAPPERS = ("_checkpoint_wrapped_module", "_orig_mod", "_fsdp_wrapped_module")  # of torch, around our modules
CHUNK = 1 << 16  # normals drawn at a time: what fits a processor's cache


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a device holds of a parameter (or of an optimizer's moment of it)."""

    values: Tensor  # of this device, written in place
    shape: tuple[int, ...]  # of the whole
    start: tuple[int, ...]  # where ``values`` begin in the whole


def whole(tensor: Tensor) -> Part:
    """A tensor that is not cut."""
    return Part(values=tensor.detach(), shape=tuple(tensor.shape), start=(0,) * tensor.dim())


PartOf = Callable[[Tensor], Part]


def named(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Each parameter once, by the name that checkpoints and initial draws know it under.

    ``model.tied`` (name -> name) says under which name a shared parameter goes where its first holder is absent, as in
    the last stage of a pipeline.
    """
    tied, seen = getattr(model, "tied", {}), set()
    for path, parameter in model.named_parameters():
        name = ".".join(part for part in path.split(".") if part not in WRAPPERS)
        name = tied.get(name, name)
        assert name not in seen, f"{name} twice: a copy untied what was one parameter; init_weights ties it again"
        seen.add(name)
        yield name, parameter


def twice_held(model: nn.Module) -> set[str]:
    """Names of parameters of which a stage has a second copy: their first holder is in another stage."""
    tied = getattr(model, "tied", {})
    return {tied[path] for path, _ in model.named_parameters() if path in tied}


def tie(model: nn.Module) -> None:
    """Make one parameter again of those that are tied: a model that is given memory comes out untied."""
    for later, first in getattr(model, "tied", {}).items():
        holders = [name.rpartition(".")[0] for name in (later, first)]
        if all(getattr(model, holder, None) is not None for holder in holders):
            weight = model.get_parameter(first)
            setattr(model.get_submodule(holders[0]), later.rpartition(".")[2], weight)


def draw_(part: Part, seed: int, name: str, std: float) -> None:
    """Fill a part of a matrix with its draws of N(0, std^2)."""
    (height, width), (row, column) = part.values.shape, part.start
    drawn = normal(seed, name, part.shape[1], range(row, row + height), range(column, column + width))
    part.values.copy_(torch.from_numpy(drawn) * std)


def normal(seed: int, name: str, width: int, rows: range, columns: range) -> np.ndarray:
    """Standard normals of a matrix of ``width`` columns, at these rows and columns: float32 (rows, columns).

    Philox (Salmon et al. 2011) is a function of key and counter. The key is a hash of seed and name, each row takes
    ``ceil(width / 8)`` counters. Computed in float64 and rounded once, so that a processor's last digit of a logarithm
    does not show.
    """
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:16], "little")
    blocks = -(-width // BLOCK)  # counters of a row
    first, last = columns.start // BLOCK, -(-columns.stop // BLOCK)
    offset = columns.start - first * BLOCK
    drawn = np.empty((len(rows), len(columns)), dtype=np.float32)
    height = max(1, CHUNK // (blocks * BLOCK))
    for top in range(0, len(rows), height):
        some = rows[top : top + height]
        if last - first == blocks:
            words = _words(key, some.start * blocks, len(some) * blocks)
        else:
            words = np.concatenate([_words(key, row * blocks + first, last - first) for row in some])
        line = _normals(words).reshape(len(some), (last - first) * BLOCK)
        drawn[top : top + len(some)] = line[:, offset : offset + len(columns)]
    return drawn


def _words(key: int, counter: int, count: int) -> np.ndarray:
    """The output of ``count`` Philox counters: uint64 (4 count)."""
    return np.random.Philox(key=key, counter=counter).random_raw(4 * count)


def _normals(words: np.ndarray) -> np.ndarray:
    """Two normals a word, by Box and Muller: uint64 (4 n) to float64 (n, 2, 4)."""
    uniform = ((words & 0xFFFFFFFF).astype(np.float64) + 1) * 2.0**-32  # in (0, 1]
    # cosine and sine through the tangent of the half angle: numpy's own are five times slower
    half = np.tan(((words >> 32).astype(np.float64) - (2.0**31 - 0.5)) * (math.pi * 2.0**-32))
    square = half * half
    radius = np.sqrt(-2 * np.log(uniform)) / (1 + square)
    return np.stack([(radius * (1 - square)).reshape(-1, 4), (radius * (2 * half)).reshape(-1, 4)], axis=1)
