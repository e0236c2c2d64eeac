"""Tests of agent/layers/futures/policy/needs.py: what is due, what waits, deposits, budgets, cooldowns and back-offs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.app.alerting import RunFacts, cycle_alerts
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.policy.needs import (
    AGENT_KEY_WARNING_S,
    ASK_REMEDY,
    RESTING_STOP,
    account_for_planning,
    add_notes,
    agent_key_ends_soon,
    back_off_reason,
    blocking_market_reasons,
    closing_sizes,
    cooldown_reason,
    deleverage_sizes,
    depositable_raw,
    due_futures_adjustment,
    due_stops,
    emergency_adjustment,
    futures_fault,
    hold_blocked_futures,
    index_requires_reduction,
    is_reduction_due,
    needs_prompt_look,
    reduction_budget_left,
    reduction_goals,
    reopening_s,
    spendable_collateral_raw,
    spot_value_in_quote,
    uses_reduction_budget,
    waiting_triggers,
)
from agent.layers.futures.state import FuturesProgress, FuturesState, futures_policy, futures_progress, hold_futures, with_policy
from agent.model import MARGIN_PLACE, AdjustFutures, Decision, ExitFailures, Hold, Holding, StepInput, UnreadableItem
from agent.model.futures import (
    FuturesPlan,
    FuturesReading,
    MarginAccount,
    OrderCancel,
    RestingOrder,
    RestingStop,
    StaleRead,
    StaleReadKind,
    StopOrder,
)
from agent.policy import failures
from agent.policy.decide import current_drifts, decide
from agent.policy.decision import DecisionResult
from agent.reference import reference_prices
from tests.support.builders import NOW_S, with_history, with_snapshot
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import LOT, with_market
from tests.support.perpetuals.needs import UNIT, USDC, in_usdc, policy
from tests.support.perpetuals.plans import pair_book
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, LIMITS, OVER, PUSHED, book, step_of
from tests.support.perpetuals.unknowns import HALVES, two_market_account
from tests.support.plans import proposed_plan

CALM = book(10_000, 10 * E18)
"""At its target of 2x."""
NEAR = book(1_300, 10 * E18)
"""A value of 1,300 at a maintenance margin of 1,250."""
LOOSE = replace(FUTURES_POLICY, limits=replace(LIMITS, max_leverage_bps=1_000_000, max_utilisation_bps=1_000_000, stress_move_bps=0))
"""Limits that nothing breaches before a liquidation is near."""
STOPS = replace(FUTURES_POLICY, limits=replace(LIMITS, resting_stop_bps=200))
"""Stops rest 2 % ahead of a liquidation."""
DELEGATE = replace(FUTURES_POLICY, trader="0x" + "9" * 40)
HELD = "futures: a guard refused"


def read_as(step: StepInput, **changes: Any) -> StepInput:
    """Return the step with another reading of the account."""
    return replace(step, snapshot=step.snapshot.with_layer(replace(step.snapshot.layer(FuturesReading), **changes)))


def failed(key: str, at_s: int = NOW_S, count: int = failures.MAX_REVERTS_IN_ROW) -> tuple[ExitFailures, ...]:
    """Return so many failures in a row of a market's orders, or of another key, the last at this time."""
    return (ExitFailures(key, count, 0, at_s),)


def off_chain(margin_account: MarginAccount, **changes: Any) -> MarginAccount:
    return replace(margin_account, is_on_chain=False, **changes)


def with_resting_order(margin_account: MarginAccount, coins: int = 1) -> MarginAccount:
    order = RestingOrder("ETH", coins * E18, coins * E18, margin_account.market("ETH").mark, NOW_S, "0x01")
    return off_chain(margin_account, resting_orders=(order,))


def with_goals(step: StepInput, goal_coins: int) -> StepInput:
    """Return the step of a cycle whose reduction of ETH ends at so many coins."""
    return step.with_progress(FuturesProgress(reduction_goals=(("ETH", goal_coins * E18),)))


