"""One run's folder: specification, attempts, metric parts, checkpoints, and the result that says that it is done.

ROOT/store.json                       the format's version
ROOT/runs/<run_id>/spec.json
                   attempt-001/       events.jsonl, tail.jsonl, metrics/*.parquet, evals/*.parquet
                   checkpoints/       step-00001200/{model,optimizer}.safetensors, state.json, manifest.json
                   result.json        written last: the run is done if and only if it exists
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3core import spec as specs
from gpt3core.store import files
from gpt3core.store.files import StoreError

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
KEPT_CHECKPOINTS = 2


def default_root() -> Path:
    """``ISOFLOP_ROOT``, or ``~/.isoflop/runs``; always absolute, for a job's working directory disappears."""
    return Path(os.environ.get("ISOFLOP_ROOT") or "~/.isoflop/runs").expanduser().absolute()


def open_root(root: Path, *, create: bool) -> Path:
    """Check the store's version, or start a store.

    Raises:
        StoreError: for a store of a newer version, or none where one must exist.
    """
    marker = root / "store.json"
    if not marker.exists():
        if not create:
            raise StoreError(f"{root} holds no isoflop store (no store.json): give runs=FOLDER or set ISOFLOP_ROOT")
        files.make_folder(root / "runs")
        files.write_json(marker, {"format": FORMAT})
    version = files.read_json(marker).get("format")
    if not isinstance(version, int) or version > FORMAT:
        raise StoreError(
            f"{root} was written by a newer isoflop (store format {version}, this one knows up to {FORMAT}): "
            "update isoflop, or name another folder by ISOFLOP_ROOT; nothing was touched"
        )
    return root


