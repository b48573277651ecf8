"""What a search of hyperparameters has tried, by the store: trials that ended, were stopped, or go on; no Ray here.

A trial is a run of the store with its run_id, checkpoints and result. What was asked is written down before it starts,
and that one was stopped before the scheduler hears of it, so that a driver that is killed anywhere is followed by one
that trains what is missing and nothing twice. A stopped trial has no result: no fit sees it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from gpt3core.errors import StoreError
from gpt3core.evals.spec import EvalSpec
from gpt3core.spec import RunSpec
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from sweeps.driving.results import held_out_loss
from sweeps.planning import search
from sweeps.planning.search import Proxy, Search

RUNG_SHARE = 0.1  # of a run: the training loss at a rung is the mean over so much before it
DIVERGED = 100.0  # a loss that is worse than any, for searchers that take no infinity


@dataclass(kw_only=True)
class Known:
    """A trial that was asked before."""

    run_id: str
    proxy: int
    factors: dict[str, float]
    rungs: dict[float, float] = field(default_factory=dict)  # share of the run -> training loss there
    loss: float | None = None  # held out, at its end
    stopped: dict[str, float] | None = None  # where and with what loss, for a trial that was stopped

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to train of it."""
        return self.loss is not None or self.stopped is not None


class Ledger:
    """Reads and writes what a search has tried, for its one driver."""

    def __init__(
        self, sweep: SweepDir, proxies: list[Proxy], asked: Search, evals: EvalSpec, min_tokens: float
    ) -> None:
        self.sweep, self.proxies, self.asked, self.evals = sweep, proxies, asked, evals
        self.record = sweep.record() or SweepRecord(runs=())
        self.record = replace(self.record, evals=evals, min_tokens=min_tokens)
        self.strangers: list[str] = []  # runs of the sweep that are no trial of these proxies

    def known(self) -> list[Known]:
        """The trials that were asked before, as they stand."""
        found = []
        self.strangers = []
        for run_id in self.record.runs:
            trial = self._trial(run_id)
            if trial is None:
                self.strangers.append(run_id)
            else:
                found.append(trial)
        return found

    def _trial(self, run_id: str) -> Known | None:
        run = RunDir(self.sweep.root, run_id)
        try:
            spec = run.spec()
        except StoreError:
            return None
        for proxy in self.proxies:
            if (factors := search.factors_of(proxy, spec, self.asked)) is not None:
                trial = Known(run_id=run_id, proxy=proxy.number, factors=factors, loss=self.loss(run_id))
                if trial.loss is None:
                    trial.stopped = self.record.pruned.get(run_id)
                trial.rungs = {
                    share: loss for share in search.rungs(self.asked) if (loss := loss_at(run, spec, share)) is not None
                }
                return trial
        return None

    def loss(self, run_id: str) -> float | None:
        """The held-out loss of a run that ended; DIVERGED of one that diverged, None of any other."""
        run = RunDir(self.sweep.root, run_id)
        result = run.result()
        if result is None or not run.complete(result, self.evals.eval_id):
            return None
        if result["status"] == "diverged":
            return DIVERGED
        measured = held_out_loss(run, self.evals)
        return DIVERGED if measured is None else measured[0]

    def ask(self, run: RunSpec) -> None:
        """Write down that a run is a trial, before it starts."""
        RunDir(self.sweep.root, run.run_id).create(run)
        if run.run_id not in self.record.runs:
            self._keep(runs=(*self.record.runs, run.run_id))
            self.sweep.event("asked", run_id=run.run_id)

    def stop(self, run_id: str, share: float, loss: float) -> None:
        """Write down that a trial ends at a rung, before anybody stops it."""
        figures = {"share_of_run": share, "training_loss": loss}
        self._keep(pruned={**self.record.pruned, run_id: figures})
        self.sweep.event("pruned", run_id=run_id, **figures)

    def write(self, recipe: str) -> None:
        """Write the record, and the recipe as YAML."""
        self.sweep.write_record(self.record)
        self.sweep.write_recipe(recipe)

    def settle(self, device: str, numerics: dict[str, str]) -> None:
        """Keep what "auto" means in this search."""
        self._keep(numerics={**self.record.numerics, device: numerics})

    def _keep(self, **changes: Any) -> None:
        self.record = replace(self.record, **changes)
        self.sweep.write_record(self.record)


def loss_at(run: RunDir, spec: RunSpec, share: float) -> float | None:
    """The training loss of a run at a share of its steps: the mean over RUNG_SHARE of them; None before that."""
    step = rung_step(spec, share)
    curve = run.curve(("step", "loss"))
    rows = curve[(curve.step > step - max(1, round(RUNG_SHARE * spec.steps))) & (curve.step <= step)]
    if curve.empty or curve.step.max() < step or rows.empty:
        return None
    mean = float(rows.loss.mean())
    return mean if math.isfinite(mean) else DIVERGED


def rung_step(spec: RunSpec, share: float) -> int:
    """The step of a rung."""
    return max(1, math.ceil(share * spec.steps))


Say = Callable[[str], None]