FRESH = two_market_account(20_000, 7 * E18, E18 // 100, btc_s=NOW_S)
"""14,000 of ETH and 300 of BTC of targets of 20,000 each."""
POOR = two_market_account(4_000, 7 * E18, E18 // 100, btc_s=NOW_S)
"""The same at 3.6x."""

# --- What is due


@pytest.mark.parametrize(
    ("step", "reason", "is_reducing"),
    [
        pytest.param(step_of(NEAR, LOOSE), "liquidation is near", True, id="emergency"),
        pytest.param(with_goals(step_of(CALM), 5), "a reduction is in progress", True, id="unfinished reduction"),
        pytest.param(step_of(OVER), "leverage is above its limit", True, id="limit"),
        pytest.param(
            with_goals(step_of(POOR, HALVES, failed_exits=failed("ETH")), 5), "leverage is above its limit", True,
            id="limit, unfinished reduction backs off",
        ),
        pytest.param(step_of(POOR, HALVES), "leverage is above its limit", True, id="limit of two markets"),
        pytest.param(
            step_of(with_market(POOR, "BTC", index_s=1), HALVES), "leverage is above its limit", True, id="limit beside a stale index"
        ),
        pytest.param(
            step_of(with_market(POOR, "BTC", is_configured=False), HALVES), "leverage is above its limit", True, id="limit, unnamed market"
        ),
        pytest.param(step_of(FRESH, HALVES), "a weight of the notional has left its band", False, id="drift"),
        pytest.param(
            step_of(with_resting_order(EMPTY, 5), replace(FUTURES_POLICY, leverage_band_bps=500)),
            "the leverage has left the band of its target", False, id="drift after a resting order",
        ),
        pytest.param(step_of(off_chain(CALM), STOPS), "resting stops do not match the positions", True, id="stops"),
    ],
)  # fmt: skip
def test_due_adjustment_is_the_first_that_is_needed(step: StepInput, reason: str, is_reducing: bool) -> None:
    assert due_futures_adjustment(step, current_drifts(step)) == AdjustFutures(f"futures: {reason}", is_reducing=is_reducing)


STALE_READS = (StaleRead(StaleReadKind.FUNDING, "HTTP 503"),)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step_of(CALM), id="at the target"),
        pytest.param(with_goals(step_of(CALM), 10), id="finished reduction"),
        pytest.param(step_of(with_resting_order(EMPTY, 10)), id="order that leads to the target rests"),
        pytest.param(step_of(with_resting_order(CALM, 10)), id="order that would breach a limit rests"),
        pytest.param(hold_futures(step_of(OVER), HELD), id="layer on hold"),
        pytest.param(step_of(None), id="unknown account"),
        pytest.param(step_of(OVER, None), id="no futures"),
        pytest.param(step_of(with_market(OVER, "ETH", index_s=1)), id="limit on a stale index"),
        pytest.param(step_of(with_market(EMPTY, "ETH", index_s=1)), id="opening on a stale index"),
        pytest.param(step_of(with_market(FRESH, "BTC", is_configured=False), HALVES), id="opening beside an unnamed market"),
        pytest.param(read_as(step_of(EMPTY), stale_reads=STALE_READS), id="opening on an old part"),
        pytest.param(step_of(EMPTY, replace(FUTURES_POLICY, manual_triggers=("drift",))), id="trigger that waits for the user"),
    ],
)
def test_due_adjustment_is_none_while_nothing_may_be_done(step: StepInput) -> None:
    assert due_futures_adjustment(step, current_drifts(step)) is None


@pytest.mark.parametrize(
    ("step", "is_due", "is_prompt"),
    [
        pytest.param(step_of(CALM), False, False, id="calm"),
        pytest.param(step_of(OVER), True, True, id="limit breached"),
        pytest.param(step_of(NEAR, LOOSE), True, True, id="liquidation near"),
        pytest.param(read_as(step_of(None), unknown_reason="HTTP 503", is_passing=True), False, True, id="fault that passes"),
        pytest.param(read_as(step_of(None), unknown_reason="unified account"), False, False, id="unknown until someone acts"),
        pytest.param(step_of(OVER, None), False, False, id="without futures"),
        pytest.param(read_as(step_of(None, None), is_passing=True), False, False, id="fault that passes without futures"),
    ],
)
def test_next_look_is_prompt_for_a_reduction_or_passing_fault(step: StepInput, is_due: bool, is_prompt: bool) -> None:
    assert is_reduction_due(step.snapshot, futures_policy(step)) is is_due
    assert needs_prompt_look(step) is is_prompt


