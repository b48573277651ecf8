"""An object store through fsspec: whole objects by their key, retried, checked; conditional creation where it is sound.

Nothing here appends, renames or overwrites what another may have written. Any call may fail, may have been carried out
although it failed, or may be carried out again later: so an object is written under a key that no other content has.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from gpt3core.errors import StoreError, UsageError

T = TypeVar("T")
TRY_SECONDS = 60.0
FIRST_WAIT, LONGEST_WAIT = 0.05, 5.0
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
# where "create" is one conditional request: If-None-Match of S3, ifGenerationMatch=0 of GCS; elsewhere fsspec looks
# first and writes then, which two can do at once
CREATES = frozenset({"s3", "s3a", "gs", "gcs"})
FINAL = (PermissionError, NotImplementedError, TypeError, ValueError)  # trying again would end the same way


class Objects:
    """The objects below a URI."""

    def __init__(self, uri: str) -> None:
        """Find the file system of a URI; nothing is asked of it yet.

        Raises:
            UsageError: when there is none for it here.
        """
        import fsspec

        self.uri, self.protocol = uri, uri.partition("://")[0]
        try:
            # a listing that was kept would show nothing that others write
            self._fs: Any
            self._fs, self._root = fsspec.url_to_fs(uri, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as error:
            extra = EXTRAS.get(self.protocol)
            way = f"pip install 'isoflop[{extra}]'" if extra else f"install what fsspec wants for it ({error})"
            raise UsageError(f"{uri:.200}: {self.protocol}:// needs a package that is not installed: {way}") from error
        except ValueError as error:
            raise UsageError(
                f"{uri:.200}: {error}; known are a folder, s3://BUCKET/PATH and gs://BUCKET/PATH"
            ) from error
        self._creates: bool | None = None

    def get(self, key: str) -> bytes | None:
        """An object, or None where there is none. Reading by key shows the newest state, unlike a listing."""
        try:
            return bytes(self._tried("read", key, lambda: self._fs.cat_file(self._path(key))))
        except FileNotFoundError:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Write an object under a key that is this process's alone."""
        self._tried("write", key, lambda: self._fs.pipe_file(self._path(key), data))

    def put_file(self, key: str, path: Path) -> None:
        """Write a file's content under a key that is this process's alone, and see that it has the file's size."""
        size = path.stat().st_size

        def work() -> None:
            self._fs.put_file(str(path), self._path(key))
            if (found := int(self._fs.info(self._path(key))["size"])) != size:
                raise OSError(f"{found} bytes arrived of {size}")

        self._tried("write", key, work)

    def get_file(self, key: str, path: Path) -> None:
        """Read an object into a file; FileNotFoundError where there is none."""
        self._tried("read", key, lambda: self._fs.get_file(self._path(key), str(path)))

    def create(self, key: str, data: bytes) -> bool:
        """Write an object that is not there; whether it is this one that is there now. Only where ``creates``.

        Args:
            data: that no other caller has, so that a creation whose answer was lost is known for one's own.
        """
        try:
            self._tried("write", key, lambda: self._fs.pipe_file(self._path(key), data, mode="create"))
        except FileExistsError:
            return self.get(key) == data
        return True

    @property
    def creates(self) -> bool:
        """Whether the store keeps two from creating one object: by its kind, and by a trial."""
        if self._creates is None:
            self._creates = self.declares and self._trial()
        return self._creates

    @property
    def declares(self) -> bool:
        """Whether it should, by its kind; asks nothing of the store."""
        return self.protocol in CREATES or bool(getattr(self._fs, "creates_exclusively", False))

    def _trial(self) -> bool:
        """Whether a second creation is refused: some that speak the S3 protocol overwrite."""
        key = f"trials/{uuid.uuid4().hex}"
        try:
            return self.create(key, b"first") and not self.create(key, b"second") and self.get(key) == b"first"
        finally:
            self.delete([key])

    def list(self, prefix: str) -> dict[str, int]:
        """Keys below a prefix, as of some moments ago, with their sizes."""
        path = self._path(prefix)

        def work() -> dict[str, Any]:
            self._fs.invalidate_cache()
            try:
                return dict(self._fs.find(path, detail=True))
            except FileNotFoundError:
                return {}

        start = len(self._path("").rstrip("/")) + 1
        found = {str(name): info for name, info in self._tried("list", prefix, work).items()}
        inside = {n: i for n, i in found.items() if n.startswith(f"{path}/")}
        return {name[start:]: int(info.get("size") or 0) for name, info in inside.items()}

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; one that stays costs room and nothing else."""
        for key in keys:
            with contextlib.suppress(FileNotFoundError, StoreError):
                self._tried("delete", key, lambda key=key: self._fs.rm_file(self._path(key)))  # type: ignore[misc]

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}".rstrip("/")

    def _tried(self, what: str, key: str, work: Callable[[], T]) -> T:
        """Do something, again after a failure, for a minute."""
        deadline, wait = time.monotonic() + TRY_SECONDS, FIRST_WAIT
        while True:
            try:
                return work()
            except FileExistsError:
                raise
            except FileNotFoundError as error:
                if what == "write":
                    raise StoreError(f"cannot write {self.uri}/{key}: there is no such bucket or folder") from error
                raise
            except FINAL as error:
                raise StoreError(f"cannot {what} {self.uri}/{key}: {type(error).__name__}: {error}") from error
            except Exception as error:  # each store has its own kinds, down to those of its HTTP library
                if "Credential" in type(error).__name__:
                    raise StoreError(f"cannot {what} {self.uri}/{key}: {error}: give credentials for it") from error
                if time.monotonic() + wait > deadline:
                    raise StoreError(
                        f"cannot {what} {self.uri}/{key}, for {TRY_SECONDS:g} s now ({type(error).__name__}: {error}): "
                        "check the network and the credentials; what was there is as it was"
                    ) from error
                time.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(2 * wait, LONGEST_WAIT)
