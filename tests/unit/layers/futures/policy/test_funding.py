"""Expected funding of positions: a cost over a horizon, and drift that trims what pays it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.futures.policy.targets import FuturesTrigger, due_triggers, funding_trims, notional_drifts
from agent.margin import account as margin
from agent.model.futures import FuturesTarget, MarginAccount
from tests.support.constants import MONTH_S
from tests.support.perpetuals.plans import POLICY, RICH, pair_book

E18 = 10**18
LONG_AND_SHORT = replace(POLICY, targets=(FuturesTarget("ETH", 5_000), FuturesTarget("BTC", -5_000)), funding_horizon_s=MONTH_S)
ETH_ALONE = replace(LONG_AND_SHORT, targets=(FuturesTarget("ETH", 10_000),))


def at_rates(eth: Fraction, btc: Fraction = Fraction(0)) -> MarginAccount:
    """10,000 long in ETH at 2,000 and 9,990 short in BTC at 30,000, of 10,000 of collateral."""
    margin_account = pair_book(10_000, eth=5 * E18, btc=-333 * 10**15)
    rates = {"ETH": eth, "BTC": btc}
    return replace(margin_account, markets=tuple(replace(market, funding_daily=rates[market.market]) for market in margin_account.markets))


def test_paying_position__counts_as_overweight_and_is_trimmed() -> None:
    """0.5 % a day for 30 days is 15 %: half of the notional counts as 57.5 %, beyond the band of 5, and goes to 10,000 / 1.15."""
    margin_account = at_rates(Fraction(5, 1_000))
    drift, _ = notional_drifts(margin_account, LONG_AND_SHORT)
    assert float(drift.share * (1 + drift.funding_share)) == pytest.approx(0.575, rel=1e-3)
    assert float(drift.funded_share_drift) == pytest.approx(0.075, rel=1e-2)
    trims = funding_trims(margin_account, LONG_AND_SHORT)
    assert trims == {"ETH": 4_347 * 10**15 - 5 * E18}
    after = margin.with_trade(margin_account, "ETH", trims["ETH"], -margin.position_value_raw(margin_account.market("ETH"), trims["ETH"]))
    assert funding_trims(after, LONG_AND_SHORT) == {}


@pytest.mark.parametrize("rate", [Fraction(0), Fraction(-5, 1_000), Fraction(3, 1_000)])
def test_a_position_that_is_paid_or_pays_little_is_left(rate: Fraction) -> None:
    assert funding_trims(at_rates(rate), LONG_AND_SHORT) == {}


def test_a_short_that_pays_is_trimmed_by_the_same_rule() -> None:
    trims = funding_trims(at_rates(Fraction(0), Fraction(-5, 1_000)), LONG_AND_SHORT)
    assert list(trims) == ["BTC"]
    assert 0 < trims["BTC"] < 333 * 10**15


def test_without_a_horizon_or_a_band_nothing_is_trimmed() -> None:
    margin_account = at_rates(Fraction(5, 1_000))
    assert funding_trims(margin_account, replace(LONG_AND_SHORT, funding_horizon_s=0)) == {}
    assert funding_trims(margin_account, replace(LONG_AND_SHORT, band_bps=0)) == {}


def rated(margin_account: MarginAccount, rate: Fraction) -> MarginAccount:
    """The same account with this daily rate in ETH."""
    return replace(
        margin_account,
        markets=tuple(replace(market, funding_daily=rate if market.market == "ETH" else Fraction(0)) for market in margin_account.markets),
    )


def test_a_limit_goes_before_a_funding_trim() -> None:
    margin_account = rated(pair_book(3_000, eth=10 * E18), Fraction(5, 1_000))
    fired = due_triggers(margin_account, ETH_ALONE, RICH)
    assert fired[0] is FuturesTrigger.LEVERAGE
    assert FuturesTrigger.FUNDING in fired
