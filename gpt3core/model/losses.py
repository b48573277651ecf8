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
from gpt3core.numerics import WIDE

TOGETHER = 4  # chunks whose bf16 gradients wait for one product with what was read: it takes less than adding in fp32
NARROW = 64  # widths up to which the weight's gradient is faster transposed (MKL: five times at 8, the same at 96)


def cross_entropy_sum(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    counts: Tensor | None,
    *,
    kernel: str = "softmax",
    compiled: bool = False,
    smoothing: float = 0.0,
) -> Tensor:
    """The summed cross-entropy of ``hidden @ weight.T`` in nats: (M, D), (V, D), (M), and the counts (M) of losses.

    Args:
        kernel: some have functions of native.c, and ``wide`` multiplies by oneDNN where tensors are plain and of fp32.
        compiled: whether to compile what is done to logits in training, without smoothing.
        smoothing: share of each target that the gradient spreads over the vocabulary; the value stays the plain one.
    """
    found: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, counts, kernel, compiled, smoothing)  # type: ignore[no-untyped-call]
    return found


def _rows_(logits: Tensor, targets: Tensor, counts: Tensor | None, kernel: str) -> tuple[Tensor, Tensor]:
    """Losses (rows), and the gradient of their sum, in place of the logits (rows, V) where their kind allows it."""
    logits = logits if native.knows(kernel, logits) else logits.float()
    if native.knows(kernel, logits):
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
    """The products of chunks of positions (M, D) with the weight (V, D), and the sum of what they give it."""

    def __init__(self, x: Tensor, weight: Tensor, rows: int) -> None:
        self.x, self.weight, self.whole = x, weight, len(x) <= rows  # whether all is one chunk
        self.sum: Tensor | None = None

    def logits(self, some: slice) -> Tensor:
        """(rows, V)."""
        return self.x[some] @ self.weight.t()

    def learn(self, gradient: Tensor, some: slice, dx: Tensor) -> None:
        """Fill in rows of dx (M, D), and add to the sum, from the gradient of logits (rows, V)."""
        torch.mm(gradient, self.weight, out=dx[some])
        self._add(gradient, self.x[some])

    def _add(self, gradient: Tensor, x: Tensor) -> None:
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


class _LateHead(_Head):
    """In training in bf16, whose gradients are made in place of the logits: they wait, several chunks of them."""

    def __init__(self, x: Tensor, weight: Tensor, rows: int) -> None:
        super().__init__(x, weight, TOGETHER * rows)
        self.room = x.new_empty(min(len(x), TOGETHER * rows), len(weight))

    def logits(self, some: slice) -> Tensor:
        x, first = self.x[some], some.start % len(self.room)
        return torch.mm(x, self.weight.t(), out=self.room[first : first + len(x)])

    def learn(self, gradient: Tensor, some: slice, dx: Tensor) -> None:
        torch.mm(gradient, self.weight, out=dx[some])
        stop = min(some.stop, len(self.x))
        first = some.start - some.start % len(self.room)
        if stop in (first + len(self.room), len(self.x)):
            self._add(self.room[: stop - first], self.x[first:stop])


class _WideHead(_Head):
    """By oneDNN, which copies its first factor where that lies transposed: never the logits', so the sum is (D, V)."""

    across: Tensor | None = None  # the weight (D, V)

    def logits(self, some: slice) -> Tensor:
        return products.linear(self.x[some], self.weight)

    def learn(self, gradient: Tensor, some: slice, dx: Tensor) -> None:
        x, dx = self.x[some], dx[some]
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


def _kind_of_head(x: Tensor, weight: Tensor, kernel: str, *, in_place: bool) -> type[_Head]:
    """How a kernel multiplies what is of this kind, where gradients are made in place of logits or not."""
    if kernel == WIDE and products.plain(x, weight):
        return _WideHead
    return _LateHead if in_place and x.dtype == torch.bfloat16 and native.knows(kernel, x) else _Head


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        counts: Tensor | None,
        kernel: str,
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
        head = _kind_of_head(x, w, kernel, in_place=wanted and not smoothing)(x, w, rows)
        for first in range(0, len(x), rows):
            some = slice(first, first + rows)
            logits = head.logits(some)
            here = None if counts is None else counts[some]
            if compiled and wanted and not smoothing:
                fused = _rows if torch.compiler.is_compiling() else _compiled_rows()  # part of what is compiled already
                losses, gradient = fused(logits, targets[some], here)
            else:
                losses, gradient = _rows_(logits, targets[some], here, kernel)
            total += losses.sum()
            if dx is None:
                continue
            if smoothing:
                gradient = gradient.float()
                _smooth_(gradient, targets[some], here, smoothing)
            gradient = gradient.to(dtype)
            head.learn(gradient, some, dx)
            del logits, gradient  # before the next chunk's are made
        if wanted:
            ctx.save_for_backward(dx, head.to_weight())
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        dx, dw = ctx.saved_tensors
        return (dx * gradient).to(ctx.dtypes[0]), (dw * gradient).to(ctx.dtypes[1]), None, None, None, None, None
