"""Which part of a parameter this rank holds, as torch's DTensor says it."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from gpt3core.model.parameters import Part, whole


def part_of(tensor: Tensor) -> Part:
    """This rank's part: the shard of a DTensor, or the whole of a plain tensor.

    Raises:
        ValueError: where two axes of the mesh cut the same dimension, or a sum is still to be taken.
    """
    if not isinstance(tensor, DTensor):
        return whole(tensor)
    start, cut = [0] * tensor.dim(), set()
    coordinate = tensor.device_mesh.get_coordinate()
    assert coordinate is not None, "this rank is not in the tensor's mesh"
    for axis, placement in enumerate(tensor.placements):
        if placement.is_replicate():
            continue
        if not isinstance(placement, Shard) or placement.dim in cut:
            raise ValueError(f"a tensor placed as {tensor.placements} has no part here: cut each dimension once")
        cut.add(placement.dim)
        length = tensor.shape[placement.dim]
        size = -(-length // tensor.device_mesh.size(axis))  # as torch.chunk cuts
        start[placement.dim] = min(length, coordinate[axis] * size)
    return Part(values=tensor.to_local().detach(), shape=tuple(tensor.shape), start=tuple(start))
