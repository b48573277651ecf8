"""Whether file locks hold on a store's file system, between machines too: a lock there, or else a lease.

Linux names the file system and its mount options (proc(5), /proc/self/mountinfo). A local disk has one kernel that
keeps the locks. CephFS, and Lustre mounted with "flock", keep them for all clients. NFS loses a lock when its server
takes a silent client for dead, and keeps none under "nolock" or "local_lock" (nfs(5)); SMB and most of FUSE keep them
on one machine only. What is not known is not trusted: a lease needs no more than exclusive creation.
"""

from __future__ import annotations

import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path

from gpt3core.errors import UsageError
from gpt3core.store import files

SETTING = "ISOFLOP_LOCKS"
LOCK, LEASE = "lock", "lease"
MARKER = "leases.json"  # in the root: from then on everybody uses leases there
MOUNTS = Path("/proc/self/mountinfo")
LOCAL = re.compile(r"bcachefs|btrfs|ecryptfs|exfat|ext[234]|f2fs|jfs|nilfs2|ntfs3|overlay|ramfs|tmpfs|vfat|xfs|zfs")
SHARED = frozenset({"ceph"})  # these keep locks for all clients


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """How one holder at a time is kept in a store, and why so."""

    kind: str  # lock | lease
    why: str

    def __str__(self) -> str:
        return f"{'file locks' if self.kind == LOCK else 'leases'} ({self.why})"


def choose(root: Path, *, mounts: str | None = None, writes: bool = False) -> Mechanism:
    """What keeps one holder at a time in a store.

    Args:
        mounts: the text of mountinfo; by default this machine's.
        writes: try a lock, and leave word in the store that leases are used, so that a machine that sees it otherwise
            (the file server itself) uses them too; without it nothing is written.

    Raises:
        UsageError: for a setting that is none, or one that would have two machines not see one another.
    """
    asked = os.environ.get(SETTING, "auto") or "auto"
    if asked not in ("auto", LOCK, LEASE):
        raise UsageError(f"{SETTING}={asked:.40}: give auto, lock or lease")
    marked = (root / MARKER).exists()
    if asked == LOCK and marked:
        raise UsageError(
            f"{SETTING}=lock, but this store is used with leases (since {root / MARKER} was written): unset {SETTING}, "
            "or delete that file when nothing runs there"
        )
    if asked != "auto":
        found = Mechanism(kind=asked, why=f"by {SETTING}")
    elif marked:
        found = Mechanism(kind=LEASE, why=f"{MARKER} in the store says so")
    else:
        found = judge(*file_system(root, mounts))
        if writes and found.kind == LOCK and (problem := probe(root)):
            found = Mechanism(kind=LEASE, why=problem)
    if writes and found.kind == LEASE and not marked:
        files.write_json(files.make_folder(root) / MARKER, {"mechanism": LEASE, "why": found.why})
    return found


def judge(kind: str, options: frozenset[str]) -> Mechanism:
    """What a file system's type and mount options allow."""
    if LOCAL.fullmatch(kind) or kind in SHARED or (kind == "lustre" and "flock" in options):
        return Mechanism(kind=LOCK, why=kind)
    if not kind:
        return Mechanism(kind=LEASE, why="the kind of file system is not known here")
    return Mechanism(kind=LEASE, why=f"locks of {kind} do not hold between machines, or not for sure")


def file_system(path: Path, mounts: str | None = None) -> tuple[str, frozenset[str]]:
    """The type and the options of the file system of a path, of which the end may not exist yet; "" where unknown."""
    if mounts is None:
        try:
            mounts = MOUNTS.read_text(errors="replace")
        except OSError:
            return "", frozenset()
    place = Path(os.path.realpath(path))
    best: tuple[int, str, frozenset[str]] = (-1, "", frozenset())
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 6 or len(kind) < 3:
            continue
        point = Path(_unescaped(fields[4]))
        if place.is_relative_to(point) and len(point.parts) >= best[0]:  # of mounts on one point the last is seen
            best = len(point.parts), kind[0], frozenset(f"{fields[5]},{kind[2]}".split(","))
    return best[1], best[2]


def _unescaped(text: str) -> str:
    """A path of mountinfo, where blanks are octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def probe(root: Path) -> str:
    """Take a lock twice in the nearest folder that exists: why locks are not to be trusted there, or nothing.

    It finds a file system without locks; that another machine would be refused it cannot tell.
    """
    folder = next(place for place in (root, *root.parents) if place.is_dir())
    if not os.access(folder, os.W_OK):
        return ""  # nothing is going to be locked there; whoever writes is told so in a sentence
    path = folder / f".probe-{os.getpid()}.tmp"
    try:
        with open(path, "w") as first, open(path, "w") as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return ""
            return "a lock was given twice there"
    except OSError as error:
        return f"locks are refused there: {error.strerror}"
    finally:
        path.unlink(missing_ok=True)
