"""Login of the dashboard under attack: sessions, forms, guesses, names and proxies."""

from __future__ import annotations

import asyncio
import io
import os
import re
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

from agent.ports.users import UsersPlace
from agent.units import format_duration

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp", "segno"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

import pyotp
import segno

from agent.app.settings.users import _client_network
from agent.cli.display.terminal import out
from agent.cli.serve import serve
from agent.errors import ConfigError, PassingFault, TrimtabError
from agent.model import PortfolioIdentity
from agent.store.files.users import open_user_file
from agent.store.users import FAILURES_BEFORE_LOCK, FIRST_LOCK_S
from agent.web import app
from agent.web.access import LOGIN_NICENESS, MAX_LOGIN_CHECKS, MAX_SESSIONS, Access, AccessMiddleware, TooManyLogins
from agent.web.pages import PAGES
from agent.web.portfolios import PortfolioStartData
from agent.web.reach import PublicOptions, Reach, reach_of, require_tls_access
from agent.web.server import serve_dashboard
from agent.web.sessions import MAX_IDLE_S, MAX_SESSION_AGE_S
from tests.support.dashboards import HOSTILE, MARKUP, Served
from tests.support.pages.certificates import certificate
from tests.support.sites import FULL, HASH, PASSWORD, PROXY_SECRET, Site, behind_proxy
from tests.support.text import raises_field

__all__ = ["certificate"]


class TagParser(HTMLParser):
    """The elements of a page with the names of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of an element."""
        self.tags.append((tag, [name for name, _ in attrs]))


def session_of(headers: dict[str, str]) -> str:
    """The session's cookie that an answer sets."""
    return next(line.split(";")[0] for line in headers["set-cookie"].split("\n") if "-form" not in line)


def until_end(stream: socket.socket) -> None:
    """Read an event stream to its last chunk."""
    received_all = b""
    while not received_all.endswith(b"0\r\n\r\n"):
        received_all += (received := stream.recv(65_536))
        assert received, "closed without an end"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site") / "trimtab.db.users") as site:
        yield site


@pytest.mark.parametrize(
    "path", [*(page.path for page in PAGES), "/controls", "/history/abc", "/export/csv.zip", "/events", "/phone.svg", "/nothing"]
)
def test_without_a_session_nothing_is_shown(site: Site, path: str) -> None:
    code, headers, body = site.ask(path)
    assert code in (303, 401)
    assert b"data" not in body
    if code == 303:
        known = path in (
            "/alerts",
            "/assets",
            "/controls",
            "/futures",
            "/history",
            "/liquidity",
            "/plan",
            "/reports",
            "/settings",
            "/strategies",
        )
        assert headers["location"] == (f"/login?to={path}" if known else "/login")
    assert site.ask(path, HX_Request="true")[1]["hx-redirect"] == "/login"
    for cookie in ("trimtab-1=", "trimtab-1=x", "trimtab-2=" + site.access.begin_session(FULL), "trimtab-1=a; trimtab-1=b"):
        assert site.ask(path, Cookie=cookie)[0] in (303, 401)


def test_login_with_a_code__opens_pages_until_the_logout(site: Site) -> None:
    code, headers, _ = site.log_in("ann")
    assert (code, headers["location"]) == (303, "/")
    line = next(cookie for cookie in headers["set-cookie"].split("\n") if "-form" not in cookie)
    assert "HttpOnly" in line
    assert "SameSite=strict" in line
    assert "Secure" not in line
    assert "Domain" not in line
    cookie = session_of(headers)
    assert site.ask("/", Cookie=cookie)[0] == 200
    assert site.ask("/login", Cookie=cookie)[0] == 303
    lazy = site.stream(cookie=cookie)
    assert b"text/event-stream" in lazy.recv(4096)
    assert site.post("/logout", {"csrf": "x"}, cookie)[0] == 403
    code, headers, _ = site.post("/logout", {"csrf": site.token(cookie)}, cookie)
    assert code == 303
    assert "Max-Age=0" in headers["set-cookie"]
    assert headers["clear-site-data"] == '"storage"'
    assert site.ask("/", Cookie=cookie)[0] == 303  # a kept cookie is worth nothing
    until_end(lazy)
    lazy.close()
    kinds = [event.kind.value for event in open_user_file(site.file).events(2)]
    assert kinds == ["logout", "login"]


