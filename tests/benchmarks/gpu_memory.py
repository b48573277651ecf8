"""What torch's allocator lends on a GPU beside what the plan counts, a rank of each layout, the 175B's on 512 GPUs too.

``python -m tests.benchmarks.gpu_memory [ROW ...]`` on a GPU; where there is none, but a CUDA build of torch,
``python -m tests.cuda.stand_in tests.benchmarks.gpu_memory`` on a device that computes nothing: the allocator is the
same, and memory is lent by the shapes of tensors alone. Then the host's waits for the device are counted, too.

A row is one rank's two updates as ``Trainer`` makes them: context 2048, GPT-3's alternation, bf16 unless it says
otherwise, eager. The other ranks are not there: torch's fake process group answers for them at once, and what is drawn
and sent does not matter. A pipeline is given two micro-batches a stage. Fixed workspaces of libraries are not in the
plan, so rows of a few GB lie above it by a tenth; that much of a device is left free (``memory.USABLE``).
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from gpt3core import schedule
from gpt3core.model import gpt
from gpt3core.parallel import memory, mesh
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.mesh import Mesh
from gpt3core.sizes import GPT3
from gpt3core.store.rundir import RunDir
from gpt3core.train.loop import Trainer
from tests.benchmarks import gpu_mfu
from tests.benchmarks.target import target
from tests.cuda import stand_in

MOST_OVER = 1.1  # allocated over planned


@dataclass(frozen=True, kw_only=True)
class Row:
    """A rank that is measured."""

    size: str
    layout: Layout
    last: bool = False  # the last rank in place of the first
    precision: str = "bf16"

    @property
    def rank(self) -> int:
        """Its number."""
        return self.layout.world_size - 1 if self.last else 0


ROWS = {
    "125M": Row(size="125M", layout=Layout(micro_batch=8)),
    "125M-fp32": Row(size="125M", layout=Layout(micro_batch=8), precision="fp32"),
    "1.3B": Row(size="1.3B", layout=Layout(micro_batch=8)),
    "2.7B": Row(size="2.7B", layout=Layout(micro_batch=2)),
    "1.3B-tensor": Row(size="1.3B", layout=Layout(tensor=4, micro_batch=4)),
    "1.3B-context": Row(size="1.3B", layout=Layout(context=4, micro_batch=4)),
    "1.3B-stage": Row(size="1.3B", layout=Layout(tensor=2, pipeline=4, micro_batch=2)),
    "1.3B-last-stage": Row(size="1.3B", layout=Layout(tensor=2, pipeline=4, micro_batch=2), last=True),
    "1.3B-shard": Row(size="1.3B", layout=Layout(data=8, shard=8, micro_batch=4)),
    "1.3B-again": Row(size="1.3B", layout=Layout(data=8, shard=8, micro_batch=4, recompute="full")),
    "6.7B": Row(size="6.7B", layout=Layout(data=16, shard=8, micro_batch=4)),
    "13B": Row(size="13B", layout=Layout(data=32, shard=8, micro_batch=2)),
    "175B": Row(size="175B", layout=Layout(data=8, shard=8, tensor=4, pipeline=16)),
}


class OneOf(Mesh):
    """A rank whose others say what it says."""

    def gather(self, data: Any) -> list[Any]:
        return [data] * self.world_size

    def first(self, work: Callable[[], Any]) -> Any:
        return work()

    def agree(self, flag: bool) -> bool:
        return flag


@contextmanager
def one_of(layout: Layout, rank: int) -> Iterator[Mesh]:
    """The place of one rank in a layout whose other ranks are not there."""
    if layout.world_size == 1:
        yield Mesh(layout=layout, planned=True)
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=rank, world_size=layout.world_size, store=FakeStore())
    known, mesh.set_timeout = mesh.set_timeout, lambda *_: None  # no such thing where nobody is waited for
    try:
        here: dict[str, Any] = {"devices": mesh._axes(layout, "cuda", datetime.timedelta(seconds=1))}
        here["ends"] = mesh._ends(layout, datetime.timedelta(seconds=1))
        yield OneOf(rank=rank, world_size=layout.world_size, layout=layout, planned=True, **here)
    finally:
        mesh.set_timeout = known
        dist.destroy_process_group()


def updated(row: Row, root: Path, text: Path) -> tuple[memory.Memory, int]:
    """Two updates of a rank: what the plan counts for it, and how often the host waited in the second."""
    layout = row.layout
    model = replace(GPT3[row.size].model(gpu_mfu.CONTEXT), vocab_size=gpu_mfu.VOCABULARY)
    batch = layout.data * layout.micro_batch * (2 * layout.pipeline if layout.pipeline > 1 else 2)
    asked = argparse.Namespace(precision=row.precision, kernel="sdpa", compile="none")
    spec = gpu_mfu.specification(model, text, "gpt2", batch * gpu_mfu.CONTEXT, asked)
    RunDir(root, spec.run_id).create(spec)
    with one_of(layout, row.rank) as here:
        trainer, waited = Trainer(spec, root, device="cuda", mesh=here), 0
        for step in range(2):
            before = waits()
            trainer._update(schedule.learning_rate(spec.optim, step))
            trainer.step, waited = step + 1, waits() - before
        stage = row.rank * layout.pipeline // layout.world_size
        of = {"sequences": batch, "numerics": trainer.numerics}
        return memory.stage_memory(model, layout, stage, **of), waited


def waits() -> int:
    """Of the host for the device, until now; 0 on a real one, which does not count them."""
    return stand_in.waits() if stand_in.HERE in os.environ else 0


def measure(row: Row, text: Path) -> tuple[float, int]:
    """Print a row; allocated over planned, and the host's waits in a step.

    In a process of its own: what torch keeps of a group goes by its name, which the next one would have again.
    """
    if stand_in.HERE in os.environ:
        stand_in.settle()
    gpt.draw_ = lambda *_: None  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as root:
        planned, waited = updated(row, Path(root), text)
    lent, kept = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    print(
        f"{row.size:5} {row.precision}, {row.layout.describe()}, rank {row.rank} of {row.layout.world_size}: "
        f"{lent / 1e9:.2f} GB lent, {planned.total / 1e9:.2f} planned ({lent / planned.total:.2f} of it; "
        f"{planned.describe()}), {kept / 1e9:.1f} kept; {waited} waits of the host",
        flush=True,
    )
    return lent / planned.total, waited


def main(words: list[str] | None = None) -> None:
    """Print all rows, and the most that one lies above its plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []])
    asked = parser.parse_args(words)
    found, waited = None, None
    if not torch.cuda.is_available():
        print("no GPU is here; with a CUDA build of torch: python -m tests.cuda.stand_in tests.benchmarks.gpu_memory")
    else:
        print(f"device: {torch.cuda.get_device_name()}, torch {torch.__version__}")
        with tempfile.TemporaryDirectory() as folder:
            text = gpu_mfu.text(Path(folder), 1.0)
            with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as alone:
                rows = list(alone.map(measure, [ROWS[name] for name in asked.rows or ROWS], itertools.repeat(text)))
        found = max(ratio for ratio, _ in rows)
        waited = max(waits for _, waits in rows) if stand_in.HERE in os.environ else None
    target("gpu_memory_lent_over_planned", found, "<=", MOST_OVER)
    target("gpu_host_waits_in_a_step", waited, "<=", 0)


if __name__ == "__main__":
    main()