@pytest.mark.parametrize(
    ("step", "is_filled"),
    [
        pytest.param(step_of(with_resting_order(CALM)), True, id="calm"),
        pytest.param(step_of(with_resting_order(OVER)), False, id="limit"),
        pytest.param(step_of(with_resting_order(NEAR), LOOSE), False, id="emergency"),
        pytest.param(with_goals(step_of(with_resting_order(CALM)), 5), False, id="unfinished reduction"),
        pytest.param(with_goals(step_of(with_resting_order(CALM)), 10), True, id="finished reduction"),
        pytest.param(with_goals(step_of(with_resting_order(CALM), failed_exits=failed("ETH")), 5), True, id="its orders back off"),
    ],
)
def test_account_for_planning_fills_orders_unless_it_reduces(step: StepInput, is_filled: bool) -> None:
    margin_account = account_for_planning(step, current_drifts(step))

    assert (margin_account.size_raw("ETH") == 11 * E18) is is_filled
    assert bool(margin_account.resting_orders) is not is_filled


@pytest.mark.parametrize(
    ("step", "has_adjustment"),
    [
        pytest.param(step_of(NEAR, LOOSE), True, id="liquidation near"),
        pytest.param(step_of(OVER), False, id="limit alone"),
        pytest.param(hold_futures(step_of(NEAR, LOOSE), HELD), False, id="layer on hold"),
        pytest.param(step_of(with_market(NEAR, "ETH", index_s=1), LOOSE), False, id="stale index"),
        pytest.param(step_of(None), False, id="unknown account"),
        pytest.param(step_of(NEAR, None), False, id="no futures"),
    ],
)
def test_emergency_adjustment_needs_a_fresh_index_of_its_orders(step: StepInput, has_adjustment: bool) -> None:
    adjustment = emergency_adjustment(step.snapshot, futures_policy(step), futures_progress(step))

    assert adjustment == (AdjustFutures("futures: liquidation is near", is_reducing=True) if has_adjustment else None)


STOPPED = step_of(off_chain(CALM), STOPS)


@pytest.mark.parametrize(
    ("step", "actions"),
    [
        pytest.param(STOPPED, [StopOrder], id="none rests"),
        pytest.param(with_history(STOPPED, failed_exits=failed(f"{RESTING_STOP} ETH")), [], id="stops back off"),
        pytest.param(with_history(STOPPED, failed_exits=failed("ETH")), [StopOrder], id="orders back off"),
        pytest.param(step_of(off_chain(with_market(CALM, "ETH", index_s=NOW_S - 601)), STOPS), [], id="index a second too old"),
        pytest.param(step_of(off_chain(with_market(CALM, "ETH", index_s=NOW_S - 600)), STOPS), [StopOrder], id="index at its age"),
        pytest.param(read_as(STOPPED, stale_reads=(StaleRead(StaleReadKind.ORDERS, ""),)), [], id="open orders may be old"),
        pytest.param(read_as(STOPPED, stale_reads=STALE_READS), [StopOrder], id="funding may be old"),
        pytest.param(
            step_of(off_chain(CALM, resting_stops=(RestingStop("ETH", 1, Fraction(1), "0x01"),)), FUTURES_POLICY), [OrderCancel], id="off"
        ),
        pytest.param(step_of(None, STOPS), [], id="unknown account"),
        pytest.param(step_of(off_chain(CALM), None), [], id="no futures"),
    ],
)  # fmt: skip
def test_due_stops_wait_for_failures_index_and_open_orders(step: StepInput, actions: Collection[type]) -> None:
    assert [type(change) for change in due_stops(step.snapshot, step.history, futures_policy(step))] == actions


@pytest.mark.parametrize(
    ("trigger", "has_goals"),
    [("leverage", True), ("utilisation", True), ("spot_multiple", True), ("max_position", False), ("drift", False), ("liquidation", False)],
)
def test_reduction_goals_are_the_sizes_after_a_limit_s_orders(trigger: str, has_goals: bool) -> None:
    step = step_of(OVER)
    layer_plan = proposed_plan(step).layer(FuturesPlan)
    [order] = layer_plan.orders

    goals = reduction_goals(step.snapshot, replace(layer_plan, trigger=trigger))

    assert goals == ((("ETH", 20 * E18 + order.size_raw),) if has_goals else ())


# --- What holds openings back


