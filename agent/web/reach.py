"""Reach of the dashboard: this machine only, other machines by TLS, or through a TLS proxy."""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import ConfigError
from agent.foreign_text import failure_words
from agent.hosts import LOOPBACK_HOSTS, Authority, Origin, origin_of, parse_authority

_ADDRESS_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]+)?")
PROXY_HEADER = "x-trimtab-proxy"
MIN_SECRET_CHARS = 32
_SECRET_PATTERN = re.compile(rf"[!-~]{{{MIN_SECRET_CHARS},}}")
_REMEDY = "make it: (umask 077; openssl rand -hex 32 > FILE)"
_PUBLIC_HOST = re.compile(r"[0-9a-z._-]{1,253}|[0-9a-f:.]+")
WILDCARD_HOSTS = ("0.0.0.0", "::")  # noqa: S104 recognised, to ask for the name


@dataclass(frozen=True, slots=True)
class PublicOptions:
    """Options for access from other machines: certificate and key, or the proxy that has them, with
    the file of the secret that it sends; and the name that browsers open, if it is not the host to
    listen on. A name may have a port.
    """

    tls_cert: Path | None = None
    tls_key: Path | None = None
    proxy: str | None = None
    public_host_name: str | None = None
    proxy_secret_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """Host names that the dashboard answers to, `uses_tls` if browsers reach it by TLS, and the
    addresses of the proxy in front of it (none: any client, without forwarded headers), which
    sends `proxy_secret` with each request. `port` is the one that it listens on; `public_port` is
    the one that browsers open, None if only their Host header names it. With several portfolios,
    `prefix` begins the paths of one, and `portfolio` is its name. `banner` is shown on each page;
    `replay_path` is the file of the recorded prices that a demo replays (pages.read_replay).
    `on_paper` if the pages are those of a paper portfolio; `has_paper_run` is whether a process of
    this server runs it, also before its first report, and `complete_hints` lets the commands that
    a text names act on it.
    """

    host_names: frozenset[str] = frozenset(LOOPBACK_HOSTS)
    uses_tls: bool = False
    proxies: frozenset[str] = frozenset()
    port: int = 0
    public_port: int | None = None
    prefix: str = ""
    portfolio: str = ""
    banner: str = ""
    replay_path: Path | None = None
    on_paper: bool = False
    has_paper_run: Callable[[], bool] = bool
    complete_hints: Callable[[str], str] = str
    proxy_secret: str = field(default="", repr=False)

    def is_proxy(self, address: str, proxy_secrets: Sequence[str]) -> bool:
        """Return whether a request with these lines of PROXY_HEADER comes from the proxy. Its
        address alone proves nothing: any account of its machine has it.
        """
        return (
            address in self.proxies
            and len(proxy_secrets) == 1
            and len(self.proxy_secret) >= MIN_SECRET_CHARS
            and hmac.compare_digest(proxy_secrets[0].encode(), self.proxy_secret.encode())
        )

    def origin(self, host_header: str) -> Origin | None:
        """Return the origin of the page that a request with this Host header is for; None if that is
        not this dashboard. A proxy may leave out the port.
        """
        authority = parse_authority(host_header)
        if authority is None or authority.host not in self.host_names:
            return None
        scheme = "https" if self.uses_tls else "http"
        if self.public_port is None:
            return origin_of(scheme, authority)
        public_origin = origin_of(scheme, Authority(authority.host, self.public_port))
        is_same = authority.port is None or origin_of(scheme, authority) == public_origin
        return public_origin if is_same else None

    @property
    def cookie_name(self) -> str:
        """Name of the session's cookie. Cookies of a host are shared by its ports and paths."""
        slug = self.prefix.rpartition("/")[2]
        return (
            f"{'__Host-' if self.uses_tls else ''}trimtab-{slug + '-' if slug else ''}"
            f"{self.public_port or self.port}"
        )


def require_tls_access(host: str, port: int, public_options: PublicOptions) -> None:
    """Raise ConfigError unless other machines can reach the dashboard by TLS only."""
    has_certificate = public_options.tls_cert is not None
    if has_certificate is not (public_options.tls_key is not None):
        missing_option = "--tls-key" if has_certificate else "--tls-cert"
        raise ConfigError(f"{missing_option}: missing", "give certificate and key together")
    if has_certificate and public_options.proxy:
        raise ConfigError("--proxy: cannot be combined with --tls-cert", "give one of them")
    if (public_options.proxy is None) is not (public_options.proxy_secret_file is None):
        raise ConfigError(
            "--proxy-secret: needed with --proxy, and only with it",
            "the file of a secret that the proxy sends (docs/dashboard.md)",
        )
    if public_options.proxy_secret_file is not None:
        _read_secret(public_options.proxy_secret_file)
    if public_options.public_host_name and (public_options.proxy or not has_certificate):
        raise ConfigError("--name: only with --tls-cert", "a proxy is known by its own name")
    _public_name(public_options)
    if host in LOOPBACK_HOSTS:
        pass
    elif not has_certificate and not public_options.proxy:
        raise ConfigError(
            f"--host {host}: other machines would reach the dashboard without TLS",
            f"omit it and use a tunnel: ssh -L {port}:127.0.0.1:{port} USER@THIS_MACHINE; or give"
            " --tls-cert and --tls-key, or --proxy",
        )
    elif has_certificate and host in WILDCARD_HOSTS and not public_options.public_host_name:
        raise ConfigError(f"--name: needed with --host {host}", "the name that browsers open")
    if public_options.tls_cert is not None and public_options.tls_key is not None:
        _check_certificate(public_options.tls_cert, public_options.tls_key)


