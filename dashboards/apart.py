"""A study made by a process of its own, which ends with it.

What a fit takes for a moment, several times what it leaves, never is the app's, and who reads pages meanwhile does not
wait for it. Settings and study go through pipes, between processes of one user: no pickle comes from a file.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, BinaryIO

from gpt3core.errors import StoreError

if TYPE_CHECKING:
    from analysis.settings import StudySettings
    from analysis.study import Study


def study(settings: StudySettings) -> Study:
    """The same as ``data.load`` makes here.

    Raises:
        Exception: as there; StoreError where the process ends without a word.
    """
    words, pipe = [sys.executable, "-m", "dashboards.apart"], subprocess.PIPE
    # a session of its own: a terminal's Ctrl-C is the app's
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, start_new_session=True) as child:
        assert child.stdin is not None and child.stdout is not None
        try:
            os.write(child.stdin.fileno(), pickle.dumps(settings))  # whose end stays open: see _end_with
            found: Study | Exception = pickle.load(child.stdout)  # noqa: S301 of our own process
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise StoreError(
                f"the process that fits ended with status {child.wait()}, perhaps for want of memory: laws are fitted "
                "again when a result is added"
            ) from error
    if isinstance(found, Exception):
        raise found
    return found


def _main() -> None:
    """The process: settings in, a study or why there is none out."""
    given, told = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints
    settings = pickle.load(given)  # noqa: S301 of the app
    threading.Thread(target=_end_with, args=(given,), daemon=True).start()
    try:
        from dashboards import data

        found: Study | Exception = data.load(settings)[0]
    except Exception as error:  # the app says it
        found = error
    pickle.dump(found, told)
    told.flush()
    os._exit(0)


def _end_with(app: BinaryIO) -> None:
    """End when the app does, however it ends: its end of the pipe is closed then."""
    app.read()
    os._exit(1)


if __name__ == "__main__":
    _main()
