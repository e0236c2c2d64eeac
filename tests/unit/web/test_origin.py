"""The dashboard's own origin: the name and port that browsers open, behind a real TLS proxy on any port, decides Host, forms, cookies
and links.
"""

from __future__ import annotations

import http.client
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyotp
import pytest
import requests
from fastapi.requests import Request

from agent.errors import ConfigError
from agent.hosts import Authority, Origin, parse_authority, parse_origin
from agent.web.access import _is_own_form
from agent.web.reach import MIN_SECRET_CHARS, PublicOptions, Reach, public_url, reach_of, require_tls_access
from tests.support.dashboards import PATIENCE_S
from tests.support.pages.certificates import certificate
from tests.support.samples import slow
from tests.support.sites import PASSWORD, PROXY_SECRET, Site, behind_proxy

__all__ = ["certificate"]

HostOf = Callable[[str], str]
HOST_STYLES: dict[str, HostOf] = {
    "nginx with $http_host": lambda host: host,
    "nginx with $host": lambda host: host.rpartition(":")[0],
    "in upper case": str.upper,
}
"""What a proxy sends as Host for the browser's Host."""


class ReverseProxy:
    """A TLS proxy on a port of its own that forwards each request as nginx does."""

    def __init__(self, certificate: PublicOptions) -> None:
        assert certificate.tls_cert is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.tls_cert, certificate.tls_key)
        self.ca_file = certificate.tls_cert
        self.site_port = 0
        self.host_of: HostOf = lambda host: host
        self.more_headers: dict[str, str] = {}
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def forward(self) -> None:
                link = http.client.HTTPConnection("127.0.0.1", proxy.site_port, timeout=PATIENCE_S)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name: value for name, value in self.headers.items() if name.lower() not in {"host", "connection"}}
                headers |= {"Host": proxy.host_of(self.headers["Host"]), "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.5"}
                headers |= {"X-Trimtab-Proxy": PROXY_SECRET, "Connection": "close", **proxy.more_headers}
                link.request(self.command, self.path, body, headers)
                answer = link.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in {"transfer-encoding", "connection", "content-length", "date", "server"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                link.close()

            do_GET = do_POST = forward  # noqa: N815  # http.server's names

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        self.origin = f"https://localhost:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def proxy(certificate: PublicOptions) -> Iterator[ReverseProxy]:
    reverse_proxy = ReverseProxy(certificate)
    yield reverse_proxy
    reverse_proxy.close()


@contextmanager
def behind(proxy: ReverseProxy, folder: Path, name: str) -> Iterator[Site]:
    """A dashboard with users behind the proxy; in `name` PORT stands for the proxy's port."""
    reach = reach_of("127.0.0.1", 8765, behind_proxy(folder, name.replace("PORT", str(proxy.port))))
    with Site(folder / "a.users", reach) as site:
        proxy.site_port = site.port
        yield site


def browser(proxy: ReverseProxy) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.verify = str(proxy.ca_file)
    return session


def log_in(session: requests.Session, proxy: ReverseProxy, site: Site, origin: str = "") -> requests.Response:
    """Fill in the login form as a browser does, which sends the origin of its page."""
    page = session.get(f"{proxy.origin}/login")
    assert page.status_code == 200, page.text
    (token,) = set(re.findall(r'name="csrf" value="([^"]+)"', page.text))
    fields = {"csrf": token, "name": "ann", "password": PASSWORD, "code": pyotp.TOTP(site.secrets["ann"]).now()}
    headers = {"Origin": origin or proxy.origin, "Sec-Fetch-Site": "same-origin"}
    return session.post(f"{proxy.origin}/login", data=fields, headers=headers, allow_redirects=False)


@pytest.mark.parametrize(
    ("name", "host_style"),
    [
        ("localhost:PORT", "nginx with $host"),
        ("LocalHost:PORT", "in upper case"),
        *slow(("localhost:PORT", host_style) for host_style in ("nginx with $http_host", "in upper case")),
        *slow([("https://localhost:PORT", "nginx with $host"), ("https://localhost:PORT/", "nginx with $http_host")]),
    ],
)
def test_a_user_logs_in_behind_a_proxy_on_another_port(proxy: ReverseProxy, tmp_path: Path, name: str, host_style: str) -> None:
    proxy.host_of = HOST_STYLES[host_style]
    with behind(proxy, tmp_path, name) as site:
        session = browser(proxy)
        answer = log_in(session, proxy, site)
        assert (answer.status_code, answer.headers["location"]) == (303, "/"), answer.text
        assert f"__Host-trimtab-{proxy.port}" in session.cookies, "the port that browsers open, not the one behind the proxy"
        page = session.get(f"{proxy.origin}/")
        assert page.status_code == 200
        assert 'action="/logout"' in page.text
        assert session.get(f"{proxy.origin}/phone.svg").status_code == 200


def test_without_a_port_that_of_a_whole_host_header_counts(proxy: ReverseProxy, tmp_path: Path) -> None:
    with behind(proxy, tmp_path, "localhost") as site:
        assert log_in(browser(proxy), proxy, site).status_code == 303


def test_a_form_whose_port_the_proxy_left_out_says_what_to_do(proxy: ReverseProxy, tmp_path: Path) -> None:
    proxy.host_of = HOST_STYLES["nginx with $host"]
    with behind(proxy, tmp_path, "localhost") as site:
        answer = log_in(browser(proxy), proxy, site)
        assert answer.status_code == 403
        assert "https://localhost; behind a proxy on another port write --proxy NAME:PORT" in answer.text


@pytest.mark.parametrize(
    "origin",
    [
        "https://localhost:1",
        "https://evil.example:PORT",
        *slow(["https://localhost", "http://localhost:PORT", "null", "https://localhost:PORT.evil.example"]),
    ],
)
def test_a_form_of_another_origin_is_refused(proxy: ReverseProxy, tmp_path: Path, origin: str) -> None:
    with behind(proxy, tmp_path, "localhost:PORT") as site:
        session = browser(proxy)
        answer = log_in(session, proxy, site, origin.replace("PORT", str(proxy.port)))
        assert answer.status_code == 403
        assert log_in(session, proxy, site).status_code == 303


@pytest.mark.parametrize(
    "host", ["localhost:1", "localhost:443", "evil.example:PORT", "evil.example", "localhost:PORT:1", "localhost:99999"]
)
def test_another_host_or_port_is_misdirected_by_name(proxy: ReverseProxy, tmp_path: Path, host: str) -> None:
    with behind(proxy, tmp_path, "localhost:PORT"):
        proxy.host_of = lambda _: host.replace("PORT", str(proxy.port))
        answer = browser(proxy).get(f"{proxy.origin}/login")
        assert (answer.status_code, answer.text) == (421, f"421: open the dashboard as localhost:{proxy.port}\n")


def test_a_prefix_that_the_proxy_removed_is_refused_by_name(proxy: ReverseProxy, tmp_path: Path) -> None:
    with behind(proxy, tmp_path, "localhost:PORT"):
        proxy.more_headers = {"X-Forwarded-Prefix": "/trimtab"}
        answer = browser(proxy).get(f"{proxy.origin}/login")
        assert (answer.status_code, answer.text) == (421, "421: a path prefix of the proxy is not supported\n")
        proxy.more_headers = {"X-Forwarded-Prefix": "/"}
        assert browser(proxy).get(f"{proxy.origin}/login").status_code == 200


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dash.example/trimtab", "path prefix"),
        ("https://dash.example/trimtab", "path prefix"),
        ("https://dash.example:8443/a/", "path prefix"),
        ("dash.example/a/b", "path prefix"),
        ("http://dash.example", "not a host name"),
        ("dash.example:0", "not a host name"),
        ("dash.example:70000", "not a host name"),
        ("user@dash.example", "not a host name"),
        ("a b", "not a host name"),
        (":8443", "not a host name"),
        ("", "not a host name"),
    ],
)
def test_a_name_that_is_no_origin_is_refused_at_the_start(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        require_tls_access("127.0.0.1", 8765, behind_proxy(tmp_path, name))
    assert error.value.field == "--proxy"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("dash.example.org", "https://dash.example.org/"),
        ("Dash.example.org:443", "https://dash.example.org/"),
        ("dash.example.org:8443", "https://dash.example.org:8443/"),
        ("dash.example.org:8443/", "https://dash.example.org:8443/"),
        ("https://dash.example.org:8443/", "https://dash.example.org:8443/"),
        ("[::1]:8443", "https://[::1]:8443/"),
    ],
)
def test_the_link_is_the_origin_that_browsers_open(tmp_path: Path, name: str, url: str) -> None:
    options = behind_proxy(tmp_path, name)
    assert public_url("127.0.0.1", 8765, options, uses_tls=True) == url
    assert f"{reach_of('127.0.0.1', 8765, options).origin(url.partition('//')[2].rstrip('/'))}/" == url


