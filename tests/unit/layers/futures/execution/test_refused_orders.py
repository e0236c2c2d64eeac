"""Tests of agent/layers/futures/execution/cycle.py: what a cycle skips, tries smaller and reports after a refused or reverted order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from agent import codec
from agent.engine import skip_refusal
from agent.errors import ErrorCode, Refused, UnsendableTransaction
from agent.execution.confirmation import confirmation_of
from agent.execution.resumption import new_cycle
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import StepPorts, note_of
from agent.layers.futures.execution.cycle import (
    DIVISOR_STEP,
    FUTURES_SIGNER_RULES,
    MAX_ACTIONS,
    MAX_DIVISOR,
    completed_outcome,
    skip_failed_market,
)
from agent.layers.futures.execution.send import FUTURES_SENDER
from agent.layers.futures.notes import futures_action_note
from agent.layers.futures.planning.plans import HEDGE_MARGIN
from agent.layers.futures.state import FuturesCycle, margin_account, planned_futures, with_policy
from agent.layers.liquidity.execution.cycle import skip_pool
from agent.layers.liquidity.state import LiquidityCycle
from agent.model import (
    MARGIN_PLACE,
    AgentCycle,
    Cycle,
    CycleEnd,
    Intent,
    IntentKind,
    IntentState,
    StepEnd,
    Verdict,
)
from agent.model.futures import FuturesPlan, MarginAccount, MarginDeposit, StopOrder
from agent.store import open_memory_store
from tests.support.builders import NOW_S, OWNER, with_snapshot
from tests.support.perpetuals.books import TWO, wide_book, with_index_at
from tests.support.perpetuals.parts import outcome_of, step_of
from tests.support.perpetuals.steps import EMPTY, EVEN, OVER, futures_of
from tests.support.transactions import CHAIN_ID, receipt, tx

REVERTED = UnsendableTransaction("simulated: no", (Verdict("simulation", "no", "success", False),))
NO_KEY = Refused("the agent key may not trade", code=ErrorCode.AGENT_KEY)
PAUSED = Refused("the kill switch is on", (Verdict("kill_switch", "on", "off", False),))
BEGUN = replace(new_cycle(AgentCycle(), NOW_S), spend_caps=(("0x", 5),), approval_attempts=(("0x", 2),))
"""A cycle with an approval for its plan."""


@pytest.fixture
def ports() -> Iterator[StepPorts]:
    store = open_memory_store(CHAIN_ID, OWNER)
    yield StepPorts(cast(Any, None), store, cast(Any, None))
    store.close()


def planned(ports: StepPorts, margin_account: MarginAccount = OVER, *, by_owner: bool = False, **fields: Any) -> StepOutcome:
    """Return a planned futures order, written as a step, with other fields of its outcome."""
    outcome = outcome_of(step_of(margin_account, EVEN))
    assert outcome.kind is OutcomeKind.PLANNED
    assert planned_futures(outcome.plan) is not None
    ports.store.steps.begin(outcome.step_id, NOW_S, codec.dumps(outcome.step_input))
    decision_result = replace(outcome.decision_result, decision=replace(outcome.decision, by_owner=by_owner))
    return replace(outcome, decision_result=decision_result, **fields)


def with_futures(outcome: StepOutcome, layer_plan: FuturesPlan) -> StepOutcome:
    return replace(outcome, plan=outcome.plan.with_layer(layer_plan))


def cycle_after(ports: StepPorts, outcome: StepOutcome, refusal: Refused = REVERTED, cycle: Cycle = BEGUN) -> Cycle:
    """Return the cycle after a refusal, which does not end it."""
    after = skip_refusal(ports, cycle, outcome, refusal).cycle
    assert after.is_open
    return after


def futures_after(ports: StepPorts, outcome: StepOutcome, refusal: Refused = REVERTED, cycle: Cycle = BEGUN) -> FuturesCycle:
    return cycle_after(ports, outcome, refusal, cycle).layer(FuturesCycle)


def assert_ends_cycle(ports: StepPorts, outcome: StepOutcome, refusal: Refused, cycle: Cycle = BEGUN) -> None:
    """Require that the refusal is the cycle's outcome, and that nothing of futures is skipped for it."""
    result = skip_refusal(ports, cycle, outcome, refusal)
    assert (result.cycle.end_state, result.cycle.layers) == (CycleEnd.REFUSED, cycle.layers)
    assert (result.outcome.kind, result.outcome.reason) == (OutcomeKind.REFUSED, str(refusal))
    assert result.outcome.refusal_verdicts == refusal.verdicts
    assert recorded(ports, outcome) == "refused"


