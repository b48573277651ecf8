"""Which rank does not come: every rank shows signs of life, and those that wait for one name it.

A broken connection ends a collective at once; a rank that is stopped, or stuck, only leaves the others waiting, for as
long as the collective's own timeout, which must be long: ranks may prepare a text, compile or evaluate meanwhile. So
each rank tells once a second how far it is (``gpt3core.pulse``) through the store that the ranks met at. Rank 0 looks
at all of them, the others look at rank 0, at whose process the store is. What they find is told to whoever runs the
run, for the thread that waits in a collective cannot be called back.

A pass of a model that ranks share is work with collectives inside. Each that begins is a sign of life, and whether the
training thread is in one is seen from its stack. So a rank that is stuck between two of them is told from those that
wait for it, and slow from stuck by how long the pieces between them took before. Where there was no piece before, in a
first step or a compiler, a rank is stuck that takes no processor, unless another one is at something long and does.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from torch.distributed import distributed_c10d

from gpt3core.parallel import processor
from gpt3core.pulse import HERE, LONG_SECONDS, Pulse
from gpt3core.words import some

BEAT_SECONDS = 1.0
STILL_SECONDS = 60.0  # without a processor, after which what only computes is stuck
AT_WORK = 0.02  # of a processor in that time; threads that only listen take less
PATIENCE = 4  # ranks may be still for so many times the longest of their pauses, ...
REMEMBERED = 64  # ... the last so many that make a difference, however long ago: a validation may lie between two steps
MEETS, COMPUTES = "torch.distributed", "torch.distributed.tensor"  # where ranks are waited for, and where not
CALLS = ("torch._ops", "torch._library.")  # what lies between one who calls an operator and the operator
LEFT = "left"  # a rank's last word


@dataclass(frozen=True, kw_only=True)
class Sign:
    """What a rank told, once a second."""

    tick: int  # of its watch: it is alive
    gates: int  # collectives that it has entered
    beats: int
    waiting: bool  # in a collective
    works: bool = False  # or at work there (``Pulse.at_gate``)
    doing: str = ""  # something long that cannot beat
    computes: bool = False  # all the time (``Pulse.busy``)
    spent: float = 0.0  # CPU seconds so far
    line: str = ""  # of isoflop, that its training thread is at


@dataclass(kw_only=True)
class _Seen:
    """A rank by what was seen of it, on the clock of whoever looks."""

    ticked: float  # when its tick changed last
    moved: float  # when its place did
    sign: Sign | None = None
    spent: float = 0.0  # CPU seconds, as far as they were counted as work
    clear: float = 0.0  # ``Judge._clear`` when its place changed last
    pauses: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))  # seconds between moves


@dataclass(kw_only=True)
class Judge:
    """Tells from the ranks' signs which one does not come. Times are of one clock, that of whoever judges."""

    ranks: Sequence[int]
    limit: float  # seconds, at least
    began: float
    missing: int | None = None  # the rank that the last verdict names
    _seen: dict[int, _Seen] = field(default_factory=dict)
    _left: set[int] = field(default_factory=set)
    _busy: set[int] = field(default_factory=set)  # ranks in something long that cannot beat
    _worked: float = -math.inf  # when one took a processor there
    _clear: float = 0.0  # seconds in which no rank was in something long, ...
    _heard: float = field(init=False)  # ... until a sign was heard last

    def __post_init__(self) -> None:
        self._seen = {rank: _Seen(ticked=self.began, moved=self.began) for rank in self.ranks}
        self._heard = self.began

    def left(self, rank: int) -> None:
        """A rank has ended, well or not: nobody is to wait for it."""
        self._left.add(rank)
        self._busy.discard(rank)

    def heard(self, rank: int, sign: Sign, now: float) -> None:
        """What a rank says."""
        seen = self._seen[rank]
        self._clear += 0.0 if self._busy else now - self._heard
        self._heard = now
        (self._busy.add if sign.doing and not sign.waiting else self._busy.discard)(rank)
        if seen.sign is None or sign.tick != seen.sign.tick:
            seen.ticked = now
        if seen.sign is None or _place(sign) != _place(seen.sign):
            pause = self._clear - seen.clear  # without what others may have been waited for in something long
            if seen.sign is not None and PATIENCE * pause > self.limit:
                seen.pauses.append(pause)
            seen.moved, seen.clear = now, self._clear
        seen.sign = sign
        seen.spent = min(seen.spent, sign.spent)  # less where a process has ended before one that it started
        if sign.spent - seen.spent > AT_WORK * STILL_SECONDS:
            seen.spent = sign.spent
            self._worked = now if _long(seen) and sign.computes else self._worked

    def silent(self, now: float) -> str:
        """A rank of which nothing is heard any more, in a sentence; "" while there is none."""
        for rank, seen in self._here().items():
            if now - seen.ticked > self.limit:
                self.missing = rank
                return f"rank {rank} has shown no sign of life for {now - seen.ticked:.0f} s"
        return ""

    def verdict(self, now: float) -> str:
        """Which rank does not come, by whoever sees all of them, in a sentence; "" while all is well."""
        if said := self.silent(now):
            return said
        here, limit = self._here(), self._patience()
        still = now - self._worked > STILL_SECONDS
        waiting = {r: s for r, s in here.items() if s.sign is not None and s.sign.waiting}
        patient = [r for r, s in waiting.items() if now - s.moved > limit]
        if not patient:
            return ""
        away = [r for r in here if r not in waiting]
        if sure := [r for r in patient if not _works(waiting[r])]:  # they wait for who may be at work, too
            patient, away = sure, away + [r for r in waiting if _works(waiting[r])]
        for rank in sorted(away, key=lambda rank: here[rank].moved):  # who stopped first is waited for by the next
            seen = here[rank]
            if now - seen.moved > _given(seen, limit, still):
                self.missing = rank
                return (
                    f"rank {rank} has not come to a collective for {now - seen.moved:.0f} s{_where(seen)}, and "
                    f"{_numbered(patient)} for it"
                )
        if not away and len(patient) == len(here):
            return self._all_wait(waiting, now, limit, still)
        return ""

    def _patience(self) -> float:
        """Seconds that a rank may be still: the limit, or more where work is done in large pieces."""
        pauses = (pause for seen in self._seen.values() for pause in seen.pauses)
        return max(self.limit, PATIENCE * max(pauses, default=0.0))

    def _here(self) -> dict[int, _Seen]:
        return {rank: seen for rank, seen in self._seen.items() if rank not in self._left}

    def _all_wait(self, waiting: Mapping[int, _Seen], now: float, limit: float, still: bool) -> str:
        """Every rank waits: for one that is behind, for the network, or for GPUs."""
        gates = {rank: seen.sign.gates for rank, seen in waiting.items() if seen.sign is not None}
        behind = [rank for rank, count in gates.items() if count < max(gates.values())]
        since = min(now - seen.moved for seen in waiting.values())
        if since <= max(_given(waiting[rank], limit, still) for rank in behind or waiting):
            return ""
        if behind:
            self.missing = behind[0]
            return f"{_numbered(behind)} in an earlier collective than the others, for {since:.0f} s"
        return (
            f"all ranks have waited in the same collective for {since:.0f} s: the network between them is broken, or a "
            "rank's device does not end what it computes"
        )


