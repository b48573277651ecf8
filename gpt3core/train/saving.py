"""Checkpoints are written while training goes on.

A save is three things: the values are copied (the weights may not change meanwhile: training goes on with its next
gradients, and waits before it applies them), each rank's writer puts its files to disk, and rank 0's commits them when
the word of every rank's writer is there. Ranks agree through files and no step waits for another rank's disk; what
fails is told by the votes that every step takes anyway. One save is under way at most.

A writer is a thread: copying, checksums, writes and fsync let others run. A forked process would share no lock with
training, and costs more of it: page faults for every page that a step changes (tests/benchmarks/checkpointing.py).
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gpt3core import pulse
from gpt3core.errors import PeerError, StoreError
from gpt3core.parallel.mesh import Mesh
from gpt3core.store import files, metrics
from gpt3core.store.rundir import RunDir
from gpt3core.train import checkpoint, interval
from gpt3core.train.resume import VISIBLE_SECONDS
from gpt3core.train.snapshot import Staging

POLL_SECONDS = 0.02
LAST_SECONDS = 5.0  # for the files of ranks that may be gone, when a run ends by a failure


class _Save:
    """One save on its way."""

    def __init__(
        self,
        step: int,
        state: dict[str, Any],
        rows: dict[str, list[Any]],
        keep: Collection[int],
        work: Callable[[_Save], None],
    ) -> None:
        self.step, self.state, self.rows, self.keep = step, state, rows, keep
        self.begun: Path | None = None
        self.written = threading.Event()  # this rank's files, or its failure
        self.failure: Exception | None = None
        self.until = math.inf  # when the other ranks' files must be seen
        self.cpu_seconds = 0.0
        self.thread = threading.Thread(target=work, args=(self,), name=f"save-{step}", daemon=True)


class Saves:
    """The saves of a run, on one of its ranks; every rank calls ``begin`` and ``wait`` at the same steps."""

    def __init__(
        self,
        run: RunDir,
        attempt: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        mesh: Mesh,
        *,
        device: str = "cpu",
        least: float = 0.0,
    ) -> None:
        """Begin with none.

        Args:
            least: seconds from one save to the next that were asked for.
        """
        self._run, self._attempt, self._mesh = run, attempt, mesh
        self._model, self._optimizer = model, optimizer
        self._device, self._least = device, least
        self._staging = Staging(device)
        self._now: _Save | None = None
        self._last = time.monotonic()  # when the last one was begun
        self._cost = 0.0  # seconds that it took from training so far

    # ------------------------------------------------------------------------------------------------- in training

    def due(self) -> bool:
        """Whether it is time for the next save, or a writer failed, which ``begin`` then tells all ranks.

        What a save costs is what training waited for it; on a CPU also its writer's time there, which may be the only
        core that training has.
        """
        save = self._now
        if save is not None and save.failure is not None:
            return True
        if save is not None and save.thread.is_alive():
            return False
        every = interval.seconds_between(self._cost + self._stolen(save), least=self._least)
        return time.monotonic() - self._last >= every

    def begin(
        self,
        step: int,
        state: dict[str, Any],
        rows: dict[str, list[Any]],
        *,
        keep: Collection[int] = (),
        waited: float = 0.0,
    ) -> None:
        """Begin to write the curve so far and a checkpoint, once the save before is committed.

        Args:
            state: plain data to keep with it.
            rows: the part of the curve since the last save.
            keep: steps whose checkpoints stay beside the newest.
            waited: seconds that training has spent on this save already.

        Raises:
            StoreError: on every rank, when any rank could not write the save before.
        """
        began = time.monotonic()
        self.wait()
        save = _Save(step, state, rows, keep, self._work)
        self._staging.begin(checkpoint.held(self._model, self._optimizer, self._mesh))
        save.thread.start()
        self._now = save
        self._last = time.monotonic()
        self._cost = waited + self._last - began

    def release(self) -> None:
        """Wait until the weights may change."""
        began = time.monotonic()
        self._staging.release()
        self._cost += time.monotonic() - began

    def wait(self) -> None:
        """Wait until the save under way, if there is one, is committed.

        Raises:
            StoreError: on every rank, when any rank could not write.
        """
        save = self._now
        if save is None:
            return
        try:
            with pulse.busy("writing its checkpoint"):
                self._mesh.together(lambda: self._own(save))
                save.until = time.monotonic() + VISIBLE_SECONDS
                self._mesh.first(lambda: self._joined(save))
        except BaseException as error:
            if not isinstance(error, PeerError):  # then all ranks are here, and no file is still to come
                save.until = -math.inf
            self.close()
            raise
        self._now, self._cost = None, self._cost + self._stolen(save)

    def close(self) -> None:
        """End what is under way, with its commit where all of it is there; in whatever state the other ranks are."""
        save, self._now = self._now, None
        if save is None:
            return
        save.written.wait()
        save.until = -math.inf if save.failure else min(save.until, time.monotonic() + LAST_SECONDS)
        save.thread.join()
        if save.failure is not None and save.begun is not None and self._mesh.rank == 0:
            files.remove_folder(save.begun)

    def __enter__(self) -> Saves:
        self._last = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._staging = Staging(self._device)  # the memory goes

    def _stolen(self, save: _Save | None) -> float:
        return save.cpu_seconds if save is not None and self._device == "cpu" else 0.0

    def _own(self, save: _Save) -> None:
        save.written.wait()
        if save.failure is not None:
            raise save.failure

    def _joined(self, save: _Save) -> None:
        save.thread.join()
        if save.failure is not None:
            raise save.failure

    # ----------------------------------------------------------------------------------------------- in the writer

    def _work(self, save: _Save) -> None:
        """All that a writer does; a failure is kept for whoever waits."""
        try:
            self._write(save)
        except Exception as error:
            save.failure = error
        finally:
            save.cpu_seconds = time.thread_time()
            save.written.set()

    def _write(self, save: _Save) -> None:
        self._staging.finish()
        mesh, attempt = self._mesh, self._run.path / self._attempt
        save.begun = begun = self._run.begin_checkpoint(save.step, self._attempt)
        if mesh.rank == 0:  # the curve up to the step is there before its checkpoint
            self._run.write_metrics(attempt, save.rows)
        written: dict[str, dict[str, Any]] = {}
        for file, image in self._staging.images.items():
            written[file] = {"sha256": hashlib.sha256(image.data).hexdigest(), "index": image.index}
            files.write_bytes(begun / file, image.data)
        if mesh.world_size > 1:
            files.write_json(begun / _word(mesh.rank), {"files": written})
        if mesh.rank > 0:
            self._run.share(save.step, begun, _word(mesh.rank))
        save.written.set()
        if mesh.rank == 0:
            if mesh.world_size > 1:
                written = self._words(save, begun)
            state = {**save.state, "run_id": self._run.run_id, "index": {f: w["index"] for f, w in written.items()}}
            sha256 = {file: word["sha256"] for file, word in written.items()}
            self._run.commit_checkpoint(save.step, begun, state, sha256, save.keep)
            metrics.compact(attempt)

    def _words(self, save: _Save, begun: Path) -> dict[str, dict[str, Any]]:
        """What all ranks wrote, when all have; their words go, for the manifest has it all."""
        paths, found = [begun / _word(rank) for rank in range(self._mesh.world_size)], {}
        for path in paths:
            while not self._run.shared(path):
                if time.monotonic() > save.until:
                    raise StoreError(
                        f"rank 0 does not see {path}, written by another rank: do all nodes share this file system? "
                        "the checkpoint before stays the newest"
                    )
                time.sleep(POLL_SECONDS)
            found.update(files.read_object(path)["files"])
        for path in paths:
            path.unlink()
        return found


def _word(rank: int) -> str:
    """The file by which a rank says what it wrote."""
    return f"rank-{rank:05d}.json"
