"""What the cluster says of its nodes beside who lives: which are to be taken away, and which are gone already."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any

from sweeps.cluster.connect import Connection

LOOK_SECONDS = 0.5
ANSWER_SECONDS = 1.0  # for a node's raylet to take a connection
DECLARED_SECONDS = 60.0  # a node that is gone is dead to the head too by then


class News:
    """Asks the head about nodes."""

    def __init__(self, connection: Connection) -> None:
        self._ray = connection.ray
        self._looked = -LOOK_SECONDS
        self._leaving: dict[str, float] = {}
        self._gone: dict[str, float] = {}  # nodes found gone, and when

    def leaving(self) -> Mapping[str, float]:
        """The nodes that are being drained, as a cloud's notice or ``ray drain-node`` asks, with the seconds left.

        Ray tells it by no public function (Ray Train asks the same one): infinite where no deadline was given. Nodes
        that were found gone have none left.
        """
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            told: Mapping[str, int] = self._ray._private.state.state.get_draining_nodes()
            self._leaving = {n: ms / 1000 - time.time() if ms else float("inf") for n, ms in told.items()}
            self._gone = {n: at for n, at in self._gone.items() if time.monotonic() - at < DECLARED_SECONDS}
            self._leaving |= dict.fromkeys(self._gone, 0.0)
        return self._leaving

    def gone(self, nodes: Iterable[str]) -> str:
        """The first of these nodes that is dead or does not answer, "" where all live.

        The head takes a quarter of a minute to declare a node dead that went without a word; its raylet's closed port
        tells it at once.
        """
        found = self._first_gone(set(nodes))
        if found:
            self._gone[found] = time.monotonic()
            self._looked = -LOOK_SECONDS
        return found

    def _first_gone(self, wanted: set[str]) -> str:
        entries: list[dict[str, Any]] = [entry for entry in self._ray.nodes() if entry["NodeID"] in wanted]
        for entry in entries:
            if not entry["Alive"] or not _answers(entry["NodeManagerAddress"], entry["NodeManagerPort"]):
                return str(entry["NodeID"])
        return next(iter(wanted - {entry["NodeID"] for entry in entries}), "")


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=ANSWER_SECONDS):
        return True
    return False