def test_the_code_for_a_phone_holds_the_address_and_nothing_else(site: Site, tmp_path: Path) -> None:
    address = "https://dash.example.org:8443/p/core/"
    written = io.BytesIO()
    segno.make(address, micro=False).save(written, "svg", scale=5, light="white")
    with Site(tmp_path / "a.users", Reach(frozenset({"dash.example.org"}), True, port=1, prefix="/p/core")) as beyond:
        cookie = beyond.enter().replace("trimtab-1", beyond.access.reach.cookie_name)
        sent = {"Host": "dash.example.org:8443", "Cookie": cookie}
        assert 'src="/p/core/phone.svg"' in beyond.ask("/alerts", **sent)[2].decode()
        code, headers, body = beyond.ask("/phone.svg", **sent)
        assert (code, headers["content-type"], body) == (200, "image/svg+xml", written.getvalue())
    assert b"phone.svg" not in site.ask("/alerts", Cookie=site.enter())[2]  # no phone reaches it


@pytest.mark.parametrize(("address", "has_code"), [("https://dash.example.org/", True), ("http://127.0.0.1:8765/", False)])
def test_terminal__shows_the_code_of_a_reachable_address(
    address: str, has_code: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agent.web.server.serve_dashboard", lambda *values: values[3](address))
    monkeypatch.setattr(type(out), "is_terminal", True)
    serve([tmp_path / "trimtab.toml"], port=1)
    output = capsys.readouterr().out
    written = io.StringIO()
    segno.make(address, error="l", micro=False).terminal(written, compact=True)
    assert f"Dashboard: {address}" in output
    assert (written.getvalue().strip("\n") in output) is has_code


@pytest.mark.parametrize("page", ["/controls", "/plan"])
def test_login__leads_back_to_our_pages(site: Site, page: str) -> None:
    assert site.ask(f"/login?to={page}", Cookie=site.enter())[1]["location"] == page
    assert f'action="/login?to={page}"' in site.ask(f"/login?to={page}")[2].decode()


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/logout", "/%5Cevil.example", "/controls%0d%0aSet-Cookie:x"]
)
def test_login__leads_nowhere_else(site: Site, target: str) -> None:
    assert site.ask(f"/login?to={target}", Cookie=site.enter())[1]["location"] == "/"
    assert 'action="/login"' in site.ask(f"/login?to={target}")[2].decode()


def test_session_fixation__login_gets_a_new_id(site: Site) -> None:
    planted = "trimtab-1=planted-by-an-attacker"
    code, headers, _ = site.log_in("bob", cookie=planted)
    assert code == 303
    assert session_of(headers) != planted
    assert site.ask("/", Cookie=planted)[0] == 303
    known = site.enter()
    again = site.enter()
    assert known != again  # never the same id, also for the same user


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": ""}, {"Origin": "http://localhost:1"},
     {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}, {"Content_Type": "text/plain"},
     {"Content_Type": "application/json"}],
    ids=str,
)  # fmt: skip
def test_csrf_a_form_of_another_page_is_refused(site: Site, headers: dict[str, str]) -> None:
    cookie = site.enter()
    assert site.post("/logout", {"csrf": site.token(cookie)}, cookie, **headers)[0] == 403
    nonce, token = site.form()
    fields = {"csrf": token, "name": "ann", "password": PASSWORD, "code": "000000"}
    assert site.post("/login", fields, nonce, **headers)[0] in (400, 403)
    assert site.ask("/", Cookie=cookie)[0] == 200


def test_csrf_a_form_without_the_token_of_its_session_is_refused(site: Site) -> None:
    cookie = site.enter()
    other = site.enter()
    token = site.token(cookie)
    wrong = [{}, {"csrf": ""}, {"csrf": site.token(other)}, {"csrf": token[:-1]}]
    assert [site.post("/logout", fields, cookie)[0] for fields in wrong] == [403] * 4
    assert site.ask("/logout", Cookie=cookie)[0] == 405  # never by a link
    assert site.ask("/", Cookie=cookie)[0] == 200
    nonce, token = site.form()
    fields = {"name": "ann", "password": PASSWORD, "code": "000000"}
    forged = [site.post("/login", {**fields, "csrf": token}, sent)[0] for sent in ("", "trimtab-1-form=AAAAAAAAAAAAAAAAAAAAAA")]
    assert [site.post("/login", fields, nonce)[0], *forged] == [403] * 3


