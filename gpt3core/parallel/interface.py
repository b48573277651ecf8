"""The network interface that gloo's ranks are reached at: the one that leads to rank 0.

By itself gloo takes the address that the host's name stands for, which on many is loopback's (``127.0.1.1 name`` in
/etc/hosts): ranks on other nodes then find nobody there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

SETTING = "GLOO_SOCKET_IFNAME"
SIOCGIFADDR = 0x8915  # Linux


@contextlib.contextmanager
def towards(host: str) -> Iterator[None]:
    """Have gloo's groups that are made in the block reached at that interface; a user's own setting stays."""
    name = None if SETTING in os.environ else _interface(host)
    if name is None:
        yield
        return
    os.environ[SETTING] = name
    try:
        yield
    finally:
        del os.environ[SETTING]


def _interface(host: str) -> str | None:
    """The name of the one that leads to a host; None where that is not known."""
    try:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing
            own = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError):  # one without an address
                    said = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
                    if socket.inet_ntoa(said[20:24]) == own:
                        return name
    except (OSError, ImportError):
        pass
    return None