def test_a_certificates_name_may_have_a_port_too(tmp_path: Path) -> None:
    options = PublicOptions(tmp_path / "cert", tmp_path / "key", public_host_name="dash.example.org:8443")
    reach = reach_of("0.0.0.0", 8765, options)
    assert reach.origin("dash.example.org:8443") == Origin("https", "dash.example.org", 8443)
    assert public_url("0.0.0.0", 8765, options, uses_tls=True) == "https://dash.example.org:8443/"
    plain = reach_of("0.0.0.0", 8765, PublicOptions(tmp_path / "cert", tmp_path / "key", public_host_name="dash.example.org"))
    assert plain.origin("dash.example.org:8765") == Origin("https", "dash.example.org", 8765)


@pytest.mark.parametrize(
    ("header", "authority"),
    [
        ("localhost", Authority("localhost")),
        ("LOCALHOST:1", Authority("localhost", 1)),
        ("[::1]:80", Authority("::1", 80)),
        ("localhost:65535", Authority("localhost", 65_535)),
        ("localhost:65536", None),
        ("localhost:0", None),
        ("localhost:123456", None),
        ("a:b:c", None),
        ("a b", None),
        ("a/b?c", None),
        ("user@localhost", None),
        ("localhost\n", None),
        ("b\u00fccher.example", None),
        ("", None),
    ],
)
def test_a_host_header_is_a_host_and_a_port(header: str, authority: Authority | None) -> None:
    assert parse_authority(header) == authority


