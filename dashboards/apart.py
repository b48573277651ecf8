"""What is shown of settings, made by a process of its own, which ends with it.

What a fit and its figures take for a moment, several times what they leave, never is the app's, and who reads pages
meanwhile does not wait for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from dashboards import faults
from gpt3core.errors import StoreError, UsageError

if TYPE_CHECKING:
    from analysis.settings import StudySettings
    from dashboards.made import Made

ENDS_SECONDS = 5.0  # after which a process that says no more is taken to be at something else
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>: end with who began this process, the thread that waits for it


def make(settings: StudySettings) -> Made:
    """What ``made.make`` makes, packed.

    Raises:
        Exception: as there, defects as faults.DefectError; StoreError where the process ends without a word.
    """
    app, other = Pipe()
    words = [sys.executable, "-m", "dashboards.apart", str(other.fileno())]
    with app:
        with other:  # a session of its own: a terminal's Ctrl-C is the app's
            process = subprocess.Popen(words, pass_fds=[other.fileno()], start_new_session=True)
        try:
            app.send(settings)
            found: Made | Exception = app.recv()
        except (EOFError, OSError) as error:
            status = _status(process)
            raise StoreError(f"the process that fits ended with status {status}, perhaps for want of memory") from error
        finally:
            process.kill()  # it has told all it has to
            process.wait()
    if isinstance(found, Exception):
        raise found
    return found


def _status(process: subprocess.Popen[bytes]) -> int | None:
    """How a process ended, if it did."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(ENDS_SECONDS)
    return process.returncode


def _main() -> None:
    """The process: settings in, what is made of them out, or why nothing is."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # though it be stopped itself
    app = Connection(int(sys.argv[1]))
    settings = app.recv()
    threading.Thread(target=_end_with, args=(app,), daemon=True).start()
    try:
        from dashboards import made

        app.send(made.make(settings).packed())
    except (UsageError, *faults.KNOWN) as error:
        app.send(error)
    except Exception as error:
        app.send(faults.DefectError(*faults.defect(error)))
    os._exit(0)


def _end_with(app: Connection) -> None:
    """End when the app does, however it ends: it says no more, so what there is to read is that its end is closed."""
    app.poll(None)
    os._exit(1)


if __name__ == "__main__":
    _main()
