"""Which part of a parameter this rank holds, as torch's DTensor says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor

from gpt3core.model.parameters import Part, whole

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor  # its import takes a second or two, and most runs have none


def part_of(tensor: Tensor) -> Part:
    """This rank's part: the shard of a DTensor, or the whole of a plain tensor.

    Raises:
        ValueError: where two axes of the mesh cut the same dimension, or a sum is still to be taken.
    """
    if not hasattr(tensor, "placements"):
        return whole(tensor)
    spread, start, cut = cast("DTensor", tensor), [0] * tensor.dim(), set()
    coordinate = spread.device_mesh.get_coordinate()
    assert coordinate is not None, "this rank is not in the tensor's mesh"
    for axis, placement in enumerate(spread.placements):
        if placement.is_replicate():
            continue
        dim = getattr(placement, "dim", None)
        if not placement.is_shard() or dim is None or dim in cut:
            raise ValueError(f"a tensor placed as {spread.placements} has no part here: cut each dimension once")
        cut.add(dim)
        length = spread.shape[dim]
        size = -(-length // spread.device_mesh.size(axis))  # as torch.chunk cuts
        start[dim] = min(length, coordinate[axis] * size)
    return Part(values=spread.to_local().detach(), shape=tuple(spread.shape), start=tuple(start))
