"""Matrix products in fp32 that are only read forward, by all of the processor's vector width.

torch multiplies fp32 matrices by MKL, which takes AMD's processors with AVX-512 for ones without: 100 GFLOP/s on a
core of Zen 5, where oneDNN, which is in torch too, has 220 with the same exactness.
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
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ROWS = 8  # fewer are read faster by MKL


def whole_width(device: str) -> AbstractContextManager[Any]:
    """Inside it, and in inference mode, fp32 products of a model's layers are oneDNN's where that is faster."""
    return _ByOneDNN() if device == "cpu" and _taken_for_less() else contextlib.nullcontext()


@functools.cache
def _taken_for_less() -> bool:
    """Whether this is a processor of AMD with AVX-512."""
    information = Path("/proc/cpuinfo")
    vendor = information.read_text() if information.exists() else ""
    return "AuthenticAMD" in vendor and torch.backends.cpu.get_cpu_capability() == "AVX512" and _there()


def _there() -> bool:
    """Whether this torch has oneDNN's products."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


class _ByOneDNN(TorchFunctionMode):
    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is F.linear and torch.is_inference_mode_enabled() and not kwargs and _plain(*args):
            return linear(*args)
        return function(*args, **(kwargs or {}))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., D) times weight (N, D) transposed, plus bias (N,), by oneDNN: fp32, without a backward pass."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found


def _plain(x: Any, weight: Any, bias: Any = None) -> bool:
    """Whether a product is of tensors of fp32 as they lie, with rows enough."""
    given = (x, weight) if bias is None else (x, weight, bias)
    return (
        all(type(one) in (Tensor, nn.Parameter) and one.dtype == torch.float32 and one.is_cpu for one in given)
        and not torch.is_autocast_enabled("cpu")
        and x.numel() >= ROWS * weight.size(1)
    )
