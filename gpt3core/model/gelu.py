"""GPT-2's GELU: the tanh form (Hendrycks and Gimpel 2016; openai/gpt-2, src/model.py).

GPT-3 uses "the same model and architecture as GPT-2" but for its attention (Brown et al. 2020, section 2.1), and says
nothing else of it. torch's own tanh form takes three times its erf form on CPUs; here it is x sigmoid(2 u), u =
sqrt(2/pi) (x + 0.044715 x^3), the same number, with its slope kept in place of x.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gpt3core.model import native
from gpt3core.model.gpt_spec import GELU

LINEAR = 2 * math.sqrt(2 / math.pi)  # 2 u = LINEAR x + CUBIC x^3
CUBIC = 0.044715 * LINEAR


def gelu(x: Tensor, kernel: str = "softmax") -> Tensor:
    """GELU of every element.

    Args:
        kernel: some have functions of native.c.
    """
    if x.device.type != "cpu":
        return F.gelu(x, approximate=GELU)  # one kernel, in fp32 inside
    found: Tensor = _Gelu.apply(x, kernel)  # type: ignore[no-untyped-call]
    return found


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: Tensor, kernel: str) -> Tensor:
        x = given if native.knows(kernel, given) else given.float()
        slope = None
        if native.knows(kernel, x):
            value, slope = native.gelu(x, slope=ctx.needs_input_grad[0])
        elif ctx.needs_input_grad[0]:
            square = x * x
            share = torch.sigmoid((square * CUBIC).add_(LINEAR).mul_(x))
            value = x * share
            slope = square.mul_(3 * CUBIC).add_(LINEAR)  # of 2 u
            slope = slope.mul_((1 - share).mul_(value)).add_(share)  # share + value (1 - share) 2 u'
        else:
            value = (x * x).mul_(CUBIC).add_(LINEAR).mul_(x).sigmoid_().mul_(x)
        if slope is not None:
            ctx.save_for_backward(slope.to(given.dtype))
        return value.to(given.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None
