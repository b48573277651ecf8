"""Where the drivers of one cluster's sweeps leave word for one another: the key-value store of Ray's head.

It goes with the head, costs a call each and needs no service. Who died leaves his word there: the head's table of jobs
says so, and whoever reads the word then takes it down. One that is stopped lives, and his word counts for seconds
(``driving.claims``).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping

from sweeps.cluster.connect import Connection

SPACE = b"isoflop-sweeps"  # Ray's own, and other programs', are beside it
SILENT_SECONDS = 2.0  # without a new word, after which it is asked whether a driver lives, ...
ASK_SECONDS = 1.0  # ... which costs milliseconds where a head has had thousands of jobs


class Board:
    """What each sweep's driver told last, by the Ray namespace of its workers."""

    def __init__(self, connection: Connection) -> None:
        from ray.experimental import internal_kv

        self._kv, self._key, self._ray = internal_kv, connection.namespace, connection.ray
        self._job = self._ray.get_runtime_context().get_job_id()
        self._told: dict[str, tuple[str, float]] = {}  # by others: a job and its words, and when these were new
        self._dead, self._asked = set[str](), -math.inf  # jobs that are over, and when that was asked

    def read(self) -> Mapping[str, str]:
        """What others told who live; while the head does not answer, which is told elsewhere, what they told last."""
        with self._quietly():
            self._told = self._living(self._all(), time.monotonic())
        return {name: words.partition("\n")[2] for name, (words, _) in self._told.items()}

    def write(self, text: str) -> None:
        """Tell others, in place of what was told before."""
        with self._quietly():
            self._kv._internal_kv_put(self._key, f"{self._job}\n{text}", namespace=SPACE)

    def clear(self) -> None:
        """Tell nothing any more."""
        with self._quietly():
            self._kv._internal_kv_del(self._key, namespace=SPACE)

    def _all(self) -> dict[str, str]:
        found = {}
        for name in (key.decode() for key in self._kv._internal_kv_list("", namespace=SPACE)):
            if name != self._key and (told := self._words(name)) is not None:
                found[name] = told
        return found

    def _words(self, name: str) -> str | None:
        told = self._kv._internal_kv_get(name, namespace=SPACE)
        return None if told is None else told.decode(errors="replace")

    def _living(self, told: Mapping[str, str], now: float) -> dict[str, tuple[str, float]]:
        """Without those whose driver is dead, which is asked of who has said nothing new for a while, or not yet."""
        found = {}
        for name, words in told.items():
            before, since = self._told.get(name, (words, -math.inf))
            found[name] = words, since if words == before else now
        silent = [name for name, (_, since) in found.items() if now - since > SILENT_SECONDS]
        if silent and now >= self._asked + ASK_SECONDS:  # Ray's public list of jobs needs its dashboard
            table = self._ray._private.state.state.job_table()
            self._dead, self._asked = {job["JobID"] for job in table if job["IsDead"]}, now
        for name in silent:
            if told[name].partition("\n")[0] in self._dead:
                if self._words(name) == told[name]:  # no other driver of that sweep has come meanwhile
                    self._kv._internal_kv_del(name, namespace=SPACE)
                del found[name]
        return found

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        with contextlib.suppress(self._ray.exceptions.RayError, RuntimeError):  # a share is never worth a sweep
            yield
