"""Whether the head of the cluster lives. Ray itself says nothing for a minute, and then ends the process.

A driver asks the head's port before it asks the head anything, for a call to a dead head does not return. A thread asks
too, and ends a driver that is caught in such a call. Nothing is lost by that: all that counts is in the store.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from gpt3core.errors import StoreError

HEAD_SECONDS = 5.0  # a head that does not answer for so long is gone
CAUGHT_SECONDS = 5.0  # after that, for a driver to leave by itself
ASK_SECONDS = 1.0
SURE_SECONDS = 0.25  # for which an answer counts
LEAVES = 2  # exit code, of what could not be run


class HeadLostError(StoreError):
    """The cluster's head does not answer any more."""


class Head:
    """Asks the head's port."""

    def __init__(
        self,
        address: str,
        *,
        local: bool = False,
        seconds: float = HEAD_SECONDS,
        leave_by: Callable[[str], object] | None = None,
        caught: float = CAUGHT_SECONDS,
    ) -> None:
        """Watch.

        Args:
            address: ``host:port`` of the head's GCS.
            local: whether this command started it, for itself alone.
            leave_by: ends this process with a sentence, where its main thread does not.
        """
        host, _, port = address.rpartition(":")
        self._place, self._address = (host.strip("[]"), int(port)), address
        self._local, self._seconds, self._caught, self._leave = local, seconds, caught, leave_by or leave
        self._over = threading.Event()
        self.lost, self._sure = False, -SURE_SECONDS
        threading.Thread(target=self._watch, name="head", daemon=True).start()

    def require(self) -> None:
        """Return where the head answers, now or within a few seconds.

        Raises:
            HeadLostError: where it does not.
        """
        if time.monotonic() - self._sure < SURE_SECONDS:
            return
        until = time.monotonic() + self._seconds
        while not self._answers():
            if time.monotonic() > until:
                self.lost = True
                raise HeadLostError(self._sentence())
            time.sleep(0.2)
        self._sure = time.monotonic()

    def close(self) -> None:
        """Watch no more."""
        self._over.set()

    def _sentence(self) -> str:
        whose = "local Ray of this sweep" if self._local else f"head of the Ray cluster at {self._address}"
        again = "start" if self._local else "start the head again (ray start --head), then"
        return (
            f"the {whose} has not answered for {self._seconds:.0f} s: this driver leaves, and nothing is lost but what "
            f"runs have done since their checkpoints; {again} the same command, which goes on from the store"
        )

    def _answers(self) -> bool:
        try:
            with socket.create_connection(self._place, timeout=min(1.0, self._seconds)):
                return True
        except OSError:
            return False

    def _watch(self) -> None:
        answered = time.monotonic()
        while not self._over.wait(ASK_SECONDS):
            if self._answers():
                answered = time.monotonic()
            elif time.monotonic() - answered > self._seconds + self._caught and not self._over.is_set():
                self._leave(self._sentence())
                return


def leave(sentence: str) -> NoReturn:
    """End the process with a sentence, from any thread: whatever Ray's own shutdown waits for will not come."""
    print(sentence, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(LEAVES)
