"""Reach of the dashboard: options that are refused, its origin and cookie, and addresses of clients."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.hosts import Origin
from agent.web.reach import PublicOptions, Reach, forwarded_address, plain_address, public_url, reach_of, require_tls_access

SECRET = "0123456789abcdef" * 2
PROXIED = Reach(frozenset({"dash.example.org"}), uses_tls=True, proxies=frozenset({"127.0.0.1"}), public_port=8443, proxy_secret=SECRET)


def secret_file(folder: Path, text: str = SECRET, mode: int = 0o600) -> Path:
    path = folder / "proxy.secret"
    path.write_text(text, encoding="ascii")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("lines", [[], [SECRET, SECRET], [SECRET + "0"]], ids=["no line", "two lines", "another secret"])
def test_is_proxy__needs_its_secret_in_one_line(lines: list[str]) -> None:
    assert PROXIED.is_proxy("127.0.0.1", [SECRET])
    assert not PROXIED.is_proxy("127.0.0.1", lines)


@pytest.mark.parametrize(
    ("host_header", "port"), [("dash.example.org", 8443), ("dash.example.org:8443", 8443), ("dash.example.org:9443", None), ("other", None)]
)
def test_origin__has_the_public_port_which_a_proxy_may_leave_out(host_header: str, port: int | None) -> None:
    assert PROXIED.origin(host_header) == (None if port is None else Origin("https", "dash.example.org", port))


@pytest.mark.parametrize(
    ("reach", "name"),
    [
        (Reach(port=8765), "trimtab-8765"),
        (Reach(port=8765, uses_tls=True, public_port=8443), "__Host-trimtab-8443"),
        (Reach(port=8765, prefix="/p/second"), "trimtab-second-8765"),
    ],
    ids=["this machine", "public port", "portfolio"],
)
def test_cookie_name__tells_ports_and_portfolios_apart(reach: Reach, name: str) -> None:
    assert reach.cookie_name == name


@pytest.mark.parametrize(
    ("text", "mode"),
    [(SECRET, 0o640), (SECRET, 0o604), (SECRET[1:], 0o600), (f"{SECRET} {SECRET}", 0o600)],
    ids=["group may read", "others may read", "too short", "two words"],
)
def test_proxy_secret__others_may_read_or_guess_is_refused(tmp_path: Path, text: str, mode: int) -> None:
    options = PublicOptions(proxy="dash.example.org", proxy_secret_file=secret_file(tmp_path, text, mode))
    with pytest.raises(ConfigError, match="--proxy-secret"):
        require_tls_access("127.0.0.1", 8765, options)


def test_file__that_cannot_be_read_is_named_in_plain_words(tmp_path: Path) -> None:
    cert_path = tmp_path / "cert.pem"
    key_path = tmp_path / "key.pem"
    secret_path = tmp_path / "secret"
    with pytest.raises(ConfigError, match=r"key\.pem cannot be read: No such file or directory"):
        require_tls_access("127.0.0.1", 8765, PublicOptions(cert_path, key_path))
    for path in (cert_path, key_path):
        path.touch(mode=0o600)
    with pytest.raises(ConfigError, match="are no certificate and key that fit"):
        require_tls_access("127.0.0.1", 8765, PublicOptions(cert_path, key_path))
    secret_path.write_bytes(b"\xff\xfe")
    secret_path.chmod(0o600)
    with pytest.raises(ConfigError, match="secret cannot be read: it is not plain text"):
        require_tls_access("127.0.0.1", 8765, PublicOptions(proxy="dash.example.org", proxy_secret_file=secret_path))


def test_name__beside_a_proxy_is_refused(tmp_path: Path) -> None:
    options = PublicOptions(proxy="dash.example.org", proxy_secret_file=secret_file(tmp_path), public_host_name="other.example.org")
    with pytest.raises(ConfigError, match="--name"):
        require_tls_access("127.0.0.1", 8765, options)


def test_key__that_the_group_may_read_is_refused(tmp_path: Path) -> None:
    cert_path = tmp_path / "cert.pem"
    key_path = tmp_path / "key.pem"
    for path in (cert_path, key_path):
        path.touch(mode=0o600)
    key_path.chmod(0o640)
    with pytest.raises(ConfigError, match="others may read"):
        require_tls_access("127.0.0.1", 8765, PublicOptions(cert_path, key_path))


def test_host__is_known_in_lower_case() -> None:
    assert reach_of("Trim.Example.Org", 8765, PublicOptions()).host_names == {"trim.example.org"}


def test_public_url__of_a_proxy_is_https(tmp_path: Path) -> None:
    options = PublicOptions(proxy="dash.example.org:8443", proxy_secret_file=secret_file(tmp_path))
    assert public_url("127.0.0.1", 8765, options, uses_tls=False) == "https://dash.example.org:8443/"


@pytest.mark.parametrize(
    ("text", "address"), [("fe80::1%eth0", "fe80::1"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:DB8::7", "2001:db8::7"), ("peer", "peer")]
)
def test_plain_address__has_one_form(text: str, address: str) -> None:
    assert plain_address(text) == address


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["198.51.100.1, 192.0.2.7:1234"], "192.0.2.7"),
        (["198.51.100.1", "[2001:db8::7]:1234"], "2001:db8::7"),
        (["192.0.2.7", "198.51.100.1, ::ffff:192.0.2.8"], "192.0.2.8"),
    ],
)
def test_forwarded_address__is_the_last_one(lines: list[str], address: str) -> None:
    assert forwarded_address(lines) == address
