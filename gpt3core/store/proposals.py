"""Runs that others ask of a sweep while it is driven, and what its driver answers.

ROOT/sweeps/<name>/asked/<run_id>       left by whoever wants the run, after its specification; the driver takes it
                   answers/<run_id>     left by the driver: why there will be no result
                   driver.log           what a driver says that was started for such runs
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt3core.errors import StoreError
from gpt3core.store import files
from gpt3core.store.sweepdir import SweepDir


class Proposals:
    """Both sides of it."""

    def __init__(self, sweep: SweepDir) -> None:
        self._asked, self._answers = sweep.path / "asked", sweep.path / "answers"
        self.log: Path = sweep.path / "driver.log"

    def ask(self, run_id: str, eval_id: str) -> None:
        """Want a run, measured so; what was answered before holds no longer."""
        (self._answers / run_id).unlink(missing_ok=True)
        files.write_json(files.make_folder(self._asked) / run_id, {"eval_id": eval_id})

    def asked(self) -> dict[str, str]:
        """The runs that are wanted and not taken yet, with their evaluation's id."""
        found = {}
        for path in sorted(path for path in self._asked.glob("[!.]*") if path.is_file()):
            try:
                found[path.name] = str((files.find_object(path) or {}).get("eval_id", ""))
            except StoreError:
                found[path.name] = ""
        return found

    def taken(self, run_id: str) -> None:
        """The driver has it in the sweep's record."""
        (self._asked / run_id).unlink(missing_ok=True)

    def answer(self, run_id: str, what: str, reason: str) -> None:
        """Say why a run has no result now: failed, held, pruned or refused."""
        files.write_json(files.make_folder(self._answers) / run_id, {"what": what, "reason": reason})

    def answered(self, run_id: str) -> dict[str, Any] | None:
        """The answer since the run was asked for last, if there is one."""
        try:
            return files.find_object(self._answers / run_id)
        except StoreError:
            return None
