"""Weights, gradients and moments sharded over data-parallel ranks (FSDP2), or over groups of them (HSDP).

ZeRO's third stage (Rajbhandari et al. 2020, arXiv 1910.02054) by torch's ``fully_shard``: a block's weights are
gathered when it is used and given back after. Where ``shard`` is fewer than the data-parallel ranks, each group of so
many holds one copy of the state, and gradients are summed over the groups after (Zhao et al. 2023, arXiv 2304.11277,
section 3.2).
"""

from __future__ import annotations

from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from gpt3core.model.architecture import Cuts
from gpt3core.parallel.mesh import Mesh


def shard(stage: nn.Module, cuts: Cuts, mesh: Mesh) -> None:
    """Shard a stage's blocks one by one, and what is around them together."""
    names = [axis for axis in ("replicate", "shard") if mesh.degree(axis) > 1]
    devices = mesh.axes(*names)
    # each micro-batch of a pipeline would gather them again, which costs more than it spares
    again = mesh.layout.pipeline == 1
    for block in getattr(stage, cuts.layers).values():
        fully_shard(block, mesh=devices, reshard_after_forward=again)
    fully_shard(stage, mesh=devices, reshard_after_forward=False)
    register_fsdp_forward_method(stage, "hidden")
