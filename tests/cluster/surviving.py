"""A sweep of one gang that trains for some seconds on a real cluster, and what is done to it meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gpt3core import run as runs
from gpt3core.data import corpus
from gpt3core.parallel import mesh
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.driving import driver, taking
from sweeps.planning import grid, recipe
from tests.conftest import write_corpus

NOTED, ONE_AHEAD = "tests.cluster.bodies:noted", "tests.cluster.bodies:one_ahead"
RECIPE = """
name: gang
family: shapes
shapes: [{{n_layer: 2, d_model: 16, n_head: 2}}]
tokens: [{tokens}]
min_tokens: 100
model: {{n_ctx: 32, band: 6}}
optim: {{batch_tokens_min: 256, batch_tokens_max: 256, lr_max: 0.003}}
evals: {{tasks: [], validation_tokens: 2048}}
precision: fp32
kernel: softmax
data: {{corpus: {text}, tokenizer: "gpt2:300"}}
placement: {{checkpoint_seconds: 0.2}}
"""


@dataclass
class Heard:
    """What a driver says, and the last of what it shows."""

    lines: list[str] = field(default_factory=list)

    def say(self, line):
        self.lines.append(line)

    def show(self, snapshot): ...
    def close(self): ...


class Gang:
    """A sweep of one run, and its folder."""

    def __init__(self, folder: Path, *words: str, steps: int = 1200) -> None:
        self.root, text = folder / "root", write_corpus(folder / "text", documents=1500)
        (folder / "gang.yaml").write_text(RECIPE.format(tokens=256 * steps, text=text))
        self.recipe = recipe.load([f"recipe={folder / 'gang.yaml'}", *words])
        self.cells = grid.build(self.recipe, corpus.fingerprint(str(text)))
        (self.spec,) = self.cells.runs
        self.run, self.heard = RunDir(self.root, self.spec.run_id), Heard()

    def drive(self, launcher, chaos: Callable[[], None], *, waits: bool = False) -> None:
        """Drive the sweep to its end; ``chaos`` goes on beside it once the run has a checkpoint.

        Args:
            waits: the run waits in its third step to be stopped, and ``chaos`` goes on then.
        """
        if waits:
            files.make_folder(self.root)
            (self.root / "ahead").touch()

        def later():
            while not ((self.root / "waits").exists() if waits else self.run.checkpoint_steps()):
                time.sleep(0.05)
            chaos()
            while waits and len(self.run.attempts()) < 2:
                time.sleep(0.05)
            (self.root / "release").touch()

        threading.Thread(target=later, daemon=True).start()
        sweep = SweepDir(self.root, self.recipe.name)
        with sweep.owned():
            taken = taking.take(self.recipe, self.cells, sweep)
            entry = ONE_AHEAD if waits else NOTED
            outcome = driver.Driver(self.recipe, taken, launcher, self.heard, entry=entry).drive()
        assert outcome.done == [self.spec.run_id], (outcome, self.heard.lines)

    def ranks(self) -> list[tuple[int, str, int]]:
        """The process, the node and the number of ranks that each rank noted last."""
        found = [path.read_text().split() for path in sorted((self.root / "pids").iterdir())]
        return [(int(pid), node, int(size)) for pid, node, size in found]

    def events(self, what: str) -> list[dict]:
        """Of the sweep's log."""
        return [event for event in SweepDir(self.root, self.recipe.name).events() if event["event"] == what]

    def sizes(self) -> list[int]:
        """The number of data-parallel ranks of each attempt that began to train, and the step that it began at."""
        events = [e for a in self.run.attempts() for e in files.read_lines(a / "events.jsonl")]
        return [event["layout"]["data"] for event in events if event["event"] == "start"]

    def assert_same_bits(self, folder: Path, one: Callable) -> None:
        """The same curve, to the last bit, as a gang that nobody disturbed."""
        one(train, len(self.ranks()), str(folder), self.spec, self.cells.evals)
        there = RunDir(folder, self.spec.run_id)
        for column in ("loss", "grad_norm", "tokens"):
            assert self.run.curve()[column].tolist() == there.curve()[column].tolist()
        held_out = [run.evaluation(self.cells.evals.eval_id)["loss"].tolist() for run in (self.run, there)]
        assert held_out[0] == held_out[1]

    def assert_close(self, folder: Path, tolerance: float) -> float:
        """The same text step by step, and losses as near as another layout's; the largest difference."""
        runs.run(self.spec, self.cells.evals, folder)
        here, there = self.run.curve(), RunDir(folder, self.spec.run_id).curve()
        assert here.tokens.tolist() == there.tokens.tolist()
        assert here.loss.tolist() == pytest.approx(there.loss.tolist(), abs=tolerance)
        return float((here.loss - there.loss).abs().max())


def train(rank, size, address, root, spec, evals):
    """A rank of a gang that nobody disturbs."""
    with mesh.joined(rank, size, address, "cpu") as here:
        return runs.run(spec, evals, Path(root), mesh=here, checkpoint_seconds=1e9)
