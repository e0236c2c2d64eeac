"""Prices for the fast kernel: what is wrong is named with its place, what is missing is said, and nothing is known before its time."""

import numpy as np
import pytest

from agent.backtest.kernel import CHANGED_ASSETS, NO_ASSETS, SAME_ASSETS
from agent.backtest.sweep import prepare_prices
from agent.errors import ConfigError
from tests.support.backtests import MARKET_HOUR_S, MARKET_START_S
from tests.support.text import raises_field

NAN = float("nan")


def hours(count: int) -> list[int]:
    return [MARKET_START_S + MARKET_HOUR_S * i for i in range(count)]


@pytest.mark.parametrize(
    ("times", "prices", "words"),
    [
        pytest.param([0, 3_600, 3_600], [[1.0]] * 3, "is repeated", id="repeated time"),
        pytest.param([0, 7_200, 3_600], [[1.0]] * 3, "follows 1970-01-01 02:00:00 UTC", id="time back"),
        pytest.param([0, 3_600], [[1.0], [0.0]], r"A is zero \(0\) at 1970-01-01 01:00:00 UTC \(row 1\)", id="zero price"),
        pytest.param([0, 3_600], [[1.0], [-2.5]], r"A is negative \(-2.5\)", id="negative price"),
        pytest.param([0, 3_600], [[1.0], [float("inf")]], "A is infinite", id="infinite price"),
        pytest.param([0, 3_600], [[1.0], [float("-inf")]], "A is infinite", id="minus infinity"),
        pytest.param([0, 3_600], [[NAN], [NAN]], "A has none", id="no price"),
        pytest.param([0], [[1.0]], "1 bars", id="one bar"),
        pytest.param([0.5, 1.5], [[1.0], [1.0]], "not unix seconds", id="fractions of seconds"),
        pytest.param([0, 3_600], [[1.0, 2.0]] * 2, "a table of", id="too wide"),
        pytest.param([0, 3_600], [1.0, 1.0], "a table of", id="no table"),
    ],
)
def test_bad_prices_are_refused_by_name_and_place(times: list[float], prices: list[list[float]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        prepare_prices(["A"], times, prices)


def test_second_column_of_an_asset__is_refused() -> None:
    with raises_field("prices", "two columns"):
        prepare_prices(["A", "B", "A"], hours(2), np.ones((2, 3)))


def test_a_whole_table_has_nothing_to_say_and_is_not_changed() -> None:
    prices = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    kernel_prices = prepare_prices("AB", hours(3), prices)
    assert kernel_prices.notes == ()
    assert kernel_prices.arrays.trade_prices.tolist() == kernel_prices.arrays.quote_prices.tolist() == [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]
    assert kernel_prices.arrays.bar_states.tolist() == [CHANGED_ASSETS, SAME_ASSETS, SAME_ASSETS]
    prices[0, 0] = 9.0
    assert kernel_prices.arrays.trade_prices[0, 0] == 1.0


def test_missing_price__keeps_all_assets_waiting() -> None:
    prices = np.array([[1, NAN], [2, NAN], [3, 7], [NAN, 8], [5, 9], [6, NAN], [7, NAN], [8, NAN]])
    waits = prepare_prices(["OLD", "NEW"], [*hours(7), MARKET_START_S + 12 * MARKET_HOUR_S], prices)
    assert waits.arrays.bar_states.tolist() == [
        CHANGED_ASSETS,
        SAME_ASSETS,
        CHANGED_ASSETS,
        NO_ASSETS,
        SAME_ASSETS,
        NO_ASSETS,
        NO_ASSETS,
        NO_ASSETS,
    ]
    assert waits.arrays.quote_prices.tolist() == [[1, 2, 3, 3, 5, 6, 7, 8], [0, 0, 7, 8, 9, 9, 9, 9]]
    assert waits.notes == (
        "OLD has 1 missing price, at 2020-09-13 15:26 UTC: nothing trades",
        "NEW has no price before 2020-09-13 14:26:40 UTC: until then the other assets share its weight",
        "NEW has no price after 2020-09-13 16:26:40 UTC: it is valued at its last price; nothing trades",
        "1 gap between bars is longer than the usual 1 h; the longest, 6 h, follows 2020-09-13 18:26:40 UTC",
    )
    assert waits.arrays.break_bars.tolist() == [0, 2, 3, 5, 6, 7, 8]
