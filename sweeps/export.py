"""A sweep in the files of TensorBoard, W&B or MLflow: ``python -m sweeps.export name=... to=... out=DIR``.

name=NAME            the sweep (default: the one last driven)
to=tensorboard       event files, one folder a run                       tensorboard --logdir DIR
to=wandb             offline folders, one a run; nothing is sent         wandb sync DIR/offline-run-*
to=mlflow            a local SQLite store, an experiment of the sweep    mlflow ui --backend-store-uri sqlite:///DIR/mlflow.db
out=DIR              where to; the same folder again adds what is new
runs=FOLDER          the store (default: ISOFLOP_ROOT or ~/.isoflop/runs)
--follow             go on every few seconds (every=5) until the sweep's driver has ended

All runs that have begun: their curves (loss, tokens, learning rate, gradient norm and what else was measured), their
specifications, scores, and the tags sweep, label and run_id. Doing it again adds what is new and repeats nothing: an
event file grows by whole steps, an MLflow run by what it has not, a W&B folder is replaced when the new one is whole.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3core import cli, hints
from gpt3core.errors import StoreError, UsageError
from gpt3core.store import files, places, rundir, sweepdir
from gpt3core.store.sweepdir import SweepDir
from sweeps.exporting import reading
from sweeps.exporting.mlflow import MLflow
from sweeps.exporting.reading import Exported, Writer
from sweeps.exporting.tensorboard import TensorBoard
from sweeps.exporting.wandb import Wandb

TOOLS: dict[str, Callable[[Path, str], Writer]] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": MLflow}
NOTE = "isoflop-export.json"  # what a folder holds, and how far each run is


@dataclass(kw_only=True)
class ExportSettings:
    """Which sweep, and where to."""

    name: str | None = None
    to: str | None = None
    out: str | None = None
    runs: str | None = None
    every: float = 5.0  # seconds between two looks, with --follow


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    follow = "--follow" in argv
    given = cli.settings(ExportSettings(), [word for word in argv if word != "--follow"])
    if given.to not in TOOLS or not given.out:
        near = hints.nearest(given.to, tuple(TOOLS)) if given.to and given.to not in TOOLS else ""
        raise UsageError(
            f"to={given.to or ''} out={given.out or ''}: one of to={', to='.join(TOOLS)} and a folder out=DIR are "
            f"needed{near}"
        )
    if given.every <= 0:
        raise UsageError(f"every={given.every:g}: seconds between two looks, above 0")
    if not follow and any(word.startswith("every=") for word in argv):
        raise UsageError(f"every={given.every:g} has no effect without --follow")
    root = rundir.open_root(places.local(given.runs) if given.runs else rundir.default_root(), create=False)
    sweep = _sweep(root, given.name)
    export = Export(sweep, given.to, Path(given.out).expanduser().absolute())
    try:
        while True:
            # asked before the look: what the driver wrote last is seen by the look that follows its end
            driving = follow and _driving(sweep)
            print(export.look(), flush=True)
            if not driving:
                return 0
            time.sleep(given.every)
            with contextlib.suppress(StoreError):  # it does not answer now: looked at again
                places.refresh(root)
    finally:
        export.close()


class Export:
    """A folder that follows a sweep."""

    def __init__(self, sweep: SweepDir, to: str, out: Path) -> None:
        """Open.

        Raises:
            UsageError: when the folder holds something else.
            StoreError: when the tool is not installed, or the sweep has no record.
        """
        self._sweep, self._to, self._out = sweep, to, out
        self._note: dict[str, Any] = {"sweep": sweep.name, "to": to, "runs": {}}
        if out.is_file():
            raise UsageError(f"out={out} is a file: name a folder")
        if out.exists() and any(out.iterdir()):
            noted = _noted(out)
            if noted is None or (noted["sweep"], noted["to"]) != (sweep.name, to):
                held = f"the sweep {noted['sweep']} for {noted['to']}" if noted else "something else"
                raise UsageError(f"out={out} holds {held}: name another folder, or the one of an earlier export")
            self._note = noted
        reading.runs(sweep)
        with files.explained(out, setting=files.OUT):
            self._writer = TOOLS[to](out, sweep.name)
            files.make_folder(out)
            self._keep()

    def look(self) -> str:
        """Write what is new; says how far it is."""
        run_ids, evals = reading.runs(self._sweep)
        begun, news, damage = 0, 0, []
        for run_id in run_ids:
            try:
                run = reading.read(self._sweep, run_id, evals)
            except StoreError as error:
                damage.append(f"\n  left out {run_id}: {error}")
                continue
            begun += run is not None
            news += run is not None and self._write(run)
        told = f"{begun} of {len(run_ids)} runs of {self._sweep.name} are in {self._out}, {news} with news"
        return told + "".join(damage)

    def close(self) -> None:
        """No more looks."""
        self._writer.close()

    def _write(self, run: Exported) -> bool:
        before = self._note["runs"].get(run.run_id)
        if before == run.extent:
            return False
        # after a look that was killed the note is behind what was written: a writer adds only what is not there
        with files.explained(self._out, setting=files.OUT):
            self._writer.write(run, anew=before is not None and before[-1] != run.rollbacks)
            self._note["runs"][run.run_id] = run.extent
            self._keep()
        return True

    def _keep(self) -> None:
        files.write_json(self._out / NOTE, self._note)


def _noted(out: Path) -> dict[str, Any] | None:
    """What an earlier export noted of itself; None where that is no such note."""
    noted = files.find_object(out / NOTE) or {}
    runs = noted.get("runs")
    sound = (
        {"sweep", "to"} <= set(noted)
        and isinstance(runs, dict)
        and all(isinstance(x, list) and x for x in runs.values())
    )
    return noted if sound else None


def _sweep(root: Path, name: str | None) -> SweepDir:
    names = sweepdir.names(root)
    if not names:
        raise StoreError(f"the store {root} has no sweeps yet")
    if name is not None and name not in names:
        raise UsageError(
            f"name={name:.80}: no such sweep in {root}{hints.nearest(name, names)}; its last are {names[:6]}"
        )
    return SweepDir(root, name or names[0])


def _driving(sweep: SweepDir) -> bool:
    from sweeps.driving.status import DRIVING
    from sweeps.watching import standing

    said: dict[str, Any] = {}
    with contextlib.suppress(StoreError):  # one that is damaged tells nothing
        said = sweep.status() or {}
    return standing.driver_of(said, time.time()) == DRIVING


if __name__ == "__main__":
    cli.run(main)
