"""An object store that behaves as badly as real ones may, as an fsspec file system over a local folder.

Processes that name the same folder share it. Of every call one in so many fails, before or after it was carried out; a
write may be carried out a second time, seconds later, by whoever calls next; a listing is as old as it says. There is
no rename, no append and no overwriting within an open file. Reading by key is always the newest, as S3 and GCS promise.

ISOFLOP_FAKE_STORE holds the behaviour as JSON (``Behaviour``); ``installed`` makes ``fake://`` known to any process.
"""

from __future__ import annotations

import json
import os
import random
import time
import urllib.parse
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

VARIABLE = "ISOFLOP_FAKE_STORE"


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How bad it is; the default is a perfect store."""

    errors: float = 0.0  # share of calls that fail
    duplicates: float = 0.0  # share of writes that come a second time
    late: float = 1.0  # seconds until they do, at most
    stale: float = 0.0  # seconds that a listing may be old, at most
    creates: bool = True  # whether creation is conditional; else it overwrites, as a store that ignores the header
    seed: int = 0


class FakeStore(AbstractFileSystem):
    """``fake:///folder/prefix``: each object is a file of that folder, named by its key."""

    protocol = "fake"
    cachable = False

    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        self.behaviour = Behaviour(**json.loads(os.environ.get(VARIABLE) or "{}"))
        self.creates_exclusively = self.behaviour.creates
        self.random = random.Random(f"{self.behaviour.seed} {os.getpid()}")
        self.calls: Counter[str] = Counter()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + str(path).removeprefix("fake://").strip("/")

    # ------------------------------------------------------------------------------------------- what is used of it

    def cat_file(self, path: str, *_: Any, **__: Any) -> bytes:
        return self._call("get", lambda: self._object(path).read_bytes())

    def get_file(self, rpath: str, lpath: str, *_: Any, **__: Any) -> None:
        self._call("get", lambda: Path(lpath).write_bytes(self._object(rpath).read_bytes()))

    def put_file(self, lpath: str, rpath: str, *_: Any, **__: Any) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes())

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **__: Any) -> None:
        only_new = mode == "create" and self.behaviour.creates
        if self.random.random() < self.behaviour.duplicates:
            self._later(path, value, only_new)
        self._call("put", lambda: self._write(path, value, only_new))

    def rm_file(self, path: str) -> None:
        def work() -> None:
            found = self._object(path)
            found.rename(self._grave(found, time.time()))
            self._birth(found).unlink(missing_ok=True)

        self._call("delete", work)

    def info(self, path: str, **__: Any) -> dict[str, Any]:
        return self._call("info", lambda: {"name": path, "size": self._object(path).stat().st_size, "type": "file"})

    def find(self, path: str, *_: Any, **__: Any) -> dict[str, dict[str, Any]]:
        """All objects below, as they were a while ago: new ones may lack, removed ones may still show."""
        asof = time.time() - self.random.uniform(0, self.behaviour.stale)
        prefix = urllib.parse.quote(self._strip_protocol(path).strip("/") + "/", safe="")

        def work() -> dict[str, dict[str, Any]]:
            found = {}
            for file in self._folder(path).glob("*"):
                if not file.name.startswith(prefix):
                    continue
                name, _, removed = file.name.partition("@")
                with suppress(FileNotFoundError):
                    was_there = not removed or float(removed) > asof
                    if was_there and self._born(file) <= asof:
                        key = "/" + urllib.parse.unquote(name)
                        found[key] = {"name": key, "size": file.stat().st_size, "type": "file"}
            return found

        return self._call("list", work)

    def mv(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("an object store has no rename")

    def _open(self, path: str, mode: str = "rb", **__: Any) -> Any:
        raise NotImplementedError(f"open({path!r}, {mode!r}): whole objects only")

    # ------------------------------------------------------------------------------------------------- how it is bad

    def _call(self, kind: str, work: Any) -> Any:
        """Do it, and fail as asked: before it was done, or after."""
        self.calls[kind] += 1
        fails = self.random.random() < self.behaviour.errors
        before = self.random.random() < 0.5
        if fails and before:
            raise OSError("503 Slow Down")
        self._arrive()
        found = work()
        if fails:
            raise OSError("the answer was lost")
        return found

    def _write(self, path: str, value: bytes, only_new: bool) -> None:
        final = self._object(path)
        begun = final.parent.parent / "begun" / uuid.uuid4().hex
        for folder in (begun.parent, final.parent, self._birth(final).parent):
            folder.mkdir(parents=True, exist_ok=True)
        begun.write_bytes(value)
        try:
            if only_new:
                os.link(begun, final)
            else:
                os.replace(begun, final)
            with suppress(FileExistsError):
                self._birth(final).touch(exist_ok=False)
        finally:
            begun.unlink(missing_ok=True)

    def _later(self, path: str, value: bytes, only_new: bool) -> None:
        """Leave a write to come a second time."""
        folder = self._object(path).parent.parent / "late"
        folder.mkdir(parents=True, exist_ok=True)
        due = time.time() + self.random.uniform(0, self.behaviour.late)
        begun = folder / f".{uuid.uuid4().hex}"
        begun.write_bytes(json.dumps([str(path), value.hex(), only_new]).encode())
        begun.rename(folder / f"{due:.6f}-{uuid.uuid4().hex}")
        self._lates = folder

    def _arrive(self) -> None:
        """Carry out what is due; of several processes that come at once, one does."""
        folder = getattr(self, "_lates", None)
        for file in sorted(folder.glob("[0-9]*")) if folder else ():
            if float(file.name.partition("-")[0]) > time.time():
                return
            taken = file.with_name(f".taken-{uuid.uuid4().hex}")
            with suppress(FileNotFoundError):
                file.rename(taken)
                path, value, only_new = json.loads(taken.read_bytes())
                taken.unlink()
                self.calls["duplicate"] += 1
                with suppress(FileExistsError):
                    self._write(path, bytes.fromhex(value), only_new)

    # ------------------------------------------------------------------------------------------------ where it lies

    def _folder(self, path: str) -> Path:
        return Path(os.environ["ISOFLOP_FAKE_FOLDER"]) / "objects"

    def _object(self, path: str) -> Path:
        key = urllib.parse.quote(self._strip_protocol(path).strip("/"), safe="")
        folder = self._folder(path)
        self._lates = folder.parent / "late"
        return folder / key

    def _grave(self, file: Path, when: float) -> Path:
        return file.with_name(f"{file.name}@{when:.6f}")

    def _birth(self, file: Path) -> Path:
        """A mark of the time since which an object shows in listings, whether it was rewritten since or not."""
        return file.parent.parent / "births" / file.name

    def _born(self, file: Path) -> float:
        mark = self._birth(file)
        return mark.stat().st_mtime if mark.exists() else file.stat().st_mtime


def installed(folder: Path, behaviour: Behaviour) -> dict[str, str]:
    """The environment in which every Python process knows ``fake://``, with its objects in a folder.

    fsspec looks for entry points of whatever lies on the path.
    """
    known = folder / "known" / "isoflop_fake_store-0.dist-info"
    known.mkdir(parents=True, exist_ok=True)
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: isoflop-fake-store\nVersion: 0\n")
    (known / "entry_points.txt").write_text("[fsspec.specs]\nfake = tests.reliability.fake_store:FakeStore\n")
    here = str(Path(__file__).resolve().parent.parent.parent)
    path = [str(known.parent), here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        VARIABLE: json.dumps(asdict(behaviour)),
        "ISOFLOP_FAKE_FOLDER": str(folder),
        "PYTHONPATH": os.pathsep.join(path),
    }
