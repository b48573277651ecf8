"""Sets of runs by a short name: a digest of their ids, so that an address names thousands of runs and no others.

ROOT/sets/<name>.json                 the ids of a set that a reader has seen
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from gpt3core.errors import StoreError
from gpt3core.store import files

NAME = re.compile(r"[0-9a-f]{16}")  # it names a file


def name_of(run_ids: Iterable[str]) -> str:
    """The name of a set: the same whoever asks, in whatever order."""
    return hashlib.sha256("\n".join(sorted(run_ids)).encode()).hexdigest()[:16]


def keep(root: Path, run_ids: Iterable[str]) -> None:
    """Have the store remember a set: a folder, or this machine's working copy of a store elsewhere.

    Raises:
        StoreError: where it cannot be written.
    """
    ids = sorted(run_ids)
    path = _path(root, name := name_of(ids))
    if find(root, name) is None:
        files.make_folder(path.parent)
        files.write_json(path, ids)


def find(root: Path, name: str) -> tuple[str, ...] | None:
    """The ids of a set; None where the store has none of that name that is whole."""
    if NAME.fullmatch(name) is None:
        return None
    try:
        ids = files.read_json(_path(root, name))
    except (OSError, StoreError):
        return None
    whole = isinstance(ids, list) and all(isinstance(one, str) for one in ids) and name_of(ids) == name
    return tuple(ids) if whole else None


def _path(root: Path, name: str) -> Path:
    return root / "sets" / f"{name}.json"
