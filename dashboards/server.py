"""The server below the app: a thread a request, nothing on the terminal but defects, and nobody waited for for ever."""

from __future__ import annotations

import sys
from socket import socket
from typing import Any
from urllib.parse import urlsplit

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from dashboards import faults

SILENT_SECONDS = 300.0  # after which whoever sends nothing, or takes nothing, is given up: a laptop that was closed


class Handler(WSGIRequestHandler):
    """One connection."""

    timeout = SILENT_SECONDS

    def run_wsgi(self) -> None:
        """Answer a request; one for an address that is none is refused."""
        try:
            urlsplit(self.path)
        except ValueError:
            self.send_error(400)
        else:
            super().run_wsgi()

    def log_request(self, *_: Any) -> None:
        """Say nothing: a page asks every two seconds."""

    def log_error(self, *_: Any) -> None:
        """Say nothing: what strangers send that is no request is not for whoever runs the app."""


class Server(ThreadedWSGIServer):
    """Serves on a socket that listens already."""

    def __init__(self, app: Any, listener: socket) -> None:
        host, port = listener.getsockname()[:2]
        super().__init__(host, port, app, Handler, fd=listener.fileno())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in a line what ended a connection."""
        if (error := sys.exc_info()[1]) is not None:
            faults.tell(error)
