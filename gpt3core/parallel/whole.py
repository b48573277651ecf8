"""A model in parts that answers as a whole one: the ranks that hold it ask the same, and each has the answer.

Replicas that share their state gather it in every pass together, though each is asked something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from gpt3core import pulse
from gpt3core.model import registry
from gpt3core.model.architecture import ModelSpec
from gpt3core.model.documents import begins
from gpt3core.parallel.mesh import Mesh, explained, passing
from gpt3core.parallel.parallelize import Held
from gpt3core.parallel.positions import parts, whole


class Whole:
    """What ``evals`` asks of a model, over the ranks that hold it and without gradients."""

    def __init__(self, held: Held, spec: ModelSpec, mesh: Mesh) -> None:
        self.spec, self.parameters = spec, held.model.parameters
        self._held, self._mesh, self._cuts, self._vocabulary = held, mesh, registry.of(spec).cuts, spec.vocab_size
        self._width, self._end = registry.of(spec).width(spec), spec.document_end
        self._fresh = True  # nothing was asked: what is compiled at the first pass may not be there yet
        self._meets = False  # whether replicas say before each pass that one comes
        self._passing = False  # a pass that failed is none that others can go on from

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Inside it replicas that share their state ask as much as each likes: who is done passes on with the others.

        One that fails between two passes does so too, so that all come to hear of it.
        """
        if self._mesh.degree("shard") == 1:
            yield
            return
        self._meets, self._passing, failure = True, False, None
        try:
            yield
        except Exception as error:
            failure = error
        self._meets = False
        while not self._passing and self._any_passes(False):
            self._pass(torch.zeros(1, 1, dtype=torch.long, device=next(self.parameters()).device))
            self._fresh = False
        if failure is not None:
            raise failure

    def _any_passes(self, here: bool) -> bool:
        """Whether a replica of those that share a state has something to ask."""
        votes = torch.tensor([float(here)])
        with explained():
            dist.all_reduce(votes, group=self._mesh.group("shard"))
            return bool(votes.item())

    def hidden(self, ids: Tensor) -> Tensor:
        """The normalised residual stream before the head: (B, T) to (B, T, D)."""
        self._passing = True
        if self._meets:
            self._any_passes(True)
        found = self._pass(ids)
        self._passing = False
        return found

    @torch.inference_mode(False)  # DTensor and FSDP keep what they make, and it must serve a backward pass too
    @torch.no_grad()
    def _pass(self, ids: Tensor) -> Tensor:
        mesh, length = self._mesh, ids.size(1)
        self._held.gather_in(None)
        x = F.pad(ids.clone(), (0, -length % mesh.layout.grain))  # on the right: causal
        documents = None if self._end is None else begins(x, self._end)
        if mesh.layout.context > 1:
            x = parts(x, mesh.layout.context)[mesh.place("context")]
        with self._beginning(), passing():
            x = self._through(x, documents)
            if mesh.layout.tensor > 1:
                from gpt3core.parallel.tensor import gather_positions

                x = gather_positions(x, mesh.axes("tensor"))
            if mesh.layout.context > 1:
                found = [torch.empty_like(x) for _ in range(mesh.layout.context)]
                dist.all_gather(found, x.contiguous(), group=mesh.group("context"))
                x = whole(found)
        return x[:, :length]

    def _through(self, x: Tensor, documents: Tensor | None) -> Tensor:
        """Through all stages, one after another."""
        layout = self._mesh.layout
        if layout.pipeline == 1:
            return self._held.model.hidden(x, documents=documents)  # type: ignore[operator,no-any-return]
        shape = len(x), x.size(1) // layout.tensor, self._width
        stages = iter(self._held.stages)
        for number in range(layout.stages):
            place = number % layout.pipeline
            mine = place == self._mesh.place("pipeline")
            y = torch.empty(shape, device=x.device)
            if mine:
                y = next(stages).hidden(x, documents=documents).float()  # type: ignore[operator]
            x = self._from(place, y)
        return x

    @torch.inference_mode(False)
    @torch.no_grad()
    def head(self, x: Tensor) -> Tensor:
        """Logits of any positions: (..., D) to (..., V)."""
        mesh, x = self._mesh, x.clone()
        with self._beginning(), passing():
            logits = self._logits(x) if mesh.last_stage else x.new_empty(*x.shape[:-1], self._vocabulary)
            logits = logits if mesh.layout.pipeline == 1 else self._from(mesh.layout.pipeline - 1, logits)
        self._fresh = False
        return logits

    def _beginning(self) -> AbstractContextManager[None]:
        return pulse.busy("in its first answers", computes=True) if self._fresh else nullcontext()

    @torch.inference_mode(False)
    @torch.no_grad()
    def classifier(self, x: Tensor, ends: Tensor) -> Tensor:
        """The scores of a run's classifier, which no layout cuts: of (B W, T, D) as ``model.classifier`` gives them."""
        scores: Tensor = self._last().classifier(x.clone(), ends.clone())  # type: ignore[operator]
        return scores

    def _last(self) -> nn.Module:
        """The last stage, what is around its blocks gathered."""
        last = self._held.stages[-1]
        if self._mesh.layout.shard > 1:
            last.unshard()  # type: ignore[operator]
        return last

    def _logits(self, x: Tensor) -> Tensor:
        weight = self._last().get_submodule(self._cuts.head).weight
        assert isinstance(weight, Tensor)
        if self._mesh.layout.tensor == 1:
            return F.linear(x, weight)
        from gpt3core.parallel.tensor import logits_of

        return logits_of(x, weight, self._mesh.axes("tensor"))

    def _from(self, place: int, x: Tensor) -> Tensor:
        """What a stage's device has, on all of the pipeline."""
        group = self._mesh.group("pipeline")
        x = x.contiguous()
        dist.broadcast(x, src=dist.get_global_rank(group, place), group=group)
        return x
