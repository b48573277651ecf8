"""The memory of an app that is left open for days: what is shown stays, what a fit took for a moment goes.

What is asked of the C library is glibc's; another one does as it does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os

ARENA_MAX = -8  # its name in glibc's malloc.h


def settle() -> None:
    """Have one heap for all threads, and for Arrow; before there is a second thread, and before Arrow is there.

    Else each of the threads that answer has one, in which the others cannot use what is free: following 10,000 runs,
    106 MB of that against 12, in the same time. Arrow's own keeps what threads that ended had free. (Arrays from 128 kB
    on outside the heap leave 2 MB, and a fit takes 60 to 80% longer.)
    """
    _call("mallopt", ARENA_MAX, 1)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def give_back() -> None:
    """Return what a fit took for a moment to the system, the former study with it, much of which are cycles.

    Arrow and glibc keep what is free, the latter in pieces that the next fit does not fill.
    """
    import pyarrow as pa

    gc.collect()
    pa.default_memory_pool().release_unused()
    trim()


def trim() -> None:
    """Return what is free of the heap, as after answers that draw large figures, in 1 to 5 ms."""
    _call("malloc_trim", 0)


def _call(name: str, *given: int) -> None:
    with contextlib.suppress(AttributeError, OSError, TypeError):  # of other C libraries
        getattr(ctypes.CDLL(None), name)(*given)
