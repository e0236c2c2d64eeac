"""Reach of the dashboard: this machine only, other machines by TLS, or through a TLS proxy."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import ConfigError
from agent.hosts import LOOPBACK

_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]+)?")
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 recognised, to ask for the name


@dataclass(frozen=True, slots=True)
class PublicOptions:
    """Options for access from other machines: certificate and key, or the proxy that has them; and
    the host name that browsers open, if it is not the host to listen on.
    """

    tls_cert: Path | None = None
    tls_key: Path | None = None
    proxy: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """Host names that the dashboard answers to, `secure` if browsers reach it by TLS, and the
    addresses of the proxy in front of it (none: any client, without forwarded headers). With
    several portfolios, `prefix` begins the paths of one, and `portfolio` is its name.
    """

    names: frozenset[str] = frozenset(LOOPBACK)
    secure: bool = False
    proxies: frozenset[str] = frozenset()
    port: int = 0
    prefix: str = ""
    portfolio: str = ""

    @property
    def cookie(self) -> str:
        """Name of the session's cookie. Cookies of a host are shared by its ports and paths."""
        slug = self.prefix.rpartition("/")[2]
        return f"{'__Host-' if self.secure else ''}trimtab-{slug + '-' if slug else ''}{self.port}"


def require_protected(host: str, port: int, public: PublicOptions) -> None:
    """Raise ConfigError unless other machines can reach the dashboard by TLS only."""
    tls = public.tls_cert is not None
    if tls is not (public.tls_key is not None):
        missing = "--tls-key" if tls else "--tls-cert"
        raise ConfigError(f"{missing}: missing", "give certificate and key together")
    if tls and public.proxy:
        raise ConfigError("--proxy: cannot be combined with --tls-cert", "give one of them")
    if public.name and (public.proxy or not tls):
        raise ConfigError("--name: only with --tls-cert", "a proxy is known by its own name")
    if host in LOOPBACK:
        pass
    elif not tls and not public.proxy:
        raise ConfigError(
            f"--host {host}: other machines would reach the dashboard without TLS",
            f"omit it and use a tunnel: ssh -L {port}:127.0.0.1:{port} USER@THIS_MACHINE; or give"
            " --tls-cert and --tls-key, or --proxy",
        )
    elif tls and host in WILDCARDS and not public.name:
        raise ConfigError(f"--name: needed with --host {host}", "the name that browsers open")
    if public.tls_cert is not None and public.tls_key is not None:
        _check_certificate(public.tls_cert, public.tls_key)


def _check_certificate(cert: Path, key: Path) -> None:
    try:
        if key.stat().st_mode & 0o077:
            raise ConfigError(f"--tls-key: others may read {key}", f"chmod 600 {key}")
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--tls-cert: {cert} and {key} cannot be used: {type(error).__name__}",
            "give a PEM certificate with its chain, and its key without a password",
        ) from None


def reach_of(host: str, port: int, public: PublicOptions) -> Reach:
    """Return the names and proxies of a dashboard with these options."""
    if public.proxy is not None:
        proxies = frozenset(LOOPBACK) if host in LOOPBACK else _addresses(public.proxy)
        return Reach(frozenset({public.proxy.lower()}), True, proxies, port)
    names = {name.lower() for name in (public.name, host) if name and name not in WILDCARDS}
    if host in LOOPBACK:
        names |= set(LOOPBACK)
    return Reach(frozenset(names), public.tls_cert is not None, frozenset(), port)


def _addresses(name: str) -> frozenset[str]:
    try:
        return frozenset(
            plain_address(str(found[4][0])) for found in socket.getaddrinfo(name, None)
        )
    except OSError:
        raise ConfigError(
            f"--proxy: {name} has no address", "give the name or address of the proxy"
        ) from None


def public_address(host: str, port: int, public: PublicOptions, secure: bool) -> str:
    """Return the address that browsers open."""
    if public.proxy is not None:
        return f"https://{public.proxy}/"
    name = public.name or host
    name = f"[{name}]" if ":" in name else name
    return f"{'https' if secure else 'http'}://{name}:{port}/"


def plain_address(text: str) -> str:
    """Return an IP address in canonical form; IPv4-mapped IPv6 as IPv4."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    return str(getattr(found, "ipv4_mapped", None) or found)


def forwarded_address(lines: Sequence[str]) -> str:
    """Return the last address in the X-Forwarded-For lines, without its port. The proxy appended
    it; the client may have forged those before it.
    """
    found = ",".join(lines).rpartition(",")[2].strip()
    if (with_port := _WITH_PORT.fullmatch(found)) is not None:
        found = with_port[1] or with_port[2]
    return plain_address(found)
