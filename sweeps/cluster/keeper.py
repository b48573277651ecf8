"""The keeper of a sweep's driver: a detached Ray actor with a driver process below it, which outlives who asked for it.

The driver is a process of its own, for it connects to Ray by itself and handles signals; the actor starts it when a run
is waited for and none drives, and ends itself when nobody has asked for a while.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from gpt3core.store import files
from gpt3core.store.proposals import Proposals
from gpt3core.store.sweepdir import SweepDir
from sweeps.cluster import processes
from sweeps.driving import driver

NAME = "driver"
ALONE_SECONDS = 60.0  # without a driver and without a question, after which the keeper ends
LATER_SECONDS = 3.0  # before a driver that ended is started anew
MOST_CRASHES = 3  # one after another
DRIVEN = "has a driver already"  # of what the sweep's lock says


class Keeper:
    """The actor."""

    def __init__(self, settings: Sequence[str], root: str, name: str) -> None:
        """Keep.

        Args:
            settings: of the driver, as the command line has them.
            root: of the store.
            name: of the sweep.
        """
        self._settings, self._root = list(settings), root
        self._log = Proposals(SweepDir(Path(root), name)).log
        self._child: subprocess.Popen[bytes] | None = None
        self._crashes, self._ended, self._asked = 0, -LATER_SECONDS, time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def ensure(self, settings: Sequence[str]) -> str:
        """Have the sweep driven; returns why that cannot be, or nothing."""
        self._asked = time.monotonic()
        if self._child is not None and self._child.poll() is None:
            if list(settings) != self._settings:
                return (
                    f"this sweep is driven with other settings now ({' '.join(self._settings)}): wait for its end, or "
                    "give this search another name (name=...)"
                )
            return ""
        if self._child is not None and (wrong := self._conclude(self._child)):
            return wrong
        if time.monotonic() - self._ended >= LATER_SECONDS:
            self._settings = list(settings)
            self._start()
        return ""

    def _start(self) -> None:
        files.make_folder(self._log.parent)
        environment = {
            **os.environ,
            "ISOFLOP_ROOT": self._root,
            "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        }
        words = [sys.executable, "-m", "sweeps.serve", *self._settings]
        with open(self._log, "ab") as log:
            self._child = subprocess.Popen(
                words, env=environment, stdout=log, stderr=log, preexec_fn=processes.end_with_parent
            )

    def _conclude(self, child: subprocess.Popen[bytes]) -> str:
        """A driver has ended: in peace, for another one drives, or for what nobody but the user can mend."""
        self._child, self._ended = None, time.monotonic()
        last = (self._log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        if child.returncode in (0, 1, 130) or DRIVEN in last:
            self._crashes = 0
            return ""
        self._crashes += 1
        if child.returncode == 2:
            return last.removeprefix("error: ")
        return f"the sweep's driver broke {self._crashes} times: {last} ({self._log})" * (self._crashes >= MOST_CRASHES)

    def _watch(self) -> None:
        while True:
            time.sleep(1.0)
            driving = self._child is not None and self._child.poll() is None
            if not driving and time.monotonic() - self._asked > ALONE_SECONDS:
                os._exit(0)


def of(settings: Sequence[str], root: Path, name: str, variables: dict[str, str]) -> Any:
    """The keeper of a sweep, made if there is none; all who search under one name share it."""
    options: dict[str, Any] = {
        "name": NAME,
        "namespace": driver.namespace(root, name),
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "scheduling_strategy": "DEFAULT",  # not the placement group of the trial that asks first, which ends with it
        "runtime_env": {"env_vars": variables},
    }
    return ray.remote(Keeper).options(**options).remote(list(settings), str(root), name)
