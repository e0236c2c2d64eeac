"""Expected funding of positions: a cost over a horizon, and drift that trims what pays it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.margin import account as margin
from agent.model.futures import FuturesTarget, MarginAccount
from agent.policy.futures.funding import DAY_S, expected_cost, funding_drifts, funding_trims
from tests.unit.test_futures_plan import POLICY, book

E18 = 10**18
MONTH_S = 30 * DAY_S
LONG_AND_SHORT = replace(POLICY, targets=(FuturesTarget("ETH", 5_000), FuturesTarget("BTC", -5_000)))


def at_rates(eth: Fraction, btc: Fraction = Fraction(0)) -> MarginAccount:
    """10,000 long in ETH at 2,000 and 9,990 short in BTC at 30,000, of 10,000 of collateral."""
    held = book(10_000, eth=5 * E18, btc=-333 * 10**15)
    rates = {"ETH": eth, "BTC": btc}
    return replace(held, markets=tuple(replace(one, funding_daily=rates[one.market]) for one in held.markets))


def test_expected_funding_is_a_cost_of_longs_and_an_income_of_shorts() -> None:
    """0.1 % a day for 30 days: the long pays 300, the short gets 299.70."""
    assert expected_cost(at_rates(Fraction(1, 1_000)), MONTH_S) == 300 * E18
    assert expected_cost(at_rates(Fraction(0), Fraction(1, 1_000)), MONTH_S) == Fraction(-2_997 * E18, 10)
    assert expected_cost(at_rates(Fraction(1, 1_000)), 2 * MONTH_S) == 600 * E18


def test_a_position_that_pays_counts_as_overweight_and_is_trimmed() -> None:
    """0.5 % a day for 30 days is 15 %: half of the notional counts as 57.5 %, beyond the band of 5, and goes to 10,000 / 1.15."""
    held = at_rates(Fraction(5, 1_000))
    drift, _ = funding_drifts(held, LONG_AND_SHORT, MONTH_S)
    assert float(drift.share) == pytest.approx(0.575, rel=1e-3)
    trims = funding_trims(held, LONG_AND_SHORT, MONTH_S)
    assert trims == {"ETH": 4_347 * 10**15 - 5 * E18}
    after = margin.with_trade(held, "ETH", trims["ETH"], -margin.position_value_raw(held.market("ETH"), trims["ETH"]))
    assert funding_trims(after, LONG_AND_SHORT, MONTH_S) == {}


@pytest.mark.parametrize("rate", [Fraction(0), Fraction(-5, 1_000), Fraction(3, 1_000)])
def test_a_position_that_is_paid_or_pays_little_is_left(rate: Fraction) -> None:
    assert funding_trims(at_rates(rate), LONG_AND_SHORT, MONTH_S) == {}


def test_a_short_that_pays_is_trimmed_by_the_same_rule() -> None:
    trims = funding_trims(at_rates(Fraction(0), Fraction(-5, 1_000)), LONG_AND_SHORT, MONTH_S)
    assert list(trims) == ["BTC"] and 0 < trims["BTC"] < 333 * 10**15


def test_without_a_horizon_or_a_band_nothing_is_trimmed() -> None:
    held = at_rates(Fraction(5, 1_000))
    assert funding_trims(held, LONG_AND_SHORT, 0) == {}
    assert funding_trims(held, replace(LONG_AND_SHORT, band_bps=0), MONTH_S) == {}