def market_of(outcome: StepOutcome) -> str:
    return futures_of(outcome.plan).orders[0].market


def time_s_of(outcome: StepOutcome) -> int:
    return outcome.step_input.snapshot.head.timestamp_s


def recorded(ports: StepPorts, outcome: StepOutcome) -> str | None:
    return ports.store.steps.get(outcome.step_id).summary.outcome


# --- Refused before it was sent


def test_reverting_reduction__is_tried_in_smaller_parts_then_skipped(ports: StepPorts) -> None:
    outcome = planned(ports)
    market = market_of(outcome)
    parts = []
    cycle = BEGUN
    while market not in cycle.layer(FuturesCycle).refusal_time_by_exit:
        approved = replace(cycle, spend_caps=BEGUN.spend_caps, approval_attempts=BEGUN.approval_attempts)
        cycle = cycle_after(ports, outcome, REVERTED, approved)
        assert recorded(ports, outcome) == "refused", "each part is written"
        ports.store.steps.end(outcome.step_id, "", "", None, "")
        assert (cycle.spend_caps, cycle.approval_attempts) == ((), ()), "the next plan begins"
        parts.append(dict(cycle.layer(FuturesCycle).order_divisors).get(market))
    assert parts == [DIVISOR_STEP, DIVISOR_STEP**2, DIVISOR_STEP**3, DIVISOR_STEP**3]
    assert DIVISOR_STEP**3 == MAX_DIVISOR
    assert len(cycle.layer(FuturesCycle).refused_action_notes) == 1
    assert cycle.layer(FuturesCycle).refusal_time_by_exit == {market: time_s_of(outcome)}
    assert_ends_cycle(ports, outcome, REVERTED, cycle)


def test_part_of_an_opening__is_named_as_perhaps_too_dear(ports: StepPorts) -> None:
    outcome = planned(ports, EMPTY)
    cycle = cycle_after(ports, outcome)
    for futures_cycle, divisor in (
        (cycle.layer(FuturesCycle), DIVISOR_STEP),
        (futures_after(ports, outcome, REVERTED, cycle), DIVISOR_STEP**2),
    ):
        assert futures_cycle.refused_action_notes == (StepEnd(outcome.step_id, str(REVERTED)),)
        assert (futures_cycle.order_divisors, futures_cycle.refused_s_by_market) == (((market_of(outcome), divisor),), ())


def test_off_chain_venue__fills_parts_itself(ports: StepPorts) -> None:
    outcome = planned(ports)
    off_chain = replace(margin_account(outcome.step_input.snapshot), is_on_chain=False)
    outcome = replace(outcome, step_input=with_snapshot(outcome.step_input, futures=off_chain))
    futures_cycle = futures_after(ports, outcome)
    assert (futures_cycle.order_divisors, list(futures_cycle.refusal_time_by_exit)) == ((), [market_of(outcome)])


def test_key_that_may_not_trade__holds_the_cycle_s_futures_once(ports: StepPorts) -> None:
    outcome = planned(ports)
    cycle = cycle_after(ports, outcome, NO_KEY)
    own = cycle.layer(FuturesCycle)
    assert (own.hold_reason, len(own.refused_action_notes), own.refused_s_by_market) == (f"futures: {NO_KEY}", 1, ())
    assert_ends_cycle(ports, outcome, NO_KEY, cycle)


@pytest.mark.parametrize(
    ("refusal", "by_owner"),
    [(PAUSED, False), (REVERTED, True), (NO_KEY, True)],
    ids=["pause", "owner's order reverts", "owner's order without a key"],
)
def test_other_refusal__ends_the_cycle_as_any_of_the_owner_s_orders(ports: StepPorts, refusal: Refused, by_owner: bool) -> None:
    assert_ends_cycle(ports, planned(ports, by_owner=by_owner), refusal)


