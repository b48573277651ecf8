"""A store in an object store, and the working copy of it that this machine reads and writes.

Whoever reads fetches what changed; whoever writes commits before the working copy shows it (``unit``). Beside the
units there are objects of their own: store.json, a run's spec.json, and requests to stop runs.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gpt3core.errors import LostError, StoreError
from gpt3core.store import files
from gpt3core.store.objects import Objects
from gpt3core.store.unit import Unit

FRESH_SECONDS = 5.0  # between two looks at the store
SHARE = 0.1  # of the time, at most, that a driver spends looking and committing how it stands
READERS = 16
STOP, GO = "-stop", "-go"
REQUEST = re.compile(r"/requests/[^/]+/\d+-\d+-(stop|go)$")


class Remote:
    """The truth behind a working copy."""

    def __init__(self, uri: str, root: Path) -> None:
        self.uri, self.root = uri, root
        self.objects = Objects(uri)
        self._looked = -FRESH_SECONDS
        self._guard = threading.Lock()

    def unit(self, name: str) -> Unit:
        """A run (``runs/<run_id>``) or a sweep (``sweeps/<name>``)."""
        return Unit(self.objects, name, self.root / name)

    def follower(self, sweep: str, unit: Unit) -> Follower:
        """What keeps a driver's working copy current."""
        return Follower(self, sweep, unit)

    @property
    def how(self) -> str:
        """By what one driver a sweep and one worker a run are kept."""
        by = "conditional writes, if a trial agrees," if self.objects.declares else "writes that are read again"
        return f"leases (by {by} in {self.objects.protocol}://)"

    def open(self, marker: bytes, *, create: bool) -> None:
        """Have the store's marker here, and in the store where it is to be created.

        Raises:
            StoreError: when the store does not answer.
        """
        found = self.objects.get("store.json")
        if found is None and create:
            self.objects.put("store.json", marker)  # whoever creates it writes the same
            found = marker
        if found is not None:
            files.make_folder(self.root / "runs")
            files.write_bytes(self.root / "store.json", found)

    # ------------------------------------------------------------------------------------------------------ reading

    def refresh(self, *, least: float = FRESH_SECONDS) -> None:
        """Fetch what changed of all runs and sweeps, unless that was just done.

        Raises:
            StoreError: when the store does not answer, or something of it is damaged.
        """
        with self._guard:
            if time.monotonic() - self._looked < least:
                return
            newest: dict[str, str] = {}
            for key in self.objects.list("heads"):
                unit = key.removeprefix("heads/").rpartition("/")[0]
                if unit.count("/") == 1 and ".." not in unit:
                    newest[unit] = max(key, newest.get(unit, ""))
            with ThreadPoolExecutor(READERS) as pool:
                for _ in pool.map(lambda item: self._refresh(*item), newest.items()):
                    pass
            self._looked = time.monotonic()

    def _refresh(self, name: str, head: str) -> None:
        self.unit(name).refresh(head)
        if name.startswith("runs/"):
            self.fetch_spec(name.removeprefix("runs/"))

    def fetch_spec(self, run_id: str) -> bool:
        """Whether a run's specification is here, fetched if need be."""
        path = self.root / "runs" / run_id / "spec.json"
        if not path.exists() and (data := self.objects.get(f"runs/{run_id}/spec.json")) is not None:
            files.make_folder(path.parent)
            files.write_bytes(path, data)
        return path.exists()

    def write_spec(self, run_id: str, data: bytes) -> None:
        """Write a run's specification, unless there is one; all that can be written under a run_id train alike."""
        if self.objects.get(f"runs/{run_id}/spec.json") is None:
            self.objects.put(f"runs/{run_id}/spec.json", data)

    # ----------------------------------------------------------------------------------------------------- requests

    def fetch_requests(self, sweep: str) -> None:
        """Have the requests to stop runs of a sweep as files here."""
        last = {key.split("/")[-2]: key for key in sorted(self._requests(sweep))}
        asked = {run_id for run_id, key in last.items() if key.endswith(STOP)}
        asked |= {key.rpartition("/")[2] for key in self.objects.list(f"sweeps/{sweep}/stop")}  # put there by hand
        folder = self.root / "sweeps" / sweep / "stop"
        here = {path.name for path in folder.glob("*")} if folder.exists() else set()
        for run_id in here - asked:
            (folder / run_id).unlink(missing_ok=True)
        for run_id in asked - here:
            files.write_bytes(files.make_folder(folder) / run_id, b"")

    def request(self, sweep: str, run_id: str, *, stop: bool) -> None:
        """Ask for a run to be stopped, or no more: the last that was asked counts.

        Each is an object of its own, so that one which arrives a second time, later, asks for nothing anew.
        """
        before = self._requests(sweep, run_id)
        number = 1 + max((int(key.rpartition("/")[2].partition("-")[0]) for key in before), default=0)
        key = f"sweeps/{sweep}/requests/{run_id}/{number:08d}-{time.time_ns()}{STOP if stop else GO}"
        self.objects.put(key, json.dumps({"stop": stop}).encode())
        self.objects.delete([*before, *([] if stop else [f"sweeps/{sweep}/stop/{run_id}"])])

    def _requests(self, sweep: str, run_id: str = "") -> list[str]:
        """The keys of what was asked, of one run or of all."""
        keys = self.objects.list(f"sweeps/{sweep}/requests/{run_id}".rstrip("/"))
        return [key for key in keys if REQUEST.search(key)]


class Follower:
    """A driver's thread: fetches what the workers of its runs commit, and commits how the sweep stands."""

    def __init__(self, remote: Remote, sweep: str, unit: Unit) -> None:
        self._remote, self._sweep, self._unit = remote, sweep, unit
        self._over = threading.Event()
        self._lost: LostError | None = None
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Follow for the block, and commit what is left at its end."""
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()
            if self._lost is None:
                self._unit.commit()

    def check(self) -> None:
        """Raise LostError where another driver has taken over."""
        if self._lost is not None:
            raise self._lost

    def _follow(self) -> None:
        wait = FRESH_SECONDS
        while not self._over.wait(wait):
            began = time.monotonic()
            try:
                self._all([self._unit.commit, self._look])
            except LostError as error:
                self._lost = error
                return
            wait = max(FRESH_SECONDS, (time.monotonic() - began) / SHARE)

    def _look(self) -> None:
        self._remote.refresh(least=0.0)
        self._remote.fetch_requests(self._sweep)

    def _all(self, parts: Iterable[Callable[[], None]]) -> None:
        """Each part, even where another fails: the store is asked again the next time."""
        for part in parts:
            with contextlib.suppress(StoreError, OSError):
                part()