@pytest.mark.parametrize(
    ("margin_account", "markets"),
    [
        pytest.param(FRESH, [], id="named and fresh"),
        pytest.param(with_market(FRESH, "BTC", is_configured=False), ["BTC"], id="unnamed market"),
        pytest.param(with_market(FRESH, "ETH", index_s=1), ["ETH"], id="stale index"),
        pytest.param(with_market(with_market(FRESH, "ETH", index_s=1), "BTC", is_configured=False), ["BTC", "ETH"], id="both"),
        pytest.param(None, [], id="unknown account"),
    ],
)
def test_blocking_markets_are_unnamed_or_stale(margin_account: MarginAccount | None, markets: Collection[str]) -> None:
    step = step_of(margin_account, HALVES)

    assert list(blocking_market_reasons(step.snapshot, HALVES)) == markets
    assert bool(futures_fault(step.snapshot, HALVES)) is (bool(markets) or margin_account is None)


@pytest.mark.parametrize(("blocked_reason", "hold_reason"), [("", ""), ("no agent", "futures: no order, no agent")])
def test_blocked_orders_hold_futures_and_ask_nobody(blocked_reason: str, hold_reason: str) -> None:
    changed_policy = replace(FUTURES_POLICY, leverage_band_bps=500, manual_triggers=("leverage_drift",))
    step = with_snapshot(step_of(EMPTY, changed_policy), futures_blocked=blocked_reason)

    assert bool(waiting_triggers(step, current_drifts(step))) is not bool(blocked_reason)
    assert futures_progress(hold_blocked_futures(step)).hold_reason == hold_reason
    without_futures = with_policy(step, None)
    assert hold_blocked_futures(without_futures) is without_futures


def test_waiting_triggers_are_those_that_the_user_confirms() -> None:
    """4x fires leverage and the drift of 2x; nobody is asked about the drift."""
    step = step_of(OVER, replace(FUTURES_POLICY, leverage_band_bps=500, manual_triggers=("leverage", "drift")))

    assert [trigger.value for trigger in waiting_triggers(step, current_drifts(step))] == ["leverage"]
    assert waiting_triggers(step, ()) == ()


@pytest.mark.parametrize(
    ("margin_account", "manual_trigger", "decision_type"),
    [
        pytest.param(OVER, "leverage", Hold, id="its trigger"),
        pytest.param(EMPTY, "leverage", AdjustFutures, id="another trigger"),
        pytest.param(EMPTY, "drift", Hold, id="drift"),
    ],
)
def test_trigger_that_waits_for_the_user_orders_nothing(margin_account: MarginAccount, manual_trigger: str, decision_type: type) -> None:
    assert isinstance(decide(step_of(margin_account, replace(FUTURES_POLICY, manual_triggers=(manual_trigger,)))).decision, decision_type)


def test_alert_names_the_orders_that_wait_for_the_user() -> None:
    step = step_of(OVER, replace(FUTURES_POLICY, manual_triggers=("leverage",)))
    outcome = StepOutcome("step", OutcomeKind.HOLD, "a reason", step, decide(step), None)

    [text] = [alert.text for alert in cycle_alerts(outcome, RunFacts(False, "", None)) if alert.key.startswith("futures:")]

    assert text.startswith("Futures actions await confirmation (leverage); leverage 4.00x of at most 3x, utilisation")
    assert text.endswith("It would close 5.75 of 20 ETH (long). Run: trimtab rebalance --send")


ASKING = step_of(OVER, replace(FUTURES_POLICY, manual_triggers=("leverage",)))
COOLING = step_of(CALM, policy(emergency_cooldown_s=600), last_emergency_s=NOW_S)
MULTIPLE = replace(FUTURES_POLICY, limits=replace(LIMITS, spot_multiple_bps=50_000))


