"""Names of hosts: those of this machine, and the one in a Host header. A web page whose name was
rebound to this machine's address sends that name as Host (DNS rebinding).
"""

from __future__ import annotations

import re

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")
"""Hosts that name this machine."""

_HOST_HEADER = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?")


def host_name(header: str) -> str:
    """Return the name in a Host header without its port, in lower case; empty if it is malformed."""
    host_match = _HOST_HEADER.fullmatch(header)
    return "" if host_match is None else host_match[1].strip("[]").lower()