def test_clickjacking_and_csp__no_page_is_framed_or_runs_inline(site: Site) -> None:
    cookie = site.enter()
    for path in ("/login", *(page.path for page in PAGES)):
        code, headers, body = site.ask(path, Cookie="" if path == "/login" else cookie)
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert code == 200
        assert headers["x-frame-options"] == "DENY"
        assert policy["frame-ancestors"] == policy["default-src"] == policy["base-uri"] == "'none'"
        assert policy["form-action"] == policy["script-src"] == policy["style-src"] == "'self'"
        scripts = re.findall(r"<script([^>]*)>(.*?)</script>", body.decode(), re.S)
        assert all(inside == "" and script.startswith(' defer src="/static/') for script, inside in scripts)
        tags = TagParser()
        tags.feed(body.decode())
        assert not [(tag, name) for tag, names in tags.tags for name in names if name == "style" or name.startswith("on")]
        assert not [tag for tag, _ in tags.tags if tag in ("style", "iframe", "object", "embed")]


def test_xss__symbols_and_config_text_are_text_after_login(site: Site) -> None:
    cookie = site.enter()
    texts = [site.ask(page.path, Cookie=cookie)[2].decode() for page in PAGES]
    assert not [text for text in texts if HOSTILE in text or MARKUP in text]
    assert "&lt;img src=x onerror=alert(1)&gt;" in texts[0], "the pages have such a symbol"
    code, _, body = site.log_in("ann", "000000", password=MARKUP)
    assert code == 401
    assert MARKUP not in body.decode()


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", ""])
def test_dns_rebinding__foreign_host_is_refused(site: Site, host: str) -> None:
    cookie = site.enter()
    assert site.ask("/", Host=host, Cookie=cookie)[0] == 421
    origin = f"http://{host}"
    assert site.post("/logout", {"csrf": site.token(cookie)}, cookie, Host=host, Origin=origin)[0] == 421


def test_brute_force_a_lock_out_is_told_and_logged(site: Site) -> None:
    answers = [site.log_in("cleo", f"{number:06d}") for number in range(FAILURES_BEFORE_LOCK["name"] + 1)]
    assert [code for code, *_ in answers] == [401] * (FAILURES_BEFORE_LOCK["name"] - 1) + [429, 429]
    _, headers, body = answers[-1]
    assert 0 < int(headers["retry-after"]) <= FIRST_LOCK_S
    assert f"Try again in {format_duration(int(headers['retry-after']))}" in body.decode()
    assert site.log_in("cleo")[0] == 429  # the right password and code too
    events = [event for event in open_user_file(site.file).events(20) if event.user == "cleo"]
    assert [event.kind.value for event in events[:2]] == ["locked", "login_failed"]
    assert events[0].address == "127.0.0.1"


def test_totp_replay_a_code_opens_one_session(site: Site) -> None:
    code = pyotp.TOTP(site.secrets["dan"]).now()
    assert [site.log_in("dan", code)[0] for _ in range(2)] == [303, 401]


def test_session_expiry_idle_and_absolute(site: Site) -> None:
    idle = site.enter()
    busy = site.enter()
    began = site.clock.time_s
    while site.clock.time_s < began + MAX_SESSION_AGE_S - 1:
        assert site.ask("/", Cookie=busy)[0] == 200
        site.ask("/alerts", Cookie=idle, HX_Request="true")  # the page's own updates are no use of it
        site.clock.time_s = min(site.clock.time_s + MAX_IDLE_S - 1, began + MAX_SESSION_AGE_S - 1)
    assert site.ask("/", Cookie=idle)[0] == 303
    assert site.ask("/", Cookie=busy)[0] == 200
    site.clock.advance(1)
    assert site.ask("/", Cookie=busy)[0] == 303
    assert site.ask("/", Cookie=busy, HX_Request="1")[0] == 401