@pytest.mark.parametrize(
    ("step", "note"),
    [
        pytest.param(step_of(CALM), "calm", id="nothing to note"),
        pytest.param(step_of(with_market(CALM, "ETH", index_s=1)), "futures: no order, the index of ETH is", id="its only index is stale"),
        pytest.param(
            step_of(with_market(FRESH, "BTC", index_s=1), HALVES), "futures: nothing is opened, the index of BTC is", id="another is fresh"
        ),
        pytest.param(step_of(None), "futures: no order, the margin account was not read", id="unknown account"),
        pytest.param(ASKING, f"futures: leverage is above its limit; {ASK_REMEDY}", id="waiting trigger"),
        pytest.param(
            step_of(CALM, replace(MULTIPLE, trader=DELEGATE.trader)), "futures: spot_multiple is not judged, the portfolio of 0x9999",
            id="unknown spot value",
        ),
        pytest.param(COOLING, "futures: no position is opened before", id="cooldown"),
        pytest.param(hold_futures(step_of(CALM), HELD), HELD, id="layer on hold"),
        pytest.param(
            with_history(STOPPED, failed_exits=failed(f"{RESTING_STOP} ETH")), "futures: the resting stop of ETH: its orders failed",
            id="stops back off",
        ),
        pytest.param(
            step_of(CALM, failed_exits=failed(MARGIN_PLACE)), "futures: deposits of margin: its orders failed", id="deposits back off"
        ),
        pytest.param(step_of(replace(CALM, isolated_markets=("ETH",))), "futures: ETH has an isolated position", id="isolated position"),
        pytest.param(step_of(replace(CALM, unknown_row_kinds=("gift",))), "does not know (gift)", id="unknown transfers"),
        pytest.param(step_of(CALM, DELEGATE), "futures: this key is a delegate of 0x9999", id="delegate"),
    ],
)  # fmt: skip
def test_notes_say_why_futures_wait(step: StepInput, note: str) -> None:
    reason = add_notes(step, DecisionResult(Hold("calm"), current_drifts(step), reference_prices(step))).decision.reason

    assert note in reason
    assert (reason == "calm") is (note == "calm")


# --- Cooldowns and back-offs


@pytest.mark.parametrize(("now_s", "waits"), [(99, True), (100, False), (101, False)])
def test_cooldown_ends_at_its_second(now_s: int, waits: bool) -> None:
    assert bool(cooldown_reason(100, now_s)) is waits


@pytest.mark.parametrize(
    ("cooldown_s", "last_s", "from_s"),
    [
        pytest.param(600, 1_000, 1_600, id="after an emergency"),
        pytest.param(0, 1_000, 0, id="off"),
        pytest.param(600, None, 0, id="no emergency"),
    ],
)
def test_cooldown_begins_at_the_newest_emergency(cooldown_s: int, last_s: int | None, from_s: int) -> None:
    assert reopening_s(policy(emergency_cooldown_s=cooldown_s), FuturesState(last_emergency_s=last_s)) == from_s


FIRST_WAIT_S = failures.FIRST_WAIT_S
MANY = failures.MAX_REVERTS_IN_ROW + 20


@pytest.mark.parametrize(
    ("failed_exits", "is_emergency", "waits"),
    [
        pytest.param(failed("ETH", NOW_S - FIRST_WAIT_S + 1), False, True, id="a second too early"),
        pytest.param(failed("ETH", NOW_S - FIRST_WAIT_S), False, False, id="at the second it names"),
        pytest.param(failed("BTC"), False, False, id="another market"),
        pytest.param(failed("ETH", NOW_S - FIRST_WAIT_S, MANY), False, True, id="many failures"),
        pytest.param(failed("ETH", NOW_S - FIRST_WAIT_S, MANY), True, False, id="many failures in an emergency"),
    ],
)
def test_back_off_ends_at_the_second_it_names(failed_exits: tuple[ExitFailures, ...], is_emergency: bool, waits: bool) -> None:
    step = step_of(OVER, failed_exits=failed_exits)

    assert bool(back_off_reason(step.snapshot, step.history, "ETH", is_emergency=is_emergency)) is waits


@pytest.mark.parametrize(
    ("end_s", "warns"),
    [
        pytest.param(0, False, id="no end"),
        pytest.param(NOW_S + AGENT_KEY_WARNING_S - 1, True, id="a second within"),
        pytest.param(NOW_S + AGENT_KEY_WARNING_S, False, id="at the warning time"),
    ],
)
def test_agent_key_ends_soon_within_the_warning_time(end_s: int, warns: bool) -> None:
    assert agent_key_ends_soon(with_snapshot(step_of(EMPTY), key_approval_expires_s=end_s).snapshot) is warns


# --- Deposits: 5,000 of USDC and 5,000 of WETH are in the wallet.


def margin_step(top_up_bps: int | None = None, **history: Any) -> StepInput:
    """Return a step above its leverage that may deposit so much of the spot value a day."""
    return step_of(in_usdc(OVER), policy(top_up_bps), **history)


