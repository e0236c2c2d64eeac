"""[data]: published prices and supplies are downloaded once, kept, and held to their pinned hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.records import published
from agent.app.records.published import fetch_published_file
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.config.weights import read_supplies
from agent.errors import ConfigError, Retryable
from tests.support.agents import config
from tests.support.builders import step_input
from tests.support.fakes.http_server import LoopbackHandler, listening
from tests.support.text import mentions, raises_field

CLOSES = b"time,symbol,close\n2026-01-01,BTC,50000\n"


class FakeSite:
    """A web server and what it was asked for."""

    def __init__(self) -> None:
        self.files = {"/closes.csv": CLOSES, "/empty.csv": b""}
        self.asked: list[str] = []
        self.missing_bytes = 0
        self.url = ""


@pytest.fixture(scope="module")
def site() -> Iterator[FakeSite]:
    site = FakeSite()

    class Handler(LoopbackHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            body = site.files.get(self.path.partition("?")[0])
            self.send_response(302 if self.path == "/moved.csv" else 200 if body is not None else 404)
            self.send_header("Location", "/closes.csv")
            if site.missing_bytes:
                self.send_header("Content-Length", str(len(body or b"") + site.missing_bytes))
            self.end_headers()
            self.wfile.write(body or b"")

    with listening(Handler) as port:
        site.url = f"http://127.0.0.1:{port}"
        yield site


def named(folder: Path, source: str, **keys: str) -> LoadedConfig:
    path = config(folder)
    lines = "".join(f'{key} = "{value}"\n' for key, value in {"source": source, **keys}.items())
    path.write_text(f"{path.read_text()}\n[data.daily]\n{lines}")
    return load_config(path)


def test_a_file_is_downloaded_once_and_kept(site: FakeSite, tmp_path: Path) -> None:
    site.asked.clear()
    loaded = named(tmp_path, f"{site.url}/closes.csv")
    first = fetch_published_file(loaded, "daily")
    second = fetch_published_file(loaded, "daily")
    assert (first.is_new, second.is_new, site.asked) == (True, False, ["/closes.csv"])
    assert first.path == tmp_path / "data" / "daily.csv"
    assert first.path.read_bytes() == CLOSES
    assert first.sha256 == hashlib.sha256(CLOSES).hexdigest()
    assert first.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("name", "missing_bytes"), [("/closes.csv", 1), ("/closes.csv", 1_000), ("/empty.csv", 1)])
def test_download_that_is_cut_off__is_tried_again_and_keeps_nothing(
    site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, missing_bytes: int
) -> None:
    loaded = named(tmp_path, site.url + name)
    monkeypatch.setattr(site, "missing_bytes", missing_bytes)
    with pytest.raises(Retryable) as caught:
        fetch_published_file(loaded, "daily")
    assert mentions(caught.value, "data.daily.source", f"{missing_bytes:,} bytes")
    assert not (tmp_path / "data").exists()


def test_file_beyond_the_bound_by_its_length__is_no_cut_off_download(site: FakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "missing_bytes", 5)
    with raises_field("prices"):
        published.download(f"{site.url}/closes.csv", "prices", 10, "name a smaller file")


def test_address_that_changes__is_downloaded_anew(site: FakeSite, tmp_path: Path) -> None:
    fetch_published_file(named(tmp_path, f"{site.url}/closes.csv"), "daily")
    changed = named(tmp_path, f"{site.url}/closes.csv?version=2")
    assert [fetch_published_file(changed, "daily").is_new for _ in range(2)] == [True, False]
    with pytest.raises(Retryable, match=r"data\.daily\.source: the download failed"):
        fetch_published_file(named(tmp_path, "http://127.0.0.1:9/closes.csv"), "daily")
    assert not fetch_published_file(changed, "daily").is_new, "what was kept stays that of its address"


def test_file_of_the_owner_in_the_folder__is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "daily.csv").write_bytes(CLOSES)
    assert not fetch_published_file(named(tmp_path, "http://127.0.0.1:9/closes.csv"), "daily").is_new


def test_content_other_than_pinned__is_refused_whenever_read(site: FakeSite, tmp_path: Path) -> None:
    pinned = named(tmp_path, f"{site.url}/closes.csv", sha256="ab" * 32)
    with raises_field("data.daily.sha256", "ab" * 32):
        fetch_published_file(pinned, "daily")
    assert not (tmp_path / "data").exists()
    published_file = fetch_published_file(named(tmp_path, f"{site.url}/closes.csv", sha256=hashlib.sha256(CLOSES).hexdigest()), "daily")
    published_file.path.write_bytes(CLOSES + b"2026-01-02,BTC,1\n")
    with raises_field("data.daily.sha256"):
        fetch_published_file(load_config(tmp_path / "mine.toml"), "daily")


@pytest.mark.parametrize(("place", "kind"), [("/moved.csv", ConfigError), ("/none.csv", ConfigError), ("/empty.csv", ConfigError)])
def test_what_is_no_file_is_refused_and_nothing_is_kept(site: FakeSite, tmp_path: Path, place: str, kind: type[ConfigError]) -> None:
    with pytest.raises(kind) as caught:
        fetch_published_file(named(tmp_path, site.url + place), "daily")
    assert caught.value.field == "data.daily.source"
    assert not (tmp_path / "data").exists()


def test_a_file_too_large_or_a_server_that_is_away_keeps_nothing(site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "MAX_BYTES", 10)
    with raises_field("data.daily.source"):
        fetch_published_file(named(tmp_path, f"{site.url}/closes.csv"), "daily")
    with pytest.raises(Retryable, match="the download failed: Connection refused"):
        fetch_published_file(named(tmp_path, "http://127.0.0.1:9/closes.csv"), "daily")
    assert not (tmp_path / "data").exists()


def test_file_by_the_config__needs_no_download(tmp_path: Path) -> None:
    (tmp_path / "closes.csv").write_bytes(CLOSES)
    assert fetch_published_file(named(tmp_path, "closes.csv"), "daily").path == tmp_path / "closes.csv"
    with pytest.raises(ConfigError) as caught:
        fetch_published_file(load_config(tmp_path / "mine.toml"), "weekly")
    assert mentions(caught.value, "weekly", "daily")


@pytest.mark.parametrize("source", ["http://example.org/a.csv", "ftp://example.org/a.csv", "https://me:secret@example.org/a.csv"])
def test_an_address_that_is_not_safe_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(ConfigError) as caught:
        named(tmp_path, source)
    assert mentions(caught.value, "data", "source")


def test_supplies_follow_from_market_capitalisation_and_price(tmp_path: Path) -> None:
    file = tmp_path / "caps.csv"
    file.write_text("symbol,market_cap,price,as_of\nWETH,361000000000,3000,2026-01-01\nUSDC,75000000000,1,2026-01-01\n")
    portfolio = step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 1, "USDC": 1}).portfolio
    weth, usdc = read_supplies(file, portfolio)
    assert Fraction(weth.raw, 10**18) == Fraction("120333333.333333")
    assert usdc.raw == 75 * 10**15


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param("WETH,,361000000000,0,", "'361000000000 / 0' is not a number", id="price of zero"),
        pytest.param("WETH,,361000000000,,", "'361000000000 / ' is not a number", id="no price"),
        pytest.param("WETH,,361000000000,$2990,", "'361000000000 / $2990' is not a number", id="price with its unit"),
        pytest.param('WETH,,361000000000,"2,990.5",', "is not a number", id="price with a comma"),
        pytest.param("WETH,,,2990,", "' / 2990' is not a number", id="no market capitalisation"),
        pytest.param("WETH,,,,", "'' is not a number", id="nothing"),
        pytest.param("WETH,120000000,,,2026/01/01", "as_of '2026/01/01' is not a date", id="date with slashes"),
        pytest.param("WETH,120000000,,,2026-01-01T00:00:00Z", "is not a date", id="date with a time"),
        pytest.param("WETH,120000000,,,yesterday", "is not a date", id="a word"),
        pytest.param("WETH,120000000,,,2026-02-30", "is not a date", id="no such day"),
    ],
)
def test_supply_of_unclear_figures__is_refused(tmp_path: Path, row: str, message: str) -> None:
    file = tmp_path / "caps.csv"
    file.write_text(f"symbol,supply,market_cap,price,as_of\n{row}\n")
    portfolio = step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 1, "USDC": 1}).portfolio
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_supplies(file, portfolio)


def test_supplies_with_a_byte_order_mark__are_read(tmp_path: Path) -> None:
    file = tmp_path / "caps.csv"
    file.write_text("symbol,supply\nWETH,120000000\n", encoding="utf-8-sig")
    portfolio = step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 1, "USDC": 1}).portfolio
    assert [supply.raw for supply in read_supplies(file, portfolio)] == [120_000_000 * 10**18]
