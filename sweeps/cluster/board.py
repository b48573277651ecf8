"""Where the drivers of one cluster's sweeps leave word for one another: the key-value store of Ray's head.

It goes with the head, costs a call each and needs no service; nothing on it outlives its meaning (``driving.claims``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from sweeps.cluster.connect import Connection

SPACE = b"isoflop-sweeps"  # Ray's own, and other programs', are beside it


class Board:
    """What each sweep's driver told last, by the Ray namespace of its workers."""

    def __init__(self, connection: Connection) -> None:
        from ray.experimental import internal_kv

        self._kv, self._key, self._ray = internal_kv, connection.namespace, connection.ray

    def read(self) -> Mapping[str, str]:
        """What others told; nothing while the head does not answer, which is told elsewhere."""
        found: dict[str, str] = {}
        with self._quietly():
            for key in self._kv._internal_kv_list("", namespace=SPACE):
                text = self._kv._internal_kv_get(key, namespace=SPACE) if key.decode() != self._key else None
                if text is not None:
                    found[key.decode()] = text.decode(errors="replace")
        return found

    def write(self, text: str) -> None:
        """Tell others, in place of what was told before."""
        with self._quietly():
            self._kv._internal_kv_put(self._key, text, namespace=SPACE)

    def clear(self) -> None:
        """Tell nothing any more."""
        with self._quietly():
            self._kv._internal_kv_del(self._key, namespace=SPACE)

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:  # a share is never worth a sweep
        with contextlib.suppress(self._ray.exceptions.RayError, RuntimeError):
            yield