@pytest.mark.parametrize(
    "fields",
    [{"orders": (), "resting_actions": (StopOrder("ETH", 1, 1, 1),)}, {"account_actions": (MarginDeposit(1),)}],
    ids=["a stop alone", "a deposit and then an order"],
)
def test_refused_plan_without_a_first_order__skips_no_market(ports: StepPorts, fields: dict[str, Any]) -> None:
    outcome = planned(ports, EMPTY)
    assert_ends_cycle(ports, with_futures(outcome, replace(futures_of(outcome.plan), **fields)), REVERTED)


def test_refused_margin_of_a_hedge__skips_its_deposit_alone(ports: StepPorts) -> None:
    deposit = FuturesPlan((), HEDGE_MARGIN, "", (MarginDeposit(1),))
    assert list(futures_after(ports, with_futures(planned(ports, EMPTY), deposit)).refusal_time_by_exit) == [MARGIN_PLACE]


def test_signer_refusal__skips_the_market_for_futures_rules_alone(ports: StepPorts) -> None:
    outcome = planned(ports)
    failed = [Verdict(guard, "1", "0", False) for guard in sorted(FUTURES_SIGNER_RULES)[:2]]
    other = Verdict("signer.nonce", "7", "6", False)
    own = futures_after(ports, outcome, Refused("no", (*failed, replace(other, passed=True))))
    assert list(own.refusal_time_by_exit) == [market_of(outcome)]
    for verdicts in ((*failed, other), ()):
        assert_ends_cycle(ports, outcome, Refused("no", verdicts))


def test_rules_of_an_order_and_no_others_concern_futures() -> None:
    """Rules of the transaction (nonce, fees, chain) and of the encoding end the cycle."""
    assert {f"signer.{rule}" for rule in ("client_order_id", "leverage", "order", "trigger")} <= FUTURES_SIGNER_RULES
    assert not FUTURES_SIGNER_RULES & {f"signer.{rule}" for rule in ("call", "deadline", "nonce", "value")}


# --- Sent, and reverted


def sent(status: int | None = 0, **fields: Any) -> Intent:
    """Return an order that has succeeded (1), reverted (0) or is not settled (None), with other fields."""
    state = {None: IntentState.BROADCAST, 0: IntentState.REVERTED, 1: IntentState.FINAL}[status]
    mined = None if status is None else receipt("0x1", 1, "0x1", status)
    intent = Intent("i", "s", IntentKind.FUTURES, state, tx(0), "order", NOW_S, None, "0x1", mined, None)
    return replace(intent, **fields)


def cycle_after_sent(outcome: StepOutcome, intent: Intent, cycle: Cycle = BEGUN) -> Cycle:
    return FUTURES_SENDER.after_sent(cycle.with_transaction(intent), outcome, outcome.plan, intent)


def test_reverted_reduction__only_its_market_is_left(ports: StepPorts) -> None:
    outcome = planned(ports, kind=OutcomeKind.FAILED)
    cycle = cycle_after_sent(outcome, sent())
    own = cycle.layer(FuturesCycle)
    assert own.refusal_time_by_exit == {market_of(outcome): time_s_of(outcome)}
    assert own.refused_action_notes == (note_of(outcome, failed=True),)
    assert (own.action_count, own.reverted_count) == (1, 1)
    assert (cycle.is_open, cycle.spend_caps, cycle.spent_gas_wei) == (True, (), 0)
    assert skip_failed_market(own, outcome, outcome.plan, sent()) is None, "once"


@pytest.mark.parametrize("statuses", [(1, 0), (0, 1), (1, 1), (0, 0)])
def test_sent_together__each_order_counts_and_failed_ones_wait(statuses: tuple[int, int]) -> None:
    outcome = outcome_of(with_policy(step_of(with_index_at(wide_book(10_000, ETH=25_000, BTC=-500), NOW_S), EVEN), TWO))
    orders = futures_of(outcome.plan).orders
    assert {order.market for order in orders} == {"ETH", "BTC"}
    intents = tuple(
        sent(status, id=order.market, note=futures_action_note(outcome.step_input, order))
        for order, status in zip(orders, statuses, strict=True)
    )
    kind = OutcomeKind.DONE if statuses == (1, 1) else OutcomeKind.FAILED
    own = cycle_after_sent(replace(outcome, kind=kind, transactions=intents), intents[0]).layer(FuturesCycle)
    assert set(dict(own.refused_s_by_market)) == {order.market for order, status in zip(orders, statuses, strict=True) if not status}
    assert (own.action_count, own.reverted_count) == (2, statuses.count(0))
    assert set(own.reduced_markets) == {"ETH", "BTC"}


