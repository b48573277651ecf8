"""What takes longer than a click, done behind a page: one piece of work at a time, and the newest request wins.

What was made of older data stands until it was made of newer: a sweep may add results faster than work is done.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from dashboards import faults
from gpt3core.errors import UsageError

KEPT = 16  # requests whose result is kept, the last asked for; one each
LEAST_KEPT, MOST_RUNS = 2, 20_000  # and how many are where they are of more runs than that together: 80 MB per 10,000
RETRY_SECONDS = 30.0  # after which a problem that is not the reader's is tried again
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Found(Generic[T]):
    """What there is of something that was asked for."""

    value: T | None = None  # the newest that there is
    of: int = 0  # the version of the data that it was made of
    problem: str = ""  # why there is none of the version asked for
    seconds: float = 0.0  # that this took, or has taken so far
    done: bool = False  # whether there is nothing to wait for


@dataclass(frozen=True, kw_only=True)
class _Kept(Generic[T]):
    """The last answer to a request."""

    found: Found[T]
    version: int  # that was asked for
    until: float  # when it is to be asked again, by the monotonic clock


Request = tuple[Hashable, int]  # a key, and a version of the data


class Behind(Generic[T]):
    """Results by their request. A request that a newer one overtook before it was begun is forgotten."""

    def __init__(self, runs: Callable[[T], int] = lambda _: 0) -> None:
        """Nothing was asked for yet.

        Args:
            runs: how many a result is of, which is what it weighs.
        """
        self._runs = runs
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, _Kept[T]] = OrderedDict()
        self._next: tuple[Request, Callable[[], T]] | None = None
        self._running: tuple[Request, float] | None = None  # and since when

    def ask(self, key: Hashable, version: int, work: Callable[[], T]) -> Found[T]:
        """The newest that there is for a key; where it is older than a version, ``work`` is begun, or waits its turn.

        Args:
            version: of the data that ``work`` is about; grows.
        """
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                if kept.version >= version and time.monotonic() < kept.until:
                    return kept.found
            if self._running is None:
                self._begin((key, version), work)
            else:
                self._next = None if self._running[0] == (key, version) else ((key, version), work)
            assert self._running is not None
            before: Found[T] = Found() if kept is None else kept.found
            return replace(before, problem="", seconds=time.monotonic() - self._running[1], done=False)

    def peek(self, key: Hashable) -> T | None:
        """The newest value of a key that was asked for; None where there is none, or none any more."""
        with self._lock:
            kept = self._kept.get(key)
            return None if kept is None else kept.found.value

    def _begin(self, request: Request, work: Callable[[], T]) -> None:
        """Start a thread on it; the lock is held. A process that ends waits for it, unless it ends as the app does.

        A daemon would be cut off inside native code where the interpreter ends, which was seen to hang for it.
        """
        self._running, self._next = (request, time.monotonic()), None
        threading.Thread(target=self._work, args=(request, work), name="behind").start()

    def _work(self, request: Request, work: Callable[[], T]) -> None:
        key, version = request
        began = time.monotonic()
        value, problem, lasts = _made(work)
        ended = time.monotonic()
        with self._lock:
            before, of = self._kept.pop(key, None), version
            if value is None and before is not None:
                value, of = before.found.value, before.found.of
            found = Found(value=value, of=of, problem=problem, seconds=ended - began, done=True)
            until = math.inf if lasts else ended + RETRY_SECONDS
            self._kept[key] = _Kept(found=found, version=version, until=until)
            while len(self._kept) > KEPT or (len(self._kept) > LEAST_KEPT and self._weight() > MOST_RUNS):
                self._kept.popitem(last=False)
            self._running = None
            if self._next is not None and threading.main_thread().is_alive():
                self._begin(*self._next)

    def _weight(self) -> int:
        """Runs of all that is kept; the lock is held."""
        values = [kept.found.value for kept in self._kept.values()]
        return sum(self._runs(value) for value in values if value is not None)


def _made(work: Callable[[], T]) -> tuple[T | None, str, bool]:
    """A value, else a problem; and whether the same would come of it again."""
    try:
        return work(), "", True
    except UsageError as error:
        return None, str(error), True
    except faults.KNOWN as error:
        return None, str(error), False
    except Exception as error:  # whatever it is, the reader hears of it, and the next request is answered
        return None, faults.tell(error), False
