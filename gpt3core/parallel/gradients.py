"""Gradients of a step over all ranks: summed where they belong, their norm, and its clipping.

After the backward passes a rank has gradients of what it holds, from its rows and positions. Summed are: what devices
of a tensor group have of weights that are whole on each; the shared weight of first and last stage; and the mean over
the data-parallel ranks and positions (FSDP2 has taken it over the ranks that share the state).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gpt3core.model.parameters import named, twice_held
from gpt3core.parallel.mesh import Mesh, explained, sum_
from gpt3core.parallel.parts import local, sharded_axes

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def finish(
    model: nn.Module,
    mesh: Mesh,
    loss: Tensor,
    most: float,
    wishes: Sequence[bool] = (),
    before_mean: Callable[[nn.Module], None] | None = None,
    *,
    averaged: bool,
) -> Tensor:
    """Make every gradient here that of the global batch, clipped.

    Args:
        loss: of this rank's rows and positions, times the number of ranks that have some; zero but on the last stage.
        most: the norm that gradients are scaled down to.
        wishes: of this rank, which go with the sums that are made anyway.
        before_mean: called when every replica has the gradient of its own rows, before their mean.
        averaged: whether the mean over replicas was taken already (``Held.averaged``).

    Returns:
        The batch's loss, the norm before clipping, and how many ranks have each wish: the same on every rank, in fp32
        and where the loss is.

    Raises:
        PeerError: when another rank is gone.
    """
    votes = [torch.full_like(loss, float(wish)) for wish in wishes]  # no copy from the host, which would wait
    if mesh.world_size == 1:
        return torch.stack([loss, torch.nn.utils.clip_grad_norm_(model.parameters(), most), *votes])
    _reduce(model, mesh, before_mean, averaged=averaged)
    said = _summed(model, mesh, loss, votes)
    _clip(model, said[1], most)
    return said


def mean_square(model: nn.Module, mesh: Mesh) -> float:
    """The squared norm of replicas' gradients, its mean over them; before these are averaged, on every rank alike."""
    squares = _squares(model, mesh)
    with explained():
        dist.all_reduce(squares)
    return float(squares)


def _reduce(model: nn.Module, mesh: Mesh, before_mean: Callable[[nn.Module], None] | None, *, averaged: bool) -> None:
    _complete(model, mesh)
    if mesh.degree("pipeline") > 1:
        shared = set(getattr(model, "tied", {}).values()) if mesh.ends is not None else set()
        ends = sorted((name, p) for name, p in named(model) if name in shared)
        sum_([local(p.grad) for _, p in ends if p.grad is not None], mesh.ends)
    if before_mean is not None:
        before_mean(model)
    gradients = [local(p.grad) for p in model.parameters() if p.grad is not None]
    if mesh.degree("shard") == 1 and not averaged:
        mesh.mean_(gradients, "replicate")
    mesh.mean_(gradients, "context")


def _complete(model: nn.Module, mesh: Mesh) -> None:
    """Sum over a tensor group what its devices have of the gradient of a weight that is whole on each."""
    partial = [(p, cast("DTensor", p.grad)) for p in model.parameters() if _partial(p.grad)]
    parts = [gradient.to_local() for _, gradient in partial]
    mesh.sum_(parts, "tensor")
    for (p, gradient), part in zip(partial, parts, strict=True):
        placements = cast("DTensor", p).placements
        assert all(placement.is_replicate() for placement in placements), "a cut weight has a cut gradient"
        p.grad = type(gradient).from_local(part, gradient.device_mesh, placements, run_check=False)


def _partial(gradient: Tensor | None) -> bool:
    return any(placement.is_partial() for placement in getattr(gradient, "placements", ()))


def _summed(model: nn.Module, mesh: Mesh, loss: Tensor, votes: list[Tensor]) -> Tensor:
    """The batch's loss, the global gradient's norm, and the votes, the same on every rank."""
    mean = loss.double() / (mesh.terms * mesh.degree("tensor"))
    found = torch.stack([mean, _squares(model, mesh), *(vote.double() for vote in votes)])
    with explained():
        dist.all_reduce(found)
    found[1].sqrt_()
    return found.float()


def _squares(model: nn.Module, mesh: Mesh) -> Tensor:
    """This rank's share of the squared norm of what all ranks hold."""
    squares = torch.zeros((), dtype=torch.float64, device=next(model.parameters()).device)
    held: dict[int, list[Tensor]] = {}
    for copies, gradient in _counted(model, mesh):
        held.setdefault(copies, []).append(gradient)
    for copies, some in held.items():
        squares += torch.stack(torch._foreach_norm(some)).double().square().sum() / copies
    return squares


def _counted(model: nn.Module, mesh: Mesh) -> Iterator[tuple[int, Tensor]]:
    """The gradients here, and by how many ranks each value is held; what the first stage has too is left to it."""
    twice = twice_held(model)
    stage = mesh.world_size // mesh.degree("pipeline")
    for name, p in named(model):
        if p.grad is not None and name not in twice:
            copies = stage
            for axis in sharded_axes(p):
                copies //= mesh.degree(axis)
            yield copies, local(p.grad)


def _clip(model: nn.Module, norm: Tensor, most: float) -> None:
    """Scale gradients of a known norm, as torch's ``clip_grads_with_norm_`` does."""
    scale = torch.clamp(most / (norm + 1e-6), max=1.0)
    torch._foreach_mul_([local(p.grad) for p in model.parameters() if p.grad is not None], scale)
