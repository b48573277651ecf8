"""Context parallelism: each device of a group has some of a sequence's positions, and all weights.

Only attention looks at other positions: there every device gathers the keys and values of the group, of which a band
needs a part, and masks them by their true distance. (torch's own ``context_parallel`` has no CPU path.) Runs of
neighbouring positions are cut, so in a dense layer the last device has the most to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from gpt3core.model.architecture import Cuts
from gpt3core.model.attention import additive, flex
from gpt3core.model.documents import flash, other
from gpt3core.model.patterns import Pattern
from gpt3core.parallel.mesh import Mesh


def share(model: nn.Module, cuts: Cuts, mesh: Mesh) -> None:
    """Make a model work on this device's positions of every sequence."""
    group, place, degree = mesh.group("context"), mesh.place("context"), mesh.degree("context")
    positions = getattr(model, cuts.positions, None)
    if positions is not None:
        positions.register_forward_pre_hook(lambda _, ids: (ids[0] + place * len(ids[0]),))
    for block in getattr(model, cuts.layers).values():
        attention = block.get_submodule(cuts.attention)
        attention.attend = attend_over(group, place, degree)


def attend_over(group: dist.ProcessGroup, place: int, degree: int) -> Callable[..., Tensor]:
    """Attention whose queries are this device's and whose keys are the group's; as ``model.attention.attend``."""

    gather = gather_over(group, degree)

    def attend(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        n_ctx: int,
        window: int,
        kernel: str,
        sparse: Pattern | None = None,
        documents: Tensor | None = None,
        mask: Any = None,
    ) -> Tensor:
        t = q.size(2)  # positions here
        first = 0 if sparse is not None else max(0, place * t - window + 1)  # the first key that any query here sees
        keys, values = (x[..., first : (place + 1) * t, :] for x in gather(k, v))  # (B, H, keys, K)
        pattern = sparse or (Pattern(kind="banded", size=window) if window < n_ctx else Pattern(kind="dense"))
        last = (place + 1) * t
        if kernel == "sdpa" and q.is_cuda:
            return flex(q, keys, values, pattern, documents, query=place * t, key=first)
        begun = None if documents is None else documents[:, place * t : last]
        if begun is not None and kernel != "softmax":
            return flash(q, keys, values, begun, pattern, place * t, first)
        mask = additive(range(place * t, last), range(first, last), pattern, q.dtype, q.device)
        if begun is not None:
            away = other(begun, torch.arange(first, last, device=q.device))  # (B, 1, T here, keys)
            mask = torch.where(away, -math.inf, mask)
        if kernel == "softmax":
            scores = (q * (1 / math.sqrt(q.size(-1)))) @ keys.transpose(-2, -1) + mask
            mixed: Tensor = torch.softmax(scores, dim=-1, dtype=q.dtype) @ values
            return mixed
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)

    return attend


def gather_over(group: dist.ProcessGroup, degree: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Keys and values of all positions from those of each device: twice (B, H, T here, K) to twice (B, H, T, K)."""

    def gather(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = _Gather.apply(torch.stack([k, v]), group, degree)  # type: ignore[no-untyped-call]
        return keys, values

    return gather


class _Gather(torch.autograd.Function):
    """All positions of a group, in order; the gradient of a position is the sum of all devices' at it."""

    @staticmethod
    def forward(ctx: Any, here: Tensor, group: dist.ProcessGroup, degree: int) -> Tensor:
        """(2, B, H, T here, K) to (2, B, H, T, K)."""
        ctx.group, ctx.degree = group, degree
        here = here.contiguous()
        found = [torch.empty_like(here) for _ in range(degree)]
        dist.all_gather(found, here, group=group)
        return torch.cat(found, dim=3)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """(2, B, H, T, K) to (2, B, H, T here, K)."""
        parts = [part.contiguous() for part in gradients[0].chunk(ctx.degree, dim=3)]
        here = torch.empty_like(parts[0])
        dist.reduce_scatter(here, parts, group=ctx.group)
        return here, None, None
