"""What the store tells of a sweep's runs when it is asked which may be pruned: losses, curves, forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.estimation import pruning
from analysis.estimation.curve_forecast import LEAST_POINTS, Curve, forecast_held_out
from analysis.estimation.design import FARTHER
from analysis.estimation.unfinished import so_far
from analysis.runs import rules
from analysis.runs.conventions import OTHER_N
from gpt3core import costs
from gpt3core.errors import StoreError
from gpt3core.evals.spec import EvalSpec
from gpt3core.spec import RunSpec
from gpt3core.store.rundir import RunDir
from sweeps.driving.results import held_out_loss
from sweeps.planning.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Where the runs of a sweep stand."""

    specs: Mapping[str, RunSpec]
    done: Sequence[str]
    running: Sequence[str]
    waiting: Sequence[str]
    pruned: Mapping[str, Mapping[str, Any]]  # with their figures


class Evidence:
    """Reads the store; what finished runs tell is read once."""

    def __init__(self, recipe: Recipe, root: Path, evals: EvalSpec) -> None:
        self._recipe, self._root, self._evals = recipe, root, evals
        self._finished: dict[str, dict[str, Any] | None] = {}
        self._curves: dict[str, Curve | None] = {}

    def figures(self, asked: Asked) -> dict[str, dict[str, Any]]:
        """The running runs that may be pruned now, each with what that rests on."""
        finished = self._table(asked)
        if len(finished) < pruning.LEAST_FINISHED:
            return {}
        epochs = (finished.D / finished.epochs).replace([np.inf], np.nan)
        text = float(epochs.median()) if epochs.notna().any() else np.inf
        forecasts = self._forecasts(asked, finished)
        budgets = all(run.budget_flops is not None for run in asked.specs.values())
        running = self._points(asked, [*forecasts], text, budgets=budgets)
        running[list(pruning.ENDS)] = np.array([*forecasts.values()]).reshape(-1, len(pruning.ENDS))
        told = set(running.run_id)
        blind = [i for i in asked.running if i not in told]  # too young for a forecast
        largest = max(costs.train_flops(run.model, run.tokens) for run in asked.specs.values())
        share = self._recipe.prune.by_value
        assert share is not None, "pruning is on"
        found = pruning.prune(
            finished if budgets else finished.drop(columns="budget_flops"),
            self._points(asked, [*asked.waiting, *blind], text, budgets=budgets),
            running.assign(pruned=running.run_id.isin(list(asked.pruned))),
            compute=self._recipe.prune.target or FARTHER * largest,
            share=share,
        )
        return {stop.run_id: {k: v for k, v in vars(stop).items() if k != "run_id"} for stop in found.stop}

    def _forecasts(self, asked: Asked, finished: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
        """Low, middle and high of the held-out loss: of running runs by their curves, of pruned ones as they were."""
        known = []
        for run_id, loss in zip(finished.run_id, finished.loss.astype(float), strict=True):
            if run_id not in self._curves:
                self._curves[run_id] = _usable(so_far(self._root, run_id))
            if (curve := self._curves[run_id]) is not None:
                known.append((curve, float(loss)))
        found = {i: (f["low"], f["middle"], f["high"]) for i, f in asked.pruned.items()}
        if len(known) >= pruning.LEAST_FINISHED:
            for run_id in asked.running:
                curve = _usable(so_far(self._root, run_id))
                if curve is not None:
                    found[run_id] = forecast_held_out(curve, known)
        return {run_id: found[run_id] for run_id in sorted(found)}

    def _table(self, asked: Asked) -> pd.DataFrame:
        """The runs that ended with a loss and pass the rules, as points."""
        for run_id in asked.done:
            if run_id not in self._finished:
                self._finished[run_id] = self._row(asked.specs[run_id])
        rows = [row for run_id in sorted(asked.done) if (row := self._finished[run_id]) is not None]
        if not rows:
            return pd.DataFrame(columns=["run_id"])
        return rules.apply(pd.DataFrame(rows), min_tokens=self._recipe.min_tokens)[0]

    def _row(self, run: RunSpec) -> dict[str, Any] | None:
        folder = RunDir(self._root, run.run_id)
        try:
            result, loss = folder.result(), held_out_loss(folder, self._evals)
        except StoreError:
            return None
        if result is None or loss is None or result["status"] != "done":
            return None
        epochs = float(result.get("epochs") or 0.0)
        point = _point(run, run.tokens / max(1.0, epochs))
        return {**point, "loss": loss[0], "status": "done", "epochs": epochs, "budget_flops": run.budget_flops}

    def _points(self, asked: Asked, run_ids: Sequence[str], text: float, *, budgets: bool) -> pd.DataFrame:
        """Runs without a loss as points."""
        specs = [asked.specs[run_id] for run_id in run_ids]
        table = pd.DataFrame([_point(run, text) for run in specs], columns=["run_id", "N", OTHER_N, "D", "C", "U"])
        if budgets:
            table["budget_flops"] = np.array([run.budget_flops for run in specs], float)
        return table


def _usable(curve: Curve | None) -> Curve | None:
    return curve if curve is not None and len(curve.steps) >= LEAST_POINTS else None


def _point(run: RunSpec, text: float) -> dict[str, Any]:
    """A run as the laws see it.

    Args:
        text: tokens of unique text there are.
    """
    tokens = float(run.tokens)
    counts, flops = costs.params(run.model), costs.train_flops(run.model, run.tokens)
    n, other = float(counts.nonembedding), float(counts.total)
    return {"run_id": run.run_id, "N": n, OTHER_N: other, "D": tokens, "C": flops, "U": min(tokens, text)}
