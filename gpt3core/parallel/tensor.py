"""Tensor parallelism: every matrix cut over the devices of a group, the positions between the matrices too.

Columns then rows (Shoeybi et al. 2019, arXiv 1909.08053, section 3), norms and the residual stream by positions
(sequence parallel: Korthikanti et al. 2022, arXiv 2205.05198, section 4.2.2), the embedding, the head and the loss by
rows of the vocabulary, which need not divide. All by torch's DTensor; what lies between the matrices is plain tensors.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn import functional as F

from gpt3core.model.architecture import Cuts
from gpt3core.parallel.mesh import Mesh
from gpt3core.parallel.parts import part_of
from gpt3core.train.objective import Examples


class VocabularyEmbedding(ParallelStyle):
    """An embedding whose rows are cut: all tokens in, the vectors of this device's positions out.

    DTensor's own would make a gradient of all rows on every device.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        distribute_module(module, device_mesh, _cut_rows)
        module.forward = functools.partial(_look_up, module, device_mesh)
        return module


class VocabularyHead(ParallelStyle):
    """A head whose rows are cut: positions of this device in, logits of its tokens for all positions out."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        return distribute_module(module, device_mesh, _cut_rows, _all_positions, _local)


class Positions(ParallelStyle):
    """Vectors of the positions that this device has; their weight is whole on each."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        return distribute_module(module, device_mesh, None, _own_positions, _local)


def _cut_rows(_: str, module: nn.Module, devices: DeviceMesh) -> None:
    for name, parameter in list(module.named_parameters(recurse=False)):
        cut = distribute_tensor(parameter, devices, [Shard(0)], src_data_rank=None)
        module.register_parameter(name, nn.Parameter(cut))


def _look_up(module: nn.Module, devices: DeviceMesh, ids: Tensor) -> Tensor:
    """(B, T) to (B, T here, D): each device finds its own tokens, and their sum has them all."""
    weight = module.weight
    assert isinstance(weight, DTensor)
    rows = ids - part_of(weight).start[0]
    here = weight.to_local()  # (V here, D)
    absent = (rows < 0) | (rows >= len(here))
    found = F.embedding(rows.masked_fill(absent, 0), here).masked_fill(absent[..., None], 0.0)
    partial = DTensor.from_local(found, devices, [Partial()], run_check=False)
    return partial.redistribute(placements=[Shard(1)]).to_local()


def _as_read(x: Tensor) -> Tensor:
    """In the type of the product that reads it, so that devices send one another no more than that."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _all_positions(_: nn.Module, inputs: Any, devices: DeviceMesh) -> Any:
    here = DTensor.from_local(_as_read(inputs[0]), devices, [Shard(1)], run_check=False)  # (B, T, D)
    return here.redistribute(placements=[Replicate()])


def _own_positions(_: nn.Module, inputs: Any, devices: DeviceMesh) -> Any:
    mine = inputs[0].chunk(devices.size())[devices.get_local_rank()]  # (T)
    return DTensor.from_local(mine, devices, [Shard(0)], run_check=False)


def _local(_: nn.Module, output: Any, __: DeviceMesh) -> Any:
    return output.to_local()


def cut(model: nn.Module, cuts: Cuts, devices: DeviceMesh) -> None:
    """Cut a model's parameters over the devices of a tensor group; what of it a stage lacks is left out."""
    for module in getattr(model, cuts.layers).values():
        for name in cuts.columns:  # before the hook that gathers
            module.get_submodule(name).register_forward_pre_hook(lambda _, inputs: (_as_read(inputs[0]),))
    block: dict[str, ParallelStyle] = {name: ColwiseParallel(input_layouts=Shard(1)) for name in cuts.columns}
    block |= {name: RowwiseParallel(output_layouts=Shard(1)) for name in cuts.rows}
    block |= {name: SequenceParallel(use_local_output=True) for name in cuts.norms}
    plan = {f"{cuts.layers}.*.{name}": style for name, style in block.items()}
    around: dict[str, ParallelStyle] = {
        cuts.tokens: VocabularyEmbedding(),
        cuts.positions: Positions(),
        cuts.norm: SequenceParallel(use_local_output=True),
        cuts.head: VocabularyHead(),
    }
    plan |= {name: style for name, style in around.items() if getattr(model, name, None) is not None}
    parallelize_module(model, devices, plan, src_data_rank=None)


def vocabulary_parallel(mesh: Mesh, vocab_size: int) -> Any:
    """The summed loss from logits of this device's tokens: as ``loss_sum``, over all tokens."""
    return functools.partial(_loss_sum, mesh.axes("tensor"), vocab_size)


def _loss_sum(devices: DeviceMesh, vocab_size: int, logits: Tensor, examples: Examples) -> Tensor:
    logits = whole_logits(logits, devices, vocab_size).float().flatten(0, 1)  # (B T, V)
    found = F.cross_entropy(logits, examples.targets.flatten(), reduction="none")
    assert isinstance(found, DTensor)
    losses = found.to_local().view_as(examples.targets)
    return (losses if examples.mask is None else losses * examples.mask).sum()


def whole_logits(logits: Tensor, devices: DeviceMesh, vocab_size: int) -> DTensor:
    """The logits of all tokens, of which this device has some: (..., V here) to (..., V)."""
    shape = torch.Size((*logits.shape[:-1], vocab_size))
    stride = torch.empty(shape, device="meta").stride()
    last = [Shard(logits.dim() - 1)]
    return DTensor.from_local(logits, devices, last, run_check=False, shape=shape, stride=stride)


def gather_positions(hidden: Tensor, devices: DeviceMesh) -> Tensor:
    """All positions of the residual stream, of which this device has some: (B, T here, D) to (B, T, D)."""
    return DTensor.from_local(hidden, devices, [Shard(1)], run_check=False).full_tensor()


def logits_of(hidden: Tensor, weight: Tensor, devices: DeviceMesh) -> Tensor:
    """The logits of vectors that every device has: (..., D) to (..., V)."""
    inputs = DTensor.from_local(hidden, devices, [Replicate()], run_check=False)
    found = F.linear(inputs, weight)
    assert isinstance(found, DTensor)
    return found.full_tensor()
