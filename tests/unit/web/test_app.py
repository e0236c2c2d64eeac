"""The server of the pages: whom it answers, by which names and paths, its streams, and the files it serves."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agent.errors import ConfigError, ErrorCode, Retryable, TrimtabError

if (find_spec("fastapi") is None or find_spec("uvicorn") is None) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.web import document_cache
from agent.web.access import SECURITY_HEADERS
from agent.web.app_modules import exports
from agent.web.document_cache import MAX_STREAMS, CacheProcess
from agent.web.pages import PAGES
from agent.web.server import serve_dashboard
from tests.support.dashboards import Served, StaticDocumentCache


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as server:
        yield server


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.nip.io", "192.168.1.4", "", "[::2]"]
)
def test_a_rebound_name_is_refused_on_every_path(served: Served, host: str) -> None:
    for path in ("/", "/events", "/static/dashboard.js"):
        code, headers, body = served.ask(path, Host=host)
        assert code == 421
        assert b"data" not in body
        assert headers.keys() >= {name.lower() for name in SECURITY_HEADERS} | {"content-security-policy"}


def test_loopback_names_are_served_on_any_port_of_a_tunnel(served: Served) -> None:
    for host in ("localhost", "127.0.0.1:9999", "[::1]:80", "LOCALHOST:1"):
        assert served.ask("/alerts", Host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_every_other_verb_is_405(served: Served, method: str) -> None:
    for path in (*(page.path for page in PAGES), "/events", "/static/dashboard.js", "/history/x", "/nothing"):
        code, headers, _ = served.ask(path, method)
        assert code == 405
        assert headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static/vendor/../../app.py",
        "/static//etc/passwd",
        "/static/report.js",
        "/static/dashboard.css%00",
        "/history/..%2f..%2ftrimtab.toml",
        "/history/%3Cscript%3E",
        "/docs",
        "/openapi.json",
    ],
)
def test_no_path_leads_out_of_the_served_files(served: Served, path: str) -> None:
    code, _, body = served.ask(path)
    assert code == 404
    assert b"script" not in body
    assert b"import" not in body


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/nothing", 404, "404: no such page"),
        ("/history/no.step", 404, "404: no such step"),
        ("/static/none.js", 404, "404: no such file"),
        ("/controls/rebalance", 405, "405: this address takes a form only; nothing was carried out"),
    ],
    ids=["page", "step", "file", "form"],
)
def test_address_that_is_no_page__leads_a_browser_home(served: Served, path: str, status: int, text: str) -> None:
    code, headers, body = served.ask(path, Accept="text/html,*/*;q=0.8")
    assert (code, headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert f'<p class="alarm" role="alert">{text}</p>' in body.decode()
    assert b'<a href="/">To the first page</a>' in body
    assert headers.keys() >= {name.lower() for name in SECURITY_HEADERS} | {"content-security-policy"}
    assert served.ask(path)[2].decode() == f"{text}\n"


def test_unknown_path_of_the_api__is_a_problem_document(served: Served) -> None:
    assert served.ask("/api/v1/nothing", Accept="text/html")[1]["content-type"] == "application/problem+json"


def test_clients_that_read_nothing__hold_up_no_page_or_stream(served: Served) -> None:
    lazy = [served.stream() for _ in range(20)]
    reader = served.stream()
    assert b"text/event-stream" in reader.recv(4096)

    def announce() -> None:
        for _ in range(5_000):
            served.board.announce_change()

    served.loop.call_soon_threadsafe(announce)
    assert served.ask("/")[0] == 200
    stream_text = b""
    while b"event: changed" not in stream_text:
        stream_text += reader.recv(65_536)
    assert stream_text.count(b"event: changed") <= 2  # that of the connection, and the newest version with none in between
    for link in (*lazy, reader):
        link.close()


def test_page_that_missed_a_change__is_told_on_connecting(served: Served) -> None:
    page = served.ask("/alerts")[2].decode()
    place = page.split('data-events="')[1].split('"')[0]
    served.loop.call_soon_threadsafe(served.board.announce_change)
    link = served.stream(place)
    stream_text = b""
    while b"event: changed" not in stream_text:
        stream_text += link.recv(4096)
    link.close()


def test_stream__says_the_server_is_alive_while_idle(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_cache, "PING_S", 0.01)
    link = served.stream(f"/events?seen={served.board.version}")
    stream_text = b""
    while stream_text.count(b"event: alive\ndata: 1\n\n") < 2:
        stream_text += link.recv(4096)
    link.close()
    assert b"event: changed" not in stream_text


def test_an_archive_is_made_by_its_name_alone_and_downloaded() -> None:
    class ExportBoard(StaticDocumentCache):
        calls: ClassVar[list[tuple[object, ...]]] = []

        async def read_stored(self, function: Callable[..., Any], *arguments: Any) -> Any:
            self.calls.append((function, *arguments))
            if len(self.calls) > 1:
                raise ConfigError("--native-asset: unknown", "give it")
            return b"PK archive"

    with Served(board=ExportBoard("none.toml", Path("none.db"))) as served:
        for name in ("parquet.zip", "csv", "x.csv.zip", "..%2fcsv.zip", "%2e%2e", "csv.zip%00", ""):
            assert served.ask(f"/export/{name}")[0] == 404
        code, headers, body = served.ask("/export/csv.zip")
        assert (code, body, headers["content-type"]) == (200, b"PK archive", "application/zip")
        assert headers["content-disposition"] == 'attachment; filename="trimtab-csv.zip"'
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert served.ask("/export/csv.zip", "POST")[0] == 405
        code, headers, body = served.ask("/export/rotki.zip")
        assert code == 409
        assert b"--native-asset" in body
        assert "content-disposition" not in headers
    assert ExportBoard.calls == [(exports.export_archive, "csv"), (exports.export_archive, "rotki")]


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        pytest.param(ConfigError("not there", code=ErrorCode.UNKNOWN), 404, "404: no such", id="unknown"),
        pytest.param(ConfigError("limits.slippage: missing", "add it"), 409, "409: limits.slippage: missing", id="broken config"),
        pytest.param(Retryable("the store is busy"), 503, "503: the store is busy", id="busy store"),
    ],
)
@pytest.mark.parametrize("path", ["/history/aaaaaaaaaaaa", "/reports/20261122-130001-tune.html"], ids=["step", "report"])
def test_page_that_cannot_be_read__says_why(path: str, error: TrimtabError, status: int, text: str) -> None:
    class FailingBoard(StaticDocumentCache):
        async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: Any) -> Any:
            raise error

    with Served(board=FailingBoard("none.toml", Path("none.db"))) as served:
        code, _, body = served.ask(path)
    assert (code, body.decode()[: len(text)]) == (status, text)


def test_more_streams_than_allowed_are_refused(served: Served) -> None:
    links = [served.stream() for _ in range(MAX_STREAMS + 1)]
    answers = [link.recv(64).split(b"\r\n")[0] for link in links]
    assert b"503" in answers[-1]
    for link in links:
        link.close()


def test_the_first_page_with_its_files_is_below_100_kb(served: Served) -> None:
    total = libraries = 0
    for path in ("/", *(f"/static/{name}" for name in served_files(served))):
        code, headers, body = served.ask(path, Accept_Encoding="gzip")
        assert code == 200
        total += len(body) + sum(len(name) + len(value) + 4 for name, value in headers.items())
        libraries += len(body) * path.startswith("/static/vendor/")
        if headers.get("content-encoding") == "gzip":
            gzip.decompress(body)
    assert total < 100_000
    assert 0 < libraries < 42_000


def test_a_file_is_compressed_once_and_only_for_who_takes_it(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/static/vendor/htmx-2.0.11.min.js"
    _, plain_headers, plain = served.ask(path)
    _, headers, body = served.ask(path, Accept_Encoding="br, gzip")
    monkeypatch.setattr(zlib, "compressobj", None)  # of the middleware and of gzip.compress
    monkeypatch.setattr(gzip, "compress", None)
    assert served.ask(path, Accept_Encoding="gzip")[2] == body
    assert gzip.decompress(body) == plain
    assert "content-encoding" not in plain_headers
    assert (headers["content-encoding"], headers["vary"], headers["content-length"]) == ("gzip", "Accept-Encoding", str(len(body)))
    assert "content-encoding" not in served.ask("/static/icon.png", Accept_Encoding="gzip")[1]


PUBLISHED = {
    "htmx-2.0.11.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
    "uplot-1.6.32.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uplot-1.6.32.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
"""SHA-256 of dist/htmx.min.js, uPlot.iife.min.js and uPlot.min.css in the packages on npm."""


def test_the_served_libraries_are_those_published(served: Served) -> None:
    digest_by_name = {name: hashlib.sha256(served.ask(f"/static/vendor/{name}")[2]).hexdigest() for name in PUBLISHED}
    assert (
        digest_by_name == PUBLISHED == {name: digest_by_name[name] for name in digest_by_name if f"vendor/{name}" in served_files(served)}
    )


def served_files(served: Served) -> list[str]:
    text = served.ask("/")[2].decode()
    return [part.split('"')[0] for part in text.split("/static/")[1:]]


def test_serving_process__loads_no_signing_or_key_module() -> None:
    served = ("server", "app", "document_cache", "portfolios", "setup")
    code = f"import agent.cli.main, {', '.join(f'agent.web.{name}' for name in served)}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept_out = ("agent.signing", "agent.wiring", "agent.config", "agent.store", "agent.app.", "eth_", "keyring", "argon2", "pyotp")
    loaded = {name for name in done.stdout.split() if name.startswith(kept_out)}
    assert not loaded


def test_other_hosts_and_taken_ports_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        serve_dashboard(tmp_path / "a.toml", "0.0.0.0", 8765, print)
    assert refused.value.field == "--host"
    assert "ssh -L" in refused.value.remedy
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError) as refused:
        serve_dashboard(tmp_path / "a.toml", "127.0.0.1", taken.getsockname()[1], print)
    assert refused.value.field == "--port"


def test_without_the_extra_the_remedy_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ConfigError) as refused:
        serve_dashboard(tmp_path / "a.toml", "127.0.0.1", 0, print)
    assert "trimtab[dashboard]" in refused.value.remedy
