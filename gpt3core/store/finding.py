"""A run of a store by what its user calls it: its id, the beginning of it, or its label."""

from __future__ import annotations

import difflib
from pathlib import Path

from gpt3core.errors import StoreError, UsageError
from gpt3core.store.rundir import RunDir, open_root

LISTED = 6  # runs that an error names


def run_ids(root: Path) -> list[str]:
    """The runs of a store, by name."""
    return sorted(path.parent.name for path in (root / "runs").glob("*/spec.json"))


def find(root: Path, name: str) -> RunDir:
    """The run that is meant by an id, a label, or the beginning of an id that no other has.

    Raises:
        UsageError: when there is none, or more than one.
        StoreError: when there is no store.
    """
    ids = run_ids(open_root(root, create=False))
    if not ids:
        raise StoreError(f"the store {root} has no runs yet: train one, or name another store (runs=FOLDER)")
    named = [name] if name in ids else [i for i in ids if i.rpartition("-")[0] == name]
    found = named or [i for i in ids if name and i.startswith(name)]
    if len(found) == 1:
        return RunDir(root, found[0])
    if found:
        raise UsageError(f"run={name} is the name of {len(found)} runs ({_some(root, found)}): give more of its id")
    shown = f"run={name:.60}" if name else "run="
    near = difflib.get_close_matches(name[:60], [*ids, *{i.rpartition("-")[0] for i in ids}], n=3, cutoff=0.6)
    meant = f"did you mean {' or '.join(near)}?" if near else f"its runs are {_some(root, ids)}"
    raise UsageError(f"{shown}: no run of {root} has this id or label; {meant}")


def _some(root: Path, ids: list[str]) -> str:
    """The first few runs, with what tells them apart."""
    more = f" and {len(ids) - LISTED} more" if len(ids) > LISTED else ""
    return ", ".join(_described(RunDir(root, run_id)) for run_id in ids[:LISTED]) + more


def _described(run: RunDir) -> str:
    try:
        return f"{run.run_id} of {run.spec().tokens / 1e6:.3g}M tokens"
    except StoreError:
        return f"{run.run_id}, damaged"
