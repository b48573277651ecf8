"""Weights & Biases: an offline folder a run, which ``wandb sync`` takes when its owner says so; nothing is sent here.

W&B does not add to an offline folder: a run with news is written anew, and takes the place of its last one when whole.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from gpt3core.errors import StoreError
from sweeps.exporting.reading import Exported

# before it is imported: no network, no telemetry, nothing of the machine
QUIET = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true", "WANDB_DISABLE_GIT": "true"}
STAGING = ".staging"


class Wandb:
    """Writes OUT/offline-run-<time>-<run_id>/run-<run_id>.wandb."""

    def __init__(self, out: Path, sweep: str) -> None:
        os.environ.update(QUIET)
        try:
            import wandb
        except ImportError as error:
            raise StoreError("to=wandb needs wandb: pip install 'isoflop[wandb]'") from error
        self._out, self._sweep, self._wandb = out, sweep, wandb

    def write(self, run: Exported, *, anew: bool) -> None:
        """Write the run whole, then remove what was there of it."""
        staging = self._out / STAGING
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        made = self._wandb.init(
            mode="offline",
            dir=str(staging),
            project=self._sweep,
            group=self._sweep,
            id=run.run_id,
            name=run.run_id,
            config={**run.config, **run.tags},
            tags=[run.sweep, run.label],
            settings=self._settings(),
        )
        for i, step in enumerate(run.steps):
            made.log(run.row(i), step=step)
        made.summary.update({**run.final, "status": run.status})
        made.finish()
        (folder,) = staging.glob("wandb/offline-run-*")
        before = list(self._out.glob(f"offline-run-*-{run.run_id}"))
        place = self._out / folder.name
        if place in before:  # within one second
            place = self._out / folder.name.replace("offline-run-", "offline-run-again-", 1)
        os.rename(folder, place)
        for old in before:
            shutil.rmtree(old)
        shutil.rmtree(staging)

    def close(self) -> None:
        """End the process that W&B writes with."""
        self._wandb.teardown()

    def _settings(self) -> Any:
        return self._wandb.Settings(
            console="off", save_code=False, disable_git=True, x_disable_stats=True, x_disable_meta=True, silent=True
        )
