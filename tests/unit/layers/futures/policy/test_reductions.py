"""Tests of agent/layers/futures/policy/targets.py and hedges.py on margin accounts: reductions, targets and the choice of a hedge."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from agent.layers.futures.policy.targets import FuturesTrigger, due_triggers, reduction_sizes, sizes_to_target
from agent.margin import account as margin
from agent.model.futures import FuturesPolicy, FuturesTarget
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