@pytest.mark.parametrize(
    ("step", "has_prices", "deposit_raw"),
    [
        pytest.param(margin_step(top_up_value_24h=Fraction(9_000 * UNIT)), True, 5_000 * UNIT, id="limit off"),
        pytest.param(margin_step(3_000), True, 3_000 * UNIT, id="nothing deposited"),
        pytest.param(margin_step(3_000, top_up_value_24h=Fraction(2_000 * UNIT)), True, 1_000 * UNIT, id="part deposited"),
        pytest.param(margin_step(3_000, top_up_value_24h=Fraction(3_000 * UNIT)), True, 0, id="all deposited"),
        pytest.param(margin_step(3_000, top_up_value_24h=Fraction(4_000 * UNIT)), True, 0, id="more than all"),
        pytest.param(margin_step(10_000), True, 5_000 * UNIT, id="more than at hand"),
        pytest.param(margin_step(3_000, top_up_value_24h=Fraction(1, 3)), True, 3_000 * UNIT - 1, id="part of a base unit"),
        pytest.param(margin_step(3_000, top_up_value_24h=Fraction(500 * UNIT)), False, 1_000 * UNIT, id="collateral alone has a price"),
        pytest.param(margin_step(failed_exits=failed(MARGIN_PLACE)), True, 0, id="failed deposits"),
        pytest.param(margin_step(unknown_reason="the ledger was restored"), True, 0, id="unknown day"),
        pytest.param(step_of(in_usdc(OVER), replace(policy(), trader=DELEGATE.trader)), True, 0, id="delegate"),
        pytest.param(step_of(None, policy()), True, 0, id="unknown account"),
    ],
)
def test_depositable_is_what_the_wallet_and_the_day_leave(step: StepInput, has_prices: bool, deposit_raw: int) -> None:
    assert depositable_raw(step, current_drifts(step) if has_prices else ()) == deposit_raw


WALLET = margin_step()
SECOND_READ = (*WALLET.snapshot.holdings, Holding(USDC, 4_000 * UNIT))


@pytest.mark.parametrize(
    ("step", "reserve", "coins"),
    [
        pytest.param(WALLET, 0, 5_000, id="whole balance"),
        pytest.param(WALLET, 1_200, 3_800, id="less the reserve"),
        pytest.param(WALLET, 6_000, 0, id="reserve above the balance"),
        pytest.param(with_snapshot(WALLET, holdings=()), 0, 0, id="balance not read"),
        pytest.param(with_snapshot(WALLET, holdings=SECOND_READ), 0, 0, id="two balances"),
        pytest.param(with_snapshot(WALLET, unreadable_items=(UnreadableItem("balance", USDC, "reverted"),)), 0, 0, id="unreadable"),
        pytest.param(
            replace(WALLET, portfolio=replace(WALLET.portfolio, assets=WALLET.portfolio.assets[:1])), 0, 0, id="no asset of the portfolio"
        ),
    ],
)
def test_spendable_collateral_is_a_balance_less_its_reserve(step: StepInput, reserve: int, coins: int) -> None:
    assets = tuple(replace(asset, reserve_raw=reserve * UNIT) if asset.token.address == USDC else asset for asset in step.portfolio.assets)
    portfolio = replace(step.portfolio, assets=assets)

    assert spendable_collateral_raw(step.snapshot, portfolio, step.limits, USDC) == coins * UNIT


@pytest.mark.parametrize(
    ("step", "has_drifts", "coins"),
    [
        pytest.param(step_of(in_usdc(OVER), policy()), True, 10_000, id="spot without margin"),
        pytest.param(step_of(in_usdc(OVER), policy()), False, None, id="no prices"),
        pytest.param(step_of(OVER, DELEGATE), True, None, id="delegate"),
    ],
)
def test_spot_value_is_unknown_without_prices_of_its_owner(step: StepInput, has_drifts: bool, coins: int | None) -> None:
    spot_value = spot_value_in_quote(step, current_drifts(step) if has_drifts else ())

    assert spot_value == (None if coins is None else coins * E18)


# --- Budget of reductions


def budget_step(margin_account: MarginAccount, reduced: Fraction | int = 0, **history: Any) -> StepInput:
    return step_of(margin_account, reduced_notional_24h=Fraction(reduced * UNIT), **history)


