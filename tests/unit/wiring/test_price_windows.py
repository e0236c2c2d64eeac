"""Recorded prices that a rule needs: the intervals without one."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.model import PricePoint
from agent.store import Store
from agent.wiring.price_windows import MissingPrices, NeededPrices, missing_prices
from tests.support.constants import HOUR_S
from tests.support.stores import store_fixture
from tests.support.tokens import USDC, WETH

NOW_S = 100 * HOUR_S + HOUR_S // 2
WINDOW = NeededPrices((WETH.address,), 6 * HOUR_S, HOUR_S)

store = store_fixture()


@pytest.mark.parametrize(
    ("hours", "missing"),
    [
        pytest.param(range(95, 100), (), id="all whole hours"),
        pytest.param(range(96, 100), (MissingPrices(WETH.address, 1, 5, HOUR_S, 95 * HOUR_S),), id="not the first"),
        pytest.param(range(95, 99), (MissingPrices(WETH.address, 1, 5, HOUR_S, 99 * HOUR_S),), id="not the last"),
    ],
)
def test_missing_prices__are_those_of_hours_wholly_within_the_window(
    store: Store, hours: range, missing: tuple[MissingPrices, ...]
) -> None:
    store.prices.record(USDC.address, [PricePoint(WETH.address, hour * HOUR_S, Fraction(1)) for hour in hours])

    assert missing_prices(store.prices, USDC.address, [WINDOW], NOW_S) == missing


def test_missing_prices__leave_out_hours_that_were_over_at_the_last_attempt(store: Store) -> None:
    (missing,) = missing_prices(store.prices, USDC.address, [WINDOW], NOW_S, 98 * HOUR_S + 1)

    assert missing == MissingPrices(WETH.address, 2, 2, HOUR_S, 98 * HOUR_S)


def test_forgotten_prices__are_looked_for_again(store: Store) -> None:
    store.prices.mark_fetch("windows", NOW_S, NOW_S)
    assert store.prices.last_fetch_s("windows") == (NOW_S, NOW_S)

    store.prices.forget(USDC.address, "feed")

    assert store.prices.last_fetch_s("windows") is None


LONG_WINDOW = NeededPrices((WETH.address,), 4 * 24 * HOUR_S, 24 * HOUR_S)


@pytest.mark.parametrize("windows", [(WINDOW, LONG_WINDOW), (LONG_WINDOW, WINDOW)], ids=["short first", "long first"])
def test_missing_prices_of_two_windows__are_those_of_the_most_time(store: Store, windows: tuple[NeededPrices, ...]) -> None:
    (missing,) = missing_prices(store.prices, USDC.address, windows, NOW_S)

    assert missing == MissingPrices(WETH.address, 3, 3, 24 * HOUR_S, 24 * HOUR_S)


def test_first_missing_price__is_that_of_any_window(store: Store) -> None:
    store.prices.record(USDC.address, [PricePoint(WETH.address, hour * HOUR_S, Fraction(1)) for hour in (60, 72)])
    hours = NeededPrices((WETH.address,), 30 * HOUR_S, HOUR_S)

    (missing,) = missing_prices(store.prices, USDC.address, [hours, LONG_WINDOW], NOW_S)

    assert missing == MissingPrices(WETH.address, 28, 29, HOUR_S, 24 * HOUR_S)
