"""Expected funding of positions: a cost over a horizon, and drift that trims what pays it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.layers.futures.planning.orders import plan_futures
from agent.layers.futures.policy.exposure import expected_funding_of_all
from agent.layers.futures.policy.targets import FuturesTrigger, due_triggers, funding_trims, notional_drifts, sizes_to_target
from agent.margin import account as margin
from agent.model.futures import FuturesPolicy, FuturesTarget, MarginAccount
from tests.support.constants import MONTH_S
from tests.support.perpetuals.plans import PLAN_S, POLICY, RICH, account_after_fills, pair_book
from tests.support.samples import examples

E18 = 10**18
LONG_AND_SHORT = replace(POLICY, targets=(FuturesTarget("ETH", 5_000), FuturesTarget("BTC", -5_000)), funding_horizon_s=MONTH_S)
ETH_ALONE = replace(LONG_AND_SHORT, targets=(FuturesTarget("ETH", 10_000),))


def at_rates(eth: Fraction, btc: Fraction = Fraction(0)) -> MarginAccount:
    """10,000 long in ETH at 2,000 and 9,990 short in BTC at 30,000, of 10,000 of collateral."""
    margin_account = pair_book(10_000, eth=5 * E18, btc=-333 * 10**15)
    rates = {"ETH": eth, "BTC": btc}
    return replace(margin_account, markets=tuple(replace(market, funding_daily=rates[market.market]) for market in margin_account.markets))


def test_expected_funding__is_a_cost_of_longs_and_income_of_shorts() -> None:
    """0.1 % a day for 30 days: the long pays 300, the short gets 299.70."""
    assert expected_funding_of_all(at_rates(Fraction(1, 1_000)), MONTH_S) == 300 * E18
    assert expected_funding_of_all(at_rates(Fraction(0), Fraction(1, 1_000)), MONTH_S) == Fraction(-2_997 * E18, 10)
    assert expected_funding_of_all(at_rates(Fraction(1, 1_000)), 2 * MONTH_S) == 600 * E18


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


def test_a_funding_spike_trims_by_a_plan_of_its_own() -> None:
    plan = plan_futures(at_rates(Fraction(5, 1_000)), LONG_AND_SHORT, RICH, PLAN_S)
    assert (plan.trigger, plan.reason, plan.is_reducing) == ("funding", "expected funding puts a position above its band", True)
    assert [(order.market, order.is_reduce_only) for order in plan.orders] == [("ETH", True)]


def test_a_share_above_its_band_without_funding_is_drift() -> None:
    """Two thirds in ETH, of a target of half: the little funding that it pays is not the cause."""
    margin_account = rated(pair_book(10_000, eth=10 * E18, btc=-333 * 10**15), Fraction(1, 10_000))
    assert funding_trims(margin_account, LONG_AND_SHORT) == {}
    assert plan_futures(margin_account, LONG_AND_SHORT, RICH, PLAN_S).reason == "a weight of the notional has left its band"


def test_a_limit_goes_before_a_funding_trim() -> None:
    margin_account = rated(pair_book(3_000, eth=10 * E18), Fraction(5, 1_000))
    fired = due_triggers(margin_account, ETH_ALONE, RICH)
    assert fired[0] is FuturesTrigger.LEVERAGE
    assert FuturesTrigger.FUNDING in fired


def test_a_market_with_dear_funding_is_not_opened_and_says_why() -> None:
    """2.5 % over the horizon is half of the band of 5 points: up to there the whole notional is opened, less its funding."""
    margin_account = rated(pair_book(10_000), Fraction(5, 1_000))
    assert (due_triggers(margin_account, ETH_ALONE, RICH), sizes_to_target(margin_account, ETH_ALONE)) == ((), {})
    two_longs = replace(LONG_AND_SHORT, targets=tuple(replace(target, weight_bps=5_000) for target in LONG_AND_SHORT.targets))
    both = plan_futures(margin_account, two_longs, RICH, PLAN_S)
    assert [order.market for order in both.orders] == ["BTC"]
    assert both.refusal_texts == ("ETH is not enlarged: it would pay 15.00 % of its notional in funding over 30 days",)
    cheap = rated(pair_book(10_000), Fraction(25, 30_000))
    assert sizes_to_target(cheap, ETH_ALONE) == {"ETH": 10 * E18 * 1000 // 1025 // 10**15 * 10**15}
    dearer = rated(pair_book(10_000), Fraction(26, 30_000))
    assert sizes_to_target(dearer, ETH_ALONE) == {}


@pytest.mark.parametrize("policy", [LONG_AND_SHORT, ETH_ALONE, replace(ETH_ALONE, leverage_band_bps=1_000)])
@given(st.lists(st.integers(-100, 100), min_size=2, max_size=12))
@examples(10)
def test_funding_never_makes_positions_oscillate(policy: FuturesPolicy, rates_bps: list[int]) -> None:
    """At one rate a second plan is empty; a trim is taken back only after the funding fell by half of the band."""
    margin_account = account_after_fills(pair_book(10_000), plan_futures(pair_book(10_000), policy, RICH, PLAN_S))
    weight = Fraction(abs(policy.targets[0].weight_bps), 10_000)
    trimmed_at = None
    for rate in (Fraction(bps, 10_000) for bps in rates_bps):
        margin_account = rated(margin_account, rate)
        before = margin_account.size_raw("ETH")
        margin_account = account_after_fills(margin_account, plan_futures(margin_account, policy, RICH, PLAN_S))
        change = margin_account.size_raw("ETH") - before
        if change < 0:
            trimmed_at = rate
        elif change > 0:
            assert before == 0 or trimmed_at is not None
            if trimmed_at is not None:
                assert (trimmed_at - rate) * 30 * weight >= Fraction(policy.band_bps, 20_000)
            trimmed_at = None
        assert plan_futures(margin_account, policy, RICH, PLAN_S).orders == (), "a plan at the same rate follows its own"
