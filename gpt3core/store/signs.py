"""Signs of life that a run leaves in its folder, by the times of its files: for whoever asks without a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from gpt3core.store.rundir import RunDir


def trained(root: Path, run_ids: Iterable[str]) -> int:
    """How many of these runs have a result."""
    runs = str(root / "runs")
    # text, not paths: of 10,000 these alone would take half a second
    return sum(os.path.exists(f"{runs}/{run_id}/result.json") for run_id in run_ids)  # noqa: PTH110


def heartbeat(run: RunDir) -> float | None:
    """When a run last said how far it is (seconds since the epoch), or None where it never did."""
    newest = _newest(run)
    if newest is None:
        return None
    return max((found for name in ("tail.jsonl", "events.jsonl") if (found := _time(newest / name))), default=None)


def checkpoint(run: RunDir) -> tuple[int, float] | None:
    """Step and time of the newest checkpoint, or None where there is none."""
    steps = run.checkpoint_steps()
    written = _time(run.checkpoint(steps[-1])) if steps else None
    return None if written is None else (steps[-1], written)


def last(run: RunDir) -> float | None:
    """When anything of a run was last written by its workers, or None where nothing was."""
    saved, newest = checkpoint(run), _newest(run)
    found = [heartbeat(run), saved[1] if saved else None, _time(run.path / "result.json"), _time(run.path / "evals")]
    found += [_time(newest), _time(newest / "metrics")] if newest is not None else []
    return max((moment for moment in found if moment is not None), default=None)


def _newest(run: RunDir) -> Path | None:
    """The folder of the newest attempt, without sorting the others."""
    attempts = run.attempts()
    return attempts[-1] if attempts else None


def _time(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
