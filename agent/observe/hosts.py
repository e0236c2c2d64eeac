"""Checks of Host headers against DNS rebinding: a web page whose name was rebound to this machine's
address sends that name as Host.
"""

from __future__ import annotations

import ipaddress
import re

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?")


def host_name(header: str) -> str:
    """Return the name in a Host header without its port, in lower case; empty if it is malformed."""
    found = _HOST.fullmatch(header)
    return "" if found is None else found[1].strip("[]").lower()


def is_loopback(name: str) -> bool:
    """Return whether a name or address is localhost or loopback."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
