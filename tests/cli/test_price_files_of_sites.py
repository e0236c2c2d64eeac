"""`trimtab backtest`, `tune` and `stress` on files of exchanges and data sites: one reader, and what it left out is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.tools import CommandResult
from tests.support.studies.price_files import LAYOUTS, candles, lines, ohlc, save
from tests.support.text import mentions

pytest.importorskip("polars")

Bare = Callable[..., CommandResult]
COMMANDS = {
    "backtest": ("--band", "10%rel"),
    "tune": ("--band", "5%rel,10%rel", "--every", "7d"),
    "stress": ("--band", "10%rel", "--paths", "20,step-paths=1,bars=8", "--scenarios", "crash"),
}
PORTFOLIO = ("--target", "BTC=50,USD=50", "--numeraire", "USD")


@pytest.mark.parametrize("name", ["BTCUSDT-1d.csv", "BTC-USD.csv", "XBTUSD_1440.csv", "btc-usd-max.csv", "Bitcoin.csv"])
def test_refusal__names_the_option_a_one_symbol_file_needs(name: str, tmp_path: Path, bare: Bare) -> None:
    path = save(tmp_path, name, lines("date,close", [f"{bar.at()},{bar.close}" for bar in candles(1, 30)]))
    words = ("backtest", "--prices", str(path), *PORTFOLIO, "--band", "10%rel", "--json")
    refused = bare(*words)
    pair = refused.json["error"]["remedy"].split("--as ")[1]
    assert refused.code == 2
    assert pair.endswith("=BTC")
    assert bare(*words, "--as", pair).code == 0


@pytest.mark.parametrize("site", ["data.binance.vision from 2025, us", "CryptoDataDownload, Unix s", "Investing.com", "Bitfinex candles"])
def test_each_command_reads_the_file_of_a_site(site: str, tmp_path: Path, bare: Bare) -> None:
    name, symbol, write = next((name, symbol, write) for known, name, symbol, write in LAYOUTS if known == site)
    path = save(tmp_path, name, write(candles(5, 120)))
    for command, options in COMMANDS.items():
        done = bare(command, "--prices", str(path), *PORTFOLIO, *options, "--as", f"{symbol}=BTC", "--json")
        assert done.code == 0, done
        assert done.json["notes"], command


def test_a_backtest_says_what_the_reader_left_out(tmp_path: Path, bare: Bare) -> None:
    rows = [f"{b.at()},{ohlc(b)},{b.volume},x" for b in candles(1, 30)]
    path = save(tmp_path, "BTC.csv", lines("https://example.org\nDate,Open,High,Low,Close,Volume,Note", rows[::-1]))
    words = ("backtest", "--prices", str(path), *PORTFOLIO, "--band", "10%rel")
    for output in (bare(*words).out, bare(*words, "--json").out):
        assert mentions(output, "is not data", "columns not used: Note", "newest first")
