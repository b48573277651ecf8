"""Ray Tune drives a search of hyperparameters whose trials are runs of the store.

Tune's ASHA stops trials and Optuna, through Tune's OptunaSearch, proposes them, both for each proxy by itself, all
proxies in one experiment so that no worker waits. What Tune keeps of it lies in a folder that is thrown away: what was
tried is in the store, and a search that starts again tells searcher and scheduler what is there, trains what is missing
and goes on. (Tune's own restore reads pickles, and ran finished trials again: its snapshots are periodic.)
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from gpt3core import costs
from gpt3core.errors import BusyError, StoppedError, UsageError
from gpt3core.evals.spec import EvalSpec
from gpt3core.numerics import Numerics
from gpt3core.spec import RunSpec, as_dict, from_dict
from gpt3core.store.rundir import RunDir
from sweeps.cluster import scratch, worker
from sweeps.cluster.connect import Connection
from sweeps.cluster.job import Assignment, Job
from sweeps.driving.searching import Known, Ledger, Say, loss_at, rung_step
from sweeps.planning import search
from sweeps.planning.recipe import Placement
from sweeps.planning.search import Search
from sweeps.scheduling.inventory import Resources

METRIC, TIME = "loss", "percent"
WHOLE = 100  # percent
BUSY_SECONDS, BUSY_TRIES = 2.0, 30  # a worker of a killed driver holds its run until Ray has ended it


@dataclass(frozen=True, kw_only=True)
class Given:
    """What every trial's worker needs to know."""

    root: Path
    evals: EvalSpec
    rungs: tuple[float, ...]
    device: str
    threads: int
    numerics: Numerics
    checkpoint_seconds: float


class Trial(tune.Trainable):
    """A trial: a run trained from rung to rung, with its checkpoint at each, and evaluated at its end."""

    def setup(self, config: dict[str, Any], given: Given | None = None) -> None:
        """Begin, in a process of its own."""
        assert given is not None, "tune.with_parameters gives it"
        self.given = given
        self._take(config)

    def _take(self, config: dict[str, Any]) -> None:
        """Take a run up, wherever it stands."""
        given = self.given
        self.spec: RunSpec = from_dict(RunSpec, json.loads(config["spec"]))
        self.run = RunDir(given.root, self.spec.run_id)
        self.ahead = [share for share in given.rungs if loss_at(self.run, self.spec, share) is None]
        self.behind = [share for share in given.rungs if share not in self.ahead]

    def reset_config(self, config: dict[str, Any]) -> bool:
        """Another run, in the process that has imported everything already."""
        self._take(config)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next rung or to the end, and say the loss there."""
        if self.behind:  # it got there before: Tune has to hear of it again
            return self._at(self.behind.pop(0))
        while self.ahead:
            share = self.ahead.pop(0)
            result = self._train(rung_step(self.spec, share))
            if result is None and loss_at(self.run, self.spec, share) is not None:
                return self._at(share)
            if result is not None:
                return self._ended(result)
            self.ahead.insert(0, share)  # a checkpoint was damaged, and the run went back
        result = self._train(None)
        assert result is not None, "a run that is not stopped ends"
        return self._ended(result)

    def _at(self, share: float) -> dict[str, Any]:
        loss = loss_at(self.run, self.spec, share)
        return {METRIC: loss, TIME: WHOLE * share, "done": False}

    def _ended(self, result: Mapping[str, Any]) -> dict[str, Any]:
        return {METRIC: self._held_out(result), TIME: WHOLE, "done": True}

    def _held_out(self, result: Mapping[str, Any]) -> float:
        from sweeps.driving.results import held_out_loss
        from sweeps.driving.searching import DIVERGED

        measured = None if result["status"] == "diverged" else held_out_loss(self.run, self.given.evals)
        return DIVERGED if measured is None else measured[0]

    def _train(self, until: int | None) -> dict[str, Any] | None:
        """Train up to a step, where a checkpoint is written and None returned, or to the end."""
        from gpt3core import run as runs

        for left in reversed(range(BUSY_TRIES)):
            begun = (self.run.checkpoint_steps() or [0])[-1]
            count = iter(range(begun + 1, self.spec.steps + 2))
            stop = (lambda: False) if until is None else (lambda steps=count: next(steps) >= until)
            try:
                return runs.run(
                    self.spec,
                    self.given.evals,
                    self.given.root,
                    threads=self.given.threads,
                    suggested=self.given.numerics,
                    device=self.given.device,
                    checkpoint_seconds=self.given.checkpoint_seconds,
                    stop=stop,
                )
            except StoppedError:
                return None
            except BusyError:
                if not left:
                    raise
                time.sleep(BUSY_SECONDS)
        raise AssertionError

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing of Tune's: the store has the run's."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """The store has it."""


class Proposals(Searcher):
    """Says which trial is next: first those that were cut off, then the proxy with the fewest, by its own searcher."""

    def __init__(self, ledger: Ledger, known: list[Known], seed: int) -> None:
        super().__init__(metric=METRIC, mode="min")
        self._ledger, asked = ledger, ledger.asked
        self._again = [trial for trial in known if not trial.ended]
        self._counts = {p.number: sum(t.proxy == p.number for t in known) for p in ledger.proxies}
        self._mine: dict[str, tuple[int, bool]] = {}  # trial -> its proxy, and whether its searcher proposed it
        self._searchers = {
            p.number: _searcher(asked, [t for t in known if t.proxy == p.number], seed + p.number)
            for p in ledger.proxies
        }

    def suggest(self, trial_id: str) -> Any:
        """A configuration, whose run is written down."""
        if self._again:
            trial = self._again.pop(0)
            run = RunDir(self._ledger.sweep.root, trial.run_id).spec()
            self._mine[trial_id] = trial.proxy, False
            return self._config(trial.proxy, run)
        proxy = min(self._counts, key=lambda number: (self._counts[number], number))
        if self._counts[proxy] >= self._ledger.asked.trials:
            return Searcher.FINISHED
        factors = self._searchers[proxy].suggest(trial_id)
        if factors in (None, Searcher.FINISHED):
            return factors
        self._counts[proxy] += 1
        self._mine[trial_id] = proxy, True
        return self._config(proxy, search.trial(self._ledger.proxies[proxy], factors))

    def _config(self, proxy: int, run: RunSpec) -> dict[str, Any]:
        self._ledger.ask(run)
        return {"proxy": proxy, "run_id": run.run_id, "spec": json.dumps(as_dict(run))}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the proxy's searcher: a stopped trial with the loss that it had, which its end would have been below."""
        proxy, proposed = self._mine.pop(trial_id)
        if proposed:
            self._searchers[proxy].on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store has what was tried."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


