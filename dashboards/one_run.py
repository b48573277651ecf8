"""One run, opened: what it is, what it said and what was measured of it; the commands that go on from there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboards import writing
from dashboards.columns import COLUMNS
from gpt3core.errors import StoreError
from gpt3core.evals.spec import HELD_OUT
from gpt3core.store import places
from gpt3core.store.rundir import RunDir
from gpt3core.words import fixed
from sweeps.watching import incidents, last_words
from sweeps.watching.run_table import Row

if TYPE_CHECKING:
    from dashboards.figures.style import Page

MOST_SAID = 200  # lines of the log, the last
FACTS = (
    *("status", "loss", "train_loss", "n", "parameters", "tokens", "flops", "budget", "epochs", "lr", "batch_tokens"),
    *("schedule", "seed", "n_layer", "d_model", "n_ctx", "vocab", "corpus", "parent", "precision", "kernel", "device"),
    *("devices", "train_seconds", "tokens_per_second", "mfu", "gpu_hours", "cost", "attempts", "ended", "sweep"),
)
MEASURED = ("task", "examples", "items", "metric", "accuracy", "chance", "log-probability")


@dataclass(frozen=True, kw_only=True)
class OneRun:
    """A run in words; a table is a header and its rows."""

    row: Row
    facts: tuple[tuple[str, str], ...]
    said: tuple[str, ...]  # the oldest first
    unsaid: int  # earlier ones, left out
    met: tuple[str, ...]
    held_out: str
    measured: tuple[tuple[str, ...], ...]  # rows of MEASURED
    problem: str = ""  # what cannot be read


def read(root: Path, row: Row) -> OneRun:
    """What the store has of a run now."""
    run, problems = RunDir(root, row.run_id), list[str]()
    said = last_words.events(root, run)
    try:
        rows = run.measurements()
    except (StoreError, OSError) as error:
        rows = []
        problems.append(str(error))
    held_out = [row for row in rows if row.get("task") == HELD_OUT]
    return OneRun(
        row=row,
        facts=tuple((COLUMNS[name].title, shown) for name in FACTS if (shown := COLUMNS[name].shown(row))),
        said=tuple(one.text() for one in said[-MOST_SAID:]),
        unsaid=max(0, len(said) - MOST_SAID),
        met=tuple(incidents.sentences(incidents.read(run))),
        held_out=_held_out(held_out[-1]) if held_out else "",
        measured=tuple(_measured(row) for row in rows if row.get("task") != HELD_OUT),
        problem="; ".join(problems),
    )


def curve(root: Path, run_id: str) -> Page | None:
    """The loss and gradient norm of a run by step, with its spikes and restarts; None before its first step."""
    from dashboards.figures import spikes

    run = RunDir(root, run_id)
    try:
        steps = run.curve()
    except (StoreError, OSError, ValueError):  # damaged: what else there is of the run is shown
        return None
    if steps.empty or not set(spikes.SHOWN) <= set(steps.columns):
        return None
    return spikes.spikes(run_id, steps, incidents.read(run), incidents.gone(run))


def code(root: Path, run_id: str) -> str:
    """The line of Python that draws the curve."""
    return (
        "from pathlib import Path; from dashboards import one_run; "
        f"one_run.curve(Path({str(root)!r}), {run_id!r}).figure"
    )


def commands(root: Path, row: Row) -> list[tuple[str, str]]:
    """What to type to train it again, to read more of it, and to have it write: what for, and the command.

    Where nothing trains it again, why not. Half a second: what trains it again is tried out.
    """
    from sweeps.watching import reproduce

    store = f"runs={places.portable(root)}"
    again, remark = reproduce.command(root, row.run_id, row.sweep.split(", ")[0])
    found = [(f"again ({remark})", again) if again else ("again", remark)]
    found.append(("its last words", shlex.join(["python", "-m", "sweeps.logs", row.run_id, store])))
    text = ("text that it writes", writing.command(root, row.run_id))
    return [*found, text] if row.status in writing.TRAINED else found


def _held_out(row: dict[str, Any]) -> str:
    parts = [f"loss {_number(row.get('loss'), 4)}{_error(row.get('loss_se'))} nats per token"]
    if row.get("bits_per_byte") is not None:
        parts.append(f"{_number(row['bits_per_byte'], 4)} bits per byte")
    by_source = [name for name in row if name.startswith("loss.") and row[name] is not None]
    parts += [f"{name.removeprefix('loss.')} {_number(row[name], 4)}" for name in by_source]
    return ", ".join(parts)


def _measured(row: dict[str, Any]) -> tuple[str, ...]:
    fits = bool(row.get("fits", True))
    accuracy = f"{_number(row.get('accuracy'), 3)}{_error(row.get('accuracy_se'), 3)}" if fits else "does not fit"
    cells = (row.get("task"), row.get("shots"), row.get("items"), row.get("metric"))
    return (
        *("" if cell is None else str(cell) for cell in cells),
        accuracy,
        _number(row.get("chance"), 3),
        _number(row.get("logprob"), 3),
    )


def _number(value: Any, digits: int) -> str:
    if not isinstance(value, int | float) or value != value:
        return ""
    return fixed(value, digits)


def _error(value: Any, digits: int = 4) -> str:
    said = _number(value, digits)
    return f" ± {said}" if said else ""


def names(said: Sequence[str], known: Sequence[str]) -> tuple[list[str], list[str]]:
    """Run ids from an address: those that a store has, each once, and the others."""
    there, wanted = set(known), list(dict.fromkeys(said))
    return [name for name in wanted if name in there], [name for name in wanted if name and name not in there]
