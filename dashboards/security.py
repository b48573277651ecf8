"""Who may see the app: this machine alone, or whoever has the token; and what a page may load.

Every request is checked for the names it calls the server by: a page of somebody else whose name was made to point here
(DNS rebinding) calls it by that name. A request that changes something comes from a page of ours, or is refused.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gpt3core.errors import UsageError

if TYPE_CHECKING:
    from flask import Flask

LOOPBACK = "127.0.0.1"
SHORTEST_TOKEN = 16  # characters
WRONG_SECONDS = 0.1  # after a wrong token, in which no other one from its address is looked at
TOLD_AT = (20, 1000, 100_000)  # wrong tokens
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # by no-referrer a form of our own would be sent with Origin: null
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, kw_only=True)
class Door:
    """Where the app listens, and the token that it asks for, if any."""

    host: str = LOOPBACK
    token: str | None = None


def door(host: str | None, token: str | None) -> Door:
    """What ``host=`` and ``token=`` ask for; ``token=@FILE`` keeps it out of the list of processes.

    Raises:
        UsageError: for an address that others reach and no token, or a token that can be guessed.
    """
    if host == "":
        raise UsageError(f"host= has no value: leave it out for {LOOPBACK}, or give an address of this machine")
    host = host or LOOPBACK
    if token is not None and token.startswith("@"):
        token = _token_of(token)
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise UsageError(
            f"token= has {len(token)} characters: at least {SHORTEST_TOKEN}, all of ASCII and on one line (python -c "
            "'import secrets; print(secrets.token_urlsafe())' makes one)"
        )
    if token is None and not _is_loopback(host):
        raise UsageError(
            f"host={host:.80}: other machines would reach the pages unasked: add token=TEXT or token=@FILE, which "
            "each browser is asked for once; without either: ssh -L 8050:127.0.0.1:8050 HOST, or "
            "dashboards.report, whose folder can be sent"
        )
    return Door(host=host, token=token)


def _token_of(word: str) -> str:
    path = Path(word[1:]).expanduser()
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"token={word:.200}: no text can be read from {path}: {error}") from error


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def guard(server: Flask, at: Door, scripts: Sequence[str]) -> None:
    """Check every request to a server, and tell browsers what its pages may load.

    Args:
        scripts: hashes of the scripts inside the pages, as CSP takes them.
    """
    import flask

    policy = "; ".join(
        (
            *("default-src 'none'", f"script-src 'self' {' '.join(scripts)}", "style-src 'self' 'unsafe-inline'"),
            *("img-src 'self' data: blob:", "font-src 'self' data:", "connect-src 'self'", "form-action 'self'"),
            *("base-uri 'none'", "frame-ancestors 'none'"),
        )
    )
    ticket = secrets.token_urlsafe(32)  # of this process: what a browser keeps is not the token
    guesses = None if at.token is None else Guesses(at.token)

    @server.before_request
    def check() -> Any:
        asked = flask.request
        if not _is_ours(asked.host, at.host):
            name = asked.host.encode("ascii", "replace").decode()
            return _plain(f"this server is not called {name:.100}: use its address, or localhost", 403)
        if asked.method not in ("GET", "HEAD") and not _is_same(asked.headers, asked.host):
            return _plain("a page of another site sent this: refused", 403)
        return None if guesses is None else _admit(ticket, guesses)

    @server.after_request
    def tell(answer: Any) -> Any:
        answer.headers.update({**HEADERS, "Content-Security-Policy": policy})
        if "ETag" not in answer.headers:  # what is no file of the program: nobody keeps it for the next one to ask
            answer.headers.setdefault("Cache-Control", "no-store")
        return answer


class Guesses:
    """Who may show a token now: a wrong one shuts out its address for a moment, and many are told on the terminal.

    Nobody waits here: guesses that are queued would hold a thread and a descriptor each.
    """

    def __init__(self, token: str) -> None:
        self._token, self._lock = token.encode(), threading.Lock()
        self._wrong = 0
        self._shut = dict[str, float]()  # until when, by address

    def is_right(self, given: str, address: str) -> bool | None:
        """Whether it is the token; None for one that is not looked at."""
        with self._lock:
            now = time.monotonic()
            self._shut = {one: until for one, until in self._shut.items() if now < until}
            if address in self._shut:
                return None
            if hmac.compare_digest(given.encode(), self._token):
                return True
            self._shut[address] = now + WRONG_SECONDS
            self._wrong += 1
            if self._wrong in TOLD_AT:
                line = f"{self._wrong:,} wrong tokens were given so far, the last from {address}"
                print(line, file=sys.stderr, flush=True)
            return False


def _admit(ticket: str, guesses: Guesses) -> Any:
    """None for a browser that has shown the token; else the page that asks for it, at whatever address was asked."""
    import flask

    from dashboards import templates

    asked = flask.request
    name = f"isoflop-{asked.host.rpartition(':')[2]}"  # cookies know no ports: two apps on one machine have two
    if hmac.compare_digest(asked.cookies.get(name, "").encode(), ticket.encode()):
        return None
    given = asked.form.get("token") if asked.mimetype == "application/x-www-form-urlencoded" else None
    right = None if given is None else guesses.is_right(given, asked.remote_addr or "nowhere")
    if right:
        answer = flask.redirect(asked.url, 303)  # whose host was checked
        answer.set_cookie(name, ticket, httponly=True, samesite="Strict")
        return answer
    if given is not None and right is None:
        return _plain("a wrong token came from your address a moment ago: send this one again", 429)
    page = templates.render("token.html", wrong=given is not None)
    return flask.Response(page, 401, mimetype="text/html")


def _plain(sentence: str, status: int) -> Any:
    import flask

    return flask.Response(sentence + "\n", status, mimetype="text/plain")


def _is_ours(called: str, host: str) -> bool:
    """Whether a Host header names this server: by an address, which no other site can, or by a name of its own."""
    try:
        name = urlsplit(f"//{called}").hostname or ""
    except ValueError:
        return False
    names = {"localhost", host.lower()} | (set() if _is_loopback(host) else {socket.gethostname().lower()})
    if name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same(headers: Any, host: str) -> bool:
    """Whether a request was sent by a page of this server; a program that is no browser says nothing."""
    origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    return origin is None or origin in (f"http://{host}", f"https://{host}")
