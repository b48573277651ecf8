"""Matrix products in fp32 by all of the processor's vector width: of what only reads, and of training by kernel=wide.

torch multiplies fp32 matrices by MKL, which takes AMD's processors with AVX-512 for ones without: 100 GFLOP/s on a
core of Zen 5, where oneDNN, which is in torch too, has 220 (torch's products in bf16 are oneDNN's already, with 400 and
more). It adds longer runs of numbers before it cuts a sum: the rounding error is the same in sums of 128 and twice as
large in sums of 2,048 (6e-7 of the result). Shapes: M rows, D width, N outputs.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ROWS = 8  # fewer are read faster by MKL
LEAST_SIDE = 16  # matrices with a side up to this are learnt faster by MKL (on Zen 5; at 32 oneDNN takes two thirds)


def whole_width(device: str) -> AbstractContextManager[Any]:
    """Inside it, and in inference mode, fp32 products of a model's layers are oneDNN's where that is faster."""
    return _ByOneDNN() if device == "cpu" and taken_for_less() else contextlib.nullcontext()


@functools.cache
def taken_for_less() -> bool:
    """Whether this is a processor of AMD with AVX-512."""
    information = Path("/proc/cpuinfo")
    vendor = information.read_text() if information.exists() else ""
    return "AuthenticAMD" in vendor and torch.backends.cpu.get_cpu_capability() == "AVX512" and there()


def there() -> bool:
    """Whether this torch has oneDNN's products."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


class _ByOneDNN(TorchFunctionMode):
    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is F.linear and torch.is_inference_mode_enabled() and not kwargs and plain(*args):
            return linear(*args)
        return function(*args, **(kwargs or {}))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., D) times weight (N, D) transposed, plus bias (N,), by oneDNN: fp32, without a backward pass.

    A weight may lie transposed; of other x a copy is made.
    """
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found


def require() -> None:
    """See that products can be by oneDNN; where it is not the faster, they can all the same.

    Raises:
        ValueError: where this torch has no oneDNN.
    """
    if not there():
        raise ValueError(
            "kernel=wide needs a torch that is built with oneDNN, and this one is not: install one that is (those of "
            "PyPI for x86 are), or train with kernel=native, softmax or sdpa (a run keeps its kernel)"
        )


def learnt(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As ``linear``, with a backward pass; of what is narrow, not fp32 or not here as it lies, by torch."""
    if min(weight.shape) <= LEAST_SIDE or not plain(x, weight, bias):
        return F.linear(x, weight, bias)
    found: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return found


class Linear(nn.Linear):
    """A layer of ``learnt``."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., N)."""
        return learnt(x, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows, read = (y.reshape(-1, y.size(-1)).contiguous() for y in (gradient, x))  # (M, N), (M, D)
        # what comes first is copied: the narrower of the two
        if rows.size(1) > read.size(1):
            to_weight = linear(read.t(), rows.t()).t().contiguous()
        else:
            to_weight = linear(rows.t(), read.t())
        return linear(rows, weight.t()).view_as(x), to_weight, rows.sum(0) if ctx.biased else None


def plain(x: Any, weight: Any, bias: Any = None) -> bool:
    """Whether a product is of tensors of fp32 as they lie, with rows enough."""
    given = (x, weight) if bias is None else (x, weight, bias)
    return (
        all(type(one) in (Tensor, nn.Parameter) and one.dtype == torch.float32 and one.is_cpu for one in given)
        and not torch.is_autocast_enabled("cpu")
        and x.numel() >= ROWS * weight.size(1)
    )
