"""Past results of baskets: the stored ones are what a backtest on the packaged prices gives, and a basket without prices has none."""

from __future__ import annotations

import csv
import runpy
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from agent.app.research import past_results
from agent.app.research.backtests import sample_files
from agent.app.research.past_results import (
    computed_template_result,
    past_result,
    past_result_or_reason,
    with_token_prices,
    year_results,
)
from agent.app.start.past_results import OTHER_YEARS_BASIS, other_year_results, stored_other_year_results, stored_results, template_result
from agent.app.start.setup import NewConfig, write_new_config
from agent.backtest.data import read_table
from agent.config.load import LoadedConfig, load_config
from agent.config.networks.presets import PRESETS
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES, template_targets
from agent.errors import ConfigError
from tests.support.agents import config
from tests.support.planning_worlds import REAL_PRICES
from tests.support.text import mentions
from tests.support.transactions import WALLET


def test_template__has_a_stored_result_where_prices_are_packaged() -> None:
    results = stored_results()
    assert list(results) == list(PRESETS)
    assert list(results["base"]) == ["60/40", "stable-reserve", "small"], "the packaged prices lack AERO"
    assert all(list(of) == list(PORTFOLIO_TEMPLATES) for network, of in results.items() if network != "base")
    for stored_result in (result for of in results.values() for result in of.values()):
        assert (stored_result["from"], stored_result["until"]) == ("2021-01-01", "2021-12-31")
        assert stored_result["rebalances"] > 0
        assert float(stored_result["costs"]) > 0
        drawdowns = [float(stored_result["max_drawdown"]), float(stored_result["max_drawdown_of_holding"])]
        assert -1 < min(drawdowns) <= max(drawdowns) < float(stored_result["worst_month_return"]) + 0.001 < 0


@pytest.mark.parametrize("network", PRESETS)
def test_held_basket_s_return__follows_from_packaged_prices(network: str) -> None:
    """An own calculation: shares of the first day at the prices of the last, and of the last days of two months."""
    days = list(csv.DictReader(sample_files()[0].open()))
    coins = {"WETH": "ETH", "WBTC": "BTC", "cbBTC": "BTC", "BTCB": "BTC"}
    for name, stored_result in stored_results()[network].items():
        targets = [(coins.get(symbol, symbol), share) for symbol, share in template_targets(PORTFOLIO_TEMPLATES[name], PRESETS[network])]
        numeraire = [float(day["USDC"]) for day in days]
        values = [
            sum(float(share[:-1]) * float(day[coin]) / float(days[0][coin]) for coin, share in targets) / dollar
            for day, dollar in zip(days, numeraire, strict=True)
        ]
        assert f"{values[-1] / values[0] - 1:.6f}"[:-2] == stored_result["return_of_holding"], name
        month = [number for number, day in enumerate(days) if day["time"].startswith(stored_result["worst_month"])]
        assert f"{values[month[-1]] / values[month[0] - 1] - 1:.4f}" == stored_result["worst_month_return_of_holding"], name


BINANCE = pytest.mark.skipif(
    not REAL_PRICES.is_dir(), reason="Binance's prices, which carry no licence to be packaged, are not beside the project"
)


@cache
def year_closes(year: int) -> Any:
    return runpy.run_path("scripts/make/past_results.py")["year_closes"](REAL_PRICES, year)


@cache
def bars() -> list[Any]:
    polars = pytest.importorskip("polars")
    return [polars.read_parquet(REAL_PRICES / file) for file in ("daily_2017_2023.parquet", "hourly_2021-04_2022-12.parquet")]


@cache
def opens_at_midnight(day: str) -> dict[str, float]:
    """Prices of coins at the beginning of a day, read without the script that wrote the results; daily bars come before hourly ones."""
    midnight = datetime.fromisoformat(f"{day}T00:00:00+00:00")
    prices = {"USDC": 1.0}
    for bar in [bar for table in bars() for bar in table.filter(table["time"] == midnight).to_dicts()]:
        prices.setdefault(bar["symbol"], bar["open"])
    return prices


