"""What takes longer than a click, done behind a page: one piece of work at a time, and the newest request wins."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from gpt3core.errors import LostError, StoreError, UsageError

KEPT = 32  # results, the last asked for
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Found(Generic[T]):
    """What there is of something that was asked for."""

    value: T | None = None
    problem: str = ""  # why there is none
    seconds: float = 0.0  # that it took, or has taken so far

    @property
    def done(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.value is not None or bool(self.problem)


class Behind(Generic[T]):
    """Results by their request. A request that a newer one overtook before it was begun is forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[Hashable, Found[T]] = OrderedDict()
        self._next: tuple[Hashable, Callable[[], T]] | None = None
        self._running: tuple[Hashable, float] | None = None  # and since when

    def ask(self, key: Hashable, work: Callable[[], T]) -> Found[T]:
        """What there is for a key; where there is nothing, ``work`` is begun, or waits for the one that runs."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
            if self._running is None:
                self._begin(key, work)
            else:
                self._next = None if self._running[0] == key else (key, work)
            assert self._running is not None
            return Found(seconds=time.monotonic() - self._running[1])

    def peek(self, key: Hashable) -> T | None:
        """The value of a key that was asked for; None where there is none, or none any more."""
        with self._lock:
            found = self._found.get(key)
            return None if found is None else found.value

    def _begin(self, key: Hashable, work: Callable[[], T]) -> None:
        """Start a thread on it; the lock is held. The process waits for its end, which is seconds away.

        A daemon would be cut off inside native code where the interpreter ends, which was seen to hang for it.
        """
        self._running, self._next = (key, time.monotonic()), None
        threading.Thread(target=self._work, args=(key, work), name="behind").start()

    def _work(self, key: Hashable, work: Callable[[], T]) -> None:
        began, found = time.monotonic(), _found(work)
        with self._lock:
            self._found[key] = replace(found, seconds=time.monotonic() - began)
            while len(self._found) > KEPT:
                self._found.popitem(last=False)
            self._running = None
            if self._next is not None and threading.main_thread().is_alive():
                self._begin(*self._next)


def _found(work: Callable[[], T]) -> Found[T]:
    try:
        return Found(value=work())
    except (UsageError, StoreError, LostError, OSError) as error:
        return Found(problem=str(error))
    except Exception as error:  # whatever it is, the reader hears of it, and the next request is answered
        return Found(problem=f"{type(error).__name__}: {error}")
