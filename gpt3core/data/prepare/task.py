"""Tasks: work that reads finished files and leaves one file or folder of its own, whole or absent.

A killed command goes on with those that are there. The name of a stage's folder has a key in it, which covers all that
its files follow from, so other settings find other folders.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from gpt3core.errors import DiskFullError, StoreError
from gpt3core.spec import canonical_json
from gpt3core.store import files

STUCK_SECONDS = 30.0  # that a pool may take to end whose workers were


@dataclass(frozen=True, kw_only=True)
class Task:
    """A call of a function of a module with plain data, and what it leaves: ``work(out, **given)``."""

    out: Path
    work: Callable[..., None]
    given: dict[str, Any]

    @property
    def done(self) -> bool:
        """Whether what it leaves is there."""
        return self.out.exists()


Spread = Callable[[Sequence[Task]], Iterator[Task]]  # does tasks somewhere, and yields each when it is done


def do(task: Task) -> Task:
    """Do one task."""
    with explained(task.out):
        task.out.parent.mkdir(parents=True, exist_ok=True)
        task.work(task.out, **task.given)
    return task


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """What the disk refuses while something is written there is one sentence."""
    try:
        with files.explained(path, setting=files.OUT):
            yield
    except DiskFullError as error:
        raise DiskFullError(
            f"no room to write {path}: what was done before is kept; free space there and give the same command again, "
            "which goes on"
        ) from error


def one_by_one(tasks: Sequence[Task]) -> Iterator[Task]:
    """Do tasks in this process."""
    for task in tasks:
        yield do(task)


def in_processes(workers: int | None) -> Spread:
    """Do tasks in so many processes of this machine; None for one a core."""
    workers = workers or len(os.sched_getaffinity(0))

    def spread(tasks: Sequence[Task]) -> Iterator[Task]:
        if min(workers, len(tasks)) < 2:
            yield from one_by_one(tasks)
            return
        pool = ProcessPoolExecutor(workers, mp_context=get_context("forkserver"), initializer=_begin)
        try:
            with _uninterrupted():  # the first is what workers are born at
                futures = [pool.submit(do, task) for task in tasks]
            for future in as_completed(futures):
                yield future.result()
            pool.shutdown()  # which waits for workers that are still being born
        except BaseException as error:
            for child in active_children():
                child.terminate()  # what they were at is absent, not half there
            _shut(pool, error)
            if isinstance(error, BrokenProcessPool):
                raise StoreError(
                    "a worker process was killed, perhaps for memory: what was done is kept; give the same command "
                    "again, with fewer workers if it happens again"
                ) from None
            raise

    return spread


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C comes when the block has ended: a worker that is half born is known to nobody, who could end it."""
    if threading.current_thread() is not threading.main_thread():  # to which it comes
        yield
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if asked:
            signal.raise_signal(signal.SIGINT)


def _shut(pool: ProcessPoolExecutor, error: BaseException) -> None:
    """Wait for a pool whose workers were ended; where it does not end, neither does this process wait."""
    stuck = threading.Timer(STUCK_SECONDS, _leave, [error])
    stuck.daemon = True
    stuck.start()
    try:
        pool.shutdown()
    finally:
        stuck.cancel()


def _leave(error: BaseException) -> None:
    """End the command whose pool does not: a worker that was ended while it wrote leaves the pool reading for ever."""
    interrupted = isinstance(error, KeyboardInterrupt)
    print("interrupted" if interrupted else f"error: {error}", file=sys.stderr, flush=True)
    os._exit(130 if interrupted else 2)


def _begin() -> None:
    """A worker ends with its command, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    command = parent_process()
    assert command is not None

    def watch() -> None:
        wait([command.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name when the block ends well.

    Two may be at one task: a cluster gives it out again when a node does not answer. The first to end counts.
    """
    begun = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    begun.mkdir()
    try:
        yield begun
        files.sync_folder(begun)
        try:
            os.rename(begun, out)
        except OSError:
            if not out.exists():
                raise
        files.sync_folder(out.parent)
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def clear(work: Path) -> None:
    """Remove what killed tasks had begun."""
    for begun in work.rglob(".*.tmp"):
        shutil.rmtree(begun, ignore_errors=True)


def key(*named: Any) -> str:
    """A short name for plain data."""
    return hashlib.sha256(canonical_json(named).encode()).hexdigest()[:12]