def test_template__has_the_years_in_which_its_coins_had_prices() -> None:
    stored = stored_other_year_results()
    assert list(stored) == list(PRESETS)
    all_years = ["2018", "2019", "2020", "2022", "2023"]
    one_year = ["2022"]
    two_coins = ("60/40", "stable-reserve", "small")
    for network, of in stored.items():
        assert list(of) == list(stored_results()[network])
        for name, results in of.items():
            assert [result["from"][:4] for result in results] == (all_years if name in two_coins else one_year), (network, name)
            for result in results:
                assert result["until"] == f"{result['from'][:4]}-12-31"
                assert result["basis"] == OTHER_YEARS_BASIS
        assert [float(result["return"]) < 0 for result in of["60/40"]] == [True, False, False, True, False], "the bad years are shown too"


@BINANCE
@pytest.mark.parametrize("network", PRESETS)
def test_held_basket_s_other_years__follow_from_end_prices(network: str) -> None:
    coins = {"WETH": "ETH", "WBTC": "BTC", "cbBTC": "BTC", "BTCB": "BTC"}
    for name, results in stored_other_year_results()[network].items():
        targets = [(coins.get(symbol, symbol), share) for symbol, share in template_targets(PORTFOLIO_TEMPLATES[name], PRESETS[network])]
        for result in results:
            first, last = (opens_at_midnight(result[end]) for end in ("from", "until"))
            growth = sum(float(share[:-1]) / 100 * last[coin] / first[coin] for coin, share in targets)
            assert f"{growth - 1:.6f}"[:-2] == result["return_of_holding"], (name, result["from"])


@BINANCE
@pytest.mark.slow
def test_a_stored_result_of_another_year_is_that_of_this_version() -> None:
    basket = (PORTFOLIO_TEMPLATES["small"], PRESETS["base"])
    stored = {result["from"][:4]: result for result in other_year_results("base", "small")}
    assert computed_template_result(*basket, year_closes(2022), OTHER_YEARS_BASIS) == stored["2022"]


@BINANCE
@pytest.mark.slow
def test_the_years_of_a_file_are_those_of_the_catalogue(tmp_path: Path) -> None:
    path = tmp_path / "trimtab.toml"
    file = tmp_path / "mine.csv"
    write_new_config(path, NewConfig("base", WALLET, [], "USDC", [("RPC_A", "one"), ("RPC_B", "two")], template="60/40"))
    rows = ["time,BTC,ETH"]
    for year in (2018, 2022):
        table = year_closes(year)
        closes = table.closes[:, [table.symbols.index(coin) for coin in ("BTC", "ETH")]].tolist()
        rows += [f"{time_s},{bitcoin},{ether}" for time_s, (bitcoin, ether) in zip(table.times_s, closes, strict=True)]
    file.write_text("\n".join(rows))
    stored = [result for result in other_year_results("base", "60/40") if result["from"][:4] in ("2018", "2022")]
    results, reasons = year_results(load_config(path), file)
    assert reasons == []
    assert [{**result, "basis": OTHER_YEARS_BASIS} for result in results] == stored


def test_the_docs_count_the_years_below_buy_and_hold() -> None:
    years = [year for name, packaged in stored_results()["ethereum"].items() for year in (packaged, *other_year_results("ethereum", name))]
    below = sum(float(year["return"]) < float(year["return_of_holding"]) for year in years)
    shallower = sum(float(year["max_drawdown"]) > float(year["max_drawdown_of_holding"]) for year in years)
    counts = f"Of {len(years)} recorded years of templates {below} ended below buy and hold, {shallower} had smaller drawdowns"
    assert counts in Path("docs/faq.md").read_text(encoding="utf-8")


def test_a_basket_without_packaged_prices_says_which_are_missing(tmp_path: Path) -> None:
    past_result, why = past_result_or_reason(load_config(config(tmp_path, targets="WETH=50% DAI=20% USDC=30%")))
    assert past_result is None
    assert mentions(why, "DAI")


