"""Signs of life of the run in this process: whoever works for long says so, and whoever watches tells slow from stuck.

A step, a batch of an evaluation, a text that is tokenized: each is a beat. What cannot beat from within (a compiler, a
write to a slow disk) says what it does. One for the process, which trains one run at a time: a rank's watch, its
worker and deep loops would otherwise hand one object through every signature.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MANY = 1 << 32  # collectives, more than there are in any work that ranks share out
LONG_SECONDS = 3600.0  # for what says that it is long and cannot beat


@dataclass(frozen=True, eq=False)
class _Part:
    """A collective, or something long, that is not over."""

    doing: str = ""  # what is long and cannot beat; "" for a collective
    works: bool = False  # in a collective: whether it may also be at work there
    computes: bool = False  # what is long: whether it takes a processor all the time


class Pulse:
    """Counts what happens; read by other threads, each number on its own."""

    def __init__(self) -> None:
        self.beats = 0  # of any kind
        self.gates = 0  # collectives entered
        self._parts: list[_Part] = []  # outermost first; threads enter and leave them in any order
        self._stuck: Callable[[str, int | None], None] | None = None
        self._lock = threading.Lock()

    @property
    def doing(self) -> str:
        """Something long that cannot beat, the innermost."""
        return next((part.doing for part in self._parts[::-1] if part.doing), "")

    @property
    def computes(self) -> bool:
        """Whether that takes a processor, of this process or of one that it started, all the time."""
        return next((part.computes for part in self._parts[::-1] if part.doing), False)

    @property
    def waiting(self) -> int:
        """How many collectives it is in, in the innermost of what is long."""
        return len(self._gates())

    @property
    def working(self) -> int:
        """In how many of these it may also be at work."""
        return sum(gate.works for gate in self._gates())

    def _gates(self) -> list[_Part]:
        return list(itertools.takewhile(lambda part: not part.doing, self._parts[::-1]))

    def beat(self) -> None:
        """Something was done."""
        self.beats += 1

    @contextlib.contextmanager
    def at_gate(self, *, works: bool = False) -> Iterator[None]:
        """In a collective: what follows waits for other ranks.

        Args:
            works: whether it may as well be at work there: a pass with collectives inside, or what a GPU computes.
        """
        self.gates += 1
        with self._inside(_Part(works=works)):
            yield

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Inside it a rank enters collectives with some ranks only; who is done is ahead of all that are inside."""
        before = self.gates
        try:
            yield
        finally:
            self.gates = before + MANY

    @contextlib.contextmanager
    def busy(self, doing: str, *, computes: bool = False) -> Iterator[None]:
        """In something long that cannot beat: it may take LONG_SECONDS, and in a collective it waits for nobody.

        Args:
            computes: whether it takes a processor all the time, so that one which takes none is stuck.
        """
        self.beats += 1
        with self._inside(_Part(doing=doing, computes=computes)):
            yield

    @contextlib.contextmanager
    def _inside(self, part: _Part) -> Iterator[None]:
        self._parts.append(part)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):  # of a run that was left behind
                self._parts.remove(part)
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
            self._stuck = stuck
            self._parts.clear()

    def give_up(self, why: str, rank: int | None) -> bool:
        """Say that the run cannot go on, and for which rank it waits; whether anybody hears it."""
        with self._lock:
            stuck, self._stuck = self._stuck, None
        if stuck is not None:
            stuck(why, rank)
        return stuck is not None


HERE = Pulse()
beat, beating, at_gate, apart, busy = HERE.beat, HERE.beating, HERE.at_gate, HERE.apart, HERE.busy
