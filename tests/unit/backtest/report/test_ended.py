"""What a simulation ends with and has no price any more is told: how much of it, its last price, and its share of the final value."""

from __future__ import annotations

import pytest

from agent.backtest.report.series import backtest_document
from agent.backtest.settings import make_spec
from tests.support.backtests import BAND, COIN, HOUR_S, START_S, hourly, simulation_of
from tests.support.text import mentions

GONE = [10.0, 10, 10, 11, *[float("nan")] * 5]
THREE = {"BTC": 4_000, "ETH": 2_000, "USD": 4_000}


@pytest.mark.parametrize("gone", ["leave", "halt"])
def test_ended_asset__is_named_with_its_part_of_the_final_value(gone: str) -> None:
    simulation = simulation_of(hourly(BTC=[100.0] * 9, ETH=GONE), make_spec(THREE, BAND, "USD"), stale_asset_mode=gone)
    (delisted,) = backtest_document(simulation)["delisted"]
    # 200 ETH at 11 beside 40 BTC at 100 and 4,000 USD.
    assert delisted == {
        "symbol": "ETH",
        "amount": "200",
        "price": "11",
        "time": START_S + 3 * HOUR_S,
        "value": "2200",
        "share": f"{2_200 / 10_200:.6f}",
    }
    assert float(simulation.final_value) / COIN == 10_200
    assert mentions(simulation.notes[-1], "200 ETH", "2023-11-15 01:00 UTC", "11.0000 USD", "2200 USD", "21.57 %")


def test_amount_of_an_ended_asset_is_shown_with_six_digits() -> None:
    prices = hourly(BTC=[100.0] * 9, ETH=[30.0, 30, 30, 33, *[float("nan")] * 5])
    simulation = simulation_of(prices, make_spec(THREE, BAND, "USD"), stale_asset_mode="leave")
    assert simulation.notes[-1].startswith("66.666667 ETH have no price after 2023-11-15 01:00 UTC: at the last price, 33.0000 USD")


def test_what_still_has_a_price_is_not_told() -> None:
    simulation = simulation_of(hourly(BTC=[100.0] * 4, ETH=GONE[:4]), make_spec(THREE, BAND, "USD"), stale_asset_mode="leave")
    assert simulation.delisted_holdings == ()