def written_years(file: Path, unit: str, years: tuple[int, ...]) -> Path:
    """The packaged prices in units of one of its coins, as those of other years of 365 days."""
    days = list(csv.DictReader(sample_files()[0].open()))
    coins = [coin for coin in days[0] if coin not in ("time", unit)]
    closes = [(day["time"][4:], *(str(float(day[coin]) / float(day[unit])) for coin in coins)) for day in days]
    rows = [f"{year}{','.join(row)}" for year in years for row in closes]
    file.write_text("\n".join([",".join(["time", *coins]), *rows, ""]))
    return file


@pytest.mark.slow
def test_a_basket_is_backtested_on_each_whole_year_of_a_file(tmp_path: Path) -> None:
    loaded = load_config(config(tmp_path, targets="WETH=50% USDC=50%"))
    packaged = past_result_or_reason(loaded)[0]
    assert packaged is not None
    file = written_years(tmp_path / "mine.csv", "USDC", (2018, 2019))
    lines = [line for line in file.read_text().splitlines() if not line.startswith("2018-12")]
    hourly = [line.replace("2019-03-01", "2019-03-01T12:00").replace(",", ",9", 1) for line in lines if line.startswith("2019-03-01")]
    at = next(number for number, line in enumerate(lines) if line.startswith("2019-03-02"))
    file.write_text("\n".join([*lines[:at], *hourly, *lines[at:]]))
    results, reasons = year_results(loaded, file)
    assert reasons == ["2018: no past result: WETH has prices on 334 of 365 days (UTC)"]
    own = {"from": "2019-01-01", "until": "2019-12-31", "worst_month": packaged["worst_month"].replace("2021", "2019")}
    assert results == [{**packaged, **own, "basis": packaged["basis"].replace("of 2021", "of mine.csv")}]


def test_year_with_a_day_without_a_price__has_no_result(tmp_path: Path) -> None:
    loaded = load_config(config(tmp_path, targets="WETH=50% USDC=50%"))
    file = written_years(tmp_path / "mine.csv", "USDC", (2019,))
    lines = file.read_text().splitlines()
    at = lines[0].split(",").index("ETH")
    for row in (1, 100, len(lines) - 1):
        cells = lines[row].split(",")
        gap = ",".join([*cells[:at], "", *cells[at + 1 :]])
        for changed in ([*lines[:row], gap, *lines[row + 1 :]], [*lines[:row], *lines[row + 1 :]]):
            file.write_text("\n".join(changed))
            assert year_results(loaded, file) == ([], ["2019: no past result: WETH has prices on 364 of 365 days (UTC)"])


def test_coin_without_a_midnight_price__has_the_day_s_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_config(config(tmp_path, targets="WETH=50% USDC=50%"))
    monkeypatch.setattr(past_results, "past_result", lambda _, table, basis: (table.times_s.tolist(), table.closes.tolist()))
    file = written_years(tmp_path / "mine.csv", "USDC", (2019,))
    expected = year_results(loaded, file)
    assert len(expected[0][0][0]) == 365
    head, *lines = file.read_text().splitlines()
    at = head.split(",").index("ETH")
    rows = [line.split(",") for line in lines]
    late = [["2019-03-01T01:00", *row[1:]] for row in rows if row[0].startswith("2019-03-01")]
    assert len(late) == 1
    for row in rows:
        row[at] = "" if row[0].startswith("2019-03-01") else row[at]
    days = sorted([*rows, *late], key=lambda row: row[0])
    file.write_text("\n".join([head, *map(",".join, days), ""]))
    assert year_results(loaded, file) == expected


def test_prices_in_another_currency_have_no_results(tmp_path: Path) -> None:
    loaded = load_config(config(tmp_path, targets="WETH=50% USDC=50%"))
    file = tmp_path / "mine.csv"
    rows = [f"2019-01-{day:02},{coin},{day + 100}" for day in range(1, 32) for coin in ("ETH", "BTC")]
    file.write_text("\n".join(["time,symbol,close_eur", *rows]))
    with pytest.raises(ConfigError, match="the closes are in EUR, not in USDC"):
        year_results(loaded, file)


