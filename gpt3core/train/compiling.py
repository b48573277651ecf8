"""Whether a run's blocks are compiled: on a GPU they are; on a CPU where that pays within the run, by timing.

A compilation takes a minute of a core, and a tenth of that where its code lies on disk. A run that is shorter than what
it could win is not even tried.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import statistics
from dataclasses import replace

import torch

from gpt3core import costs
from gpt3core.data.cache import SETTING, cache_folder
from gpt3core.model import registry
from gpt3core.numerics import AUTO, BUILT, COMPILED, Numerics
from gpt3core.parallel.compiled import compile_blocks
from gpt3core.parallel.layout import Layout, compile_problem
from gpt3core.spec import TRAINER_VERSION, RunSpec
from gpt3core.store import files
from gpt3core.train import timing

COMPILERS = ("g++", "clang++")
LEAST_SECONDS = 600.0  # of a run's training before it is tried at all: what trying costs is a tenth of it
CORE_FLOPS = 2e11  # a second of one thread, at most: so a run's shortest time is known without any timing


def choose(
    spec: RunSpec, numerics: Numerics, device: str, threads: int = 1, layout: Layout | None = None
) -> tuple[Numerics, str]:
    """How a run is compiled ("none", "blocks" or "all"), and its numerics, whose kernel is then one that can be.

    Raises:
        ValueError: where what is asked for cannot be had.
    """
    layout = layout or Layout()
    if spec.compile == "none":
        return numerics, "none"
    if spec.compile in COMPILED:
        require(spec.compile, device, layout)
        return numerics, spec.compile
    alone = not spec.options.drops and spec.model.document_end is None  # with these it has not been tried
    if not (alone and possible(device)):
        return numerics, "none"
    how = layout.compiles("blocks" if spec.options.label_smoothing else "all")
    if device != "cpu" or how == "none":
        return numerics, how
    if costs.train_flops(spec.model, spec.tokens) < LEAST_SECONDS * threads * CORE_FLOPS:
        return numerics, "none"
    other = numerics
    if numerics.kernel in BUILT:  # they have no compiled form: their torch match has
        if spec.kernel != AUTO:
            return numerics, "none"
        other = replace(numerics, kernel="softmax")
    parted = layout.parted or spec.labelled is not None
    (_, plain), (once, compiled) = _timed(spec, numerics, device), _timed(spec, other, device, how, parted=parted)
    passes = spec.tokens / 1024
    pays = once + passes * compiled < timing.GAIN * passes * plain
    return (other, how) if pays else (numerics, "none")


def possible(device: str) -> bool:
    """Whether there is what generates code: Triton on GPUs, a C++ compiler on CPUs."""
    if device == "cpu":
        return any(map(shutil.which, COMPILERS))
    from torch.utils._triton import has_triton

    return bool(has_triton())


def require(asked: str, device: str, layout: Layout) -> None:
    """Refuse to compile where that cannot be done, or has not been tried.

    Raises:
        ValueError: what is missing, and what to do.
    """
    if problem := compile_problem(layout, asked):
        raise ValueError(problem)
    if not possible(device):
        needed = f"a C++ compiler ({', '.join(COMPILERS)})" if device == "cpu" else "Triton"
        raise ValueError(
            f"compile={asked} needs {needed}, and there is none here: install it, or leave compile at auto"
        )


def _timed(
    spec: RunSpec, numerics: Numerics, device: str, how: str = "none", *, parted: bool = False
) -> tuple[float, float]:
    """Seconds of all that is done once, and of a pass over about 1,024 tokens: timed once a machine."""
    model, cuts = spec.model, registry.of(spec.model).cuts
    here = timing.machine(device), torch.get_num_threads(), torch.__version__, TRAINER_VERSION
    key = hashlib.sha256(repr((here, model, numerics, how, parted)).encode()).hexdigest()[:16]
    remembered = cache_folder() / "compiling" / f"{key}.json"
    if remembered.exists():
        found = files.read_json(remembered)
        return found["once"], found["seconds"]
    compiled = how in COMPILED
    changed = (
        functools.partial(compile_blocks, cuts=cuts, device=device, n_ctx=model.n_ctx, loss=how == "all", parted=parted)
        if compiled
        else lambda _: None
    )
    first, *others = timing.pass_seconds(model, numerics, device, changed)
    seconds = statistics.median(others)
    files.make_folder(remembered.parent, setting=SETTING)
    files.write_json(remembered, {"once": max(0.0, first - seconds), "seconds": seconds, "compiled": compiled})
    return max(0.0, first - seconds), seconds
