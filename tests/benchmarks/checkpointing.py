"""How long training waits for a checkpoint, and what a save takes from it, beside torch's asynchronous save.

``python -m tests.benchmarks.checkpointing [10M 35M 125M] [--rounds 3] [--folder FOLDER]``; by default 10M and 125M.

Real models train on random tokens in one thread; arms take turns: ours; ours, waited for (the synchronous save, with
the same files); the way before it (bytes by safetensors, all in training's thread); torch.distributed.checkpoint's
``async_save``; and our files written by a forked process, which copies nothing. Medians of

- wait: seconds that training stands still for a save: the check for NaN, the call, and what it waits before it
  applies its next gradients (torch's ``async_save`` has no such check and nothing to wait for later);
- write: seconds from the call until the checkpoint is there, while training goes on beside;
- stolen: CPU-seconds of all that is not training's thread or its steps of usual length: what a training that has one
  core pays in any case. For the forked process that is its own time and what the steps beside it took longer.

The target is the wait of ours over the time of its synchronous save, which has the disk and the cores to itself.
torch's makes no checksums.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import hashlib
import logging
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch.distributed import checkpoint as dcp

from gpt3core import sizes
from gpt3core.model import registry
from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.model.parameters import named
from gpt3core.parallel.mesh import Mesh
from gpt3core.spec import OptimSpec
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import checkpoint, optimizer
from gpt3core.train.objective import model_loss_sum, next_token
from gpt3core.train.process import settle_process
from gpt3core.train.saving import Saves
from gpt3core.train.snapshot import Staging, finite
from tests.benchmarks.target import target

GOAL = 0.05
SHAPES: dict[str, GPTSpec] = {
    "10M": sizes.nano(256, n_layer=12, n_ctx=128, vocab_size=1024, attention="dense", band=8),
    "35M": sizes.nano(384, n_layer=12, n_ctx=128, vocab_size=32_768, attention="dense", band=8),
    "125M": sizes.nano(768, n_layer=12, n_ctx=128, vocab_size=50_304, attention="dense", band=8),
}


class Timed(RunDir):
    """A run's folder that knows when its last checkpoint was there."""

    at = 0.0

    def commit_checkpoint(self, *args: Any, **kwargs: Any) -> Path:
        """As ever."""
        path = super().commit_checkpoint(*args, **kwargs)
        self.at = time.monotonic()
        return path


class Training:
    """A model that trains in this thread."""

    def __init__(self, spec: GPTSpec, folder: Path) -> None:
        self.model = registry.of(spec).build(spec, kernel="sdpa")
        self.model.init_weights(0)
        asked = OptimSpec(lr=1e-4, batch_tokens=spec.n_ctx, warmup_tokens=0, decay_tokens=spec.n_ctx)
        self.optimizer = optimizer.build(self.model, asked)
        self.examples = next_token(torch.randint(spec.vocab_size, (1, spec.n_ctx + 1)), None)
        self.run = Timed(folder, "run")
        self.saves = Saves(self.run, "attempt-001", self.model, self.optimizer, Mesh())
        self.saves_made, self.waited = 0, 0.0
        steps = [self.step() for _ in range(4)][1:]
        self.usual = statistics.median(cpu for _, cpu in steps)

    def step(self, release: Callable[[], None] = lambda: None) -> tuple[float, float]:
        """One step; its seconds, and CPU-seconds of this thread."""
        began, cpu = time.monotonic(), time.thread_time()
        torch.autograd.backward(model_loss_sum(self.model, self.examples) / self.examples.targets.numel())
        before = time.monotonic()
        release()
        self.waited += time.monotonic() - before
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.monotonic() - began, time.thread_time() - cpu

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """All that is saved."""
        return {
            file: {name: part.values for name, part in parts.items()}
            for file, parts in checkpoint.held(self.model, self.optimizer, Mesh()).items()
        }

    @property
    def gigabytes(self) -> float:
        """Of what is saved."""
        return sum(t.nbytes for parts in self.tensors().values() for t in parts.values()) / 1e9


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one save cost."""

    wait: float
    write: float
    stolen: float


@contextmanager
def _others(training: Training, found: dict[str, float]) -> Iterator[None]:
    """Into ``found["stolen"]``: the CPU-seconds of a block that are neither its thread's nor usual."""
    process, thread = time.process_time(), time.thread_time()
    yield
    found["stolen"] = (time.process_time() - process) - (time.thread_time() - thread)


def ours(training: Training, folder: Path, *, waits: bool = False) -> Cost:
    """As the loop saves."""
    found: dict[str, float] = {}
    training.waited, training.saves_made = 0.0, training.saves_made + 1
    began = time.monotonic()
    with _others(training, found):
        finite(training.model.parameters())
        training.saves.begin(training.saves_made, {}, {"step": []})
        if waits:
            training.saves.wait()
        called = time.monotonic() - began
        while not waits and training.saves._now.thread.is_alive():  # type: ignore[union-attr]
            training.step(training.saves.release)
        training.saves.wait()
    return Cost(wait=called + training.waited, write=training.run.at - began, stolen=found["stolen"])


