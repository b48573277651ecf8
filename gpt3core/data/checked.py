"""What was read through once on this machine, and need not be read again while its files have their size and time.

CACHE/checked/<key>.json    the files' sizes and times, and what was found; a file changed is a file not known
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gpt3core import pulse
from gpt3core.data.cache import cache_folder
from gpt3core.errors import StoreError
from gpt3core.store import files

SETTLED_SECONDS = 2.0  # a file changed so shortly ago may change again within the same tick of its file system's clock
MOST_READERS = 8  # threads that hash files


def verify(folder: Path, expected: Mapping[str, Mapping[str, Any]], *, mend: str, again: bool = False) -> None:
    """Make sure that files are the ones written down, by their size and time where they were read here before.

    Many processes may ask at once: only where something is to be read does one wait for the other.

    Args:
        expected: path below ``folder`` -> "bytes" and "sha256".
        mend: what to do where one is damaged.
        again: read all of them in any case.

    Raises:
        ValueError: for a file that is missing or another one.
    """
    found = {name: _stamp(folder / name) for name in expected}
    for name, stamp in found.items():
        if stamp is None or stamp[0] != expected[name]["bytes"]:
            raise ValueError(f"{folder / name} is damaged (it is missing, or not as long as it was written): {mend}")
    record = _record(f"files:{folder}")
    if again or _unknown(record, expected, found):
        with contextlib.ExitStack() as held:
            with contextlib.suppress(StoreError):  # a cache that cannot be written: then each reads for itself
                held.enter_context(files.locked(record.with_suffix(".lock"), wait=True))
            unknown = list(expected) if again else _unknown(record, expected, found)
            _read(folder, unknown, expected, mend)
            known = {name: [*(found[name] or ()), expected[name]["sha256"]] for name in expected}
            with contextlib.suppress(StoreError):  # then they are read again
                files.write_json(record, {"folder": str(folder), "files": known})


def remembered(key: str, paths: Iterable[Path], work_out: Callable[[], str]) -> str:
    """What was worked out of some files, from before if none of them has changed since."""
    began, stamps = time.time_ns(), {str(path): _stamp(path) for path in paths}
    record = _record(key)
    known = _known(record)
    if known.get("files") == {path: list(stamp or ()) for path, stamp in stamps.items()}:
        return str(known["found"])
    found = work_out()
    newest = max((stamp[1] for stamp in stamps.values() if stamp is not None), default=0)
    if began - newest > SETTLED_SECONDS * 1e9:
        with contextlib.suppress(StoreError):  # then it is worked out again
            files.make_folder(record.parent)
            files.write_json(record, {"files": stamps, "found": found})
    return found


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _record(key: str) -> Path:
    """Where it is kept what is known: a machine sees the disk its own way, also where a cache is shared."""
    name = hashlib.sha256(f"{os.uname().nodename}:{key}".encode()).hexdigest()[:16]
    return cache_folder() / "checked" / f"{name}.json"


def _known(record: Path) -> dict[str, Any]:
    """What a record says; nothing where it cannot be read, for it can be made again."""
    try:
        return files.find_object(record) or {}
    except StoreError:
        return {}


def _unknown(
    record: Path, expected: Mapping[str, Mapping[str, Any]], found: Mapping[str, tuple[int, int] | None]
) -> list[str]:
    """The files of which it is not known that they are what they should be."""
    known = _known(record).get("files", {})
    return [name for name, file in expected.items() if known.get(name) != [*(found[name] or ()), file["sha256"]]]


def _read(folder: Path, names: Iterable[str], expected: Mapping[str, Mapping[str, Any]], mend: str) -> None:
    def sound(name: str) -> bool:
        found = files.sha256_file(folder / name)
        pulse.beat()
        return found == str(expected[name]["sha256"])

    with ThreadPoolExecutor(min(MOST_READERS, os.cpu_count() or 1)) as threads:
        for name, good in [(name, threads.submit(sound, name)) for name in names]:
            if not good.result():
                raise ValueError(f"{folder / name} is damaged (its sha256 is not the recorded one): {mend}")
