"""What of futures is due at a block, and whether the next look may wait: for an interval, for the venue, for an order that rests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from agent.layers.futures.policy.needs import (
    RESTING_STOP,
    account_for_planning,
    depositable_raw,
    due_futures_adjustment,
    due_stops,
    futures_fault,
    hold_blocked_futures,
    is_reduction_due,
    needs_prompt_look,
    waiting_triggers,
)
from agent.layers.futures.state import FuturesProgress, futures_policy, futures_progress, with_policy
from agent.model import ExitFailures, StepInput
from agent.model.futures import FuturesPolicy, FuturesReading, MarginAccount, RestingOrder
from agent.policy import failures
from agent.policy.decide import current_drifts
from tests.support.builders import NOW_S, OWNER
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.needs import in_usdc, policy
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, LIMITS, OVER, book, step_of
from tests.support.perpetuals.unknowns import HALVES, two_market_account

CALM = book(10_000, 10 * E18)
"""At its target of 2x."""
NEAR = book(1_300, 10 * E18)
"""A value of 1,300 at a maintenance margin of 1,250."""
LOOSE = replace(FUTURES_POLICY, limits=replace(LIMITS, max_leverage_bps=1_000_000, max_utilisation_bps=1_000_000, stress_move_bps=0))
"""Limits that nothing breaches before a liquidation is near."""


def read_as(step: StepInput, **fields: object) -> StepInput:
    """The step with another reading of the account."""
    return replace(step, snapshot=step.snapshot.with_layer(FuturesReading(**cast(Any, fields))))


# The next look

LOOKS = {
    "calm": (step_of(CALM), False, False),
    "a limit is breached": (step_of(OVER), True, True),
    "liquidation is near": (step_of(NEAR, LOOSE), True, True),
    "unknown by a fault that passes": (read_as(step_of(None), unknown_reason="HTTP 503", is_passing=True), False, True),
    "unknown until someone acts": (read_as(step_of(None), unknown_reason="unified account"), False, False),
    "without futures": (with_policy(step_of(OVER), None), False, False),
}


@pytest.mark.parametrize(("step", "is_due", "is_prompt"), LOOKS.values(), ids=LOOKS)
def test_look__next_is_prompt_for_a_reduction_or_passing_fault(step: StepInput, is_due: bool, is_prompt: bool) -> None:
    assert is_reduction_due(step.snapshot, futures_policy(step)) is is_due
    assert needs_prompt_look(step) is is_prompt


# What is due


def unnamed(account: MarginAccount, name: str) -> MarginAccount:
    markets = tuple(replace(perp, is_configured=perp.market != name) for perp in account.markets)
    return replace(account, markets=markets)


@pytest.mark.parametrize(("collateral", "is_due"), [(20_000, False), (4_000, True)], ids=["opening", "reduction"])
def test_unnamed_market__holds_openings_back_and_no_reduction(collateral: int, is_due: bool) -> None:
    step = step_of(unnamed(two_market_account(collateral, 7 * E18, E18 // 100, btc_s=NOW_S), "BTC"), HALVES)
    adjustment = due_futures_adjustment(step, current_drifts(step))
    assert bool(adjustment) is is_due
    named = step_of(two_market_account(collateral, 7 * E18, E18 // 100, btc_s=NOW_S), HALVES)
    assert due_futures_adjustment(named, current_drifts(named))


def test_unnamed_market__is_a_fault_of_openings() -> None:
    step = step_of(unnamed(two_market_account(20_000, 7 * E18, E18 // 100, btc_s=NOW_S), "BTC"), HALVES)
    assert "position in BTC, which the config does not name" in futures_fault(step.snapshot, HALVES)


def resting(account: MarginAccount, size_raw: int = E18) -> MarginAccount:
    order = RestingOrder("ETH", size_raw, size_raw, account.market("ETH").mark, NOW_S, "0x01")
    return replace(account, is_on_chain=False, resting_orders=(order,))


@pytest.mark.parametrize(
    ("account", "policy_of_step", "goals", "is_filled"),
    [
        (CALM, FUTURES_POLICY, (), True),
        (OVER, FUTURES_POLICY, (), False),
        (NEAR, LOOSE, (), False),
        (CALM, FUTURES_POLICY, (("ETH", 5 * E18),), False),
        (CALM, FUTURES_POLICY, (("ETH", 10 * E18),), True),
    ],
    ids=["calm", "limit", "emergency", "unfinished reduction", "finished reduction"],
)
def test_resting_order__counts_as_filled_unless_reduction_is_due(
    account: MarginAccount, policy_of_step: FuturesPolicy, goals: tuple[tuple[str, int], ...], is_filled: bool
) -> None:
    step = step_of(resting(account), policy_of_step).with_progress(FuturesProgress(reduction_goals=goals))
    planning_account = account_for_planning(step, current_drifts(step))
    assert planning_account is not None
    assert (planning_account.size_raw("ETH") == 11 * E18) is is_filled
    assert bool(planning_account.resting_orders) is not is_filled


STOPS = replace(FUTURES_POLICY, limits=replace(LIMITS, resting_stop_bps=200))


@pytest.mark.parametrize(
    ("failed", "index_s", "is_due"),
    [("", NOW_S, True), (f"{RESTING_STOP} ETH", NOW_S, False), ("ETH", NOW_S, True), ("", NOW_S - 601, False)],
    ids=["plain", "stops back off", "orders back off", "index is old"],
)
def test_stop__waits_for_its_own_failures_and_its_index(failed: str, index_s: int, is_due: bool) -> None:
    failed_exits = (ExitFailures(failed, failures.MAX_REVERTS_IN_ROW, 0, NOW_S),) if failed else ()
    step = step_of(replace(book(10_000, 10 * E18, index_s=index_s), is_on_chain=False), STOPS, failed_exits=failed_exits)
    assert bool(due_stops(step.snapshot, step.history, STOPS)) is is_due


@pytest.mark.parametrize(
    ("trader", "unknown_reason", "coins"),
    [
        pytest.param(OWNER, "", 5_000, id="own account"),
        pytest.param("0x" + "9" * 40, "", 0, id="delegate"),
        pytest.param(OWNER, "the ledger was restored", 0, id="unknown day"),
    ],
)
def test_depositable__nothing_for_a_delegate_or_an_unknown_day(trader: str, unknown_reason: str, coins: int) -> None:
    step = step_of(in_usdc(OVER), replace(policy(), trader=trader), unknown_reason=unknown_reason)
    assert depositable_raw(step, current_drifts(step)) == coins * 10**6


@pytest.mark.parametrize(("blocked_reason", "waits"), [("", True), ("no agent", False)])
def test_manual_trigger__waits_for_no_one_while_orders_block(blocked_reason: str, waits: bool) -> None:
    step = step_of(EMPTY, replace(FUTURES_POLICY, leverage_band_bps=500, manual_triggers=("leverage_drift",)))
    step = read_as(step, account=EMPTY, blocked_reason=blocked_reason)
    assert bool(waiting_triggers(step, current_drifts(step))) is waits
    assert bool(futures_progress(hold_blocked_futures(step)).hold_reason) is not waits


def test_blocked_orders__hold_nothing_without_futures() -> None:
    step = read_as(with_policy(step_of(EMPTY), None), account=EMPTY, blocked_reason="no agent")
    assert hold_blocked_futures(step) is step
