"""Context parallelism: each device of a group has some of a sequence's positions, and all weights.

Only attention looks at other positions: there every device gathers the keys and values of the group, of which a run of
its queries needs a part, and masks them by their true distance. (torch's own ``context_parallel`` has no CPU path.)
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
from gpt3core.parallel.positions import parts, runs, whole


def share(model: nn.Module, cuts: Cuts, mesh: Mesh) -> None:
    """Make a model work on this device's positions of every sequence."""
    group, place, degree = mesh.group("context"), mesh.place("context"), mesh.degree("context")
    positions = getattr(model, cuts.positions, None)
    if positions is not None:
        positions.register_forward_pre_hook(lambda _, ids: (_places(len(ids[0]), place, degree, ids[0].device),))
    for block in getattr(model, cuts.layers).values():
        attention = block.get_submodule(cuts.attention)
        attention.attend = attend_over(group, place, degree)


def _places(here: int, place: int, degree: int, device: torch.device) -> Tensor:
    """The positions of so many that are here."""
    return parts(torch.arange(degree * here, device=device), degree, dim=0)[place]


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
        keys, values = gather(k, v)
        pattern = sparse or (Pattern(kind="banded", size=window) if window < n_ctx else Pattern(kind="dense"))
        mixed = []
        for queries, run in zip(q.chunk(2, dim=2), runs(keys.size(2), place, degree), strict=True):
            first = 0 if sparse is not None else max(0, run.start - window + 1)  # the first key that any of these sees
            seen = slice(first, run.stop)
            inside = pattern, run, first, documents, kernel
            mixed.append(_attend(queries, keys[:, :, seen], values[:, :, seen], *inside))
        return torch.cat(mixed, dim=2)

    return attend


def _attend(
    q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, run: range, first: int, documents: Tensor | None, kernel: str
) -> Tensor:
    """Attention of a run of queries to the keys from ``first`` up to its end."""
    if kernel == "sdpa" and q.is_cuda:
        return flex(q, k, v, pattern, documents, query=run.start, key=first)
    begun = None if documents is None else documents[:, run.start : run.stop]
    if begun is not None and kernel != "softmax":
        return flash(q, k, v, begun, pattern, run.start, first)
    mask = additive(run, range(first, run.stop), pattern, q.dtype, q.device)
    if begun is not None:
        away = other(begun, torch.arange(first, run.stop, device=q.device))  # (B, 1, queries, keys)
        mask = torch.where(away, -math.inf, mask)
    if kernel == "softmax":
        scores = (q * (1 / math.sqrt(q.size(-1)))) @ k.transpose(-2, -1) + mask
        mixed: Tensor = torch.softmax(scores, dim=-1, dtype=q.dtype) @ v
        return mixed
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


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
        return whole(found, dim=3)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """(2, B, H, T, K) to (2, B, H, T here, K)."""
        each = [part.contiguous() for part in parts(gradients[0], ctx.degree, dim=3)]
        here = torch.empty_like(each[0])
        dist.reduce_scatter(here, each, group=ctx.group)
        return here, None, None
