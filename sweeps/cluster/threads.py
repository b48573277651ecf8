"""Threads for calls that take a while. They keep no process alive: a call to a cluster that is gone never returns."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

Call = tuple[Callable[..., None], tuple[Any, ...]]


class Threads:
    """Daemon threads that do what they are given, in order, as many at once as there are."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._free = 0  # threads that wait, less the calls that no thread has taken yet

    def submit(self, call: Callable[..., None], *words: Any) -> None:
        """Have it called; it must not raise, for nobody would hear of it."""
        with self._lock:
            self._free -= 1
            if self._free < 0 and len(self._threads) < self._most:
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._threads.append(thread)
                self._free += 1
                thread.start()
        self._calls.put((call, words))

    def close(self) -> None:
        """Wait until all that was given is done, by the calls themselves too; nothing may be given afterwards."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (given := self._calls.get()) is not None:
            call, words = given
            call(*words)
            with self._lock:
                self._free += 1