def test_a_stream_ends_with_its_session(site: Site) -> None:
    link = site.stream(cookie=site.enter())
    assert b"text/event-stream" in link.recv(4096)
    site.clock.advance(MAX_IDLE_S)
    site.loop.call_soon_threadsafe(site.board.announce_change)
    until_end(link)
    link.close()


def test_removed_or_demoted_user__loses_the_sessions(tmp_path: Path) -> None:
    store = open_user_file(tmp_path / "a.users")
    store.add("ann", HASH, "A" * 32, False, 1)

    async def scene() -> None:
        access = Access(Reach(), UsersPlace(str(tmp_path / "a.users")))
        await access.refresh()
        session = access.find_session(chosen := access.begin_session(1), touch=True)
        assert access.login_required
        assert session is not None
        assert access.may_view(session)
        with closing(sqlite3.connect(tmp_path / "a.users")) as db, db:
            db.execute("UPDATE users SET read_only = 1")  # the same user, with another role
        await access.refresh()
        assert access.find_session(chosen, touch=True) is None
        assert not access.may_view(session)
        chosen = access.begin_session(1)
        store.remove("ann", 2)
        store.add("ann", HASH, "A" * 32, False, 2)
        await access.refresh()
        assert access.find_session(chosen, touch=True) is None
        chosen = access.begin_session(2)
        (tmp_path / "a.users").chmod(0o644)  # cannot be trusted any more
        store_stat = (tmp_path / "a.users").stat()
        os.utime(tmp_path / "a.users", (store_stat.st_atime, store_stat.st_mtime + 1))
        await access.refresh()
        assert access.find_session(chosen, touch=True) is None
        (tmp_path / "a.users").unlink()  # no way back to pages without a login
        await access.refresh()
        assert access.login_required
        assert not access.may_view(None)
        access.close()

    asyncio.run(scene())


def test_sessions_of_a_user_are_bounded(site: Site) -> None:
    cookies = [site.enter(6) for _ in range(MAX_SESSIONS + 1)]
    assert site.ask("/", Cookie=cookies[0])[0] == 303
    assert site.ask("/", Cookie=cookies[1])[0] == site.ask("/", Cookie=cookies[-1])[0] == 200


def test_a_flood_of_logins_is_refused_and_holds_up_no_page(site: Site) -> None:
    async def flood() -> list[object]:
        many = (site.access.log_in("bob", "x", "0", "192.0.2.9") for _ in range(MAX_LOGIN_CHECKS + 5))
        return list(await asyncio.gather(*many, return_exceptions=True))

    cookie = site.enter()
    future = asyncio.run_coroutine_threadsafe(flood(), site.loop)
    assert site.ask("/", Cookie=cookie)[0] == 200
    answers = future.result(30)
    assert sum(isinstance(answer, TrimtabError) for answer in answers) == 5
    (process,) = site.access._login_process._pool._processes  # type: ignore[union-attr]
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, process) == min(19, mine + LOGIN_NICENESS), "an agent's cycle goes first"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("users: others may write /srv/a.users", "run: chmod 600 /srv/a.users"), "trimtab user list says why"),
        (PassingFault("store: connection to db.internal refused", "wait"), "trimtab user list says why"),
        (TooManyLogins(), "too many logins at once (try again in a minute)"),
    ],
    ids=["file", "database", "too many"],
)
def test_login_page__shows_no_error_of_the_users_to_strangers(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: TrimtabError, text: str
) -> None:
    async def fail(*_: str) -> NoReturn:
        raise error

    logged = list[str]()
    monkeypatch.setattr(site.access, "log_in", fail)
    monkeypatch.setattr(app.log, "error", lambda form, *values: logged.append(form % values))
    nonce, token = site.form()
    code, _, body = site.post("/login", {"csrf": token, "name": "ann", "password": "x", "code": "000000"}, nonce)
    assert (code, text in body.decode()) == (503, True)
    is_hidden = not isinstance(error, TooManyLogins)
    assert (error.message in body.decode()) is not is_hidden
    assert logged == ([f"logins cannot be checked: {error}"] if is_hidden else [])


