"""Where the drivers of one cluster's sweeps leave word for one another: the key-value store of Ray's head.

It goes with the head, costs a call each and needs no service. Who died leaves his word there; it counts for seconds
(``driving.claims``), and whoever has seen it unchanged for long takes it down.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

from sweeps.cluster.connect import Connection

SPACE = b"isoflop-sweeps"  # Ray's own, and other programs', are beside it
OLD_SECONDS = 600.0


class Board:
    """What each sweep's driver told last, by the Ray namespace of its workers."""

    def __init__(self, connection: Connection) -> None:
        from ray.experimental import internal_kv

        self._kv, self._key, self._ray = internal_kv, connection.namespace, connection.ray
        self._since: dict[str, tuple[str, float]] = {}  # what was told, and since when it has been that

    def read(self) -> Mapping[str, str]:
        """What others told; nothing while the head does not answer, which is told elsewhere."""
        now, since = time.monotonic(), self._since
        self._since = {}
        with self._quietly():
            for key in self._kv._internal_kv_list("", namespace=SPACE):
                name = key.decode()
                told = self._kv._internal_kv_get(key, namespace=SPACE) if name != self._key else None
                if told is None:
                    continue
                text = told.decode(errors="replace")
                before, at = since.get(name, (text, now))
                self._since[name] = text, at if text == before else now
                if now - self._since[name][1] > OLD_SECONDS:
                    self._kv._internal_kv_del(key, namespace=SPACE)
        return {name: text for name, (text, _) in self._since.items()}

    def write(self, text: str) -> None:
        """Tell others, in place of what was told before."""
        with self._quietly():
            self._kv._internal_kv_put(self._key, text, namespace=SPACE)

    def clear(self) -> None:
        """Tell nothing any more."""
        with self._quietly():
            self._kv._internal_kv_del(self._key, namespace=SPACE)

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        with contextlib.suppress(self._ray.exceptions.RayError, RuntimeError):  # a share is never worth a sweep
            yield