def _where(seen: _Seen) -> str:
    """What a rank says of where it is, as the rest of a sentence."""
    sign = seen.sign
    parts = [] if sign is None else [sign.doing, sign.line and f"at {sign.line}"]
    return f", where it is {said}" if (said := " ".join(filter(None, parts))) else ""


def _given(seen: _Seen, limit: float, still: bool) -> float:
    """The seconds that a rank has for what it does.

    Args:
        still: whether no rank that was at something long has taken a processor for STILL_SECONDS.
    """
    stuck = still and seen.sign is not None and seen.sign.computes
    return max(limit, STILL_SECONDS if stuck else LONG_SECONDS) if _long(seen) else limit


def _long(seen: _Seen) -> bool:
    """Whether a rank is at something long, unless it surely waits inside it."""
    sign = seen.sign
    return sign is not None and bool(sign.doing) and (sign.works or not sign.waiting)


def _works(seen: _Seen) -> bool:
    return seen.sign is not None and seen.sign.works


def _place(sign: Sign) -> tuple[int, int, bool, str]:
    return sign.gates, sign.beats, sign.waiting, sign.doing


def _numbered(ranks: Sequence[int]) -> str:
    """``rank 2 waits``, ``ranks 0, 1 wait``."""
    if len(ranks) == 1:
        return f"rank {ranks[0]} waits"
    return f"ranks {some(list(map(str, ranks)))} wait"


