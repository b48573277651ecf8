"""One run or one sweep in an object store, and its working copy here.

heads/<unit>/00000003-00000012.json         the 12th state that the holder of term 3 committed: file -> sha256, key
<unit>/result.json/<sha256>-<maker>         contents, each under a key of its own
leases/<unit>/00000003.json                 who may commit

Every object is written once under a key that no other content has, so one that arrives twice, or late, changes nothing.
Contents go first and the head last; the highest head counts, by term and then by number. So a holder that has lost its
term can commit nothing that counts, whenever its requests arrive: its successor's first commit stands above them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpt3core.errors import StoreError
from gpt3core.store import boards, files
from gpt3core.store.claims import HeldError
from gpt3core.store.lease import Board, Lease, acquire
from gpt3core.store.objects import Objects

# not part of a state: begun files, locks, what is set aside, live lines, specifications (which have an object of their
# own), the analysis, requests
APART = re.compile(r"\..*|.*lock|.*\.lease|damaged-.*|tail\.jsonl.*|spec\.json|fit|stop")
CHECKPOINT = re.compile(r"checkpoints/step-\d+/(.+)")
AT_ONCE = ("manifest.json", "state.json")  # of a checkpoint; the rest is fetched by whoever reads it
COPY = ".copy.json"  # of a folder here: its head, and what its files were when they were fetched
KEPT_HEADS = 2
TRIES = 5
Entry = dict[str, Any]  # sha256, key
State = dict[str, Entry]  # by the path within the folder


class Unit:
    """A folder of the working copy and its truth."""

    def __init__(self, objects: Objects, name: str, folder: Path) -> None:
        """Look at nothing yet.

        Args:
            name: ``runs/<run_id>`` or ``sweeps/<name>``.
        """
        self.name, self.folder = name, folder
        self._objects = objects
        self._lease: Lease | None = None
        self._guard = threading.RLock()
        self._number = -1
        self._hashed: dict[str, tuple[list[int], str]] = {}  # size and time of a file that was read, its sha256
        self._heads: list[tuple[str, State]] = []  # of the newest states, that committed last at the end

    # ------------------------------------------------------------------------------------------------------- reading

    def refresh(self, head: str | None = None) -> None:
        """Make the folder what a head says, by default the newest; not while a process here writes the unit.

        Args:
            head: of a listing, which may be older than what is here already.
        """
        with self.still():
            if not self._written_here() and (head is None or head > str(self._copy().get("head", ""))):
                self._pull(head)

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Keep other processes here from fetching into the folder."""
        with files.locked(files.make_folder(self.folder) / ".copy.lock", wait=True):
            yield

    def fetch(self, checkpoint: Path) -> None:
        """Bring the files of a checkpoint here, those that are missing or are not what its manifest says."""
        if not (checkpoint / "manifest.json").exists():
            self.refresh()
        if not (checkpoint / "manifest.json").exists():
            return
        with files.locked(self.folder / f".fetch-{checkpoint.name}.lock", wait=True):
            manifest = files.read_object(checkpoint / "manifest.json")
            lacking = [
                name
                for name, sha256 in manifest.items()
                if not (checkpoint / name).exists() or files.sha256_file(checkpoint / name) != sha256
            ]
            state = self._known() if lacking else {}
            for name in lacking:
                entry = state.get(f"{checkpoint.relative_to(self.folder)}/{name}")
                with contextlib.suppress(FileNotFoundError, StoreError):  # whoever reads it says that it is damaged
                    if entry is not None and entry["sha256"] == manifest[name]:
                        self._download(entry, checkpoint / name)

    def _written_here(self) -> bool:
        """Whether a process of this machine has the unit: its folder is the newest there is."""
        if self._lease is not None:
            return True
        for name in ("lock", "driver.lock"):
            path = self.folder / name
            with files.explained(path), contextlib.suppress(FileNotFoundError), files.opened(path) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
        return False

    def _copy(self) -> dict[str, Any]:
        try:
            return files.find_object(self.folder / COPY) or {}
        except StoreError:
            return {}

    def _known(self) -> State:
        """The newest state that is known here."""
        if self._heads:
            return self._heads[-1][1]
        head = self._newest()
        return self._read(head) if head else {}

    def _newest(self) -> str | None:
        """The highest head: by the listing, by what was seen here before, and then by key, for a listing may be old."""
        seen = str(self._copy().get("head", ""))
        heads = sorted([*self._objects.list(f"heads/{self.name}"), *([seen] if seen else [])])
        if not heads:
            return None
        term, number = _place(heads[-1])
        while self._objects.get(self._head(term, number + 1)) is not None:
            number += 1
        return self._head(term, number)

    def _inherited(self, terms: Board) -> str | None:
        """The head that an earlier holder left: by its own word, or by a listing that is made late enough."""
        assert self._lease is not None
        if self._lease.token == 1:
            return None
        before = terms.read(self._lease.token - 1)
        if before is not None and before.released and before.last:
            return before.last
        time.sleep(boards.LISTED_SECONDS)  # it died, moments ago perhaps, and a listing may be old
        return self._newest()

    def _read(self, head: str) -> State:
        data = self._objects.get(head)
        if data is None:
            raise FileNotFoundError(head)
        try:
            found: State = {str(rel): {**entry} for rel, entry in json.loads(data)["files"].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(
                f"{self._objects.uri}/{head} is damaged ({error}): delete it, and the one before counts"
            ) from error
        if bad := [rel for rel in found if Path(rel).is_absolute() or ".." in Path(rel).parts]:
            raise StoreError(f"{self._objects.uri}/{head} names {bad[0]!r:.60}, outside its folder: not isoflop's")
        return found

    def _pull(self, head: str | None = None) -> str | None:
        """Make the folder what a head says; the head that was taken."""
        for _ in range(TRIES):
            taken = head or self._newest()
            try:
                self._make(self._read(taken) if taken else {}, taken)
                return taken
            except FileNotFoundError:  # the holder has gone on and cleared what was before, and the listing is old
                head = None
                time.sleep(boards.LISTED_SECONDS / TRIES)
        raise StoreError(f"{self._objects.uri}/{self.name} changes faster than it can be read: try again")

    def _make(self, state: State, head: str | None) -> None:
        """Fetch what differs, the result last, and remove what the state does not have."""
        known, here = self._copy().get("files", {}), self._scan()
        unchanged = {rel: known[rel][2] for rel, path in here.items() if known.get(rel, [])[:2] == _stamp(path)}
        for rel, entry in sorted(state.items(), key=lambda item: (item[0] == "result.json", item[0])):
            if (match := CHECKPOINT.fullmatch(rel)) and match[1] not in AT_ONCE:
                continue
            path = self.folder / rel
            if rel in here and (unchanged.get(rel) or files.sha256_file(path)) == entry["sha256"]:
                continue
            self._download(entry, path)
        for rel, path in here.items():
            if rel not in state:
                path.unlink(missing_ok=True)
        for folder in (self.folder / "checkpoints").glob("step-*"):
            if f"checkpoints/{folder.name}/manifest.json" not in state:
                files.remove_folder(folder)
        self._heads = [(head, state)] if head else []
        self._note(head)

    def _note(self, head: str | None) -> None:
        """Write down what is here, so that it need not be read again to be known."""
        state = self._heads[-1][1] if self._heads else {}
        stamps = {rel: [*_stamp(path), state[rel]["sha256"]] for rel, path in self._scan().items() if rel in state}
        text = json.dumps({"head": head or "", "files": stamps})
        with contextlib.suppress(StoreError):
            files.write_bytes(self.folder / COPY, text.encode())

    def _download(self, entry: Entry, path: Path) -> None:
        """Fetch a content whole, or not at all."""
        files.make_folder(path.parent)
        begun = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            for _ in range(TRIES):
                self._objects.get_file(entry["key"], begun)
                if files.sha256_file(begun) == entry["sha256"]:
                    with files.explained(path, setting="ISOFLOP_CACHE"):
                        os.replace(begun, path)
                    return
            raise StoreError(f"{self._objects.uri}/{entry['key']} is damaged: its sha256 is not the recorded one")
        finally:
            begun.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------------- writing

    @contextlib.contextmanager
    def claimed(self, what: str, say: Callable[[str], None] | None = None) -> Iterator[None]:
        """Be the one who commits, for the block, with a folder that is the newest state.

        Raises:
            HeldError: when another is.
        """
        terms = boards.board(self._objects, f"leases/{self.name}")
        lease = acquire(terms, what, say=say)
        if not isinstance(lease, Lease):
            raise HeldError(f"{lease}, by a lease {terms.how}")
        try:
            with self.still():
                self._lease, self._number = lease, -1
                self._adopt(self._take_over(self._inherited(terms)))
            yield
        finally:
            self._lease = None
            lease.release(self._heads[-1][0] if self._number >= 0 else "")

    def _take_over(self, head: str | None) -> str | None:
        if head is None:
            self._make({}, None)
            return None
        return self._pull(head)

    def _adopt(self, taken: str | None) -> None:
        """Make the newest state this term's own; what an earlier holder adds from now on does not count."""
        state = self._heads[-1][1] if self._heads else {}
        if taken:
            earlier = _next(taken, -1)
            with contextlib.suppress(FileNotFoundError, StoreError):
                self._heads.insert(0, (earlier, self._read(earlier)))  # to be cleared with the others
        self._put(state)
        while taken and (later := self._objects.get(following := _next(taken))) is not None:
            del later  # it came between the look and the first commit of this term, and so counts
            self._pull(following)
            self._put(self._heads[-1][1])
            taken = following

    def commit(self, begun: Path | None = None, final: Path | None = None) -> None:
        """Commit the folder as it is, with a file or a checkpoint that is whole but for its name.

        Raises:
            LostError: when another has taken over.
            StoreError: when the store cannot be written for a minute.
        """
        with self._guard:
            assert self._lease is not None, "only whoever claimed a unit commits it"
            before = self._heads[-1][1] if self._heads else {}
            paths = {**self._scan(), **self._staged(begun, final)}
            if "result.json" in before:
                paths.pop("result.json", None)  # the first one stays
            state = {rel: self._uploaded(rel, path, before.get(rel)) for rel, path in sorted(paths.items())}
            state |= {rel: before[rel] for rel in ("result.json",) if rel in before}
            state |= self._elsewhere(state, begun, final, before)
            if state != before:
                self._put(state)

    def check(self) -> None:
        """Raise LostError where another has taken over."""
        assert self._lease is not None
        self._lease.check()

    def _put(self, state: State) -> None:
        assert self._lease is not None
        self._lease.check()
        self._number += 1
        head = self._head(self._lease.token, self._number)
        self._objects.put(head, json.dumps({"files": state}, sort_keys=True).encode())
        self._heads.append((head, state))
        self._note(head)
        self._clear()

    def _clear(self) -> None:
        """Remove heads behind the newest few, and the contents that only they had."""
        gone, self._heads = self._heads[:-KEPT_HEADS], self._heads[-KEPT_HEADS:]
        kept = {entry["key"] for _, state in self._heads for entry in state.values()}
        spare = {entry["key"] for _, state in gone for entry in state.values()} - kept
        self._objects.delete([*(head for head, _ in gone), *sorted(spare)])

    def _staged(self, begun: Path | None, final: Path | None) -> dict[str, Path]:
        if begun is None or final is None:
            return {}
        rel = str(final.relative_to(self.folder))
        if not begun.is_dir():
            return {rel: begun}
        return {f"{rel}/{path.name}": path for path in begun.iterdir() if not path.name.startswith(".")}

    def _uploaded(self, rel: str, path: Path, before: Entry | None) -> Entry:
        """The entry of a file, whose content is written unless it was."""
        assert self._lease is not None
        stamp = _stamp(path)
        if self._hashed.get(rel, ([], ""))[0] != stamp:
            self._hashed[rel] = stamp, files.sha256_file(path)
        sha256 = self._hashed[rel][1]
        if before is not None and before["sha256"] == sha256:
            return before
        key = f"{self.name}/{rel}/{sha256[:32]}-{self._lease.token:08d}"
        self._objects.put_file(key, path)
        return {"sha256": sha256, "key": key}

    def _elsewhere(self, state: State, begun: Path | None, final: Path | None, before: State) -> State:
        """Files of checkpoints that are not here: other ranks', and those of earlier ones that nobody fetched."""
        found: State = {}
        places = {path.parent.name: path for path in (self.folder / "checkpoints").glob("step-*/manifest.json")}
        if begun is not None and final is not None and begun.is_dir():
            places[final.name] = begun / "manifest.json"
        for step, manifest in places.items():
            for name, sha256 in files.read_object(manifest).items():
                rel = f"checkpoints/{step}/{name}"
                if rel in state:
                    continue
                if rel in before and before[rel]["sha256"] == sha256:
                    found[rel] = before[rel]
                elif begun is not None and final is not None and step == final.name:  # by another rank of this attempt
                    found[rel] = {"sha256": sha256, "key": self._of_rank(rel, sha256, begun)}
        return found

    def _scan(self) -> dict[str, Path]:
        """The files here that are part of a state."""
        found = {}
        for place, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if not APART.fullmatch(name)]
            for name in names:
                if not APART.fullmatch(name):
                    path = Path(place) / name
                    found[str(path.relative_to(self.folder))] = path
        return found

    # ---------------------------------------------------------------------------------------------- ranks of a gang

    def share(self, begun: Path, final: Path, word: str) -> None:
        """Write what a rank other than the first has of a checkpoint, and then its word that it did."""
        for name, written in files.read_object(begun / word)["files"].items():
            rel = str((final / name).relative_to(self.folder))
            self._objects.put_file(self._of_rank(rel, written["sha256"], begun), begun / name)
        self._objects.put_file(self._word(begun, word), begun / word)

    def heard(self, begun: Path, word: str) -> bool:
        """Whether another rank's word of a checkpoint is there; it lies in the folder then."""
        with contextlib.suppress(FileNotFoundError):
            temporary = begun / f".{word}.tmp"
            self._objects.get_file(self._word(begun, word), temporary)
            os.replace(temporary, begun / word)
            return True
        return False

    def _of_rank(self, rel: str, sha256: str, begun: Path) -> str:
        return f"{self.name}/{rel}/{sha256[:32]}-{begun.name.strip('.').removesuffix('.tmp')}"

    def _word(self, begun: Path, word: str) -> str:
        return f"words/{self.name}/{begun.name.strip('.').removesuffix('.tmp')}/{word}"

    def _head(self, term: int, number: int) -> str:
        return f"heads/{self.name}/{term:08d}-{number:08d}.json"


def _place(head: str) -> tuple[int, int]:
    """The term and the number of a head's key."""
    term, number = head.rpartition("/")[2].removesuffix(".json").split("-")
    return int(term), int(number)


def _next(head: str, by: int = 1) -> str:
    """The key of the head after this one, or so many after it, of the same term."""
    term, number = _place(head)
    return f"{head.rpartition('/')[0]}/{term:08d}-{number + by:08d}.json"


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
