"""A sweep or a table of runs, live in a browser: ``python -m dashboards.app runs=ROOT [port=8050]``.

Takes the settings of analysis.fit. It listens at once; laws are fitted behind the pages, which say so, and again when
results were added. The pages are served on 127.0.0.1: whoever may use this machine may see them. For other machines
host=ADDRESS token=TEXT (or token=@FILE, which the list of processes does not show): each browser is asked for the token
once. The traffic is not encrypted: over a network that is not yours, ssh -L is the better way. Needs the extra ``app``
(pip install 'isoflop[app]').
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.settings import EVERY, StudySettings
from dashboards import memory
from dashboards.live import Live
from dashboards.security import Door, door, guard
from gpt3core import cli
from gpt3core.errors import StoreError, UsageError
from gpt3core.store import places, sweepdir
from gpt3core.store.rundir import default_root, open_root

PORT = 8050
OWN = ("host", "port", "token")


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    words, texts = cli.verbatim(argv, OWN)
    port = texts.get("port", str(PORT))
    if not (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65_536):
        raise UsageError(f"port={port:.80}: a number from 1 to 65535")
    at = door(texts.get("host"), texts.get("token"))
    given = cli.settings(StudySettings(), words, beside=OWN)
    given.check()
    if given.law != EVERY or given.target:  # else nothing heavy is imported before it listens
        from analysis import api

        api.options_of(given)
    memory.settle()
    with listening(at, int(port)) as listener:
        path = places.local(given.runs) if given.runs else default_root()
        is_table = places.is_table(path)
        if not is_table:
            _require_sweep(path, given.sweep)
        shown = f"[{at.host}]" if ":" in at.host else at.host
        print(f"http://{shown}:{port} (Ctrl-C ends it); laws are fitted behind the page", flush=True)
        if is_table:  # to read one takes longer than to listen
            _require_table(given)
        live = Live(given, apart=True)
        server = serve(live, listener, at)
        live.follow()
        server.serve_forever()  # until Ctrl-C
        leave()
    return 0


def leave() -> None:
    """End the process at once, whatever is fitted behind a page: nobody is there to see it.

    Its threads are inside native code, which the interpreter waits for. What they write is absent or whole at any
    moment (gpt3core.store.files).
    """
    if sys.stdout is not None:  # it is none where it was closed before the start
        sys.stdout.flush()
    os._exit(0)


def _require_sweep(root: Path, name: str | None) -> None:
    """Say at once that there is no such sweep; what is wrong with its runs the page says.

    Raises:
        StoreError: in one sentence.
    """
    open_root(root, create=False)
    names = sweepdir.names(root, finetuned=False)
    if not names or name not in (None, *names):
        from analysis.runs import store

        store.known(root, name)


def _require_table(given: StudySettings) -> None:
    """Say at once that a table cannot be used.

    Raises:
        UsageError: in one sentence.
    """
    from analysis.runs import selection
    from analysis.runs.scores import Asked

    selection.select(given, asked=Asked.of(given))


def listening(at: Door, port: int) -> socket.socket:
    """A socket that listens: a browser that comes before the pages are made waits for them.

    Raises:
        UsageError: when something else has the port, or the address is none of this machine's.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in at.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((at.host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"host={at.host:.80}: no address of this machine; 0.0.0.0 is all of them") from error
        raise UsageError(f"port={port}: {error.strerror}; give another, like port={port % 65_535 + 1}") from error
    return listener


def serve(live: Live, listener: socket.socket, at: Door) -> Any:
    """A server over what is followed, not yet serving. Requests are not logged: a page asks every two seconds."""
    app = build(live, at)
    from dashboards.server import Server

    return Server(app.server, listener)


def build(live: Live, at: Door) -> Any:
    """The Dash app over what is followed.

    Raises:
        StoreError: without dash.
    """
    try:
        import dash
    except ImportError as error:
        raise StoreError("dashboards.app needs dash: pip install 'isoflop[app]', or use dashboards.report") from error
    from dashboards import exports, faults
    from dashboards.pages import shell

    app = shell.app(live)
    # a path below dash's own files that is none of them: dash raises
    app.server.register_error_handler(dash.exceptions.DependencyException, lambda _: ("no such file\n", 404))
    exports.serve(app.server, live.shelf)
    guard(app.server, at, app.csp_hashes())
    faults.watch(app)
    return app


if __name__ == "__main__":
    cli.run(main)
