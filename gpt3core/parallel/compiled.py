"""Blocks compiled one by one: equal blocks share one compilation, and other techniques stay outside of it.

Entering compiled code takes tens of microseconds, a hundredth of a step of the smallest models. So on a CPU a model of
few blocks and words, with nothing between them, is compiled in one piece, its head and loss too.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gpt3core import pulse
from gpt3core.data.cache import cache_folder
from gpt3core.model.architecture import Cuts, head_rows
from gpt3core.parallel.memory import MICRO_BATCH_TOKENS

FEW = 4  # blocks, and chunks of the head: more take longer to compile in one piece (minutes at 50,304 words)


def compile_blocks(
    model: nn.Module, cuts: Cuts, device: str, *, n_ctx: int = 1, loss: bool = False, parted: bool = False
) -> None:
    """Have each block of a model, or all of it, compiled at its first pass that trains; other passes have it as it is.

    What is compiled is kept on disk, for all runs of a machine: the next process pays for the tracing only.

    Args:
        n_ctx: of the model, where that may be more than a micro-batch has otherwise.
        loss: whether what the loss does to logits is compiled too.
        parted: whether something is between the blocks: shards, what is computed again, or another loss.
    """
    import torch._inductor.config as inductor

    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
    begin()
    inductor.deterministic = True  # nothing that is timed decides about bits: a run resumes to the same ones
    if device == "cpu":
        inductor.compile_threads = 1  # a run has its cores, and no others
    # masks are cached by lru_cache, and made anew in compiled code: they are functions of their arguments
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
    blocks, head = getattr(model, cuts.layers).values(), getattr(model, cuts.head)
    for part in [model] if loss and not parted and _few(len(blocks), head, device, n_ctx) else blocks:
        part.forward = _where_it_trains(part.forward)
    if head is not None:  # a stage of a pipeline may have none
        head.compiled = loss


def _few(blocks: int, head: nn.Module, device: str, n_ctx: int) -> bool:
    """Whether so many blocks and a head are one piece."""
    chunks = max(MICRO_BATCH_TOKENS, n_ctx) / head_rows(len(head.weight), device)  # type: ignore[arg-type]
    return device == "cpu" and max(blocks, chunks) <= FEW


def begin() -> None:
    """Forget what was compiled for the runs before.

    Torch compiles a function for so many forms of its inputs, and beyond them runs it as it is without a word. Those of
    one run are few: its kinds of layers times its micro-batches.
    """
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = 64
    _tell()


def _tell() -> None:
    """Have this process say whenever it compiles: at a first pass, and at one of a new length."""
    said = contextlib.ExitStack()
    torch._dynamo.on_compile_start(lambda _: said.enter_context(pulse.busy("compiling", computes=True)))
    torch._dynamo.on_compile_end(lambda _: said.close())


def _where_it_trains(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Evaluation and generation have lengths without number, and each would be compiled for itself."""
    compiled = torch.compile(forward, dynamic=False)

    def run(*args: Any, **words: Any) -> Any:
        return (compiled if torch.is_grad_enabled() else forward)(*args, **words)

    return run
