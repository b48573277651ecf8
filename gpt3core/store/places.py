"""Where a store is: a folder, or an object store by its URI, of which this machine keeps a working copy.

Whoever is given a place turns it into a folder here; whoever reads and writes that folder asks ``of`` whether there is
a truth elsewhere. A folder's store imports nothing of all that.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gpt3core.data.cache import cache_folder
from gpt3core.errors import UsageError

if TYPE_CHECKING:
    from gpt3core.store.remote import Remote

URI = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json", ".gz")  # endings of a table's name
_REMOTES: dict[Path, Remote] = {}


def local(where: str | Path) -> Path:
    """The folder of a store on this machine.

    Args:
        where: a folder, or a URI such as ``s3://bucket/runs``.

    Raises:
        UsageError: for a URI of a table, without a path, or of a kind for which nothing is installed.
    """
    match = URI.fullmatch(str(where)) if isinstance(where, str) else None
    if match is None:
        return Path(where).expanduser().absolute()
    if match[1] == "file":
        return Path(match[2]).absolute()
    uri = f"{match[1]}://{match[2].strip('/')}"
    if uri.lower().endswith(TABLES):
        raise UsageError(f"{uri:.200}: a table is read from a file of this machine: copy it here")
    if match[1] == "memory":
        raise UsageError(f"{uri:.200}: such a store is seen by one process only; give a folder or a bucket")
    if not match[2].strip("/"):
        raise UsageError(f"{uri:.200} names no bucket: give one, and a folder in it (s3://bucket/runs)")
    named = hashlib.sha256(f"{os.uname().nodename} {uri}".encode()).hexdigest()[:16]  # homes may be shared
    root = cache_folder() / "stores" / named
    if root not in _REMOTES:
        from gpt3core.store.remote import Remote

        _REMOTES[root] = Remote(uri, root)
    return root


def is_table(path: Path) -> bool:
    """Whether ``runs=`` names a table and no store, even while neither is there; a store's name may have dots."""
    try:
        if path.name.lower().endswith(TABLES):
            return not path.is_dir()
        return bool(path.suffix) and path.is_file()
    except OSError:  # whoever opens it says why it cannot
        return False


def of(root: Path) -> Remote | None:
    """The truth of which a folder is a working copy, or None where it is the store itself."""
    return _REMOTES.get(root) if _REMOTES else None


def folder(root: Path, what: str) -> Path:
    """A store that is a folder, for whoever writes to no other.

    Raises:
        UsageError: for a store elsewhere, of which only the working copy here would be written.
    """
    if (remote := of(root)) is not None:
        raise UsageError(
            f"{what} needs a store that is a folder of all nodes, not {remote.uri:.200}: name one by ISOFLOP_ROOT"
        )
    return root


def refresh(root: Path) -> None:
    """Have here what is committed by now, of a store elsewhere.

    Raises:
        StoreError: when it does not answer.
    """
    if (remote := of(root)) is not None:
        remote.refresh()


def portable(root: Path) -> Path | str:
    """What names a store on other machines: its folder, or its URI."""
    remote = of(root)
    return root if remote is None else remote.uri