def test_a_form_that_is_too_large_or_does_not_end_is_refused(site: Site) -> None:
    nonce, token = site.form()
    assert site.post("/login", {"csrf": token, "name": "a" * 20_000}, nonce)[0] == 400
    assert site.post("/login", {"csrf": token, **{str(n): "" for n in range(200)}}, nonce)[0] == 400
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        assert site.ask("/login", method)[0] == 405


def test_a_proxy_is_the_only_way_in_and_says_who_asks(tmp_path: Path) -> None:
    through = {
        "Host": "dash.example.org", "X_Forwarded_Proto": "https", "X_Forwarded_For": "192.0.2.1, 203.0.113.5",
        "X_Trimtab_Proxy": PROXY_SECRET,
    }  # fmt: skip
    reach = reach_of("127.0.0.1", 1, behind_proxy(tmp_path))
    with Site(tmp_path / "a.users", reach) as site:
        code, headers, _ = site.ask("/login", **through)
        assert code == 200
        assert "Secure" in headers["set-cookie"]
        assert headers["set-cookie"].startswith("__Host-trimtab-1")
        assert "max-age" in headers["strict-transport-security"]
        assert site.ask("/login", **{**through, "X_Forwarded_Proto": "http"})[0] == 403
        assert site.ask("/login", **{**through, "Host": "localhost"})[0] == 421
        assert site.ask("/login", **{**through, "X_Trimtab_Proxy": "x" * 64})[0] == 403
        assert site.ask("/login", Host="dash.example.org")[0] == 403
        nonce = headers["set-cookie"].split(";")[0]
        token = re.findall(rb'name="csrf" value="([^"]+)"', site.ask("/login", **through)[2])[0]
        fields = {"csrf": token.decode(), "name": "ann", "password": "x", "code": "0"}
        origin = {"Origin": "https://dash.example.org"}
        assert site.post("/login", fields, nonce, **{**through, **origin})[0] == 403  # the token of another cookie
        token = re.findall(rb'name="csrf" value="([^"]+)"', site.ask("/login", Cookie=nonce, **through)[2])[0]
        assert site.post("/login", {**fields, "csrf": token.decode()}, nonce, **{**through, **origin})[0] == 401
        assert open_user_file(site.file).events(1)[0].address == "203.0.113.5"


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["198.51.100.7", "203.0.113.5"], "203.0.113.5"),  # HAProxy adds a line of its own
        (["198.51.100.7", "192.0.2.1, 203.0.113.5:4711"], "203.0.113.5"),
        (["[2001:db8::5]:4711"], "2001:db8::/64"),
        (["2001:db8::5"], "2001:db8::/64"),
        (["198.51.100.7, "], "127.0.0.1"),
    ],
)  # fmt: skip
def test_brute_force__no_header_hides_the_proxy_s_address(lines: list[str], address: str, tmp_path: Path) -> None:
    checks = AccessMiddleware(None, Access(reach_of("127.0.0.1", 1, behind_proxy(tmp_path))))  # type: ignore[arg-type]
    genuine = (b"x-trimtab-proxy", PROXY_SECRET.encode())
    headers = [
        (b"host", b"dash.example.org"),
        (b"x-forwarded-proto", b"https"),
        genuine,
        *((b"x-forwarded-for", line.encode()) for line in lines),
    ]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": ("127.0.0.1", 1)}
    assert checks._check_request(scope) is None
    assert _client_network(scope["address"]) == address
    refused = checks._check_request({**scope, "headers": [*headers, (b"x-forwarded-proto", b"http")]})
    assert refused.status_code == 403


def test_a_proxy_of_another_machine_is_known_by_its_address(tmp_path: Path) -> None:
    reach = reach_of("0.0.0.0", 1, behind_proxy(tmp_path, "127.0.0.1"))
    assert reach.proxies == {"127.0.0.1"}
    assert reach.host_names == {"127.0.0.1"}
    assert reach.uses_tls