def test_each_token_that_stands_for_a_coin_has_its_prices(tmp_path: Path) -> None:
    path = tmp_path / "trimtab.toml"
    write_new_config(
        path,
        NewConfig(
            "base",
            WALLET,
            [("WETH", "30%"), ("cbBTC", "20%"), ("WBTC", "10%"), ("USDC", "40%")],
            "USDC",
            [("RPC_A", "one"), ("RPC_B", "two")],
        ),
    )
    loaded = load_config(path)
    closes = with_token_prices(loaded, read_table(sample_files()[0]))
    bitcoin, *others = (closes.closes[:, closes.symbols.index(symbol)].tolist() for symbol in ("BTC", "cbBTC", "WBTC"))
    assert others == [bitcoin, bitcoin]
    month = replace(closes, times_s=closes.times_s[:32], closes=closes.closes[:32])
    assert past_result(loaded, month)["until"] == "2021-02-01"


@pytest.mark.slow
def test_numeraire_named_as_a_coin__has_its_prices(tmp_path: Path) -> None:
    path = tmp_path / "trimtab.toml"
    endpoints = [("RPC_A", "one"), ("RPC_B", "two")]
    write_new_config(path, NewConfig("ethereum", WALLET, [("WETH", "50%"), ("USDC", "50%")], "WETH", endpoints, numeraire_price="2000"))
    loaded = load_config(path)
    packaged = past_result_or_reason(loaded)[0]
    assert packaged is not None
    results, _ = year_results(loaded, sample_files()[0])
    assert results == [{**packaged, "basis": results[0]["basis"]}]


def basket_with_a_hub(folder: Path) -> LoadedConfig:
    """WBTC and USDC, which trade through WETH."""
    path = folder / "trimtab.toml"
    write_new_config(path, NewConfig("ethereum", WALLET, [("WBTC", "50%"), ("USDC", "50%")], "USDC", [("RPC_A", "one"), ("RPC_B", "two")]))
    return load_config(path)


@pytest.mark.slow
def test_a_year_in_which_a_hub_has_every_price_has_a_result(tmp_path: Path) -> None:
    assert year_results(basket_with_a_hub(tmp_path), sample_files()[0])[1] == []


def test_year_with_a_hub_without_a_price__has_no_result(tmp_path: Path) -> None:
    loaded = basket_with_a_hub(tmp_path)
    lines = sample_files()[0].read_text().splitlines()
    at = lines[0].split(",").index("ETH")
    file = tmp_path / "late.csv"
    rows = [line.split(",") for line in lines[1:364]]
    file.write_text("\n".join([lines[0], *(",".join([*row[:at], "", *row[at + 1 :]]) for row in rows), *lines[364:]]))
    assert year_results(loaded, file) == ([], ["2021: no past result: WETH has prices on 2 of 365 days (UTC)"])


def test_a_file_without_a_coin_says_so_for_each_year(tmp_path: Path) -> None:
    loaded = load_config(config(tmp_path, targets="WETH=50% DAI=20% USDC=30%"))
    results, reasons = year_results(loaded, written_years(tmp_path / "mine.csv", "USDC", (2018, 2019)))
    assert results == []
    assert [why[:4] for why in reasons] == ["2018", "2019"]
    assert all(mentions(why, "DAI") for why in reasons)


@pytest.mark.slow
@pytest.mark.parametrize("network", PRESETS)
@pytest.mark.parametrize("name", PORTFOLIO_TEMPLATES)
def test_the_stored_results_are_those_of_this_version(name: str, network: str) -> None:
    stored = template_result(network, name)
    if stored is None:
        with pytest.raises(ConfigError, match="lack AERO"):
            computed_template_result(PORTFOLIO_TEMPLATES[name], PRESETS[network])
    else:
        assert computed_template_result(PORTFOLIO_TEMPLATES[name], PRESETS[network]) == stored
