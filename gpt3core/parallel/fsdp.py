"""Weights, gradients and moments sharded over data-parallel ranks (FSDP2), or over groups of them (HSDP).

ZeRO's third stage (Rajbhandari et al. 2020, arXiv 1910.02054) by torch's ``fully_shard``: a block's weights are
gathered when it is used and given back after. Where ``shard`` is fewer than the data-parallel ranks, each group of so
many holds one copy of the state, and gradients are summed over the groups after (Zhao et al. 2023, arXiv 2304.11277,
section 3.2).

Where products are of 16 bits, the matrices of blocks are gathered so: autocast would cast them all the same, to the
same bits, and keep what it cast of every block until the backward pass. Norms, embeddings and the head are gathered in
fp32, gradients are summed in fp32, and an evaluation gathers all in fp32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.fsdp._fully_shard._fsdp_common import TrainingState

from gpt3core.model.architecture import Cuts
from gpt3core.parallel.mesh import Mesh


def shard(stage: nn.Module, cuts: Cuts, mesh: Mesh, kind: torch.dtype | None = None) -> None:
    """Shard a stage's blocks one by one, and what is around them together.

    Args:
        kind: that products are of, where it is another than the weights'.
    """
    names = [axis for axis in ("replicate", "shard") if mesh.degree(axis) > 1]
    devices = mesh.axes(*names)
    # each micro-batch of a pipeline would gather them again, which costs more than it spares
    again = mesh.layout.pipeline == 1
    blocks = list(getattr(stage, cuts.layers).values())
    norms = nn.ModuleList(block.get_submodule(name) for block in blocks for name in cuts.norms)
    exact = set(norms.parameters()) if kind is not None else set()
    for block in blocks:
        fully_shard(block, mesh=devices, reshard_after_forward=again, mp_policy=_policy(kind), ignored_params=exact)
    if exact:
        stage.norms = norms  # for as long as torch looks for what is around the blocks
    fully_shard(stage, mesh=devices, reshard_after_forward=False)
    if exact:
        del stage.norms
    _gather_for_hidden(stage)


def _gather_for_hidden(stage: nn.Module) -> None:
    """Have ``hidden`` find all weights where it is called by itself.

    Inside a forward pass they are there, and torch's wrapper would give back too early what is around the blocks.
    """
    inside: Callable[..., Tensor] = stage.hidden  # type: ignore[assignment]
    register_fsdp_forward_method(stage, "hidden")
    alone: Callable[..., Tensor] = stage.hidden  # type: ignore[assignment]

    @functools.wraps(inside)
    def hidden(*args: Any, **words: Any) -> Tensor:
        passing = stage._get_fsdp_state()._training_state is TrainingState.FORWARD  # type: ignore[operator]
        return (inside if passing else alone)(*args, **words)

    stage.hidden = hidden  # type: ignore[assignment]


def gather_in(stage: nn.Module, kind: torch.dtype | None) -> None:
    """Have the matrices of a stage's blocks gathered in a type from here on; None for their own."""
    for block in stage.modules():
        if block is stage or not isinstance(block, FSDPModule):
            continue
        group = block._get_fsdp_state()._fsdp_param_group
        assert group is not None, "a block has matrices"
        if group.mp_policy.param_dtype == kind:
            continue
        block.reshard()
        group.mp_policy = _policy(kind)
        group._init_mp_dtypes()
        for parameter in group.fsdp_params:  # made anew at the next gathering
            parameter.all_gather_outputs = []
            if hasattr(parameter, "_unsharded_param"):
                del parameter._unsharded_param


def _policy(kind: torch.dtype | None) -> MixedPrecisionPolicy:
    return MixedPrecisionPolicy(
        param_dtype=kind, reduce_dtype=None if kind is None else torch.float32, cast_forward_inputs=False
    )
