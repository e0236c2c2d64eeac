"""Targets of the futures layer: how a limit shares its room, the band of the total, and triggers that wait for a person."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import codec
from agent.app.alerting import RunFacts, cycle_alerts
from agent.config.futures import build_futures
from agent.config.load import parse_config
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.planning.orders import plan_futures
from agent.margin import account as margin
from agent.margin.state import breaches, largest_allowed_sizes, margin_state
from agent.model import AdjustFutures, Hold
from agent.model.futures import FuturesPolicy, FuturesTarget
from agent.policy.decide import decide
from tests.support.builders import token
from tests.support.configs.futures import futures_error, with_futures
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.plans import HALVES, PLAN_S, POLICY, RICH, ROUGH, pair_book
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, OVER, step_of

CAPPED = replace(ROUGH, spot_multiple_bps=25_000)
LEVERED = replace(POLICY, limits=CAPPED)


def test_notional_limit__cuts_every_opening_by_one_share() -> None:
    """20,000 of notional wanted, 10,000 allowed: each half gets half, where the first market once took all."""
    plan = plan_futures(pair_book(10_000), LEVERED, Fraction(4_000 * E18), PLAN_S)
    sizes = {order.market: order.size_raw for order in plan.orders}
    eth = abs(sizes["ETH"]) * 2_000
    btc = abs(sizes["BTC"]) * 30_000
    assert 9_700 * E18 < eth + btc <= 10_000 * E18
    assert abs(eth - btc) <= 40 * E18
    assert plan.refusal_texts == ("ETH is cut to what the limits allow", "BTC is cut to what the limits allow")


@given(st.integers(-20, 20), st.integers(-1_000, 1_000), st.integers(0, 30_000))
def test_orders_cut_together_break_no_limit_and_none_grows(eth: int, btc: int, spot: int) -> None:
    sizes = {name: size for name, size in (("ETH", eth * E18), ("BTC", btc * 10**15)) if size}
    margin_account = pair_book(10_000)
    value = Fraction(spot * E18)
    allowed_sizes = largest_allowed_sizes(margin_account, sizes, CAPPED, value)
    assert all(size * sizes[name] >= 0 and abs(size) <= abs(sizes[name]) for name, size in allowed_sizes.items())
    after = margin_account
    for name, size in allowed_sizes.items():
        after = margin.with_trade(after, name, size, -margin.position_value_raw(margin_account.market(name), size))
    assert not breaches(margin_state(after, CAPPED), replace(CAPPED, slippage_bps=0), value)


@pytest.mark.parametrize(("eth", "fires"), [(8_000, False), (7_900, True), (12_100, True), (12_000, False)])
def test_the_total_notional_has_a_band_of_its_own(eth: int, fires: bool) -> None:
    """One market is always 100 % of the notional, so that its weight never drifts."""
    policy = FuturesPolicy((FuturesTarget("ETH", 10_000),), 20_000, 500, ROUGH, leverage_band_bps=2_000)
    plan = plan_futures(pair_book(10_000, eth * E18 // 1_000), policy, RICH, PLAN_S)
    assert (plan.trigger == "leverage_drift") is fires
    assert bool(plan.orders) is fires


def test_total_held_below_its_target_by_a_limit__does_not_drift() -> None:
    policy = replace(LEVERED, targets=(FuturesTarget("ETH", 10_000),), leverage_band_bps=1_000)
    margin_account = pair_book(10_000)
    spot = Fraction(4_000 * E18)
    first = plan_futures(margin_account, policy, spot, PLAN_S)
    size = sum(order.size_raw for order in first.orders)
    assert first.trigger == "drift"
    assert 4_900 * 10**15 <= size <= 5 * E18
    assert plan_futures(pair_book(10_000, size), policy, spot, PLAN_S).orders == ()


def test_a_leverage_of_zero_closes_every_position() -> None:
    plan = plan_futures(pair_book(10_000, eth=2 * E18), replace(POLICY, targets=(), leverage_bps=0), RICH, PLAN_S)
    assert [(order.size_raw, order.is_reduce_only) for order in plan.orders] == [(-2 * E18, True)]


def test_trigger_that_waits_for_a_person__orders_nothing() -> None:
    changed_futures_policy = replace(FUTURES_POLICY, manual_triggers=("leverage",))
    decision = decide(step_of(OVER, changed_futures_policy)).decision
    assert isinstance(decision, Hold)
    assert "futures: leverage is above its limit; futures.ask requires a confirmation: trimtab rebalance --send" in decision.reason
    assert isinstance(decide(step_of(OVER)).decision, AdjustFutures)
    assert isinstance(decide(step_of(EMPTY, changed_futures_policy)).decision, AdjustFutures)
    assert isinstance(decide(step_of(EMPTY, replace(changed_futures_policy, manual_triggers=("drift",)))).decision, Hold)


def test_an_alert_carries_the_orders_that_wait_for_a_person() -> None:
    step = step_of(OVER, replace(FUTURES_POLICY, manual_triggers=("leverage",)))
    outcome = StepOutcome("step", OutcomeKind.HOLD, "a reason", step, decide(step), None)
    texts = [alert.text for alert in cycle_alerts(outcome, RunFacts(False, "", None)) if alert.key.startswith("futures:")]
    assert len(texts) == 1
    assert texts[0].startswith("Futures actions await confirmation (leverage); leverage 4.00x of at most 3x, utilisation")
    assert texts[0].endswith("It would close 5.75 of 20 ETH (long). Run: trimtab rebalance --send")


def test_a_liquidation_in_sight_waits_for_nobody() -> None:
    policy = replace(POLICY, manual_triggers=("leverage", "utilisation", "spot_multiple", "drift", "leverage_drift"))
    plan = plan_futures(margin.with_moved_marks(pair_book(1_300, eth=10 * E18), {"ETH": Fraction(0)}), policy, RICH, PLAN_S)
    assert plan.is_emergency
    assert plan.orders


def test_policy__is_read_back_with_and_without_optional_keys() -> None:
    plain = codec.dumps(FuturesPolicy(HALVES, 20_000, 500, ROUGH))
    full = FuturesPolicy(HALVES, 20_000, 500, ROUGH, leverage_band_bps=2_000, manual_triggers=("drift",))
    assert codec.loads(FuturesPolicy, codec.dumps(full)) == full
    assert codec.loads(FuturesPolicy, plain) == FuturesPolicy(HALVES, 20_000, 500, ROUGH)


def test_config__names_band_of_the_total_and_asking_triggers() -> None:
    config = parse_config(with_futures(('band = "5%"', 'band = "5%"\nleverage_band = "20%"\nask = ["leverage", "drift"]')))
    policy = build_futures(config, {asset.symbol: token(asset.symbol) for asset in config.portfolio.assets})
    assert policy is not None
    assert (policy.leverage_band_bps, policy.manual_triggers) == (2_000, ("leverage", "drift"))
    assert "futures.ask" in futures_error(('band = "5%"', 'band = "5%"\nask = ["whim"]'))


@pytest.mark.parametrize(("notional", "multiple"), [("1.5x", 15_000), ("4x", 25_000), ("off", 25_000)])
def test_the_tighter_bound_on_the_notional_counts(notional: str, multiple: int) -> None:
    text = with_futures().replace("[limits]", f'[limits]\nfutures_notional = "{notional}"', 1)
    config = parse_config(text)
    policy = build_futures(config, {asset.symbol: token(asset.symbol) for asset in config.portfolio.assets})
    assert policy is not None
    assert policy.limits.spot_multiple_bps == multiple


def test_a_bound_of_zero_is_no_bound_and_is_refused() -> None:
    assert "futures.limits.spot_multiple: 0x allows no futures" in futures_error(('spot_multiple = "2.5x"', 'spot_multiple = "0x"'))
