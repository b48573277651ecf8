"""A simulated store: runs that follow a known law exactly, without training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpt3core.evals.runner import COLUMNS
from gpt3core.evals.spec import QUESTION
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from sweeps.planning import grid, recipe

A, ALPHA, B, BETA, E = 6.0, 0.25, 30.0, 0.30, 1.2


def true_loss(n, d):
    return E + A * (n / 1e3) ** -ALPHA + B * (d / 1e3) ** -BETA


def make_store(
    root: Path,
    *settings: str,
    noise: float = 0.0,
    evals: bool = True,
    asked: str = "laptop",
    text: float = 8e6,
    domains: dict[str, float] | None = None,
) -> list[str]:
    """A finished sweep of a recipe (laptop) whose losses follow ``true_loss``; returns its run_ids.

    Args:
        domains: of its held-out text, whose losses are so many times the loss.
    """
    chosen = recipe.load([f"recipe={asked}", *settings])
    rng = np.random.default_rng(0)
    open_root(root, create=True)
    cells = grid.build(chosen, "0" * 64)
    runs, sweep = cells.runs, SweepDir(root, chosen.name)
    with sweep.owned():
        record = SweepRecord(runs=tuple(r.run_id for r in runs), evals=cells.evals, min_tokens=chosen.min_tokens)
        sweep.write_record(record)
        sweep.write_recipe(recipe.to_yaml(chosen))
        sweep.event("driver")
    from gpt3core import costs

    for spec in runs:
        run = RunDir(root, spec.run_id)
        run.create(spec)
        attempt = run.new_attempt()
        counts = costs.params(spec.model)
        loss = true_loss(counts.nonembedding, spec.tokens) * float(np.exp(noise * rng.standard_normal()))
        steps = list(range(1, 11))
        curve = {"step": steps, "tokens": [s * 100 for s in steps], "loss": [loss + 1 / s for s in steps]}
        run.write_metrics(attempt, {**curve, "lr": [1e-3] * len(steps), "grad_norm": [1.0] * len(steps)})
        scores = few_shot(np.log10(costs.train_flops(spec.model, spec.tokens)), rng) if evals else []
        held_out = dict(zip(QUESTION, cells.evals.questions[0], strict=True))
        held_out |= {"loss": loss, "loss_se": 0.01, "bits_per_byte": loss / 1.6}
        for name, factor in (domains or {}).items():
            held_out |= {f"loss.{name}": factor * loss, f"loss_se.{name}": 0.02, f"bits_per_byte.{name}": factor}
        rows = [held_out, *scores]
        run.write_evaluation(
            cells.evals.eval_id,
            {name: [row.get(name) for row in rows] for name in dict.fromkeys([*COLUMNS, *held_out])},
        )
        result = {"status": "done", "gpu_hours": 0.0, "cost": 0.0, "tokens_per_second": 1e4, "mfu": None}
        result |= {"train_seconds": spec.tokens / 1e4, "device_seconds": spec.tokens / 1e4}
        result |= {"attempts": 1, "epochs": spec.tokens / text, "precision": "bf16", "kernel": "softmax"}
        run.finish(result)
    return sorted(r.run_id for r in runs)


def few_shot(log_compute: float, rng: np.random.Generator) -> list[dict]:
    """One task that rises with compute, one at chance, and a cell that does not fit."""
    rows = []
    for task, p in (("rising", 0.25 + 0.75 / (1 + np.exp(-(log_compute - 12.5)))), ("guessing", 0.25)):
        for shots in (0, 4, 16):
            fits = shots < 16
            accuracy = float(rng.binomial(400, p) / 400) if fits else None
            rows.append(
                {
                    "task": task,
                    "shots": shots,
                    "items": 400,
                    "fits": fits,
                    "metric": "choice" if fits else None,
                    "accuracy": accuracy,
                    "accuracy_se": 0.02 if fits else None,
                    "logprob": -5.0 + 0.3 * log_compute if fits else None,
                    "logprob_se": 0.1 if fits else None,
                    "chance": 0.25,
                    "prior_accuracy": 0.26,
                    "prior_logprob": -4.0,
                }
            )
    return rows
