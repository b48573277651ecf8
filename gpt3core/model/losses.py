"""The head and the loss in one: the gradient is made in the forward pass, a chunk of positions at a time.

So the logits of a whole batch never exist at once, and no pass over them is made twice (Wijmans et al. 2024, arXiv
2411.09009, do the same on GPUs). Shapes: M positions, D width, V vocabulary. The loss is fp32 whatever the precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gpt3core.model import native
from gpt3core.model.architecture import head_rows

NARROW = 64  # widths up to which the weight's gradient is faster transposed (MKL: five times at 8, the same at 96)


def cross_entropy_sum(
    hidden: Tensor, weight: Tensor, targets: Tensor, counts: Tensor | None, *, built: bool = False
) -> Tensor:
    """The summed cross-entropy of ``hidden @ weight.T`` in nats: (M, D), (V, D), (M), and the counts (M) of losses.

    Args:
        built: whether to use the functions of native.c.
    """
    found: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, counts, built)  # type: ignore[no-untyped-call]
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


def _transposed_product(a: Tensor, b: Tensor) -> Tensor:
    """(M, V), (M, D) to (V, D)."""
    return (b.t() @ a).t().contiguous() if b.size(1) <= NARROW else a.t() @ b


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, counts: Tensor | None, built: bool
    ) -> Tensor:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        ctx.dtypes = hidden.dtype, weight.dtype
        x, w = hidden.to(dtype), weight.to(dtype)
        counts = None if counts is None else counts.float()
        wanted = any(ctx.needs_input_grad[:2])
        rows = head_rows(len(w))
        whole, total = len(x) <= rows, torch.zeros((), device=x.device)
        dx = torch.empty_like(x) if wanted else None
        dw = None
        for first in range(0, len(x), rows):
            some = slice(first, first + rows)
            logits = (x[some] @ w.t()).float()
            losses, gradient = _rows_(logits, targets[some], None if counts is None else counts[some], built)
            total += losses.sum()
            if dx is None:
                continue
            gradient = gradient.to(dtype)
            torch.mm(gradient, w, out=dx[some])
            if dw is None:
                dw = _transposed_product(gradient, x[some])
                dw = dw if whole else dw.float()
            elif dw.dtype == dtype:
                dw.addmm_(gradient.t(), x[some])
            else:
                dw += gradient.t() @ x[some]
            del logits, gradient  # before the next chunk's are made
        if wanted:
            ctx.save_for_backward(dx, dw)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        dx, dw = ctx.saved_tensors
        return (dx * gradient).to(ctx.dtypes[0]), (dw * gradient).to(ctx.dtypes[1]), None, None, None
