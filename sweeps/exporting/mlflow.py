"""MLflow: a local store, an experiment a sweep, a run a run; what is there is asked of MLflow, and only news is added.

A run that went back (anomaly.policy=rollback) is deleted there and made anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gpt3core.errors import StoreError
from sweeps.exporting.reading import Exported

FOUND_BY = "isoflop.run_id"
BATCH, PARAMS = 1000, 100  # of one call, MLflow's own limits
LENGTH = 500  # of a parameter's value, the oldest MLflow's limit
STATES = {"running": "RUNNING", "diverged": "FAILED"}


class MLflow:
    """Writes OUT/mlflow.db (SQLite), or the folder OUT/mlruns where SQLAlchemy is not installed."""

    def __init__(self, out: Path, sweep: str) -> None:
        os.environ.update({"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"})
        try:
            from mlflow import entities, tracking
        except ImportError as error:
            raise StoreError("to=mlflow needs mlflow: pip install 'isoflop[mlflow]'") from error
        self._entities = entities
        self._client: Any = tracking.MlflowClient(tracking_uri=address(out))
        found = self._client.get_experiment_by_name(sweep)
        self._experiment = found.experiment_id if found else self._client.create_experiment(sweep, str(out / "files"))

    def write(self, run: Exported, *, anew: bool) -> None:
        """Add the metrics that MLflow does not have, by name and step."""
        there = self._find(run)
        if there is not None and anew:
            self._client.delete_run(there.info.run_id)
            there = None
        if there is None:
            there = self._create(run)
        name = there.info.run_id
        known = {(m.key, m.step) for key in there.data.metrics for m in self._client.get_metric_history(name, key)}
        time = int(1000 * run.started)
        metrics = [
            self._entities.Metric(key, value, time, step)
            for i, step in enumerate(run.steps)
            for key, value in run.row(i).items()
            if (key, step) not in known
        ]
        end = run.steps[-1] if run.steps else 0
        metrics += [
            self._entities.Metric(k, value, time, end) for k, value in run.final.items() if (k, end) not in known
        ]
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(name, metrics=metrics[start : start + BATCH])
        self._client.set_tag(name, "status", run.status)
        state = STATES.get(run.status, "FINISHED")
        if there.info.status != state:
            self._client.update_run(name, status=state)

    def close(self) -> None:
        """Nothing is open."""

    def _find(self, run: Exported) -> Any:
        found = self._client.search_runs([self._experiment], f"tags.`{FOUND_BY}` = '{run.run_id}'", max_results=1)
        return found[0] if found else None

    def _create(self, run: Exported) -> Any:
        tags = {**run.tags, FOUND_BY: run.run_id, "mlflow.runName": run.run_id}
        made = self._client.create_run(self._experiment, start_time=int(1000 * run.started), tags=tags)
        params = [self._entities.Param(key, str(value)[:LENGTH]) for key, value in run.config.items()]
        for start in range(0, len(params), PARAMS):
            self._client.log_batch(made.info.run_id, params=params[start : start + PARAMS])
        return made


def address(out: Path) -> str:
    """What ``mlflow ui --backend-store-uri`` opens."""
    try:
        import sqlalchemy  # noqa: F401
    except ImportError:
        return (out / "mlruns").as_uri()
    return f"sqlite:///{out / 'mlflow.db'}"
