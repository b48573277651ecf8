"""Ray Tune in front: a trial is one run of a sweep, and waits for it while the sweep's own driver and workers train it.

    from ray import tune
    from sweeps.cluster.tune import trainable
    space = {"optim.lr_max": tune.loguniform(1e-3, 3e-2)}
    tuner = tune.Tuner(trainable("recipe=smoke", "widths=[16]", "budgets=[1e10]", space=space), param_space=space)

Tune's searchers, schedulers and loggers see what the store has of the run; a stop of the trial is a request to the run
(checkpoint written, held), and a trial that comes back lets it go on. A trial holds no core and no GPU: those are the
runs'. Whoever kills the Tuner kills no run, and a run that is done is never trained again, whichever trial asks. Two
trials whose settings make one run share it: where one of them is stopped, the other ends as held.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.result import DONE, TRAINING_ITERATION

from gpt3core import cli, costs
from gpt3core.errors import StoreError, UsageError
from gpt3core.evals.spec import HELD_OUT, EvalSpec
from gpt3core.spec import RunSpec
from gpt3core.store import files, places, rundir
from gpt3core.store.proposals import Proposals
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.cluster import keeper
from sweeps.cluster.connect import Connection
from sweeps.cluster.pool import python_path
from sweeps.planning import grid, recipe
from sweeps.planning import text as texts

RUN = "run"  # the key of a space that picks one of the recipe's runs by its id
# what holds for the whole sweep, or for one command: no trial has it for itself
SWEEP_WIDE = (
    "recipe",
    "name",
    "family",
    "min_tokens",
    "adaptive",
    "prune",
    "evals",
    "placement",
    "plan",
    "data.corpus",
)
TRIAL_BYTES = 200_000_000  # of a trial's process: all that it holds
REPORTS = 20  # a run tells its training loss at so many equal parts of its tokens, the last time with its scores
LOOK_SECONDS, ENSURE_SECONDS = 0.5, 2.0
PATIENCE_SECONDS = 10.0  # after which a trial without news tells that it is there
WORDS = {"failed": "failed", "held": "is held", "pruned": "was pruned", "refused": "was refused"}


class RunFailedError(Exception):
    """The run that a trial waited for failed for good."""


@dataclass(frozen=True, kw_only=True)
class Door:
    """What all trials of a search share."""

    settings: tuple[str, ...]
    root: Path
    name: str
    corpus_sha256: str
    evals: EvalSpec
    reports: int
    variables: dict[str, str]  # environment of the sweep's driver


def trainable(*settings: str, space: Mapping[str, Any] | None = None, reports: int = REPORTS) -> Any:
    """What ``ray.tune.Tuner`` runs a trial of, for a search over a recipe's keys.

    Each trial's settings must describe one run; ``run`` in the space picks one of several by its id (``runs``). Where
    no Ray is connected, the cluster of RAY_ADDRESS is joined, or a local Ray started that ends with this process.

    Args:
        settings: of the sweep, as ``sweeps/sizes.py`` takes them.
        space: Tune's ``param_space``, whose keys are checked here, before anything starts.
        reports: results a trial has, at equal parts of its tokens, so that trials are compared at the same place.

    Raises:
        UsageError, StoreError: for settings or keys that cannot be.
    """
    from gpt3core.data import corpus

    chosen = recipe.load(settings)
    _check(settings, chosen, space or {}, reports)
    if not ray.is_initialized():
        atexit.register(Connection("isoflop-tune").close)
    door = Door(
        settings=tuple(settings),
        root=rundir.open_root(places.folder(rundir.default_root(), "a search with Ray Tune"), create=True),
        name=chosen.name,
        corpus_sha256=corpus.fingerprint(chosen.data.corpus),
        evals=grid.evaluation(chosen),
        reports=reports,
        variables={"PYTHONPATH": python_path(), **_cache()},
    )
    made = tune.with_parameters(Trial, door=door)
    return tune.with_resources(made, tune.PlacementGroupFactory([{"memory": TRIAL_BYTES}]))


def runs(*settings: str) -> list[str]:
    """The ids of a recipe's runs: with ``{"run": tune.grid_search(runs("recipe=laptop"))}`` Tune drives all of them."""
    from gpt3core.data import corpus

    chosen = recipe.load(settings)
    return [run.run_id for run in grid.build(chosen, corpus.fingerprint(chosen.data.corpus)).runs]


