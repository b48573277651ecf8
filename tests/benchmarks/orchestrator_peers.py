"""Who is compared with the orchestrator: Ray Tune, and an actor in a placement group of its own a run."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

RUNS, SLOTS = 200, 4
PEERS = {"tune_reuse": 60, "tune": 8, "actors": 12}  # trials of each; seconds are for RUNS
QUIET = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}


def local_ray() -> Any:
    """A Ray of four slots."""
    os.environ["RAY_AUTH_MODE"] = "disabled"  # all on loopback
    import ray

    folder = tempfile.mkdtemp(prefix="isoflop-bench-", dir="/tmp")
    ray.init("local", num_cpus=SLOTS, _temp_dir=folder, object_store_memory=100_000_000, **QUIET)
    return ray


def tune(root: Path, *, reuse: bool, trials: int) -> dict[str, float] | None:
    """Trials that do nothing."""
    try:
        from ray import tune as tuning
    except ImportError:
        return None
    ray = local_ray()
    ends: list[float] = []

    class Ends(tuning.Callback):
        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            ends.append(time.monotonic() - began)

    began = time.monotonic()
    found = tuning.Tuner(
        tuning.with_resources(_nothing, {"cpu": 1}),
        param_space={"x": tuning.grid_search(list(range(trials)))},
        tune_config=tuning.TuneConfig(reuse_actors=reuse),
        run_config=tuning.RunConfig(storage_path=str(root), verbose=0, callbacks=[Ends()]),
    ).fit()
    assert len(found) == trials
    assert not found.errors
    ray.shutdown()
    return {"seconds": of_all(ends)}


def of_all(ends: list[float]) -> float:
    """Seconds of RUNS runs, of which some ended then: the first four as they did, the others at the pace after them."""
    pace = (ends[-1] - ends[SLOTS - 1]) / (len(ends) - SLOTS)
    return ends[SLOTS - 1] + pace * (RUNS - SLOTS)


def _nothing(config: dict[str, Any]) -> None:
    """The trainable."""


def actors(root: Path) -> dict[str, float]:
    """A placement group and an actor a run, four at a time."""
    ray = local_ray()
    count, began = PEERS["actors"], time.monotonic()

    class Runner:
        def run(self) -> int:
            return os.getpid()

    made = ray.remote(Runner)
    waiting, running = list(range(count)), {}
    ends: list[float] = []
    while waiting or running:
        while waiting and len(running) < SLOTS:
            waiting.pop()
            group = ray.util.placement_group([{"CPU": 1}])
            strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group)
            actor = made.options(num_cpus=1, scheduling_strategy=strategy).remote()
            running[actor.run.remote()] = actor, group
        (ended,), _ = ray.wait(list(running), num_returns=1)
        actor, group = running.pop(ended)
        ray.get(ended)
        ends.append(time.monotonic() - began)
        ray.kill(actor)
        ray.util.remove_placement_group(group)
    ray.shutdown()
    return {"seconds": of_all(ends)}
