"""Names of hosts: those of this machine, the one in a Host header, and origins of web pages. A web
page whose name was rebound to this machine's address sends that name as Host (DNS rebinding).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")
"""Hosts that name this machine."""

_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Authority:
    """Host and port as a Host header names them: the host in lower case, without brackets; `port` is
    None for the scheme's own.
    """

    host: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Origin of a web page (RFC 6454)."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_default = self.port == _DEFAULT_PORTS[self.scheme]
        return f"{self.scheme}://{host}{'' if is_default else f':{self.port}'}"


def parse_authority(authority_text: str) -> Authority | None:
    """Parse a Host header; None if it is malformed."""
    match = _AUTHORITY.fullmatch(authority_text)
    if match is None:
        return None
    port = None if match[2] is None else int(match[2])
    is_port = port is None or 0 < port < 2**16
    return Authority(match[1].strip("[]").lower(), port) if is_port else None


def origin_of(scheme: str, authority: Authority) -> Origin:
    """Return the origin of pages at `authority`."""
    return Origin(scheme, authority.host, authority.port or _DEFAULT_PORTS[scheme])


def parse_origin(header: str) -> Origin | None:
    """Parse an Origin header; None for "null" and anything else that is no http(s) origin."""
    scheme, _, authority_text = header.partition("://")
    authority = parse_authority(authority_text)
    return (
        None if scheme not in _DEFAULT_PORTS or authority is None else origin_of(scheme, authority)
    )
