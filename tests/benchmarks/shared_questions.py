"""What a rank of a gang spends on an evaluation whose questions the replicas share out, beside one that asks all.

``python -m tests.benchmarks.shared_questions``: held-out text and five tasks, chosen and written answers among them, 64
items each with 0, 1 and 8 examples, of a model of 4 layers and width 128. CPU seconds, of the rank that spends most;
each layout beside ranks that ask everything, as they would by themselves.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from gpt3core.data import shards
from gpt3core.evals import runner, tasks
from gpt3core.evals.spec import EvalSpec
from gpt3core.parallel import mesh
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.parallelize import parallelize
from gpt3core.parallel.parts import part_of
from gpt3core.parallel.whole import Whole
from gpt3core.sizes import nano
from gpt3core.spec import RunSpec
from tests.benchmarks.target import target
from tests.conftest import make_run, write_corpus
from tests.gpt3core import ranks
from tests.gpt3core.test_shared_questions import ASKED, FP32

ROUNDS = 3
EVALS = EvalSpec(tasks=("addition_2", *ASKED), shots=(0, 1, 8), items=64, validation_tokens=16384)
MOST = {  # of the CPU seconds of ranks that ask everything
    Layout(data=2): 0.7,
    Layout(data=4): 0.45,
    Layout(data=2, shard=2): 0.6,
}


def spent(rank: int, size: int, address: str, spec: RunSpec, layout: Layout, share: bool) -> float:
    """CPU seconds of a rank's evaluation, its prompts made beforehand."""
    tasks.TASKS.update(ASKED)
    with mesh.joined(rank, size, address, "cpu", layout=layout) as here:
        held = parallelize(spec.model, here, kernel=FP32.kernel, device="cpu")
        held.model.init_weights(0, part_of)
        model = Whole(held, spec.model, here) if layout.shard > 1 else held.model
        data = shards.prepare(spec.data)
        runner.check(spec, EVALS, data)
        before = time.process_time()
        runner.evaluate(model, spec, EVALS, data, FP32, mesh=here if share else None)
        return time.process_time() - before


def main() -> None:
    """Print every layout's medians and their ratio."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["ISOFLOP_CACHE"] = str(Path(place) / "cache")
        spec = make_run(write_corpus(Path(place) / "text"), steps=12)
        shape = {"n_layer": 4, "n_head": 2, "n_ctx": 256, "attention": "alternating", "band": 64}
        model = nano(128, vocab_size=spec.model.vocab_size, **shape)
        spec = replace(spec, model=model, optim=replace(spec.optim, batch_tokens=1024), tokens=12 * 1024)
        for layout, most in MOST.items():
            took: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(ROUNDS):
                for share, found in took.items():
                    found.append(max(ranks.run(spent, layout.world_size, spec, layout, share, seconds=300)))
            alone, shared = (statistics.median(took[share]) for share in (False, True))
            print(f"{layout.describe()}: {shared:.2f} CPU-s a rank, and {alone:.2f} where each asks all")
            target(f"share_of_{layout.data}_{'shards' if layout.shard > 1 else 'replicas'}", shared / alone, "<=", most)


if __name__ == "__main__":
    main()
