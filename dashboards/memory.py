"""The memory of an app that is left open for days: what is shown stays, what a fit took for a moment goes.

Of the C library: one that is not glibc has no such settings and does as it does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc

MMAP_THRESHOLD, ARENA_MAX = -3, -8  # names in glibc's malloc.h
LARGE = 1 << 17  # bytes


def settle() -> None:
    """Have one heap for all threads, and large pieces outside it; before there is a second thread.

    Else each of the threads that answer has a heap, in which the others cannot use what is free, and a piece counts as
    large from the largest on that was ever freed. Following 10,000 runs that left 106 MB free between what is used, and
    leaves 2.
    """
    for name, value in ((MMAP_THRESHOLD, LARGE), (ARENA_MAX, 1)):
        _call("mallopt", name, value)


def give_back() -> None:
    """Return what a fit took for a moment to the system, the former study with it, much of which are cycles.

    Arrow and glibc keep what is free, the latter in pieces that the next fit does not fill.
    """
    import pyarrow as pa

    gc.collect()
    pa.default_memory_pool().release_unused()
    _call("malloc_trim", 0)


def _call(name: str, *given: int) -> None:
    with contextlib.suppress(AttributeError, OSError, TypeError):  # of other C libraries
        getattr(ctypes.CDLL(None), name)(*given)
