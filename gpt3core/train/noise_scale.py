"""The gradient noise scale B = tr(Sigma) / |G|^2: the batch, in tokens, beyond which a larger one helps little.

McCandlish et al. 2018 (arXiv 1812.06162), section 2.2 and appendix A.1: with gradients of a small and of the large
batch, |G|^2 and tr(Sigma) have unbiased estimates; both are smoothed before they are divided. The large batch is the
step's own. The small ones are the data-parallel ranks' shares of it, or in one process its micro-batches, or the halves
of its only one. Nothing of the training changes by a bit, for gradients are added in the same order as without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gpt3core.parallel import gradients
from gpt3core.parallel.mesh import Mesh
from gpt3core.parallel.parallelize import Held
from gpt3core.train.objective import Examples

COLUMNS = ("noise_scale", "grad_sq", "grad_var")
SMOOTHING = 0.9  # of what was measured before, at every measurement


def estimates(small: float, inverse_small: float, big: float, inverse_big: float) -> tuple[float, float]:
    """Unbiased |G|^2 and tr(Sigma) a token: equations A.2 and A.3 of the paper.

    Args:
        small, big: the squared norm of a gradient of the small batch (a mean over several) and of the large one.
        inverse_small, inverse_big: one over their tokens (a mean over several).
    """
    variance = (small - big) / (inverse_small - inverse_big)
    return big - variance * inverse_big, variance


class NoiseScale:
    """What a run has measured of its noise scale."""

    def __init__(self, every: int, mesh: Mesh, state: dict[str, Any] | None) -> None:
        """Measure at every so many steps, none at all for zero; go on from a checkpoint's state, or begin."""
        self._every, self._mesh = every, mesh
        known = state or {}
        self._square, self._variance, self._weight = (
            float(known.get(n, 0.0)) for n in ("square", "variance", "weight")
        )
        self.beyond: int | None = known.get("beyond")  # the step since which every batch was larger than the scale
        self._small: tuple[float, float] | None = None  # of this step: squared norm and inverse of tokens
        self.row = dict.fromkeys(COLUMNS, math.nan)

    @property
    def value(self) -> float | None:
        """Tokens, from smoothed estimates; None before there are any, or while |G|^2 drowns in the noise."""
        if not self._weight or self._square <= 0:
            return None
        return max(0.0, self._variance) / self._square

    def due(self, step: int) -> bool:
        """Whether a step is measured, by the number that it will have when it has ended."""
        return self._every > 0 and step % self._every == 0

    def backward(self, held: Held, examples: list[Examples], share: float, step: int) -> Tensor:
        """As ``Held.backward``; in one process, the small batches are measured on the way."""
        self._small = None
        if not self.due(step) or self._mesh.world_size > 1 or sum(len(some.inputs) for some in examples) < 2:
            return held.backward(examples, share, average=not self.due(step))
        parameters = list(held.model.parameters())
        if len(examples) == 1:
            loss, parts = _halves(held, examples[0], share, parameters)
        else:
            loss, parts = _each(held, examples, share, parameters)
        whole = sum(tokens for _, tokens in parts)
        squares = [square * (whole / tokens) ** 2 for square, tokens in parts]  # of means over their own tokens
        self._small = _mean(squares), _mean([1 / tokens for _, tokens in parts])
        return loss

    def of_ranks(self, tokens: float, step: int) -> Callable[[nn.Module], None] | None:
        """What ``gradients.finish`` calls before the mean over replicas: measures theirs, of a batch of so many."""
        if not self.due(step) or self._mesh.data_size == 1:
            return None

        def measure(model: nn.Module) -> None:
            self._small = gradients.mean_square(model, self._mesh), self._mesh.data_size / tokens

        return measure

    def take(self, norm: float, tokens: float, step: int) -> None:
        """Take in the norm of the whole batch's gradient, of so many tokens; ``row`` is the metrics' for this step."""
        self.row = dict.fromkeys(COLUMNS, math.nan)
        if self._small is None or not math.isfinite(norm):
            return
        square, variance = estimates(*self._small, norm**2, 1 / tokens)
        self._small = None
        self._square = SMOOTHING * self._square + (1 - SMOOTHING) * square
        self._variance = SMOOTHING * self._variance + (1 - SMOOTHING) * variance
        self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        value = self.value
        self.row = {"noise_scale": math.nan if value is None else value, "grad_sq": square, "grad_var": variance}
        if value is None or value >= tokens:
            self.beyond = None
        elif self.beyond is None:
            self.beyond = step

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "square": self._square,
            "variance": self._variance,
            "weight": self._weight,
            "beyond": self.beyond,
        }


def _each(
    held: Held, examples: Sequence[Examples], share: float, parameters: list[nn.Parameter]
) -> tuple[Tensor, list[tuple[float, float]]]:
    """Backward passes of micro-batches one by one, their gradients added as autograd adds them.

    Returns:
        the loss, and of each its gradient's squared norm and its tokens.
    """
    total, kept, parts = None, None, []
    for some in examples:
        _clear(parameters)
        loss = held.backward([some], share)
        total = loss if total is None else total + loss
        mine = [p.grad for p in parameters if p.grad is not None]
        parts.append((_square(mine), _tokens(some)))
        if kept is None:
            kept = mine
        else:
            torch._foreach_add_(kept, mine)
    assert total is not None
    assert kept is not None
    for p, gradient in zip((p for p in parameters if p.grad is not None), kept, strict=True):
        p.grad = gradient
    return total, parts


def _halves(
    held: Held, example: Examples, share: float, parameters: list[nn.Parameter]
) -> tuple[Tensor, list[tuple[float, float]]]:
    """The same for a batch in one piece: its first half alone first, and the second by difference."""
    count = len(example.inputs) // 2
    first = example.some(slice(0, count))
    held.backward([first], share)
    half = [p.grad for p in parameters if p.grad is not None]
    _clear(parameters)
    loss = held.backward([example], share)
    whole = [p.grad for p in parameters if p.grad is not None]
    other = torch._foreach_sub(whole, half)
    tokens = _tokens(first)
    return loss, [(_square(half), tokens), (_square(other), _tokens(example) - tokens)]


def _clear(parameters: list[nn.Parameter]) -> None:
    for p in parameters:
        p.grad = None


def _square(tensors: Sequence[Tensor]) -> float:
    """The squared norm of all of them together."""
    norms = torch.stack(torch._foreach_norm(list(tensors)))
    return float(norms.double().square().sum())


def _tokens(some: Examples) -> float:
    """Targets that count."""
    return float(some.targets.numel() if some.mask is None else some.mask.sum())


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
