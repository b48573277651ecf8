"""Signs of life of the run in this process: whoever works for long says so, and whoever watches tells slow from stuck.

A step, a batch of an evaluation, a text that is tokenized: each is a beat. What cannot beat from within (a compiler, a
write to a slow disk) says what it does. One for the process, which trains one run at a time: a rank's watch, its
worker and deep loops would otherwise hand one object through every signature.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

LONG_SECONDS = 3600.0  # for what says that it is long and cannot beat


class Pulse:
    """Counts what happens; read by other threads, each number on its own."""

    def __init__(self) -> None:
        self.beats = 0  # of any kind
        self.gates = 0  # collectives entered
        self.waiting = 0  # how deep in collectives the training thread is
        self.working = 0  # of these, in how many it may also be at work
        self.thread = 0  # the training thread
        self.doing = ""  # something long that cannot beat
        self._stuck: Callable[[str, int | None], None] | None = None
        self._lock = threading.Lock()

    def beat(self) -> None:
        """Something was done."""
        self.beats += 1

    @contextlib.contextmanager
    def at_gate(self, *, works: bool = False) -> Iterator[None]:
        """In a collective: what follows waits for other ranks.

        Args:
            works: whether it may as well be at work there: a pass with collectives inside, or what a GPU computes.
        """
        self.thread = threading.get_ident()
        self.gates += 1
        self.waiting += 1
        self.working += works
        try:
            yield
        finally:
            self.waiting -= 1
            self.working -= works
            self.beats += 1

    @contextlib.contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """In something long that cannot beat: it may take LONG_SECONDS, and in a collective it waits for nobody."""
        before = self.doing, self.waiting, self.working
        self.doing, self.waiting, self.working = doing, 0, 0
        self.beats += 1
        try:
            yield
        finally:
            self.doing, self.waiting, self.working = before
            self.beats += 1

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Something that is a sign of life when it is done."""
        yield
        self.beats += 1

    def begin(self, stuck: Callable[[str, int | None], None] | None) -> None:
        """A run begins here.

        Args:
            stuck: told, once and from another thread, why the run cannot go on though its own thread does not return,
                and for which rank it waits.
        """
        with self._lock:
            self.waiting, self.working, self.doing, self._stuck = 0, 0, "", stuck

    def give_up(self, why: str, rank: int | None) -> bool:
        """Say that the run cannot go on, and for which rank it waits; whether anybody hears it."""
        with self._lock:
            stuck, self._stuck = self._stuck, None
        if stuck is not None:
            stuck(why, rank)
        return stuck is not None


HERE = Pulse()
beat, beating, at_gate, busy = HERE.beat, HERE.beating, HERE.at_gate, HERE.busy