def _searcher(asked: Search, known: list[Known], seed: int) -> Any:
    """Tune's OptunaSearch over a proxy's space, told of what was tried."""
    try:
        import optuna
        from ray.tune.search.optuna import OptunaSearch
    except ImportError as error:
        raise UsageError("a search of hyperparameters needs Optuna: pip install 'isoflop[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space: dict[str, Any] = {}
    for name in ("lr", "batch"):
        low, high = getattr(asked, name)
        space[name] = optuna.distributions.FloatDistribution(low, high, log=True)
    for name in ("warmup_fraction", "final_fraction"):
        if choices := getattr(asked, name):
            space[name] = optuna.distributions.CategoricalDistribution(choices)
    seed += 1009 * len(known)  # one that goes on does not propose the first ones again
    sampler: Any
    if asked.searcher == "tpe":
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(6, asked.trials // 3))
    elif asked.searcher == "random":
        sampler = optuna.samplers.RandomSampler(seed=seed)
    else:
        sampler = optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False)
    found: Any = OptunaSearch(space, metric=METRIC, mode="min", sampler=sampler)
    for trial in (trial for trial in known if trial.ended):
        value = trial.loss if trial.loss is not None else (trial.stopped or {}).get("training_loss")
        found.add_evaluated_point(trial.factors, value)
    return found


class EachProxy(FIFOScheduler):
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934) for the trials of each proxy by itself."""

    def __init__(self, ledger: Ledger, known: list[Known], say: Say) -> None:
        super().__init__()
        asked = ledger.asked
        self._ledger, self._say = ledger, say
        self._halving = {
            proxy.number: ASHAScheduler(
                time_attr=TIME,
                metric=METRIC,
                mode="min",
                max_t=WHOLE,
                grace_period=WHOLE * asked.first_rung,
                reduction_factor=asked.reduction,
            )
            for proxy in ledger.proxies
        }
        for trial in known:
            if trial.ended:
                self._tell(trial)

    def _tell(self, trial: Known) -> None:
        """What an earlier trial had at its rungs."""
        stand_in, halving = _StandIn(trial.run_id), self._halving[trial.proxy]
        halving.on_trial_add(None, stand_in)
        for share, loss in sorted(trial.rungs.items()):
            halving.on_trial_result(None, stand_in, {TIME: WHOLE * share, METRIC: loss})

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial begins."""
        self._halving[trial.config["proxy"]].on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Go on or stop; a stop is written down first."""
        action = self._halving[trial.config["proxy"]].on_trial_result(tune_controller, trial, result)
        run_id = trial.config["run_id"]
        if action == TrialScheduler.STOP and result[TIME] < WHOLE:
            self._ledger.stop(run_id, result[TIME] / WHOLE, result[METRIC])
            self._say(f"stopped {run_id} at {result[TIME]:.0f}%: training loss {result[METRIC]:.4f}")
        return str(action)

    def debug_string(self) -> str:
        """For Tune's own display."""
        return "successive halving for each proxy"

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store has what was tried."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _StandIn:
    """What a scheduler needs of a trial that is over."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


class Telling(tune.Callback):
    """Says what became of the trials."""

    def __init__(self, ledger: Ledger, say: Say) -> None:
        self._ledger, self._say = ledger, say

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """A trial's end, with its loss."""
        if result.get("done") and result[TIME] >= WHOLE:
            run_id = trial.config["run_id"]
            self._ledger.sweep.event("done", run_id=run_id)
            words = self._ledger.proxies[trial.config["proxy"]].words
            self._say(f"done    {run_id} ({words}): loss {result[METRIC]:.4f}")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial failed."""
        self._ledger.sweep.event("failed", run_id=trial.config["run_id"])
        self._say(f"failed  {trial.config['run_id']}: {trial.error_file or 'see its log'}")


def prepare(connection: Connection, ledger: Ledger, run: RunSpec, place: Placement, device: str) -> Numerics:
    """Text and numerics, once for all trials, on the kind of worker that trains them."""
    if chosen := ledger.record.numerics.get(device):
        return Numerics(**chosen)
    shape = Resources(cpus=place.cpus, gpus=place.gpus)
    threads = max(1, int(place.cpus))
    job = Job(spec=run, evals=ledger.evals, root=ledger.sweep.root, device=device, threads=threads)
    assignment = Assignment(entry="", run_id=run.run_id, job=job, node="", shape=shape)
    task = connection.ray.remote(num_cpus=place.cpus, num_gpus=place.gpus, max_retries=0)(_prepared)
    numerics: dict[str, str] = connection.ray.get(task.remote(assignment))
    ledger.settle(device, numerics)
    return Numerics(**numerics)


def _prepared(assignment: Assignment) -> dict[str, str]:
    found: dict[str, str] = worker.prepare(assignment, lambda _: None, lambda: False)["numerics"]
    return found


def run(connection: Connection, ledger: Ledger, place: Placement, *, seed: int, say: Say) -> bool:
    """Search until every proxy has had its trials; False where it was interrupted.

    Args:
        connection: made before this file is imported, for Ray reads its environment when it is.
    """
    known = ledger.known()
    device = "cuda" if place.gpus else "cpu"
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    largest = max(ledger.proxies, key=lambda proxy: costs.train_flops(proxy.base.model, proxy.base.tokens))
    given = Given(
        root=ledger.sweep.root,
        evals=ledger.evals,
        rungs=tuple(search.rungs(ledger.asked)),
        device=device,
        threads=max(1, int(place.cpus)),
        numerics=prepare(connection, ledger, largest.base, place, device),
        checkpoint_seconds=place.checkpoint_seconds,
    )
    folder = scratch.make()
    try:
        return _fit(ledger, known, given, place, seed, say, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fit(ledger: Ledger, known: list[Known], given: Given, place: Placement, seed: int, say: Say, folder: str) -> bool:
    trainable = tune.with_resources(tune.with_parameters(Trial, given=given), {"cpu": place.cpus, "gpu": place.gpus})
    halving = EachProxy(ledger, known, say) if ledger.asked.scheduler == "asha" else FIFOScheduler()
    wanted = ledger.asked.trials * len(ledger.proxies)
    left = wanted - len(known) + sum(not trial.ended for trial in known)
    if left <= 0:
        return True
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=Proposals(ledger, known, seed),
            scheduler=halving,
            num_samples=left,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=folder,
            verbose=0,
            callbacks=[Telling(ledger, say)],
            failure_config=tune.FailureConfig(max_failures=place.max_failures),
        ),
    )
    tuner.fit()
    after = ledger.known()
    return len(after) >= wanted and all(trial.ended for trial in after)
