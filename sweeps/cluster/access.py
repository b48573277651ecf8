"""Who may reach a Ray: RAY_AUTH_MODE is always said aloud, and never left to what Ray makes of its absence.

Whoever reaches Ray's ports can run code. So a Ray without a token is started on loopback only, one that listens
elsewhere is joined with a token, or by whoever says RAY_AUTH_MODE=disabled.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterable, MutableMapping
from pathlib import Path

from gpt3core.errors import StoreError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
# Ray's switch for machines without clusters (Windows, macOS): off, and all processes listen on loopback alone
MANY_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
FILE = "~/.ray/auth_token"
HOW = (
    "with a token: RAY_AUTH_MODE=token on every node and here, ray get-auth-token --generate on the head, its "
    f"{FILE} copied to the others and here (chmod 600)"
)
JOIN = f"set RAY_AUTH_MODE=token and copy {FILE} from its head (chmod 600), or set {TOKEN}"


def alone(environment: MutableMapping[str, str] | None = None) -> None:
    """Settle the environment of a local Ray: loopback alone, and a token unless RAY_AUTH_MODE says otherwise.

    Raises:
        StoreError: when it would listen to other machines without a token, or for an unknown mode.
    """
    environment = os.environ if environment is None else environment
    environment.setdefault(MANY_MACHINES, "0")
    mode = _mode(environment) or "token"
    if mode == "disabled" and not _loopback_alone(environment):
        raise StoreError(
            f"RAY_AUTH_MODE=disabled with {MANY_MACHINES}=1: this Ray would listen to other machines without a token; "
            f"leave out either (RAY_AUTH_MODE=token makes a token of its own)"
        )
    environment[MODE] = mode
    if mode == "token" and not _has_token(environment):
        environment[TOKEN] = secrets.token_hex(16)
    _read_again()


def joined(address: str, environment: MutableMapping[str, str] | None = None) -> str:
    """Settle the environment of who joins a running Ray; returns what to warn of, or nothing.

    Raises:
        StoreError: when that Ray is on another machine and neither a token nor RAY_AUTH_MODE=disabled is given, when a
            token is asked for and there is none, or for an unknown mode.
    """
    environment = os.environ if environment is None else environment
    host, mode = _host(address), _mode(environment)
    if mode == "token" and not _has_token(environment):
        raise StoreError(
            f"RAY_AUTH_MODE=token, and there is no token to join the Ray at {address} with: copy {FILE} from its head "
            f"(ray get-auth-token shows it there), or set {TOKEN} or {TOKEN_PATH}"
        )
    if mode is None and not _has_token(environment) and not _ours(host):
        raise StoreError(
            f"the Ray at {address} is on another machine, and there is no token: whoever reaches its ports can run "
            f"code there. Start it {HOW}; or, where nobody else reaches its network, say RAY_AUTH_MODE=disabled"
        )
    chosen = mode or ("token" if _has_token(environment) else "disabled")
    environment[MODE] = chosen
    _read_again()
    if chosen == "token" or _loopback(host):
        return ""
    return f"the Ray at {address} is used without a token: whoever reaches its ports can run code. Start it {HOW}"


def refuse_strangers(address: str, nodes: Iterable[str], asked: bool) -> None:
    """Refuse a cluster of several machines that is used without a token although nobody said that it may.

    Args:
        nodes: addresses of the cluster's nodes.
        asked: whether the user said RAY_AUTH_MODE.

    Raises:
        StoreError: in that case.
    """
    if asked or os.environ.get(MODE) == "token":
        return
    if others := sorted({node for node in nodes if not _ours(node)}):
        raise StoreError(
            f"the Ray at {address} has other machines ({', '.join(others[:3])}) and no token: whoever reaches their "
            f"ports can run code there. Start it {HOW}; or, where nobody else reaches its network, say "
            "RAY_AUTH_MODE=disabled"
        )


def refused(error: BaseException | None) -> bool:
    """Whether a Ray refused its visitor's token: Ray tells it in the words of an error of the connection's cause."""
    while error is not None:
        if "AuthenticationError" in f"{type(error).__name__}: {error}":
            return True
        error = error.__cause__
    return False


def _read_again() -> None:
    """A Ray that was imported before has read the mode already, and would start a cluster that it cannot talk to."""
    if (raylet := sys.modules.get("ray._raylet")) is not None:
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


def _mode(environment: MutableMapping[str, str]) -> str | None:
    mode = environment.get(MODE)
    if mode is None:
        return None
    if mode.lower() not in ("token", "disabled"):
        raise StoreError(f"{MODE}={mode:.40}: token or disabled")
    return mode.lower()


def _has_token(environment: MutableMapping[str, str]) -> bool:
    """Whether Ray will find one, where it looks for it."""
    if environment.get(TOKEN, "").strip():
        return True
    path = Path(environment.get(TOKEN_PATH) or FILE).expanduser()
    try:
        return bool(path.read_text().strip())
    except OSError:
        return False


def _loopback_alone(environment: MutableMapping[str, str]) -> bool:
    """Whether a local Ray listens on loopback alone: what was imported before counts, for it is read only then."""
    imported = sys.modules.get("ray._private.ray_constants")
    if imported is not None and environment is os.environ:
        return not imported.ENABLE_RAY_CLUSTER
    return environment.get(MANY_MACHINES, "").lower() not in ("1", "true")


def _host(address: str) -> str:
    """Of ``host:port``, ``ray://host:port`` or ``[host]:port``; "auto" and "local" are Ray's words for this machine."""
    rest = address.rpartition("://")[2]
    host = rest.rpartition(":")[0] or rest
    return "localhost" if host in ("auto", "local") else host.strip("[]")


def _loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _ours(host: str) -> bool:
    """Whether an address is this machine's: only such a one can be listened on."""
    if _loopback(host):
        return True
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(place)
            return True
    except OSError:
        return False