class Trial(tune.Trainable):
    """A trial: asks for its run, and tells what the store has of it."""

    def setup(self, config: dict[str, Any], door: Door) -> None:
        """Ask for the run, unless it is done."""
        self._door = door
        self._sweep = SweepDir(door.root, door.name)
        self._proposals = Proposals(self._sweep)
        self._begin(config)

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._over, self._told = True, 0  # over: there is nothing to stop yet
        self._parts: list[tuple[str, int]] = []
        self._points: list[tuple[float, float, float]] = []  # tokens, step, loss
        self._next = -math.inf
        self._run: RunSpec = one_run(self._door, config)
        self._folder = RunDir(self._door.root, self._run.run_id)
        self._folder.create(self._run)
        self._last: dict[str, Any] = {
            **{"run_id": self._run.run_id, "sweep": self._door.name, "label": self._run.run_id.rpartition("-")[0]},
            **{"status": "waiting", "step": 0, "tokens": 0, "flops": 0.0, "loss": math.nan, "train_loss": math.nan},
            **{"n_params": costs.params(self._run.model).nonembedding, TRAINING_ITERATION: 0},
        }
        if not self._complete():
            self._sweep.withdraw_stop(self._run.run_id)
            self._proposals.ask(self._run.run_id, self._door.evals.eval_id)
            self._over = False

    def step(self) -> dict[str, Any]:
        """The next result; after a while without news, the last one again."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            result = self._result()
            done = result is not None and self._folder.complete(result, self._door.evals.eval_id)
            if self._told < self._door.reports - 1 and (point := self._point(self._told + 1)):
                self._told += 1
                self._last |= point
            elif done:
                assert result is not None
                self._over = True
                self._last |= {**self._final(result), TRAINING_ITERATION: self._door.reports, DONE: True}
            elif answer := self._proposals.answered(self._run.run_id):
                self._over = True
                if answer["what"] in ("failed", "refused"):
                    raise RunFailedError(f"{self._run.run_id} {WORDS[answer['what']]}: {answer['reason']}")
                self._last |= {"status": answer["what"], DONE: True}
            elif time.monotonic() < deadline:
                self._ensure()
                time.sleep(LOOK_SECONDS)
                continue
            return dict(self._last)

    def cleanup(self) -> None:
        """The trial ends: a run that has not is asked to write its checkpoint, and is held."""
        if not self._over and not self._complete():
            self._sweep.request_stop(self._run.run_id)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Another trial in this process (``reuse_actors=True``)."""
        self.cleanup()
        self._begin(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Note the run: its state is in the store."""
        Path(checkpoint_dir, "run.json").write_text(json.dumps({"run_id": self._run.run_id, "told": self._told}))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on after a pause.

        Raises:
            UsageError: when the checkpoint is another run's.
        """
        noted = files.read_object(Path(str(checkpoint), "run.json"))
        if noted["run_id"] != self._run.run_id:
            raise UsageError(
                f"this trial is the run {self._run.run_id}, and would go on from {noted['run_id']}: a run's settings "
                "do not change while it trains, so PopulationBasedTraining has nothing to do here; take "
                "ASHAScheduler, HyperBandScheduler or MedianStoppingRule"
            )
        self._told = int(noted["told"])

    # --------------------------------------------------------------------------------------------------- the run

    def _ensure(self) -> None:
        """See to it that somebody drives the sweep."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + ENSURE_SECONDS
        door = self._door
        try:
            there = keeper.of(door.settings, door.root, door.name, door.variables)
            wrong = ray.get(there.ensure.remote(list(door.settings)), timeout=60)
        except (ray.exceptions.RayError, ValueError):  # it ended, or its node did: asked again at the next look
            return
        if wrong:
            self._over = True
            raise StoreError(wrong)

    def _result(self) -> dict[str, Any] | None:
        try:
            return self._folder.sound_result()
        except StoreError:
            return None  # its driver sets it aside

    def _complete(self) -> bool:
        result = self._result()
        return result is not None and self._folder.complete(result, self._door.evals.eval_id)

    def _point(self, part: int) -> dict[str, Any] | None:
        """The mean training loss over one part of the run's tokens, once the store has it whole."""
        self._read()
        share = self._run.tokens / self._door.reports
        before = [row for row in self._points if row[0] <= part * share]
        if not self._points or self._points[-1][0] < part * share:
            return None
        found: dict[str, Any] = {"status": "training", TRAINING_ITERATION: part}
        # where a step is longer than a part, the last one before holds
        if rows := [row for row in before if row[0] > (part - 1) * share] or before[-1:]:
            loss = sum(row[2] for row in rows) / len(rows)
            found |= {**self._at(rows[-1][0]), "step": int(rows[-1][1]), "loss": loss, "train_loss": loss}
        return found

    def _read(self) -> None:
        """The curve, where its files have changed."""
        parts = sorted((str(p), p.stat().st_size) for p in self._folder.path.glob("attempt-*/metrics/part-*.parquet"))
        if parts != self._parts:
            self._parts = parts
            curve = self._folder.curve(("step", "tokens", "loss"))
            self._points = list(zip(curve.tokens.tolist(), curve.step.tolist(), curve.loss.tolist(), strict=True))

    def _at(self, tokens: float) -> dict[str, Any]:
        return {"tokens": int(tokens), "flops": float(costs.train_flops(self._run.model, int(tokens)))}

    def _final(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """The held-out loss in place of the training loss, and all scores."""
        tokens = int(result.get("tokens", self._run.tokens))
        found = {**self._at(tokens), "status": result["status"], "step": int(result.get("steps", self._run.steps))}
        found |= {"loss": math.nan}
        table = self._folder.evaluation(self._door.evals.eval_id)
        for row in [] if table is None else table.to_dict("records"):
            if row["task"] == HELD_OUT:
                found |= {name: float(row[name]) for name in ("loss", "loss_se", "bits_per_byte") if name in row}
            elif row["accuracy"] is not None:
                found[f"score/{row['task']}/{row['shots']}"] = float(row["accuracy"])
        return found


# ------------------------------------------------------------------------------------------------------------ settings


def one_run(door: Door, config: Mapping[str, Any]) -> RunSpec:
    """The run that a trial's configuration means.

    Raises:
        UsageError: when it means none or several, or its text is too small.
    """
    words = [f"{key}={_word(value)}" for key, value in _leaves(config) if key != RUN]
    chosen = recipe.load([*door.settings, *words])
    found = grid.build(chosen, door.corpus_sha256).runs
    if (asked := config.get(RUN)) is not None:
        named = [run for run in found if run.run_id == asked]
        if not named:
            raise UsageError(
                f"{RUN}={asked}: the recipe {chosen.name} has no such run; sweeps.cluster.tune.runs lists them"
            )
        found = named
    if len(found) > 1:
        some = ", ".join(run.run_id for run in found[:3])
        raise UsageError(
            f"a trial is one run, and {' '.join([*door.settings, *words])} describes {len(found)} ({some}, ...): "
            f'narrow its sizes and budgets, or let the space pick one by "{RUN}" (sweeps.cluster.tune.runs lists them)'
        )
    if reason := texts.refusal(texts.describe(found, door.evals), chosen, found):
        raise UsageError(reason)
    return found[0]


def _check(settings: Sequence[str], chosen: recipe.Recipe, space: Mapping[str, Any], reports: int) -> None:
    from omegaconf import OmegaConf

    if chosen.adaptive:
        raise UsageError("adaptive=true: Tune's searcher says which runs there are; leave it out")
    if reports < 1:
        raise UsageError(f"reports={reports}: 1 or more")
    typed = {word.partition("=")[0] for word in settings}
    keys = [key for key, _ in _leaves(space) if key != RUN]
    cli.check_keys(OmegaConf.structured(chosen), [k for k in keys if k != "recipe"], command=recipe.KEYS)
    for key in keys:
        if key.startswith(SWEEP_WIDE) or key in recipe.COMMANDS:
            raise UsageError(f"{key} holds for the whole sweep, so no trial has its own: give it to trainable(...)")
        if key in typed:
            raise UsageError(f"{key} is in the settings and in the space: leave one out")


def _leaves(space: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values; Tune's ``{"grid_search": [...]}`` is a value."""
    for name, value in space.items():
        if isinstance(value, Mapping) and value and "grid_search" not in value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _word(value: Any) -> str:
    """A value as the command line has it; numpy's numbers are Python's."""
    return json.dumps(value.item() if hasattr(value, "item") else value)


def _cache() -> dict[str, str]:
    return {name: os.environ[name] for name in ("ISOFLOP_CACHE",) if name in os.environ}