class RunDir:
    """Reads and writes one run's folder."""

    def __init__(self, root: Path, run_id: str) -> None:
        self.run_id = run_id
        self.path = root / "runs" / run_id
        self.checkpoints = self.path / "checkpoints"

    # ------------------------------------------------------------------------------------- specification and result

    def create(self, spec: specs.RunSpec) -> None:
        """Write the specification, once."""
        files.make_folder(self.path)
        try:
            files.write_bytes(self.path / "spec.json", specs.to_json(spec).encode(), exclusive=True)
        except files.AlreadyWrittenError:
            if self.spec().hashed() != spec.hashed():
                raise StoreError(f"{self.path}/spec.json holds another run's specification: move it away") from None

    def spec(self) -> specs.RunSpec:
        """The run's specification."""
        try:
            return specs.from_dict(specs.RunSpec, files.read_json(self.path / "spec.json"))  # type: ignore[no-any-return]
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self.path}/spec.json is not a specification ({error}): move it away") from error

    @property
    def done(self) -> bool:
        """Whether the run has its result."""
        return (self.path / "result.json").exists()

    def result(self) -> dict[str, Any] | None:
        """The result, or None while the run is not done."""
        path = self.path / "result.json"
        if not path.exists():
            return None
        result: dict[str, Any] = files.read_json(path)
        return result

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result; the first one stays."""
        try:
            files.write_json(self.path / "result.json", result, exclusive=True)
        except files.AlreadyWrittenError:
            return

    # ------------------------------------------------------------------------------------------------- attempts

    def attempts(self) -> list[Path]:
        """Attempt folders, oldest first."""
        return sorted(self.path.glob("attempt-[0-9]*"))

    def new_attempt(self) -> Path:
        """Create the next attempt's folder; two callers never get the same one."""
        number = 1 + max((int(folder.name.split("-")[1]) for folder in self.attempts()), default=0)
        while True:
            folder = self.path / f"attempt-{number:03d}"
            try:
                with files.explained(folder):
                    folder.mkdir()
            except StoreError:
                if not folder.exists():
                    raise
                number += 1
                continue
            files.make_folder(folder / "metrics")
            files.make_folder(folder / "evals")
            return folder

    def event(self, attempt: Path, what: str, **details: Any) -> None:
        """Append to the attempt's log."""
        files.append_line(attempt / "events.jsonl", {"time": round(time.time(), 3), "event": what, **details})

    def damage(self) -> list[str]:
        """What was found damaged in any attempt."""
        events = (event for attempt in self.attempts() for event in files.read_lines(attempt / "events.jsonl"))
        return [sentence for event in events for sentence in event.get("damage", [])]

    # -------------------------------------------------------------------------------------------------- metrics

    @staticmethod
    def write_table(path: Path, columns: dict[str, list[Any]]) -> None:
        """Write columns as one immutable Parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink, compression="zstd")
        files.write_bytes(path, sink.getvalue().to_pybytes())

    def write_metrics(self, attempt: Path, columns: dict[str, list[Any]]) -> None:
        """Write one part of the loss curve, named by its first step: writing it again is harmless."""
        if columns["step"]:
            self.write_table(attempt / "metrics" / f"part-{columns['step'][0]:08d}.parquet", columns)

    def curve(self) -> pd.DataFrame:
        """The loss curve, one row a step; where attempts overlap, the latest attempt's row."""
        import pandas as pd

        parts = [
            pd.read_parquet(part).assign(attempt=number)
            for number, attempt in enumerate(self.attempts(), start=1)
            for part in sorted((attempt / "metrics").glob("part-*.parquet"))
        ]
        if not parts:
            return pd.DataFrame(columns=["step", "tokens", "loss", "lr", "grad_norm", "attempt"])
        rows = pd.concat(parts, ignore_index=True)
        return rows.drop_duplicates("step", keep="last").sort_values("step", ignore_index=True)

    # ---------------------------------------------------------------------------------------------- checkpoints

    def save_checkpoint(self, step: int, writers: dict[str, Callable[[Path], None]], state: dict[str, Any]) -> Path:
        """Write a checkpoint folder whole or not at all, and drop all but the newest few.

        Args:
            writers: file name -> function that writes that file at the path it is given.
            state: plain data for state.json.
        """
        final = self.checkpoints / f"step-{step:08d}"
        if final.exists():
            return final
        temporary = files.make_folder(self.checkpoints / f".step-{step:08d}.{uuid.uuid4().hex[:8]}.tmp")
        with files.explained(final):
            try:
                for name, write in writers.items():
                    write(temporary / name)
                    with open(temporary / name, "rb+") as file:
                        os.fsync(file.fileno())
                files.write_json(temporary / "state.json", {**state, "step": step})
                manifest = {file.name: files.sha256_file(file) for file in sorted(temporary.iterdir())}
                files.write_json(temporary / "manifest.json", manifest)
                os.rename(temporary, final)
                files.sync_folder(self.checkpoints)
            except BaseException:
                files.remove_folder(temporary)
                raise
        for old in self.checkpoint_steps()[:-KEPT_CHECKPOINTS]:
            files.remove_folder(self.checkpoints / f"step-{old:08d}")
        return final

    def checkpoint_steps(self) -> list[int]:
        """Steps of the checkpoints, ascending."""
        names = (folder.name for folder in self.checkpoints.glob("step-*"))
        return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"step-(\d+)", name)))

    def latest_checkpoint(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint whose files match their checksums, and a sentence for each damaged one.

        A damaged checkpoint is kept, renamed to ``damaged-...``, for whoever wants to look at it.
        """
        damage: list[str] = []
        for step in reversed(self.checkpoint_steps()):
            folder = self.checkpoints / f"step-{step:08d}"
            problem = damaged(folder)
            if problem is None:
                return folder, damage
            aside = folder.with_name(f"damaged-{folder.name}-{uuid.uuid4().hex[:8]}")
            os.rename(folder, aside)
            damage.append(
                f"run {self.run_id}: the checkpoint of step {step} is damaged ({problem}); it was set aside as "
                f"{aside}, "
                "and the run went back to the one before: the result is not affected, but check that disk"
            )
        return None, damage


def damaged(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint folder, or None."""
    try:
        manifest = files.read_json(checkpoint / "manifest.json")
    except (OSError, StoreError) as error:
        return f"manifest.json: {error}"
    for name, expected in manifest.items():
        try:
            found = files.sha256_file(checkpoint / name)
        except OSError as error:
            return f"{name}: {error.strerror}"
        if found != expected:
            return f"{name} has sha256 {found[:12]}..., its manifest says {expected[:12]}..."
    return None