@pytest.mark.parametrize(
    ("step", "budget"),
    [
        pytest.param(budget_step(PUSHED), 17_000, id="2x of 8,500"),
        pytest.param(budget_step(PUSHED, 5_000), 12_000, id="part used"),
        pytest.param(budget_step(PUSHED, 16_829), 171, id="more than a hundredth left"),
        pytest.param(budget_step(PUSHED, 16_830), 0, id="a hundredth left"),
        pytest.param(budget_step(PUSHED, 20_000), 0, id="more than all used"),
        pytest.param(budget_step(PUSHED, unknown_reason="a gap"), None, id="unknown day, judged by the guard"),
        pytest.param(budget_step(OVER), None, id="required by the index"),
        pytest.param(step_of(PUSHED, policy(reduction_per_day_bps=0)), None, id="no budget"),
        pytest.param(step_of(None), None, id="unknown account"),
    ],
)
def test_reduction_budget_left_is_whole_above_a_hundredth(step: StepInput, budget: int | None) -> None:
    budget_raw = reduction_budget_left(step, spot_value_in_quote(step, current_drifts(step)))

    assert budget_raw == (None if budget is None else budget * E18)


@pytest.mark.parametrize(
    ("margin_account", "is_required"),
    [
        pytest.param(OVER, True, id="4x at the index"),
        pytest.param(PUSHED, False, id="3x at the index, 3.4x at the mark"),
        pytest.param(book(10_000, 10 * E18, index=Fraction(1_400)), True, id="3.5x at the index, 2x at the mark"),
        pytest.param(book(10_000, 10 * E18, index=Fraction(1_400), index_s=1), False, id="worse index is stale"),
        pytest.param(None, False, id="unknown account"),
    ],
)
def test_index_requires_a_reduction_by_fresh_or_better_prices(margin_account: MarginAccount | None, is_required: bool) -> None:
    assert index_requires_reduction(step_of(margin_account).snapshot, FUTURES_POLICY, None) is is_required


@pytest.mark.parametrize(
    ("decision", "uses"),
    [
        pytest.param(AdjustFutures("", is_reducing=True), True, id="the agent's reduction"),
        pytest.param(AdjustFutures("", is_reducing=True, by_owner=True), False, id="the owner's"),
        pytest.param(AdjustFutures("", is_reducing=True, closed_hedge_market="ETH"), False, id="a hedge's own rule"),
        pytest.param(Hold(""), True, id="another decision"),
    ],
)
def test_reduction_budget_is_used_by_the_agent_s_reductions(decision: Decision, uses: bool) -> None:
    assert uses_reduction_budget(replace(proposed_plan(step_of(OVER)), decision=decision)) is uses


# --- Reductions that the owner requests


@pytest.mark.parametrize(("size", "sizes"), [(5, {"ETH": -5}), (-5, {"ETH": 5}), (0, {})])
def test_closing_sizes_end_the_position_of_a_market(size: int, sizes: dict[str, int]) -> None:
    assert closing_sizes(pair_book(10_000, size, E18), "ETH") == sizes


@pytest.mark.parametrize(
    ("margin_account", "slippage_bps", "lots"),
    [
        pytest.param(pair_book(10_000, 10 * E18), 0, -5_006, id="long without slippage"),
        pytest.param(pair_book(10_000, 10 * E18), 2_000, -6_258, id="long with slippage"),
        pytest.param(pair_book(10_000, -10 * E18), 0, 5_006, id="short without slippage"),
        pytest.param(pair_book(10_000, -10 * E18), 2_000, 6_260, id="short with slippage"),
        pytest.param(pair_book(10_000, 5 * E18), 0, 0, id="leverage that is reached"),
        pytest.param(pair_book(10_000, 6 * E18, E18 // 10), 0, -2_503, id="one market of two"),
        pytest.param(pair_book(10_000, 0, E18), 0, 0, id="no position in the market"),
        pytest.param(replace(pair_book(0, 5 * E18), realised_raw=-E18), 0, -5_000, id="account in debt"),
    ],
)
def test_deleverage_sizes_pay_for_fee_and_slippage(margin_account: MarginAccount, slippage_bps: int, lots: int) -> None:
    """From 2x to 1x: 10,000 of 20,000 · (1 - cost), where the fee of 1 ‰ counts on the larger of value and bound."""
    assert deleverage_sizes(margin_account, Fraction(1), ["ETH"], slippage_bps) == ({"ETH": lots * LOT} if lots else {})
