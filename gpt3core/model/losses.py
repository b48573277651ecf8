"""The head and the loss in one: the gradient is made in the forward pass, a chunk of positions at a time.

So the logits of a whole batch never exist at once, and no pass over them is made twice (Wijmans et al. 2024, arXiv
2411.09009, do the same on GPUs). Shapes: M positions, D width, V vocabulary. The loss is fp32 whatever the precision.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gpt3core.model import native, products
from gpt3core.model.architecture import head_rows

NARROW = 64  # widths up to which the weight's gradient is faster transposed (MKL: five times at 8, the same at 96)


def cross_entropy_sum(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    counts: Tensor | None,
    *,
    built: bool = False,
    wide: bool = False,
    compiled: bool = False,
    smoothing: float = 0.0,
) -> Tensor:
    """The summed cross-entropy of ``hidden @ weight.T`` in nats: (M, D), (V, D), (M), and the counts (M) of losses.

    Args:
        built: whether to use the functions of native.c.
        wide: whether to multiply by oneDNN, where the tensors are plain and of fp32.
        compiled: whether to compile what is done to logits in training, without smoothing.
        smoothing: share of each target that the gradient spreads over the vocabulary; the value stays the plain one.
    """
    found: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, counts, built, wide, compiled, smoothing)  # type: ignore[no-untyped-call]
    return found


def _rows_(logits: Tensor, targets: Tensor, counts: Tensor | None, built: bool) -> tuple[Tensor, Tensor]:
    """Losses (rows), and the gradient of their sum, in place of the fp32 logits (rows, V)."""
    if built and native.knows(logits):
        return native.cross_entropy_(logits, targets, counts), logits
    logs = F.log_softmax(logits, dim=-1)
    losses = F.nll_loss(logs, targets, reduction="none")
    gradient = logs.exp_()
    gradient[torch.arange(len(targets), device=targets.device), targets] -= 1
    if counts is not None:
        losses, gradient = losses * counts, gradient.mul_(counts[:, None])
    return losses, gradient


def _rows(logits: Tensor, targets: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same from logits of any precision, which the gradient has too: for a compiler, which fuses all of it."""
    logs = F.log_softmax(logits.float(), dim=-1)
    losses = -logs.gather(-1, targets[:, None])[:, 0]
    gradient = logs.exp() - (torch.arange(logits.size(-1), device=logits.device) == targets[:, None]).float()
    if counts is not None:
        losses, gradient = losses * counts, gradient * counts[:, None]
    return losses, gradient.to(logits.dtype)


@functools.cache
def _compiled_rows() -> Any:
    return torch.compile(_rows, dynamic=False)


def _smooth_(gradient: Tensor, targets: Tensor, counts: Tensor | None, smoothing: float) -> None:
    """Make the gradient of losses that of smoothed ones, in place: (rows, V)."""
    each = torch.full((len(targets), 1), smoothing, device=gradient.device)
    if counts is not None:
        each *= counts[:, None]
    gradient.scatter_add_(1, targets[:, None], each).sub_(each / gradient.size(1))


def _transposed_product(a: Tensor, b: Tensor) -> Tensor:
    """(M, V), (M, D) to (V, D)."""
    return (b.t() @ a).t().contiguous() if b.size(1) <= NARROW else a.t() @ b


class _Head:
    """The products of chunks of positions with the weight (V, D), and the sum of what they give it."""

    def __init__(self, weight: Tensor, *, whole: bool) -> None:
        self.weight, self.whole = weight, whole  # whether all is one chunk
        self.sum: Tensor | None = None

    def logits(self, x: Tensor) -> Tensor:
        """(rows, D) to (rows, V)."""
        return x @ self.weight.t()

    def learn(self, gradient: Tensor, x: Tensor, dx: Tensor) -> None:
        """Fill in dx (rows, D), and add to the sum, from the gradient of logits (rows, V)."""
        torch.mm(gradient, self.weight, out=dx)
        if self.sum is None:
            self.sum = _transposed_product(gradient, x)
            self.sum = self.sum if self.whole else self.sum.float()
        elif self.sum.dtype == gradient.dtype:
            self.sum.addmm_(gradient.t(), x)
        else:
            self.sum += gradient.t() @ x

    def to_weight(self) -> Tensor | None:
        """The sum (V, D)."""
        return self.sum


class _WideHead(_Head):
    """By oneDNN, which copies its first factor where that lies transposed: never the logits', so the sum is (D, V)."""

    across: Tensor | None = None  # the weight (D, V)

    def logits(self, x: Tensor) -> Tensor:
        return products.linear(x, self.weight)

    def learn(self, gradient: Tensor, x: Tensor, dx: Tensor) -> None:
        if self.across is None:
            self.across = self.weight.t().contiguous()
        if x.size(1) <= products.LEAST_SIDE:
            dx.copy_(products.linear(self.across, gradient).t())
        else:
            dx.copy_(products.linear(gradient, self.across))
        added = products.linear(x.t(), gradient.t())
        self.sum = added if self.sum is None else self.sum.add_(added)

    def to_weight(self) -> Tensor | None:
        return None if self.sum is None else self.sum.t().contiguous()


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        counts: Tensor | None,
        built: bool,
        wide: bool,
        compiled: bool,
        smoothing: float,
    ) -> Tensor:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        ctx.dtypes = hidden.dtype, weight.dtype
        x, w = hidden.to(dtype), weight.to(dtype)
        counts = None if counts is None else counts.float()
        wanted = any(ctx.needs_input_grad[:2])
        rows = head_rows(len(w), kind)
        total = torch.zeros((), device=x.device)
        dx = torch.empty_like(x) if wanted else None
        head = (_WideHead if wide and products.plain(x, w) else _Head)(w, whole=len(x) <= rows)
        for first in range(0, len(x), rows):
            some = slice(first, first + rows)
            logits = head.logits(x[some])
            here = None if counts is None else counts[some]
            if compiled and wanted and not smoothing:
                losses, gradient = _compiled_rows()(logits, targets[some], here)
            else:
                logits = logits.float()
                losses, gradient = _rows_(logits, targets[some], here, built)
            total += losses.sum()
            if dx is None:
                continue
            if smoothing:
                _smooth_(gradient, targets[some], here, smoothing)
            gradient = gradient.to(dtype)
            head.learn(gradient, x[some], dx[some])
            del logits, gradient  # before the next chunk's are made
        if wanted:
            ctx.save_for_backward(dx, head.to_weight())
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        dx, dw = ctx.saved_tensors
        return (dx * gradient).to(ctx.dtypes[0]), (dw * gradient).to(ctx.dtypes[1]), None, None, None, None, None, None
