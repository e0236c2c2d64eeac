"""What a backtest will not take from its command line: gas at nobody's price, amounts beyond measure, an empty start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent import app as api
from agent.backtest.data import has_gas_price, read_table
from agent.backtest.stress.paths import SpotScenario, SpotSeverity, inapplicable_scenarios
from agent.cli.research.portfolio_texts import market_options, portfolio_options
from agent.errors import ConfigError
from tests.support.text import raises_field

PRICES, GAS = api.sample_files()
FREE = api.MarketOptions()


def test_gas__is_not_priced_by_an_unnamed_native_coin() -> None:
    with raises_field("--market", "gas", "native coin") as caught:
        api.backtest(
            PRICES,
            market_options({"gas": "100 gwei"}),
            portfolio_options(target="BTC=50,USDC=50", numeraire="USDC", band="5%rel"),
        )
    assert "--native" in caught.value.remedy
    with raises_field("--market", "gas", "native coin"):
        api.backtest(PRICES, replace(FREE, gas_prices_path=GAS), portfolio_options(target="BTC=50,USDC=50", numeraire="USDC", band="5%rel"))
    table = read_table(PRICES)
    for native, known in (("", False), ("ETH", True)):
        spec = portfolio_options(target="BTC=50,ETH=25,USDC=25", band="5%rel", numeraire="USDC", native=native).spec(table)
        assert has_gas_price(spec, table) is known
        left_out = dict(inapplicable_scenarios([SpotScenario.GAS], spec, table, FREE.settings, SpotSeverity()))
        assert ("gas-spike" in left_out) is not known


def test_data_fee__is_refused_without_a_coin_or_amount() -> None:
    with raises_field("--market", "data-fee", "native coin"):
        api.backtest(
            PRICES, market_options({"data_fee": "300 gwei"}), portfolio_options(target="BTC=50,USDC=50", numeraire="USDC", band="5%rel")
        )
    with raises_field("--market", "data-fee", "300"):
        market_options({"data_fee": "300"})


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        ("2021-03-01=1e400", "--flow: '2021-03-01=1e400'"),
        ("2021-03-01=-1e31", "has a time or amount out of range"),
        ("0001-01-01T00:00:00+14:00=5", "has a time or amount out of range"),
    ],
)
def test_flows_beyond_any_time_or_amount_are_refused_by_name(flow: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        api.backtest(PRICES, market_options(flows=[flow]), portfolio_options(target="BTC=50,USD=50", band="10%rel"))


@pytest.mark.parametrize(
    ("value", "decimals", "reason"),
    [
        pytest.param("0.000000000000000001", "", "1e-18", id="value too small"),
        pytest.param("10000", "BTC=0", "0 decimals", id="no decimals"),
    ],
)
def test_a_start_that_buys_nothing_of_an_asset_is_refused(value: str, decimals: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"no BTC|{reason}"):
        api.backtest(PRICES, market_options(value=value), portfolio_options(target="BTC=50,USD=50", band="10%rel", decimals=decimals))


@pytest.mark.parametrize("every", ["1s", "99999999999999999999d"])
def test_a_schedule_that_no_live_policy_may_have_is_refused(every: str) -> None:
    with raises_field("--every", "every"):
        api.backtest(PRICES, FREE, portfolio_options(target="BTC=50,USD=50", every=every))


def test_decimals_after_a_hundred_whole_prices_are_read(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("time,BTC\n" + "".join(f"{1_609_459_200 + 3_600 * row},{100 + row if row < 150 else 250.5}\n" for row in range(200)))
    assert read_table(file).closes[-1, 0] == 250.5