@contextmanager
def watched(
    rank: int, size: int, limit: float | None, told: Callable[[str, int | None], object], pulse: Pulse = HERE
) -> Iterator[None]:
    """Show this rank's signs of life and look at the others', inside the ranks' process group.

    Args:
        limit: seconds after which a rank that does not come is named; None for no watch.
        told: with the sentence and the rank that it names, once, from another thread.
    """
    if limit is None or size == 1:
        yield
        return
    watch = _Watch(rank, size, limit, told, pulse)
    watch.start()
    try:
        yield
    finally:
        watch.end()


def sign_of(p: Pulse, thread: int, tick: int) -> Sign:
    """What a pulse and the training thread show now."""
    meets, line = standing(thread)
    return Sign(
        tick=tick,
        gates=p.gates,
        beats=p.beats + _begun(),
        waiting=p.waiting > 0,
        works=p.waiting == p.working > 0 and not meets,
        doing=p.doing,
        computes=p.computes,
        spent=processor.seconds() - time.thread_time(),  # without this thread's, which shows it
        line=line,
    )


def standing(thread: int) -> tuple[bool, str]:
    """Whether a thread is inside a collective of torch's, and at which line of isoflop."""
    frame = sys._current_frames().get(thread)
    while frame is not None and _module(frame).startswith(CALLS):
        frame = frame.f_back
    meets = frame is not None and _module(frame).startswith(MEETS) and not _module(frame).startswith(COMPUTES)
    while frame is not None and not _module(frame).startswith("gpt3core."):
        frame = frame.f_back
    return meets, "" if frame is None else f"{_module(frame).replace('.', '/')}.py:{frame.f_lineno}"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def _begun() -> int:
    """The collectives that this process has begun, of any kind."""
    begun = 0
    groups: list[Any] = list(distributed_c10d._world.pg_names)
    for group in groups:
        with contextlib.suppress(RuntimeError):  # of a group that counts none
            begun += group._get_sequence_number_for_group()
    return begun


class _Watch:
    """Two threads: one that talks to the store, which may hang with rank 0, and one that judges."""

    def __init__(
        self, rank: int, size: int, limit: float, told: Callable[[str, int | None], object], pulse: Pulse
    ) -> None:
        self._rank, self._told, self._pulse = rank, told, pulse
        self._thread = threading.get_ident()  # who joins trains, though others may enter collectives too
        self._judge = Judge(ranks=range(size) if rank == 0 else range(1), limit=limit, began=time.monotonic())
        self._every = min(BEAT_SECONDS, limit / 8)
        store: Any = distributed_c10d._get_default_store()
        self._store = distributed_c10d.PrefixStore("watch", store.clone())  # a connection of its own
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._talker = threading.Thread(target=self._talk, name="watch-talks", daemon=True)

    def start(self) -> None:
        self._talker.start()
        threading.Thread(target=self._look, name="watch-looks", daemon=True).start()

    def end(self) -> None:
        """The rank leaves, and says so unless the store is gone or hangs."""
        self._over.set()
        self._talker.join(2 * self._every + 1.0)
        if not self._talker.is_alive():
            with contextlib.suppress(RuntimeError):
                self._store.set(str(self._rank), LEFT)

    def _talk(self) -> None:
        tick, there, missing = 0, list[str](), [str(rank) for rank in self._judge.ranks]
        try:
            while not self._over.is_set():
                tick += 1
                self._store.set(str(self._rank), json.dumps(vars(sign_of(self._pulse, self._thread, tick))))
                there += [key for key in missing if self._store.check([key])]
                missing = [key for key in missing if key not in there]
                self._take(there, self._store.multi_get(there) if there else [])
                self._over.wait(self._every)
        except RuntimeError:
            self._over.set()  # the store is gone with rank 0, which every collective says at once

    def _take(self, keys: Sequence[str], said: Sequence[bytes]) -> None:
        now = time.monotonic()
        with self._lock:
            for key, word in zip(keys, said, strict=True):
                if word.decode() == LEFT:
                    self._judge.left(int(key))
                else:
                    self._judge.heard(int(key), Sign(**json.loads(word)), now)

    def _look(self) -> None:
        judge = self._judge.verdict if self._rank == 0 else self._judge.silent
        while not self._over.wait(self._every):
            with self._lock:
                said = judge(time.monotonic())
            if said:
                self._told(said, self._judge.missing)
                return