def test_over_tls_cookies_are_secure_and_of_this_host_alone(certificate: PublicOptions) -> None:
    access = Access(reach_of("127.0.0.1", 1, certificate))
    access.set_users({1: ("ann", False)})
    with Served(access, ssl_certfile=certificate.tls_cert, ssl_keyfile=certificate.tls_key) as served:
        context = ssl.create_default_context(cafile=str(certificate.tls_cert))
        with context.wrap_socket(socket.create_connection(("127.0.0.1", served.port)), server_hostname="localhost") as link:
            link.sendall(b"GET /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            text = b"".join(iter(lambda: link.recv(65_536), b"")).decode()
        assert "200 OK" in text
        assert "strict-transport-security" in text
        assert re.search(r"set-cookie: __Host-trimtab-1-form=[^\r]*; HttpOnly; Path=/; SameSite=strict; Secure\r", text)


def test_beyond_this_machine_tls_or_a_proxy_and_users_are_needed(certificate: PublicOptions, tmp_path: Path) -> None:
    cert = certificate.tls_cert
    key = certificate.tls_key
    assert cert is not None
    require_tls_access("0.0.0.0", 1, PublicOptions(cert, key, public_host_name="dash.example"))
    require_tls_access("::", 1, behind_proxy(tmp_path))
    assert reach_of("0.0.0.0", 1, PublicOptions(cert, key, public_host_name="Dash.example")).host_names == {"dash.example"}


@pytest.mark.parametrize(
    ("host", "pem_names", "options", "field"),
    [
        pytest.param("192.0.2.1", (), {}, "--host", id="neither"),
        pytest.param("0.0.0.0", ("tls_cert",), {}, "--tls-key", id="no key"),
        pytest.param("0.0.0.0", ("tls_key",), {}, "--tls-cert", id="no certificate"),
        pytest.param("0.0.0.0", ("tls_cert", "tls_key"), {"proxy": "proxy.example"}, "--proxy", id="both ways"),
        pytest.param("0.0.0.0", ("tls_cert", "tls_key"), {}, "--name", id="no name"),
        pytest.param("127.0.0.1", (), {"public_host_name": "dash.example"}, "--name", id="name of no certificate"),
        pytest.param("0.0.0.0", (), {"proxy": "proxy.example"}, "--proxy-secret", id="no secret"),
    ],
)
def test_access_from_others__is_refused_by_its_option(
    certificate: PublicOptions, host: str, pem_names: tuple[str, ...], options: dict[str, str], field: str
) -> None:
    pems = {name: getattr(certificate, name) for name in pem_names}
    with raises_field(field):
        require_tls_access(host, 1, PublicOptions(**pems, **options))


def test_certificate__is_refused_unless_private_and_whole(certificate: PublicOptions, tmp_path: Path) -> None:
    cert = certificate.tls_cert
    key = certificate.tls_key
    assert key is not None
    readable_key = tmp_path / "key.pem"
    readable_key.write_bytes(key.read_bytes())
    readable_key.chmod(0o640)
    with raises_field("--tls-key", f"others may read {readable_key}"):
        require_tls_access("127.0.0.1", 1, PublicOptions(cert, readable_key))
    with raises_field("--tls-cert", "are no certificate and key that fit"):
        require_tls_access("127.0.0.1", 1, PublicOptions(key, key))
    with raises_field("--tls-cert", "cannot be read"):
        require_tls_access("127.0.0.1", 1, PublicOptions(cert, tmp_path / "none"))


def test_no_option_opens_a_dashboard_without_users_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read_without_users(*_: object) -> PortfolioStartData:
        return PortfolioStartData(tmp_path / "s", tmp_path / "u", {}, b"", PortfolioIdentity("ethereum", False, ""))

    monkeypatch.setattr("agent.web.portfolios.read_portfolio", read_without_users)
    with pytest.raises(ConfigError) as error:
        serve_dashboard(tmp_path / "a.toml", "127.0.0.1", 0, print, behind_proxy(tmp_path))
    assert error.value.field == "--host"
    assert "trimtab user add" in error.value.remedy


def test_slow_readers_hold_up_no_login(site: Site) -> None:
    lazy = [site.stream(cookie=site.enter()) for _ in range(20)]
    halves = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(20)]
    for link in halves:
        link.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n")
    answered = threading.Event()

    def ask() -> None:
        if site.log_in("fay")[0] == 303:
            answered.set()

    began = time.monotonic()
    threading.Thread(target=ask).start()
    assert answered.wait(20), time.monotonic() - began
    for link in (*lazy, *halves):
        link.close()
