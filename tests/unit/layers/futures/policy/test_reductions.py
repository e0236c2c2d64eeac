"""Tests of agent/layers/futures/policy/targets.py and hedges.py on margin accounts: reductions, targets and the choice of a hedge."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.layers.futures.policy.hedges import short_costs, with_choice
from agent.layers.futures.policy.targets import FuturesTrigger, due_triggers, reduction_sizes, sizes_to_target
from agent.margin import account as margin
from agent.model.futures import FuturesPolicy, FuturesTarget, HedgeComparison
from agent.units import BPS
from tests.support.perpetuals.accounts import E18, LIMITS, account, market

MONTH_S = 30 * 86_400
SPOT_VALUE = Fraction(3_000 * E18)


@given(st.integers(1, 10**19), st.integers(1, 10**19), st.integers(300, 5_000), st.integers(0, 5_000))
def test_reduction_ends_within_limits_and_triggers_no_second(eth_raw: int, btc_raw: int, collateral: int, stress_bps: int) -> None:
    policy = FuturesPolicy((), 0, 0, replace(LIMITS, stress_move_bps=stress_bps))
    margin_account = account(collateral, {"ETH": eth_raw, "BTC": -btc_raw}, market("ETH"), market("BTC", 1_500))

    account_after = margin_account
    for name, size_raw in reduction_sizes(margin_account, policy, SPOT_VALUE).items():
        assert margin_account.size_raw(name) * size_raw < 0
        assert abs(size_raw) <= abs(margin_account.size_raw(name))
        value_raw = margin.position_value_raw(margin_account.market(name), size_raw)
        account_after = margin.with_trade(account_after, name, size_raw, -value_raw)

    assert not due_triggers(account_after, policy, SPOT_VALUE)
    assert not reduction_sizes(account_after, policy, SPOT_VALUE)


def test_targets_are_reached_from_below() -> None:
    policy = FuturesPolicy((FuturesTarget("ETH", 6_000), FuturesTarget("BTC", -4_000)), 20_000, 500, LIMITS)
    margin_account = account(10_000, {"ETH": 10 * E18}, market("ETH"), market("BTC", 30_000))

    assert due_triggers(margin_account, policy, Fraction(10**6 * E18)) == (FuturesTrigger.DRIFT,)
    assert sizes_to_target(margin_account, policy) == {"ETH": -4 * E18, "BTC": -266 * 10**15}


@pytest.mark.parametrize(
    ("funding_daily", "tax", "is_hedged"),
    [
        pytest.param(Fraction(0), 0, False, id="no tax"),
        pytest.param(Fraction(0), 50, True, id="tax"),
        pytest.param(Fraction(-1, 100), 50, False, id="funding above the tax"),
        pytest.param(Fraction(1, 100), 0, True, id="funding received"),
    ],
)
def test_hedge_is_chosen_where_tax_outweighs_fees_and_funding(funding_daily: Fraction, tax: int, is_hedged: bool) -> None:
    """Of 2,400 above target half may be shorted: 1,200 cost 1.80 to sell, and 2.40 to short."""
    hedged_value = Fraction(1_200)
    zero = Fraction(0)
    eth_market = replace(market("ETH"), funding_daily=funding_daily)
    fees, funding, tied_value, _ = short_costs(eth_market, hedged_value, MONTH_S, Fraction(1, 10), 0)
    sale_cost = hedged_value * 15 / BPS
    comparison = HedgeComparison(
        "", 2 * hedged_value, hedged_value, sale_cost, zero, Fraction(tax), fees, funding, zero, tied_value, MONTH_S
    )

    assert fees == Fraction(24, 10)
    assert tied_value == 120
    assert with_choice(comparison, zero, counts_income=True).is_hedged is is_hedged
