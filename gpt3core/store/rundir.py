"""One run's folder: specification, attempts, metric parts, checkpoints, evaluations, and the result.

ROOT/store.json                       the format's version
ROOT/runs/<run_id>/spec.json
                   attempt-001/       events.jsonl, tail.jsonl (bounded), metrics/*.parquet
                   checkpoints/       step-00001200/{*.safetensors, state.json, manifest.json}
                   result.json        written last: the run is trained if and only if it exists
                   evals/             <eval_id>.parquet, what was measured of the last checkpoint
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3core import spec as specs
from gpt3core.errors import BusyError, StoreError
from gpt3core.store import claims, files, metrics, outcomes, places

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2
KEPT_CHECKPOINTS = 2
STOPPED_EARLY = outcomes.STOPPED_EARLY
PARQUET = b"PAR1"


def default_root() -> Path:
    """``ISOFLOP_ROOT``, or ``~/.isoflop/runs``; always absolute, for a job's working directory disappears.

    Of a URI it is this machine's working copy.
    """
    return places.local(os.environ.get("ISOFLOP_ROOT") or "~/.isoflop/runs")


def open_root(root: Path, *, create: bool) -> Path:
    """Check the store's version, or start a store; of one elsewhere, fetch what changed.

    Raises:
        StoreError: for a store of another version, or none where one must exist.
    """
    marker, place = root / "store.json", places.portable(root)
    if (remote := places.of(root)) is not None:
        remote.open(json.dumps({"format": FORMAT}).encode(), create=create)
    if not files.is_there(marker):
        if not create:
            raise StoreError(f"{place} holds no isoflop store (no store.json): give runs=FOLDER or set ISOFLOP_ROOT")
        files.make_folder(root / "runs")
        files.write_json(marker, {"format": FORMAT})
    version = files.read_object(marker).get("format")
    if version != FORMAT:
        older = isinstance(version, int) and version < FORMAT
        advice = "the isoflop that wrote it still reads it" if older else "update isoflop"
        raise StoreError(
            f"{place} has store format {version}, this isoflop reads and writes format {FORMAT}: {advice}; "
            "here, name another folder by ISOFLOP_ROOT; nothing was touched"
        )
    if remote is not None:
        remote.refresh()
    return root


class RunDir:
    """Reads and writes one run's folder; within ``claimed`` it writes what counts only as long as the claim is held."""

    def __init__(self, root: Path, run_id: str) -> None:
        self.root, self.run_id = root, run_id
        self._remote = places.of(root)
        self._unit = None if self._remote is None else self._remote.unit(f"runs/{run_id}")
        self.fence: files.Fence | None = None  # what counts is committed by it
        self._check: Callable[[], None] | None = None  # what goes with the next commit: raises LostError
        self.path = root / "runs" / run_id
        self.checkpoints = self.path / "checkpoints"

    # ------------------------------------------------------------------------------------- specification and result

    def create(self, spec: specs.RunSpec) -> None:
        """Write the specification, once.

        Raises:
            StoreError: when the folder holds another run's.
        """
        path, data = self.path / "spec.json", specs.to_json(spec).encode()
        if not (path.exists() or (self._remote is not None and self._remote.fetch_spec(self.run_id))):
            files.make_folder(self.path)
            if self._remote is not None:
                self._remote.write_spec(self.run_id, data)
            try:
                files.write_bytes(path, data, exclusive=True)
                return
            except files.AlreadyWrittenError:
                pass  # another driver was faster: compare
        if specs.hashed(self.spec()) != specs.hashed(spec):
            raise StoreError(f"{path} holds another run's specification: move it away")

    @contextlib.contextmanager
    def claimed(self, spec: specs.RunSpec) -> Iterator[None]:
        """Be the one process that writes what counts of this run, and clear what others left; for the block.

        Raises:
            BusyError: when another has the run. Later, when another has taken it over: LostError, from whatever writes.
        """
        self.create(spec)
        with contextlib.ExitStack() as held:
            try:
                self._claim(held)
            except claims.HeldError as error:
                raise BusyError(f"run {self.run_id} is being trained by another process ({error})") from None
            self.clear_leftovers()
            yield

    def _claim(self, held: contextlib.ExitStack) -> None:
        what = f"run {self.run_id}"
        with self._unit.still() if self._unit is not None else contextlib.nullcontext():
            claim = held.enter_context(claims.claimed(self.path / "lock", self.root, what))
        if self._unit is None:
            self._check, self.fence = claim.check, files.only_looking(claim.check)
        else:
            held.enter_context(self._unit.claimed(what))
            self._check, self.fence = self._unit.check, self._unit.commit
        held.callback(setattr, self, "fence", None)
        held.callback(setattr, self, "_check", None)

    def spec(self) -> specs.RunSpec:
        """The run's specification.

        Raises:
            StoreError: when it is missing or unreadable.
        """
        path = self.path / "spec.json"
        try:
            return specs.from_dict(specs.RunSpec, files.read_json(path))  # type: ignore[no-any-return]
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"{path} is not a specification ({error}): move it away") from error

    @property
    def trained(self) -> bool:
        """Whether the run has its result."""
        return (self.path / "result.json").exists()

    def result(self) -> dict[str, Any] | None:
        """How the training ended, or None while it has not.

        Raises:
            StoreError: when the file is unreadable.
        """
        return files.find_object(self.path / "result.json")

    def sound_result(self) -> dict[str, Any] | None:
        """The result, or None while there is none, for whoever goes on with the run.

        Raises:
            StoreError: when the file is unreadable or holds what no trainer would write.
        """
        result = self.result()
        if result is not None and (wrong := outcomes.problem(result)):
            raise StoreError(f"{self.path / 'result.json'} has {wrong}")
        return result

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result; the first one stays."""
        if self._unit is not None and self.trained:
            return
        try:
            files.write_json(self.path / "result.json", result, exclusive=True, fence=self.fence)
        except files.AlreadyWrittenError:
            return

    def micro_batch(self) -> int | None:
        """Sequences of a micro-batch, as the run has it on record; None where it has none that can be read."""
        try:
            found = (files.find_object(self.path / "numerics.json") or {}).get("micro_batch")
        except StoreError:
            return None
        return found if isinstance(found, int) else None

    # ---------------------------------------------------------------------------------------------- evaluations

    def evaluation_path(self, eval_id: str) -> Path:
        """Where the table of an evaluation lies, whether it exists or not."""
        return self.path / "evals" / f"{eval_id}.parquet"

    def evaluated(self, eval_id: str) -> bool:
        """Whether an evaluation was made and its table is whole, by the mark at the end of a Parquet file."""
        try:
            with files.opened(self.evaluation_path(eval_id)) as file:
                file.seek(-len(PARQUET), os.SEEK_END)
                return file.read() == PARQUET
        except OSError:
            return False

    def complete(self, result: dict[str, Any], eval_id: str) -> bool:
        """Whether nothing is left to do of a run with this result: it diverged, or it was evaluated so."""
        return result["status"] == "diverged" or self.evaluated(eval_id)

    def write_evaluation(self, eval_id: str, columns: dict[str, list[Any]]) -> None:
        """Write the table of an evaluation, a row a measurement."""
        import pyarrow as pa

        files.make_folder(self.path / "evals")
        metrics.write_table(self.evaluation_path(eval_id), pa.table(columns), self.fence)

    def evaluation(self, eval_id: str) -> pd.DataFrame | None:
        """The table of an evaluation, or None where it was not made.

        Raises:
            StoreError: when the file is unreadable.
        """
        path = self.evaluation_path(eval_id)
        try:
            found: pd.DataFrame = metrics.read_table(path).to_pandas(use_threads=False)
            return found
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is not a readable table ({error}): delete it, and it is made again") from error

    def measurements(self) -> list[dict[str, Any]]:
        """The rows of every readable evaluation of this run, for another one that asks the same questions."""
        rows: list[dict[str, Any]] = []
        for path in sorted((self.path / "evals").glob("*.parquet")):
            with contextlib.suppress(StoreError):
                table = self.evaluation(path.stem)
                if table is not None:
                    whole = table.astype(object).where(table.notna(), None)
                    rows += [dict(zip(whole.columns, row, strict=True)) for row in whole.itertuples(index=False)]
        return rows

    # ------------------------------------------------------------------------------------------------- attempts

    def attempts(self) -> list[Path]:
        """Attempt folders, oldest first."""
        found = ((re.fullmatch(r"attempt-(\d+)", f.name), f) for f in self.path.glob("attempt-*"))
        return [folder for _, folder in sorted((int(match[1]), folder) for match, folder in found if match)]

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
            return folder

    def event(self, attempt: Path, what: str, **details: Any) -> None:
        """Append to the attempt's log."""
        files.append_event(attempt / "events.jsonl", what, details)

    def damage(self) -> list[str]:
        """What was found damaged in any attempt."""
        found = (e.get("damage") for attempt in self.attempts() for e in files.read_lines(attempt / "events.jsonl"))
        return [str(sentence) for told in found if isinstance(told, list) for sentence in told]

    # -------------------------------------------------------------------------------------------------- metrics

    def write_metrics(self, attempt: Path, columns: dict[str, list[Any]]) -> None:
        """Write one part of the loss curve."""
        metrics.write(attempt, columns, files.only_looking(self._check))

    def curve(self, columns: tuple[str, ...] | None = None) -> pd.DataFrame:
        """The loss curve, one row a step; where attempts overlap, the latest attempt's row.

        Args:
            columns: the ones wanted, ``step`` among them; by default all, and the attempt's number.
        """
        import pandas as pd
        import pyarrow as pa

        wanted = list(columns) if columns else None
        parts = []
        for number, attempt in enumerate(self.attempts(), start=1):
            tables = metrics.read(attempt, wanted)
            parts += tables if columns else [t.append_column("attempt", pa.array([number] * len(t))) for t in tables]
        if not parts:
            return pd.DataFrame(columns=wanted or ["step", "tokens", "loss", "lr", "grad_norm", "attempt"])
        rows: pd.DataFrame = pa.concat_tables(parts, promote_options="default").to_pandas(use_threads=False)
        return rows.drop_duplicates("step", keep="last").sort_values("step", ignore_index=True)

    def forget_after(self, step: int, attempt: str, number: int, columns: dict[str, list[Any]]) -> None:
        """Take a run back to a step: later checkpoints go, and later rows of the curve into a file of their own.

        What was trained there is trained otherwise from now on. Whoever is killed in between finds the step's
        checkpoint, or one before it, and comes here again.

        Args:
            attempt: that goes back; the rows lie there as ``rolled-back-<number>.parquet``.
            columns: the rows that are in no part yet.
        """
        import pandas as pd
        import pyarrow as pa

        for later in self.checkpoint_steps():
            if later > step:
                self._drop_checkpoint(later)
        rows = pd.concat([self.curve().drop(columns="attempt"), pd.DataFrame(columns)])
        late = rows[rows.step > step].drop_duplicates("step", keep="last")
        if len(late):
            gone = pa.Table.from_pandas(late, preserve_index=False)
            metrics.write_table(self.path / attempt / f"rolled-back-{number:03d}.parquet", gone)
        for folder in self.attempts():
            metrics.cut(folder, step)

    # ---------------------------------------------------------------------------------------------- checkpoints

    def checkpoint(self, step: int) -> Path:
        """The folder of a step's checkpoint, whether it exists or not."""
        return self.checkpoints / f"step-{step:08d}"

    def begin_checkpoint(self, step: int, attempt: str) -> Path:
        """The folder in which the ranks of an attempt write their files of a step, before it is committed."""
        return files.make_folder(self.checkpoints / f".step-{step:08d}.{attempt}.tmp")

    def commit_checkpoint(
        self, step: int, begun: Path, state: dict[str, Any], sha256: dict[str, str], keep: Collection[int] = ()
    ) -> Path:
        """Make a begun checkpoint the step's, whole or not at all, and drop all but the newest few.

        Args:
            state: plain data for state.json.
            sha256: file name -> checksum of every file that the ranks wrote, as they computed it from what they wrote.
            keep: steps whose checkpoints stay.
        """
        final = self.checkpoint(step)
        if final.exists():
            files.remove_folder(begun)
            return final
        with files.explained(final):
            files.write_json(begun / "state.json", {**state, "step": step})
            manifest = {**sha256, "state.json": files.sha256_file(begun / "state.json")}
            files.write_json(begun / "manifest.json", manifest)
            with files.fenced(self.fence, begun, final):
                os.rename(begun, final)
            files.sync_folder(self.checkpoints)
        for old in self.checkpoint_steps()[:-KEPT_CHECKPOINTS]:
            if old not in keep:
                self._drop_checkpoint(old)
        return final

    def _drop_checkpoint(self, step: int) -> None:
        if self._check is not None:
            self._check()
        files.remove_folder(self.checkpoint(step))

    def clear_leftovers(self) -> None:
        """Remove what attempts that ended, or lost the run, had begun to write; for the holder of the claim."""
        parts = [attempt / "metrics" for attempt in self.attempts()]
        for place in (self.path, self.checkpoints, self.path / "evals", *parts):
            files.remove_leftovers(place)

    def checkpoint_steps(self) -> list[int]:
        """Steps of the checkpoints, ascending."""
        names = (folder.name for folder in self.checkpoints.glob("step-*"))
        return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"step-(\d+)", name)))

    # ------------------------------------------------------------------------------ of a store elsewhere, else nothing

    def refresh(self) -> None:
        """Have here what is committed of this run by now, but for the weights."""
        if self._unit is not None and self._remote is not None:
            self._remote.fetch_spec(self.run_id)
            self._unit.refresh()

    def fetch_checkpoint(self, step: int) -> Path:
        """Have the files of a checkpoint here; its folder."""
        if self._unit is not None:
            self._unit.fetch(self.checkpoint(step))
        return self.checkpoint(step)

    def share(self, step: int, begun: Path, word: str) -> None:
        """Hand what another rank than the first wrote of a checkpoint to the first, and its word last."""
        if self._unit is not None:
            self._unit.share(begun, self.checkpoint(step), word)

    def shared(self, path: Path) -> bool:
        """Whether another rank's word is there."""
        return path.exists() or (self._unit is not None and self._unit.heard(path.parent, path.name))

    def set_checkpoint_aside(self, step: int, problem: str) -> str:
        """Rename a damaged checkpoint; the sentence that says so."""
        aside = files.set_aside(self.checkpoint(step))
        return (
            f"run {self.run_id}: the checkpoint of step {step} is damaged ({problem}); it was set aside as {aside}, "
            "and the run went back to the one before: the result is not affected, but check that disk"
        )