@pytest.mark.parametrize(
    ("margin_account", "by_owner", "status", "action_count"),
    [
        pytest.param(EMPTY, False, 0, MAX_ACTIONS - 2, id="opening"),
        pytest.param(OVER, False, None, MAX_ACTIONS - 2, id="not settled"),
        pytest.param(OVER, True, 0, MAX_ACTIONS - 2, id="by the owner"),
        pytest.param(OVER, False, 0, MAX_ACTIONS - 1, id="too many orders"),
    ],
)
def test_other_reverted_order__ends_the_cycle(
    ports: StepPorts, margin_account: MarginAccount, by_owner: bool, status: int | None, action_count: int
) -> None:
    outcome = planned(ports, margin_account, by_owner=by_owner, kind=OutcomeKind.FAILED)
    cycle = cycle_after_sent(outcome, sent(status), BEGUN.with_layer(FuturesCycle(action_count=action_count)))
    own = cycle.layer(FuturesCycle)
    assert (cycle.end_state, own.refused_action_notes, own.refused_s_by_market) == (CycleEnd.FAILED, (), ())


# --- The cycle's outcome


@pytest.mark.parametrize(
    ("kind", "failed", "after"),
    [
        pytest.param(OutcomeKind.HOLD, False, OutcomeKind.REFUSED, id="hold, refused"),
        pytest.param(OutcomeKind.HOLD, True, OutcomeKind.FAILED, id="hold, failed"),
        pytest.param(OutcomeKind.HALT, False, OutcomeKind.HALT, id="halt, refused"),
        pytest.param(OutcomeKind.HALT, True, OutcomeKind.FAILED, id="halt, failed"),
        pytest.param(OutcomeKind.DONE, False, OutcomeKind.DONE, id="done, refused"),
        pytest.param(OutcomeKind.DONE, True, OutcomeKind.FAILED, id="done, failed"),
        pytest.param(OutcomeKind.REFUSED, True, OutcomeKind.REFUSED, id="refused, failed"),
    ],
)
def test_refused_and_failed_orders__are_in_the_cycle_s_outcome(
    ports: StepPorts, kind: OutcomeKind, failed: bool, after: OutcomeKind
) -> None:
    outcome = planned(ports)
    last = replace(outcome, kind=kind, reason="nothing to do", refusal_verdicts=())
    stopped = replace(outcome, kind=OutcomeKind.REFUSED, reason="no margin", refusal_verdicts=REVERTED.verdicts)
    cycle = BEGUN.with_layer(FuturesCycle(refused_action_notes=(note_of(stopped, failed=failed), note_of(stopped))))
    whole = completed_outcome(cycle, last, lambda _: stopped)
    assert completed_outcome(BEGUN, last, lambda _: stopped) == last
    assert (whole.kind, whole.reason) == (after, "nothing to do; no margin")
    assert whole.refusal_verdicts == (REVERTED.verdicts if after is OutcomeKind.REFUSED and kind is OutcomeKind.HOLD else ())


def test_replanned_exit_without_a_hub_or_pool__begins_new_plans(ports: StepPorts) -> None:
    """Neither the owner's confirmation nor the approvals of the first plan cover the second."""
    outcome = planned(ports)
    note = note_of(outcome, failed=True)
    cycle = replace(BEGUN, confirmation=confirmation_of(outcome, outcome.plan))
    without_hub = cycle.take_direct_route("0xtoken")
    without_pool = skip_pool(cycle, "0xpool", note)
    for after in (without_hub, without_pool):
        assert (after.confirmation, after.spend_caps, after.approval_attempts) == (None, (), ())
    own = without_pool.layer(LiquidityCycle)
    assert (without_hub.direct_route_tokens, own.failed_withdrawal_pools, own.failed_withdrawals) == (("0xtoken",), ("0xpool",), (note,))
    assert (without_hub.is_risk_reducing_only, without_pool.is_risk_reducing_only) == (False, True)
    assert without_pool.skipped_exits == ()
