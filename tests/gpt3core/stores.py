"""A store with a finished run and one that was stopped, trained once for all tests that read it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from unittest import mock

from gpt3core.spec import RunSpec
from gpt3core.store import files
from gpt3core.store.rundir import RunDir, open_root
from tests.conftest import make_run, write_corpus
from tests.gpt3core.outcomes import run, stopped


def train(folder: Path) -> tuple[Path, RunSpec, RunSpec]:
    """The store, the finished run (two checkpoints) and the unfinished one."""
    root = open_root(folder / "root", create=True)
    text = write_corpus(folder / "text")
    done, begun = make_run(text, steps=40), make_run(text, steps=60, seed=1)
    with mock.patch.dict(os.environ, {"ISOFLOP_CACHE": str(folder / "cache")}):
        stopped(done, root, 20)
        run(done, root)
        stopped(begun, root, 10)
    return root, done, begun


def copied(root: Path, to: Path) -> Path:
    """A store of a test's own."""
    return Path(shutil.copytree(root, to / "copy"))


def diverge(root: Path, spec: RunSpec) -> None:
    """Make a run one that diverged."""
    folder = RunDir(root, spec.run_id)
    result = folder.result() or {"run_id": spec.run_id}
    files.write_json(folder.path / "result.json", {**result, "status": "diverged"})


def flip(path: Path) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def fingerprint(root: Path) -> dict[str, tuple[int, int]]:
    """Every file of a store with its size and time."""
    stats = {str(path.relative_to(root)): path.stat() for path in sorted(root.rglob("*"))}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
