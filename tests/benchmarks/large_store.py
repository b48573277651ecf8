"""A store of thousands of runs, written as workers and a driver write it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from gpt3core import costs
from gpt3core.spec import RunSpec
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from sweeps.planning import grid, recipe
from tests.analysis.synthetic import true_loss

POINTS = 1000
QUESTION = {"task": "held_out", "shots": 0, "items": 262_144, "version": 3, "draw": 0, "content": "", "fits": True}


class Written:
    """A sweep of a store, written run by run as workers and a driver write it."""

    def __init__(self, root: Path, runs: int) -> None:
        self.root, self.sweep = root, SweepDir(root, "large")
        cells = grid.build(recipe.load(["recipe=laptop", "name=large"]), "0" * 64)
        some = cells.runs
        self.specs = [replace(some[i % len(some)], seed=i // len(some)) for i in range(runs)]
        self.evals, self.rng = cells.evals, np.random.default_rng(0)
        self.ended = 0

    def begin(self) -> None:
        """Ask for all runs."""
        open_root(self.root, create=True)
        with self.sweep.owned():
            self.sweep.write_recipe(recipe.to_yaml(recipe.load(["recipe=laptop", "name=large"])))
            ids = tuple(spec.run_id for spec in self.specs)
            self.sweep.write_record(SweepRecord(runs=ids, evals=self.evals))
        for spec in self.specs:
            RunDir(self.root, spec.run_id).create(spec)

    def end(self, count: int) -> None:
        """Train the next runs to their end."""
        for spec in self.specs[self.ended : self.ended + count]:
            loss = self._train(RunDir(self.root, spec.run_id), spec)
            for event, more in (("took", {"gpus": 0.0, "cores": 1.0}), ("finished", {"status": "done", "loss": loss})):
                self.sweep.event(event, run_id=spec.run_id, **more)
            self.sweep.event("freed", run_id=spec.run_id, seconds=60.0, gpus=0.0, cores=1.0)
        self.ended = min(len(self.specs), self.ended + count)

    def tell(self, step: int) -> None:
        """How it stands, by a driver that is this process."""
        left = [spec.run_id for spec in self.specs[self.ended :]]
        live = {"phase": "training", "step": step % POINTS, "steps": POINTS, "loss": 3.0, "tokens_per_second": 1e4}
        waiting = [{"reason": "behind", "count": len(left[2:]), "runs": left[2:22], "starts": []}]
        self.sweep.write_status(
            {
                **{"sweep": "large", "state": "driving", "time": time.time(), "host": os.uname().nodename},
                **{"pid": os.getpid(), "nodes": 1, "asked": len(self.specs), "done": self.ended, "damage": []},
                **{"running": dict.fromkeys(left[:2], live), "waiting": waiting if left[2:] else []},
                **{"eta_seconds": 600.0, "unit": "core", "taken": {"hours": 1.0, "usd": 0.0}},
            }
        )

    def _train(self, run: RunDir, spec: RunSpec) -> float:
        attempt = run.new_attempt()
        run.event(attempt, "start", host="node", pid=1, precision="fp32", kernel="softmax")
        steps = np.arange(1, POINTS + 1)
        tokens = steps * (spec.tokens // POINTS)
        loss = true_loss(costs.params(spec.model).nonembedding, tokens) * np.exp(
            0.02 * self.rng.standard_normal(POINTS)
        )
        columns = {"step": steps, "tokens": tokens, "loss": loss, "lr": spec.optim.lr / steps, "grad_norm": 1 / loss}
        run.write_metrics(attempt, {name: values.tolist() for name, values in columns.items()})
        final = float(loss[-10:].mean())
        measured = {**QUESTION, "loss": final, "loss_se": 0.01, "bits_per_byte": final / 1.6}
        empty = ("metric", "accuracy", "accuracy_se", "logprob", "logprob_se", "chance", "prior_accuracy")
        run.write_evaluation(self.evals.eval_id, {n: [measured.get(n)] for n in [*measured, *empty, "prior_logprob"]})
        result = {
            "status": "done",
            "gpu_hours": 0.0,
            "cost": 0.0,
            "tokens_per_second": 1e4,
            "mfu": None,
            "steps": POINTS,
        }
        run.finish(
            {**result, "attempts": 1, "epochs": 0.5, "precision": "fp32", "kernel": "softmax", "train_seconds": 60.0}
        )
        return final


def made(folder: Path, runs: int, left: int) -> Written:
    """A store of so many runs, of which the last few are still to come."""
    written = Written(folder / f"{runs}", runs)
    if (written.root / "whole").exists():
        written.ended = len(list(written.root.glob("runs/*/result.json")))
        return written
    began = time.monotonic()
    written.begin()
    written.end(runs - left)
    (written.root / "whole").touch()
    print(f"{runs:,} runs of {POINTS:,} points written in {time.monotonic() - began:.0f} s", flush=True)
    return written