def _check_certificate(cert_path: Path, key_path: Path) -> None:
    try:
        if key_path.stat().st_mode & 0o077:
            raise ConfigError(f"--tls-key: others may read {key_path}", f"chmod 600 {key_path}")
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            cert_path, key_path, password=lambda: ""
        )
    except ssl.SSLError:
        raise ConfigError(
            f"--tls-cert: {cert_path} and {key_path} are no certificate and key that fit",
            "give a PEM certificate with its chain, and its key without a password",
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--tls-cert: {cert_path} or {key_path} cannot be read: {failure_words(error)}",
            "give a PEM certificate with its chain, and its key without a password",
        ) from None


def _read_secret(path: Path) -> str:
    """Return the proxy's secret. Raises ConfigError if others may read it, or it can be guessed."""
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"--proxy-secret: others may read {path}", f"chmod 600 {path}")
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--proxy-secret: {path} cannot be read: {failure_words(error)}", _REMEDY
        ) from None
    if not _SECRET_PATTERN.fullmatch(secret):
        raise ConfigError(
            f"--proxy-secret: {path} does not hold one word of at least {MIN_SECRET_CHARS} characters",
            _REMEDY,
        )
    return secret


def reach_of(host: str, port: int, public_options: PublicOptions) -> Reach:
    """Return the names and proxies of a dashboard with these options. Raises ConfigError."""
    public_name = _public_name(public_options)
    if public_name is not None and public_options.proxy is not None:
        proxies = (
            frozenset(LOOPBACK_HOSTS)
            if host in LOOPBACK_HOSTS
            else _resolved_addresses(public_name.host)
        )
        proxy_secret = (
            ""
            if public_options.proxy_secret_file is None
            else _read_secret(public_options.proxy_secret_file)
        )
        return Reach(
            frozenset({public_name.host}),
            True,
            proxies,
            port,
            public_name.port,
            proxy_secret=proxy_secret,
        )
    host_names = {public_name.host} if public_name else set()
    if host not in WILDCARD_HOSTS:
        host_names.add(host.lower())
    if host in LOOPBACK_HOSTS:
        host_names |= set(LOOPBACK_HOSTS)
    public_port = public_name.port if public_name else None
    uses_tls = public_options.tls_cert is not None
    return Reach(frozenset(host_names), uses_tls, frozenset(), port, public_port)


def _public_name(public_options: PublicOptions) -> Authority | None:
    """Return the name, with its port if it is given, of --proxy or --name; None without them. Raises
    ConfigError if it is none.
    """
    option = "--name" if public_options.proxy is None else "--proxy"
    name = public_options.public_host_name if public_options.proxy is None else public_options.proxy
    if name is None:
        return None
    origin_text = name.removeprefix("https://").rstrip("/")
    authority_text, _, path = origin_text.partition("/")
    if path and "://" not in origin_text:
        raise ConfigError(
            f"{option}: {name}: a path prefix is not supported, since paths of one origin share"
            " logins",
            "give the dashboard a host name or a port of its own, without a path",
        )
    authority = parse_authority(authority_text)
    if authority is None or not _PUBLIC_HOST.fullmatch(authority.host):
        raise ConfigError(
            f"{option}: {name!r} is not a host name", "write NAME or NAME:PORT, as browsers open it"
        )
    return authority


def _resolved_addresses(host_name: str) -> frozenset[str]:
    try:
        return frozenset(
            plain_address(str(address_info[4][0]))
            for address_info in socket.getaddrinfo(host_name, None)
        )
    except OSError:
        raise ConfigError(
            f"--proxy: {host_name} has no address", "give the name or address of the proxy"
        ) from None


def public_url(host: str, port: int, public_options: PublicOptions, uses_tls: bool) -> str:
    """Return the address that browsers open."""
    public_name = _public_name(public_options)
    if public_name is not None and public_options.proxy is not None:
        return f"{origin_of('https', public_name)}/"
    authority = public_name or Authority(host)
    scheme = "https" if uses_tls else "http"
    return f"{Origin(scheme, authority.host, authority.port or port)}/"


def plain_address(address_text: str) -> str:
    """Return an IP address in canonical form; IPv4-mapped IPv6 as IPv4."""
    try:
        address = ipaddress.ip_address(address_text.partition("%")[0])
    except ValueError:
        return address_text
    return str(getattr(address, "ipv4_mapped", None) or address)


def forwarded_address(header_lines: Sequence[str]) -> str:
    """Return the last address in the X-Forwarded-For lines, without its port. The proxy appended
    it; the client may have forged those before it.
    """
    address = ",".join(header_lines).rpartition(",")[2].strip()
    if (match := _ADDRESS_WITH_PORT.fullmatch(address)) is not None:
        address = match[1] or match[2]
    return plain_address(address)
