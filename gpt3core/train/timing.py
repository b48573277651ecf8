"""Precision and kernel, chosen by a short timing, never assumed.

What is fastest differs by CPU: on one, the bf16 backward of SDPA was six times slower than a plain softmax. The
choice is remembered per machine and torch version, recorded with every run, and kept when a run resumes.
"""

from __future__ import annotations

import hashlib
import itertools
import platform
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gpt3core.data.cache import SETTING, cache_folder
from gpt3core.model import native, products, registry
from gpt3core.model.architecture import ModelSpec
from gpt3core.numerics import AUTO, BUILT, CANDIDATES, COMPILED, NATIVE, WIDE, Numerics
from gpt3core.spec import TRAINER_VERSION, RunSpec
from gpt3core.store import files
from gpt3core.train.objective import model_loss_sum, next_token

ROUNDS = 5
GAIN = 0.95  # a later candidate must be 5% faster than the best before it: near-ties go to the plainer one


def autocast(numerics: Numerics, device: str = "cpu") -> AbstractContextManager[Any]:
    """The context in which a model's forward pass runs."""
    kind = numerics.autocast
    return nullcontext() if kind is None else torch.autocast(device, dtype=getattr(torch, kind))


def machine(device: str = "cpu") -> str:
    """The processor's name, as far as the system tells it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def choose(
    model: ModelSpec,
    precision: str = AUTO,
    kernel: str = AUTO,
    device: str = "cpu",
    without: Collection[str] = (),
) -> Numerics:
    """The fastest allowed numerics for training this shape here: remembered per machine, or timed (under a second).

    Args:
        without: kernels that are not to be chosen.

    Raises:
        ValueError: when the kernel that is asked for cannot be had here.
    """
    allowed = [
        c
        for c in CANDIDATES
        if c.satisfies(precision, kernel)
        and (kernel == c.kernel or (_worth_timing(c, device) and c.kernel not in without))
    ]
    # wide takes 0.52 to 0.95 of native's time (widths 8 to 512, Zen 5): so near to GAIN that chance would choose
    allowed = [c for c in allowed if c.kernel != NATIVE or replace(c, kernel=WIDE) not in allowed]
    if len(allowed) == 1:
        return allowed[0]
    capabilities = torch.backends.cpu.get_cpu_capability()
    here = (machine(device), capabilities, torch.get_num_threads(), torch.__version__, TRAINER_VERSION)
    model = registry.of(model).shortened(model)  # the rest is more of the same, and may not fit one device
    key = repr((*here, model, allowed))
    remembered = cache_folder() / "numerics" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if remembered.exists():
        return Numerics(**files.read_json(remembered)["chosen"])
    times = step_seconds(model, allowed, device)
    best = allowed[0]
    for candidate in allowed[1:]:
        if times[candidate] < GAIN * times[best]:
            best = candidate
    files.make_folder(remembered.parent, setting=SETTING)
    report = {f"{c.precision}/{c.kernel}": round(1000 * seconds, 3) for c, seconds in times.items()}
    files.write_json(remembered, {"chosen": vars(best), "milliseconds": report, "machine": machine(device)})
    return best


def excluded(spec: RunSpec) -> set[str]:
    """Kernels that a run is not trained with: some have no dropout, and some cannot be compiled."""
    return {*spec.options.without_kernels, *(BUILT if spec.compile in COMPILED else ())}


def possible(numerics: Numerics, device: str) -> bool:
    """Whether this machine can train so: functions in C are the CPU's, and need a compiler; some need oneDNN too."""
    if numerics.kernel in BUILT and (device != "cpu" or native.library() is None):
        return False
    return numerics.kernel != WIDE or products.there()


def _worth_timing(numerics: Numerics, device: str) -> bool:
    """Whether it may win: fp32's products by oneDNN do on processors of which torch's own take half."""
    elsewhere = numerics.kernel == WIDE and numerics.precision == "fp32" and not products.taken_for_less()
    return possible(numerics, device) and not elsewhere


def step_seconds(model: ModelSpec, candidates: Sequence[Numerics], device: str) -> dict[Numerics, float]:
    """Seconds of each one's fastest pass of about 1,024 tokens: what others do at the time only adds.

    They take turns, so that a machine that is busy for a while is so for all of them, and share one set of weights.
    One thread is timed by the processor's time that it takes, which does not count that of others.
    """
    weights: list[nn.Parameter] = []
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    turns = [passes(model, candidate, device, weights=weights, clock=clock) for candidate in candidates]
    rounds = [[next(turn) for turn in turns] for _ in range(ROUNDS + 1)]
    return {candidate: min(taken) for candidate, taken in zip(candidates, zip(*rounds[1:], strict=True), strict=True)}


def pass_seconds(
    model: ModelSpec, numerics: Numerics, device: str, changed: Callable[[nn.Module], None] = lambda _: None
) -> list[float]:
    """Seconds of so many passes, the first with all that is done once; see ``passes``."""
    return list(itertools.islice(passes(model, numerics, device, changed), ROUNDS + 1))


def passes(
    model: ModelSpec,
    numerics: Numerics,
    device: str,
    changed: Callable[[nn.Module], None] = lambda _: None,
    weights: list[nn.Parameter] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[float]:
    """Forward and backward passes of about 1,024 tokens, one after another: the seconds of each.

    Args:
        changed: done to the model before.
        weights: of a model of the same shape, to be used here too; filled where it is empty.
        clock: whose seconds are meant.
    """
    with torch.device(device):
        network = registry.of(model).build(model, kernel=numerics.kernel)
    for parameter, shared in zip(network.parameters(), weights or network.parameters(), strict=True):
        if parameter is shared:
            nn.init.normal_(parameter, std=0.02)
        else:
            parameter.data = shared.data
    if weights is not None and not weights:
        weights += network.parameters()
    changed(network)
    ids = torch.randint(model.vocab_size, (max(1, 1024 // model.n_ctx), model.n_ctx + 1)).to(device)
    while True:
        if device == "cuda":
            torch.cuda.synchronize()
        start = clock()
        with autocast(numerics, device):
            loss = model_loss_sum(network, next_token(ids, None))
        torch.autograd.backward(loss / ids[:, 1:].numel())
        if device == "cuda":
            torch.cuda.synchronize()
        yield clock() - start
        network.zero_grad()  # the others' passes need the room
