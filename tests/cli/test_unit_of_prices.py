"""A symbol without prices is cash only if it is known as such, or named by --numeraire: in each command that reads prices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("polars")

from agent.app.research.backtests import PortfolioOptions, numeraire_of
from agent.app.research.past_results import year_results
from agent.backtest.data import PriceTable
from agent.cli.research.portfolio_texts import portfolio_options
from agent.cli.research.value_texts import parse_targets
from agent.config.load import load_config
from agent.config.networks.presets import ETHEREUM_PRESET, TemplateAsset
from agent.config.writing.template import render_config
from agent.errors import ConfigError
from tests.cli.tools import CommandResult
from tests.support.backtests import random_table

TABLE = random_table(1, 40, ("BTC", "ETH", "LINK"))
MISTYPED = {
    "LNIK": "did you mean LINK?",
    "BTCC": "did you mean BTC?",
    "ETHUSD": "did you mean ETH?",
    "Chainlink": "add --as LINK=Chainlink",
    "USDCOIN": "add --numeraire USDCOIN",
    "WBTC": "add --as BTC=WBTC",
}
CASH = ("USD", "usdc", "DAI", "EUR", "CHF", "USDT0", "EURC")


@pytest.mark.parametrize(("symbol", "remedy"), MISTYPED.items())
def test_a_symbol_without_prices_is_no_cash(symbol: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=f"--target: {symbol} is not in the file") as error:
        numeraire_of(TABLE, parse_targets(f"ETH=70,{symbol}=30" if symbol != "ETHUSD" else f"BTC=70,{symbol}=30"), "")
    assert remedy in error.value.remedy


@pytest.mark.parametrize("symbol", CASH)
def test_a_currency_or_stablecoin_without_prices_is_the_unit(symbol: str) -> None:
    assert numeraire_of(TABLE, parse_targets(f"BTC=70,{symbol}=30"), "") == symbol


def test_any_symbol_is_the_unit_if_it_is_named() -> None:
    assert numeraire_of(TABLE, parse_targets("BTC=70,GOLD=30"), "GOLD") == "GOLD"
    with pytest.raises(ConfigError, match="--target: LNIK"):
        numeraire_of(TABLE, parse_targets("BTC=40,LNIK=30,GOLD=30"), "GOLD")
    with pytest.raises(ConfigError, match="--target: LNIK"):
        numeraire_of(TABLE, parse_targets("BTC=40,LNIK=30,USD=30"), "")
    assert numeraire_of(TABLE, parse_targets("BTC=70,ETH=30"), "") == "USD"


@pytest.mark.parametrize("target", ["BTC=100", "USD=100", "LINK=100%"])
def test_one_target_is_no_portfolio(target: str) -> None:
    with pytest.raises(ConfigError, match="is one asset, a portfolio needs at least 2"):
        numeraire_of(TABLE, parse_targets(target), "")


def config_of_halves(folder: Path, numeraire: str) -> Path:
    """Write a config of WETH and USDC, one of them its unit."""
    weth = ETHEREUM_PRESET.tokens[0]
    usdc = ETHEREUM_PRESET.tokens[2]
    assets = [TemplateAsset("WETH", weth.address, "50%", weth.feed), TemplateAsset("USDC", usdc.address, "50%", usdc.feed)]
    path = folder / "trimtab.toml"
    path.write_text(render_config(ETHEREUM_PRESET, weth.address, assets, [], numeraire, [("RPC_A", "one"), ("RPC_B", "two")]))
    return path


@pytest.fixture(name="weth_config")
def _weth_config(tmp_path: Path) -> Path:
    """A config whose unit is WETH, of which a file of prices in dollars has to have prices."""
    return config_of_halves(tmp_path, "WETH")


def usdc_table() -> PriceTable:
    return random_table(2, 40, ("USDC", "BTC"))


def test_the_unit_of_a_config_is_no_cash_either(weth_config: Path) -> None:
    with pytest.raises(ConfigError, match="numeraire: the file has no prices of WETH") as error:
        PortfolioOptions(config=weth_config).spec(usdc_table())
    assert "--numeraire WETH" in error.value.remedy
    assert PortfolioOptions(config=weth_config, numeraire="WETH").spec(usdc_table()).portfolio.numeraire.symbol == "WETH"
    with pytest.raises(ConfigError, match=r"portfolio\.numeraire is WETH"):
        PortfolioOptions(config=weth_config, numeraire="USD").spec(usdc_table())


def test_nor_is_it_in_past_results(weth_config: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text("time,USDC\n2021-01-01,1\n2021-01-02,1\n")
    with pytest.raises(ConfigError, match="no prices of WETH"):
        year_results(load_config(weth_config), prices)


COMMANDS: dict[str, tuple[str, ...]] = {
    "backtest": ("--band", "10%rel"),
    "tune": ("--band", "5%rel,10%rel", "--yes"),
    "stress": ("--band", "10%rel", "--paths", "1,step-paths=1", "--yes"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_refuses_a_mistyped_symbol(bare: Callable[..., CommandResult], tmp_path: Path, name: str) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text("time,BTC,ETH,LINK\n" + "".join(f"2024-01-{day:02},100,50,{day}\n" for day in range(1, 31)))
    printed = bare(name, "--prices", str(prices), "--target", "BTC=40,ETH=30,LNIK=30", *COMMANDS[name], "--json")
    assert printed.code == 2
    assert "LNIK" in printed.error["message"]
    assert "did you mean LINK?" in printed.error["remedy"]


FOREIGN_CLOSES = {
    "column": ("time,symbol,close_eur", "2024-01-{day:02},{symbol},{close}"),
    "sign": ("time,symbol,Price €", "2024-01-{day:02},{symbol},{close}"),
    "pair": ("time,symbol,close", "2024-01-{day:02},{symbol}-EUR,{close}"),
}


def file_in_euros(folder: Path, form: str) -> Path:
    header, row = FOREIGN_CLOSES[form]
    rows = [row.format(day=day, symbol=symbol, close=100 + day) for symbol in ("BTC", "ETH") for day in range(1, 31)]
    path = folder / "prices.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.mark.parametrize("form", FOREIGN_CLOSES)
@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_refuses_closes_in_another_currency(bare: Callable[..., CommandResult], tmp_path: Path, name: str, form: str) -> None:
    mapping = ("--as", "BTC-EUR=BTC,ETH-EUR=ETH") if form == "pair" else ()
    prices = file_in_euros(tmp_path, form)
    printed = bare(name, "--prices", str(prices), "--target", "BTC=40,ETH=30,USD=30", *mapping, *COMMANDS[name], "--json")
    assert printed.code == 2
    assert printed.error["message"] == "the closes are in EUR, not in USD"
    assert printed.error["remedy"].startswith("write EUR in place of USD")


@pytest.mark.parametrize("numeraire", ["EUR", "EURC", "GOLD"])
def test_closes_in_the_currency_of_the_unit_are_taken(tmp_path: Path, numeraire: str) -> None:
    """A unit that is no known currency may be worth anything."""
    options = portfolio_options(target=f"BTC=70,{numeraire}=30", band="10%rel", numeraire=numeraire)
    table = options.load_prices(file_in_euros(tmp_path, "column"))
    assert options.spec(table).portfolio.numeraire.symbol == numeraire


def test_closes_in_euros__are_in_euro_if_nothing_else_is_cash(tmp_path: Path) -> None:
    options = portfolio_options(target="BTC=70,ETH=30", band="10%rel")
    table = options.load_prices(file_in_euros(tmp_path, "column"))
    assert options.spec(table).portfolio.numeraire.symbol == "EUR"


def test_a_config_in_dollars_refuses_closes_in_euros(tmp_path: Path) -> None:
    path = config_of_halves(tmp_path, "USDC")
    table = random_table(1, 40, ("WETH",))
    assert PortfolioOptions(config=path).spec(replace(table, currency="USD"))
    with pytest.raises(ConfigError, match="the closes are in EUR, not in USDC"):
        PortfolioOptions(config=path).spec(replace(table, currency="EUR"))
