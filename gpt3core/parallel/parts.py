"""Which part of a parameter this rank holds, as torch's DTensor says it, and along which axes it is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor

from gpt3core.model.parameters import Part, whole

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor  # its import takes a second or two, and most runs have none


def part_of(tensor: Tensor) -> Part:
    """This rank's part: the shard of a DTensor, or the whole of a plain tensor.

    Axes of the mesh that cut the same dimension nest: those that torch calls strided (FSDP2 over a tensor-parallel cut)
    cut what the plain ones leave.

    Raises:
        ValueError: where a sum is still to be taken.
    """
    if not hasattr(tensor, "placements"):
        return whole(tensor)
    spread = cast("DTensor", tensor)
    coordinate = spread.device_mesh.get_coordinate()
    assert coordinate is not None, "this rank is not in the tensor's mesh"
    start, length = [0] * tensor.dim(), list(spread.shape)
    axes = [axis for axis, placement in enumerate(spread.placements) if not placement.is_replicate()]
    for axis in sorted(axes, key=lambda axis: hasattr(spread.placements[axis], "split_factor")):
        dim = getattr(spread.placements[axis], "dim", None)
        if dim is None:
            raise ValueError(f"a tensor placed as {spread.placements} has no part here: its sum is still to be taken")
        size = -(-length[dim] // spread.device_mesh.size(axis))  # as torch.chunk cuts
        offset = min(length[dim], coordinate[axis] * size)
        start[dim] += offset
        length[dim] = min(size, length[dim] - offset)
    return Part(values=spread.to_local().detach(), shape=tuple(spread.shape), start=tuple(start))


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, in place: what is written there is the tensor's."""
    return cast("DTensor", tensor)._local_tensor if hasattr(tensor, "placements") else tensor


def sharded_axes(tensor: Tensor) -> list[str]:
    """The axes of the mesh along which ranks hold different parts of a tensor."""
    if not hasattr(tensor, "placements"):
        return []
    spread = cast("DTensor", tensor)
    names = spread.device_mesh.mesh_dim_names or ()
    return [name for name, placement in zip(names, spread.placements, strict=True) if not placement.is_replicate()]
