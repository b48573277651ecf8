"""What a run met on its way: restarts, anomalies, going back, and how it ended; by the logs of its attempts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gpt3core.errors import StoreError
from gpt3core.store import files, metrics
from gpt3core.store.rundir import RunDir
from sweeps.watching.last_words import attempts, logged
from sweeps.watching.words import printable

START = "start"
# of an attempt's log: what happened to the run, and the field that says why
KINDS = {
    START: "host",
    "anomaly": "reason",
    "overflow": "reason",
    "rolled back": "",
    "stopped": "",
    "stopped early": "",
    "diverged": "reason",
}


@dataclass(frozen=True, kw_only=True)
class Incident:
    """One thing that happened."""

    what: str  # of KINDS
    attempt: int
    time: float  # seconds since the epoch
    step: int
    said: str = ""  # why, or on which host
    lost: int = 0  # of a start: steps that the attempt before had done, and that are done again


def read(run: RunDir) -> tuple[Incident, ...]:
    """All of a run's, in the order of its attempts. Lines that say nonsense tell nothing."""
    found, reached = [], 0
    for number, folder in zip(attempts(run), run.attempts(), strict=True):
        for event in logged(folder / "events.jsonl"):
            step = files.number(event.get("step"))
            if event.get("event") not in KINDS or step is None:
                continue
            again = max(0, reached - int(step)) if event["event"] == START else 0
            found.append(_incident(event, number, int(step), lost=again))
        reached = max((int(s) for line in logged(folder / "tail.jsonl") if (s := _step(line)) is not None), default=0)
    return tuple(found)


def sentences(found: Iterable[Incident]) -> list[str]:
    """In words, the oldest first; that a run began is none."""
    return [_sentence(incident) for incident in found if incident.what != START or incident.attempt > 1]


def _sentence(incident: Incident) -> str:
    if incident.what == START:
        again = f": {incident.lost:,} steps were done again" if incident.lost else ""
        return f"attempt {incident.attempt} went on at step {incident.step:,} on {incident.said}{again}"
    return f"{incident.what} at step {incident.step:,}{': ' if incident.said else ''}{incident.said}"


def gone(run: RunDir) -> list[list[tuple[int, float]]]:
    """Step and loss of the parts of the curve from which a run went back, a list a time; damaged ones are left out."""
    found = []
    for folder in run.attempts():
        for path in sorted(folder.glob("rolled-back-*.parquet")):
            try:
                rows = metrics.rows(path, ["step", "loss"])
            except (StoreError, OSError):
                continue
            found.append([(int(row["step"]), float(row["loss"])) for row in rows if row["loss"] is not None])
    return found


def _incident(event: Mapping[str, Any], attempt: int, step: int, lost: int) -> Incident:
    what = str(event["event"])
    said = event.get(KINDS[what]) if KINDS[what] else ""
    action = f"; {event['action']}" if event.get("action") else ""
    return Incident(
        what=what,
        attempt=attempt,
        time=files.number(event.get("time")) or 0.0,
        step=step,
        said=printable(f"{said or ''}{action}"),
        lost=lost,
    )


def _step(line: Mapping[str, Any]) -> float | None:
    return files.number(line.get("step")) if line.get("phase") == "training" else None