@pytest.mark.parametrize(
    ("origins", "is_own"),
    [(["http://localhost"], True), (["http://evil.example", "http://localhost"], False), (["http://localhost"] * 2, False), ([], False)],
    ids=["own", "own and another", "twice", "none"],
)
def test_a_form_has_one_origin_and_it_is_ours(origins: list[str], is_own: bool) -> None:
    headers = [(b"host", b"localhost"), *((b"origin", origin.encode()) for origin in origins)]
    assert _is_own_form(Request({"type": "http", "headers": headers}), Reach()) is is_own


def test_an_origin_with_its_schemes_port_is_the_one_without() -> None:
    assert parse_origin("https://a.example:443") == parse_origin("https://A.example") == Origin("https", "a.example", 443)
    assert parse_origin("http://a.example") == Origin("http", "a.example", 80)
    assert str(parse_origin("http://a.example:80")) == "http://a.example"
    assert str(parse_origin("http://[::1]:8765")) == "http://[::1]:8765"
    assert parse_origin("https://a.example:80") != parse_origin("https://a.example")
    assert [parse_origin(text) for text in ("null", "", "ftp://a.example", "https://", "a.example", "http://a b/c?d@e")] == [None] * 6


@pytest.mark.parametrize(
    ("char_count", "is_proxy"), [(MIN_SECRET_CHARS - 1, False), (MIN_SECRET_CHARS, True), (MIN_SECRET_CHARS + 1, True)]
)
def test_proxy__secret_of_the_least_length_is_one(char_count: int, is_proxy: bool) -> None:
    secret = "s" * char_count
    reach = Reach(proxies=frozenset({"127.0.0.1"}), proxy_secret=secret)
    assert reach.is_proxy("127.0.0.1", [secret]) is is_proxy
    assert not reach.is_proxy("127.0.0.1", [secret + "s"])
    assert not reach.is_proxy("127.0.0.2", [secret])
