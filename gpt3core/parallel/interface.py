"""The network interface that gloo's ranks are reached at: the one that leads to rank 0.

By itself gloo takes the address that the host's name stands for, which on many is loopback's (``127.0.1.1 name`` in
/etc/hosts): ranks on other nodes then find nobody there.
"""

from __future__ import annotations

import array
import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

SETTING = "GLOO_SOCKET_IFNAME"
SIOCGIFCONF, ENTRY, MOST = 0x8912, 40, 1024  # Linux: addresses of version 4, the bytes of one, and so many of them
IPV6 = Path("/proc/net/if_inet6")


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
    with contextlib.suppress(OSError, ImportError):
        family, kind, _, _, place = socket.getaddrinfo(host.strip("[]"), 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)  # sends nothing
            return _names().get(ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]))
    return None


def _names() -> dict[ipaddress.IPv4Address | ipaddress.IPv6Address, str]:
    """The interface of each of this host's addresses; an address beside the first may have a name of its own."""
    import fcntl

    found = array.array("B", bytes(ENTRY * MOST))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_:
        asked = struct.pack("iP", len(found), found.buffer_info()[0])
        length = struct.unpack("iP", fcntl.ioctl(any_, SIOCGIFCONF, asked))[0]
    entries = [found[first : first + ENTRY].tobytes() for first in range(0, length, ENTRY)]
    names = {ipaddress.ip_address(entry[20:24]): entry[:16].rstrip(b"\0").decode() for entry in entries}
    lines = [line.split() for line in IPV6.read_text().splitlines()] if IPV6.exists() else []
    return names | {ipaddress.ip_address(bytes.fromhex(line[0])): line[5] for line in lines}