def synchronous(training: Training, folder: Path) -> Cost:
    """Ours, waited for."""
    return ours(training, folder, waits=True)


def before(training: Training, folder: Path) -> Cost:
    """Serialised by safetensors and written in training's own thread."""
    began, cpu = time.monotonic(), time.thread_time()
    all(bool(p.isfinite().all()) for p in training.model.parameters())
    for file, tensors in training.tensors().items():
        data = to_bytes({name: t.contiguous() for name, t in tensors.items()})
        files.write_bytes(folder / file, data)
        hashlib.sha256(data).hexdigest()
    seconds = time.monotonic() - began
    return Cost(wait=seconds, write=seconds, stolen=time.thread_time() - cpu)


def torchs(training: Training, folder: Path) -> Cost:
    """torch.distributed.checkpoint's, as documented."""
    found: dict[str, float] = {}
    began = time.monotonic()
    done: list[float] = []
    with _others(training, found):
        future: Any = dcp.async_save(dict(training.tensors()), checkpoint_id=folder / "dcp", no_dist=True)
        future.add_done_callback(lambda _: done.append(time.monotonic()))
        called = time.monotonic() - began
        while not future.done():
            training.step()
        future.result()
    return Cost(wait=called, write=done[0] - began, stolen=found["stolen"])


def forked(training: Training, folder: Path) -> Cost:
    """Our files, from a process that has the values as they were when it was forked."""
    began = time.monotonic()
    finite(training.model.parameters())
    held = checkpoint.held(training.model, training.optimizer, Mesh())
    child = os.fork()
    if child == 0:
        staging = Staging("cpu")
        staging.begin(held)
        staging.finish()
        for file, image in staging.images.items():
            hashlib.sha256(image.data).hexdigest()
            files.write_bytes(folder / file, image.data)
        (folder / "at").write_text(repr(time.monotonic()))
        os._exit(0)
    called, longer = time.monotonic() - began, 0.0
    usage: resource.struct_rusage | None = None
    while usage is None:
        longer += training.step()[1] - training.usual
        pid, _, spent = os.wait4(child, os.WNOHANG)
        usage = spent if pid else None
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(wait=called, write=float((folder / "at").read_text()) - began, stolen=cpu + max(0.0, longer))


ARMS = {
    "ours": ours,
    "ours, waited for": synchronous,
    "before": before,
    "torch async_save": torchs,
    "forked process": forked,
}


def measure(name: str, rounds: int, folder: Path) -> None:
    """Print the table of a size, and its target."""
    training = Training(SHAPES[name], folder)
    found: dict[str, list[Cost]] = {arm: [] for arm in ARMS}
    for number in range(rounds + 1):  # the first one touches its memory for the first time
        for arm, save in ARMS.items():
            with tempfile.TemporaryDirectory(dir=folder) as place:
                cost = save(training, Path(place))
            if number:
                found[arm].append(cost)
            training.step()
    parameters = sum(p.numel() for _, p in named(training.model))
    print(f"\n{name}: {parameters:,} parameters, {training.gigabytes:.2f} GB a checkpoint, {rounds} rounds")
    print(f"{'':18}{'wait s':>9}{'write s':>9}{'stolen CPU-s':>14}")
    medians = {
        arm: Cost(**{f: statistics.median(getattr(c, f) for c in costs) for f in ("wait", "write", "stolen")})
        for arm, costs in found.items()
    }
    for arm, cost in medians.items():
        print(f"{arm:18}{cost.wait:9.3f}{cost.write:9.2f}{cost.stolen:14.2f}")
    alone = medians["ours, waited for"].write
    target(f"wait_share_{name}", medians["ours"].wait / alone, "<", GOAL)
    target(f"wait_over_torchs_{name}", medians["ours"].wait / medians["torch async_save"].wait, "<", 1.0)


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=["10M", "125M"], help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="on the disk to write to; by default the temporary one")
    given = parser.parse_args()
    if unknown := set(given.sizes) - set(SHAPES):
        parser.error(f"{', '.join(sorted(unknown))}: sizes are {', '.join(SHAPES)}")
    warnings.filterwarnings("ignore")  # of dcp, that no process group is there
    logging.disable(logging.WARNING)
    settle_process("cpu")
    with tempfile.TemporaryDirectory(prefix="isoflop-checkpointing-", dir=given.folder) as folder:
        for name in given.sizes:
            files.make_folder(Path(folder) / name)
            measure(name, given.rounds, Path(folder) / name)


if __name__ == "__main__":
    main()
