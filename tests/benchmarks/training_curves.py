"""Approach 1 on simulated training curves whose law is known, and what reading a large sweep's curves costs.

``python -m tests.benchmarks.training_curves``

The curves are those of tests.analysis.test_training_curves: Tissue et al.'s annealing law, a form that the correction
does not have. Printed for each kind of ladder: bias and standard deviation of a, how often its 95% interval covers the
truth, and the bias of the lowest curves as they were trained. Then the CPU time of reading and of fitting 200 runs of
10,000 steps in parts of 500.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from analysis.estimation import training_curves
from analysis.runs import curves
from gpt3core.sizes import nano
from gpt3core.spec import DataSpec, OptimSpec, RunSpec
from gpt3core.store.rundir import RunDir
from tests.analysis.test_training_curves import A_OPT, ladder
from tests.benchmarks.target import target

SEEDS, RUNS, STEPS, PART = 60, 200, 10_000, 500
KINDS = {
    "5 budgets, 2 decades, noise 0.1%": {"noise": 0.001, "batch": 0.02},
    "4 budgets, 1.5 decades, noise 0.3%": {"budgets": 4, "decades": 1.5, "noise": 0.003, "batch": 0.02},
    "3 budgets, 1 decade, noise 0.2%": {"budgets": 3, "decades": 1.0, "noise": 0.002, "batch": 0.02},
    "5 budgets, few sizes, noise 0.2%": {"noise": 0.002, "ratio": 2.2},
    "5 budgets, narrow, noise 0.2%": {"noise": 0.002, "span": 2.0},
}


def known_truth() -> None:
    """Coverage and bias of a."""
    worst, biases = 1.0, []
    for name, kind in KINDS.items():
        errors, raw, covered = [], [], []
        for seed in range(SEEDS):
            runs = ladder(seed, **kind)
            found = training_curves.envelope_of(runs)
            if found.reason:
                continue
            errors.append(found.a - A_OPT)
            covered.append(found.interval_a[0] <= A_OPT <= found.interval_a[1])
            with mock.patch.object(training_curves, "_at_the_end", lambda cells, _: (cells.ln_loss, 0 * cells.ln_loss)):
                raw.append(np.log(training_curves.foreseen(runs, 1e20) / training_curves.foreseen(runs, 1e19)))
        as_trained = np.mean(raw) / np.log(10) - A_OPT
        print(
            f"{name:36s} of {len(errors)} ladders: bias {np.mean(errors):+.3f}, sd {np.std(errors):.3f}, covers "
            f"{np.mean(covered):.0%}; as trained: bias {as_trained:+.3f}"
        )
        worst, biases = min(worst, float(np.mean(covered))), [*biases, abs(float(np.mean(errors)))]
    target("training_curves_least_coverage_percent", 100 * worst, ">=", 88)
    target("training_curves_median_bias_of_a", float(np.median(biases)), "<=", 0.01)


def written(root: Path) -> pd.DataFrame:
    """A store's folder of 200 runs of 10,000 steps, as points."""
    rng, rows = np.random.default_rng(0), []
    step = np.arange(1, STEPS + 1)
    for i, run in enumerate(ladder(ratio=1.07, noise=0.001).found[:RUNS]):
        tokens = STEPS * 512
        spec = RunSpec(
            model=nano(32, n_layer=2, n_ctx=128, vocab_size=1024, attention="dense", band=4),
            data=DataSpec(corpus="starter", corpus_sha256="0" * 64),
            optim=OptimSpec(lr=0.01, batch_tokens=512, warmup_tokens=tokens // 5, decay_tokens=tokens),
            tokens=tokens,
            seed=i,
        )
        folder = RunDir(root, spec.run_id)
        folder.create(spec)
        attempt = folder.new_attempt()
        smooth = np.exp(np.interp(step / STEPS, run.progress, run.ln_loss, left=2.0))
        loss = smooth + 0.05 * rng.standard_normal(STEPS)
        for at in range(0, STEPS, PART):
            part = {"step": step[at : at + PART], "tokens": 512 * step[at : at + PART], "loss": loss[at : at + PART]}
            part |= {"lr": part["loss"], "grad_norm": part["loss"]}
            folder.write_metrics(attempt, {name: list(values) for name, values in part.items()})
        rows.append({"run_id": spec.run_id, "N": run.n, "D": run.d, "C": run.c, "loss": run.loss, "epochs": 0.5})
    return pd.DataFrame(rows)


def main() -> None:
    """Print all of it."""
    known_truth()
    with tempfile.TemporaryDirectory() as folder:
        table = written(Path(folder))
        began = time.process_time()
        found = curves.read(Path(folder), table)
        read = time.process_time() - began
        fitted = training_curves.envelope_of(found)
        spent = time.process_time() - began
    assert len(found.found) == len(table)
    assert not fitted.reason
    print(f"{len(table)} runs of {STEPS:,} steps in {STEPS // PART} parts: read {read:.2f} CPU-s, in all {spent:.2f}")
    target("training_curves_200_runs_cpu_seconds", spent, "<=", 6)


if __name__ == "__main__":
    main()
