"""Every refusal of what is typed names its option and says what to write: nobody has to guess, and a machine finds it in `remedy`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import app as api
from agent.app.research.backtests import USUAL_MARKET
from agent.backtest.data import read_table
from agent.backtest.stress import run
from agent.backtest.stress.paths import SpotScenario
from agent.backtest.tune.jobs import ResultStore
from agent.backtest.workers import check_scheduler_address
from agent.cli.research.portfolio_texts import market_options, portfolio_options
from agent.cli.research.trial_texts import parse_grid, tune_options
from agent.config.load import load_config, parse_config
from agent.config.tables.fields import parse_address, parse_duration_s, parse_gas_price_wei
from agent.config.tables.triggers import parse_band
from agent.errors import ConfigError
from agent.units import parse_bps, parse_raw
from tests.support.text import raises_field


@pytest.mark.parametrize(
    "typed",
    [
        lambda: parse_raw("-5", 18, "--value"),
        lambda: parse_raw("0.0000001", 6, "--value"),
        lambda: parse_raw("9" * 80, 18, "--value"),
        lambda: parse_bps("3", "--value"),
        lambda: parse_bps("abc", "--value"),
        lambda: parse_bps("-1%", "--value"),
        lambda: parse_bps("0.005%", "--value"),
        lambda: parse_duration_s("7", "--value"),
        lambda: parse_duration_s("0.1s", "--value"),
        lambda: parse_gas_price_wei("5", "--value"),
        lambda: parse_gas_price_wei("0.1 wei", "--value"),
        lambda: parse_address("0x12", "--value"),
        lambda: parse_band("5", "--value"),
    ],
)
def test_number_that_is_none__is_named_with_field_and_remedy(typed: Callable[[], object]) -> None:
    with pytest.raises(ConfigError) as caught:
        typed()
    assert caught.value.message.startswith("--value: ")
    assert caught.value.remedy


def test_a_config_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    for broken in (lambda: parse_config("x = ["), lambda: parse_config(""), lambda: load_config(tmp_path)):
        with pytest.raises(ConfigError) as caught:
            broken()
        assert caught.value.remedy


PRICES, GAS = api.sample_files()
WISHES: dict[str, Any] = {"target": "BTC=50,USD=50", "band": "5%rel"}
PORTFOLIO = portfolio_options(target="BTC=40,ETH=40,USD=20")


@pytest.mark.parametrize(
    ("named", "market", "wishes"),
    [
        pytest.param("--market fee: 60 %", {"texts": {"fee": "60%"}}, {}, id="fee too large"),
        pytest.param("--market fee: 'abc'", {"texts": {"fee": "abc"}}, {}, id="fee as a word"),
        pytest.param("--market fee: '0.3' has no unit", {"texts": {"fee": "0.3"}}, {}, id="fee without unit"),
        pytest.param("--value: 0", {"value": "0"}, {}, id="no value"),
        pytest.param("--market depth: 0", {"texts": {"depth": "0"}}, {}, id="no depth"),
        pytest.param(
            "--market depth: reserves of 1 base units of USD and 0 of BTC are out of range",
            {"texts": {"depth": "0.000000000000000001"}},
            {},
            id="depth too small",
        ),
        pytest.param("--market seed: -1", {"texts": {"seed": -1}}, {}, id="negative seed"),
        pytest.param("--market latency: -1", {"texts": {"latency": -1}}, {}, id="negative latency"),
        pytest.param("--market gas: '5'", {"texts": {"gas": "5"}}, {}, id="gas without unit"),
        pytest.param(
            "--market gas-prices: 'none.csv'", {"texts": {"gas_prices": Path("none.csv")}}, {"native": "BTC"}, id="missing gas file"
        ),
        pytest.param(
            "--market gas-prices: prices_2021.csv", {"texts": {"gas_prices": PRICES}}, {"native": "BTC"}, id="prices as a gas file"
        ),
        pytest.param("--market pool-state: none.json", {"texts": {"pool_state": ("BTC/USD=none.json",)}}, {}, id="missing pool file"),
        pytest.param(
            "--market pool-state: prices_2021.csv", {"texts": {"pool_state": (f"BTC/USD={PRICES}",)}}, {}, id="prices as a pool file"
        ),
        pytest.param("--market pool-state: 'XXX'", {"texts": {"pool_state": (f"BTC/XXX={PRICES}",)}}, {}, id="pool of no asset"),
        pytest.param("--target: sums to 90 %", {}, {"target": "BTC=50,USD=40"}, id="weights below a whole"),
        pytest.param("--target: sums to 150 %", {}, {"target": "BTC=50,ETH=50,USD=50"}, id="weights above a whole"),
        pytest.param("--target USD: '-5'", {}, {"target": "BTC=50,USD=-5"}, id="negative weight"),
        pytest.param("--native: 'FOO'", {}, {"native": "FOO"}, id="unknown native coin"),
        pytest.param("--market decimals: 'FOO'", {}, {"decimals": "FOO=8"}, id="decimals of no asset"),
        pytest.param("--as: two symbols of the file get the name 'ETH'", {}, {"symbol_mapping": ["BTC=ETH"]}, id="repeated name"),
        pytest.param("--band: '5'", {}, {"band": "5"}, id="band without unit"),
        pytest.param("--every: 1s", {}, {"every": "1s"}, id="interval too short"),
        pytest.param("--destination: band", {}, {"band": "", "every": "7d", "destination": "band"}, id="destination without bands"),
    ],
)
def test_backtest_mistake__is_named_with_option_value_and_remedy(named: str, market: dict[str, Any], wishes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        api.backtest(PRICES, market_options(**market), portfolio_options(**WISHES | wishes))
    assert caught.value.message.startswith(named)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("none.csv", None),
        ("prices.txt", "x"),
        ("empty.csv", ""),
        ("bare.csv", "time,BTC\n"),
        ("noise.parquet", "noise"),
        ("timeless.csv", "x,BTC\n1,2\n2,3\n"),
        ("gaps.csv", "time,BTC\n,2\n1609459200,3\n"),
        ("one.csv", "time,BTC\n1609459200,2\n"),
        ("times.csv", "time\n1609459200\n1609459201\n"),
    ],
)
def test_prices_that_are_none_are_told_with_what_to_give(tmp_path: Path, name: str, text: str | None) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_table(path)
    assert name in caught.value.message or caught.value.message.startswith("--prices: ")
    assert caught.value.remedy
    with pytest.raises(ConfigError):
        read_table(tmp_path)  # a folder is no file


@pytest.mark.parametrize(
    ("named", "every", "allocator", "texts"),
    [
        pytest.param("--objective calendar: '7'", "7d", "", {"calendar": "7"}, id="calendar without a unit"),
        pytest.param("--objective calendar: '1d,2d'", "7d", "", {"calendar": "1d,2d"}, id="calendar of two"),
        pytest.param("--objective calendar: ''", "7d", "", {"calendar": ""}, id="empty calendar"),
        pytest.param("--objective calendar: 1 s is outside", "7d", "", {"calendar": "1s"}, id="calendar too short"),
        pytest.param("--grid rechoose: 0 s", "7d", "hrp", {"rechoose": "0d"}, id="no time to rechoose"),
        pytest.param("--grid window: 9999 days", "7d", "hrp", {"window": "9999d"}, id="window too long"),
        pytest.param("--grid window: shorter", "7d", "hrp", {"window": "1d"}, id="window too short"),
        pytest.param("--every: '7x'", "7x", "", {}, id="interval without a known unit"),
    ],
)
def test_search_mistake__is_named_with_its_option_and_remedy(named: str, every: str, allocator: str, texts: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        options = tune_options(parse_grid("", every, allocator=allocator), texts)
        api.prepare_tune(PRICES, api.MarketOptions(), options, PORTFOLIO)
    assert caught.value.message.startswith(named)
    assert caught.value.remedy


def test_impossible_folders_and_addresses__are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        with raises_field("--out", "be written") as caught, ResultStore(folder, {}).opened():
            pass
        assert caught.value.remedy
    for page in (Path("/proc/none.html"), tmp_path / "none" / "page.html", tmp_path / "page.txt"):
        with pytest.raises(ConfigError, match=r"^--html: ") as caught:
            api.check_report_path(page)
        assert caught.value.remedy
    for address in ("moon", "ftp://host:1", "tcp://host", "tcp://user:word@host:1"):
        with raises_field("--run", "scheduler", "an address") as caught:
            check_scheduler_address(address)
        assert caught.value.remedy
    check_scheduler_address("tcp://127.0.0.1:8786")


def test_impossible_scenario__is_refused_before_any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "StressWork", None)
    for more, named in (
        ({"scenarios": (SpotScenario.GAS,)}, "gas-spike: the native coin has no price"),
        ({"bars": 5_000}, "--paths bars: 5000, but the file has 365"),
    ):
        prepared = api.prepare_stress(
            PRICES, USUAL_MARKET, replace(api.StressOptions(paths=5, step_paths=1, bars=50), **more), portfolio_options(**WISHES)
        )
        with pytest.raises(ConfigError, match=named) as caught:
            api.run_stress(prepared)
        assert caught.value.remedy
