"""A futures order that is refused just before sending, or reverts: what the rest of the cycle skips, tries smaller, and reports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from agent import codec
from agent.engine import skip_refusal
from agent.errors import ErrorCode, Refused, UnsendableTransaction
from agent.execution.confirmation import confirmation_of
from agent.execution.resumption import new_cycle
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import StepPorts, StepResult, note_of
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
    AdjustFutures,
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
from tests.support.perpetuals.steps import EMPTY, EVEN, OVER
from tests.support.transactions import CHAIN_ID, receipt, tx

REVERTED = UnsendableTransaction("simulated: no", (Verdict("simulation", "no", "success", False),))
NO_KEY = Refused("the agent key may not trade", code=ErrorCode.AGENT_KEY)
PAUSED = Refused("the kill switch is on", (Verdict("kill_switch", "on", "off", False),))
BEGUN = replace(new_cycle(AgentCycle(), NOW_S), spend_caps=(("0x", 5),), approval_attempts=(("0x", 2),))
"""A cycle with an approval for its plan."""


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[StepPorts]:
    store = open_memory_store(CHAIN_ID, OWNER)
    yield StepPorts(cast(Any, None), store, cast(Any, None))
    store.close()


def planned(ports: StepPorts, margin_account: MarginAccount = OVER) -> StepOutcome:
    """A planned futures order, written as a step."""
    outcome = outcome_of(step_of(margin_account, EVEN))
    assert outcome.kind is OutcomeKind.PLANNED
    assert outcome.plan is not None
    assert planned_futures(outcome.plan) is not None
    ports.store.steps.begin(outcome.step_id, NOW_S, codec.dumps(outcome.step_input))
    return outcome


def refused(ports: StepPorts, cycle: Cycle, outcome: StepOutcome, why: Refused = REVERTED) -> tuple[Cycle, FuturesCycle]:
    """The open cycle after the refusal, with what it has done in futures."""
    after = skip_refusal(ports, cycle, outcome, why).cycle
    assert after.is_open
    return after, after.layer(FuturesCycle)


def ended(ports: StepPorts, cycle: Cycle, outcome: StepOutcome, why: Refused) -> StepResult:
    result = skip_refusal(ports, cycle, outcome, why)
    assert result.outcome is not None
    assert result.cycle.end_state is CycleEnd.REFUSED
    return result


def market_of(outcome: StepOutcome) -> str:
    futures = planned_futures(outcome.plan)
    assert futures is not None
    return futures.orders[0].market


def recorded(ports: StepPorts, outcome: StepOutcome) -> str | None:
    record = ports.store.steps.get(outcome.step_id)
    assert record is not None
    return record.summary.outcome


def test_reverting_reduction__is_tried_in_smaller_parts_then_skipped(ports: StepPorts) -> None:
    outcome = planned(ports)
    own = FuturesCycle()
    market = market_of(outcome)
    parts = []
    cycle = BEGUN
    while market not in own.refusal_time_by_exit:
        cycle, own = refused(ports, replace(cycle, spend_caps=(("0x", 5),), approval_attempts=(("0x", 2),)), outcome)
        assert recorded(ports, outcome) == "refused", "each part is written"
        ports.store.steps.end(outcome.step_id, "", "", None, "")
        assert (cycle.spend_caps, cycle.approval_attempts) == ((), ()), "the next plan begins"
        parts.append(dict(own.order_divisors).get(market))
    assert parts == [DIVISOR_STEP, DIVISOR_STEP**2, DIVISOR_STEP**3, DIVISOR_STEP**3]
    assert DIVISOR_STEP**3 == MAX_DIVISOR
    assert len(own.refused_action_notes) == 1
    assert own.refusal_time_by_exit == {market: outcome.step_input.snapshot.head.timestamp_s}
    again = ended(ports, cycle, outcome, REVERTED).outcome
    assert again is not None
    assert again.kind is OutcomeKind.REFUSED, "a market is skipped once"


def test_part_of_an_opening__is_named_as_perhaps_too_dear(ports: StepPorts) -> None:
    outcome = planned(ports, EMPTY)
    cycle, own = refused(ports, BEGUN, outcome)
    assert own.refused_action_notes == (StepEnd(outcome.step_id, str(REVERTED)),)
    assert (own.order_divisors, own.refused_s_by_market) == (((market_of(outcome), DIVISOR_STEP),), ())
    _, own = refused(ports, cycle, outcome)
    assert len(own.refused_action_notes) == 1
    assert own.order_divisors == ((market_of(outcome), DIVISOR_STEP**2),)


def test_an_off_chain_venue_fills_parts_itself(ports: StepPorts) -> None:
    outcome = planned(ports)
    account = margin_account(outcome.step_input.snapshot)
    assert account is not None
    step = with_snapshot(outcome.step_input, futures=replace(account, is_on_chain=False))
    _, own = refused(ports, BEGUN, replace(outcome, step_input=step))
    assert (own.order_divisors, list(own.refusal_time_by_exit)) == ((), [market_of(outcome)])


def test_key_that_may_not_trade__holds_the_cycle_s_futures_once(ports: StepPorts) -> None:
    outcome = planned(ports)
    cycle, own = refused(ports, BEGUN, outcome, NO_KEY)
    assert (own.hold_reason, len(own.refused_action_notes), own.refused_s_by_market) == (f"futures: {NO_KEY}", 1, ())
    again = ended(ports, cycle, outcome, NO_KEY).outcome
    assert again is not None
    assert again.kind is OutcomeKind.REFUSED


def test_other_refusal__ends_the_cycle_as_any_of_the_owner_s_orders(ports: StepPorts) -> None:
    outcome = planned(ports)
    decision = outcome.decision
    assert isinstance(decision, AdjustFutures)
    own = replace(outcome, decision_result=replace(outcome.decision_result, decision=replace(decision, by_owner=True)))
    for stopped, why in ((outcome, PAUSED), (own, REVERTED), (own, NO_KEY)):
        result = ended(ports, BEGUN, stopped, why)
        assert result.outcome is not None
        assert (result.outcome.kind, result.outcome.reason) == (OutcomeKind.REFUSED, str(why))
        assert result.outcome.refusal_verdicts == why.verdicts
        assert recorded(ports, outcome) == "refused"
        assert result.cycle.layers == ()


@pytest.mark.parametrize("kind", ["a stop alone", "a deposit and then an order"])
def test_refused_plan_without_a_first_order__skips_no_market(ports: StepPorts, kind: str) -> None:
    outcome = planned(ports, EMPTY)
    assert outcome.plan is not None
    futures = planned_futures(outcome.plan)
    assert futures is not None
    stop = StopOrder(market_of(outcome), 1, 1, 1)
    alone = replace(futures, orders=(), resting_actions=(stop,))
    deposit = replace(futures, account_actions=(MarginDeposit(1),))
    changed = alone if kind == "a stop alone" else deposit
    result = ended(ports, BEGUN, replace(outcome, plan=outcome.plan.with_layer(changed)), REVERTED)
    assert result.cycle.layers == ()


def test_refused_margin_of_a_hedge__skips_its_deposit_alone(ports: StepPorts) -> None:
    outcome = planned(ports, EMPTY)
    assert outcome.plan is not None
    deposit = FuturesPlan((), HEDGE_MARGIN, "", (MarginDeposit(1),))
    _, own = refused(ports, BEGUN, replace(outcome, plan=outcome.plan.with_layer(deposit)))
    assert list(own.refusal_time_by_exit) == [MARGIN_PLACE]


def test_signer_refusal__skips_the_market_for_futures_rules_alone(ports: StepPorts) -> None:
    outcome = planned(ports)
    failed = [Verdict(guard, "1", "0", False) for guard in sorted(FUTURES_SIGNER_RULES)[:2]]
    other = Verdict("signer.nonce", "7", "6", False)
    _, own = refused(ports, BEGUN, outcome, Refused("no", (*failed, replace(other, passed=True))))
    assert list(own.refusal_time_by_exit) == [market_of(outcome)]
    for verdicts in ((*failed, other), ()):
        ended(ports, BEGUN, outcome, Refused("no", verdicts))


def test_rules_of_an_order_and_no_others_concern_futures() -> None:
    """Rules of the transaction (nonce, fees, chain) and of the encoding end the cycle."""
    assert {f"signer.{rule}" for rule in ("client_order_id", "leverage", "order", "trigger")} <= FUTURES_SIGNER_RULES
    assert not FUTURES_SIGNER_RULES & {f"signer.{rule}" for rule in ("call", "deadline", "nonce", "value")}


def sent(status: int | None = 0) -> Intent:
    mined = None if status is None else receipt("0x1", 1, "0x1", status)
    state = IntentState.BROADCAST if mined is None else IntentState.REVERTED
    return Intent("i", "s", IntentKind.FUTURES, state, tx(0), "order", NOW_S, None, "0x1", mined, None)


def test_reverted_reduction__only_its_market_is_left(ports: StepPorts) -> None:
    outcome = replace(planned(ports), kind=OutcomeKind.FAILED)
    assert outcome.plan is not None
    cycle = FUTURES_SENDER.after_sent(BEGUN.with_transaction(sent()), outcome, outcome.plan, sent())
    own = cycle.layer(FuturesCycle)
    assert own.refusal_time_by_exit == {market_of(outcome): outcome.step_input.snapshot.head.timestamp_s}
    assert own.refused_action_notes == (note_of(outcome, failed=True),)
    assert (own.action_count, own.reverted_count) == (1, 1)
    assert cycle.is_open
    assert (cycle.spend_caps, cycle.spent_gas_wei) == ((), 0)
    assert skip_failed_market(own, outcome, outcome.plan, sent()) is None, "once"


@pytest.mark.parametrize("statuses", [(1, 0), (0, 1), (1, 1), (0, 0)])
def test_sent_together__each_order_counts_and_failed_ones_wait(ports: StepPorts, statuses: tuple[int, int]) -> None:
    over = with_index_at(wide_book(10_000, ETH=25_000, BTC=-500), NOW_S)
    outcome = outcome_of(with_policy(step_of(over, EVEN), TWO))
    assert outcome.plan is not None
    orders = planned_futures(outcome.plan).orders
    states = (IntentState.REVERTED, IntentState.FINAL)
    assert {order.market for order in orders} == {"ETH", "BTC"}
    intents = [
        replace(sent(status), state=states[status], id=order.market, note=futures_action_note(outcome.step_input, order))
        for order, status in zip(orders, statuses, strict=True)
    ]
    outcome = replace(outcome, kind=OutcomeKind.DONE if statuses == (1, 1) else OutcomeKind.FAILED, transactions=tuple(intents))
    assert outcome.plan is not None
    own = FUTURES_SENDER.after_sent(BEGUN.with_transaction(intents[0]), outcome, outcome.plan, intents[0]).layer(FuturesCycle)
    assert set(dict(own.refused_s_by_market)) == {order.market for order, status in zip(orders, statuses, strict=True) if not status}
    assert (own.action_count, own.reverted_count) == (2, statuses.count(0))
    assert set(own.reduced_markets) == {"ETH", "BTC"}


@pytest.mark.parametrize("case", ["opening", "not settled", "by the owner", "too many orders"])
def test_the_cycle_ends_after_any_other_reverted_order(ports: StepPorts, case: str) -> None:
    outcome = replace(planned(ports, EMPTY if case == "opening" else OVER), kind=OutcomeKind.FAILED)
    plan = outcome.plan
    decision = outcome.decision
    assert plan is not None
    assert isinstance(decision, AdjustFutures)
    orders = MAX_ACTIONS - 1 if case == "too many orders" else MAX_ACTIONS - 2
    if case == "by the owner":
        outcome = replace(outcome, decision_result=replace(outcome.decision_result, decision=replace(decision, by_owner=True)))
    before = BEGUN.with_layer(FuturesCycle(action_count=orders))
    cycle = FUTURES_SENDER.after_sent(before, outcome, plan, sent(None if case == "not settled" else 0))
    own = cycle.layer(FuturesCycle)
    assert cycle.end_state is CycleEnd.FAILED
    assert (own.refused_action_notes, own.refused_s_by_market) == ((), ())


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
    assert completed_outcome(BEGUN, last, lambda _: stopped) == last
    notes = (note_of(stopped, failed=failed), note_of(stopped))
    whole = completed_outcome(BEGUN.with_layer(FuturesCycle(refused_action_notes=notes)), last, lambda _: stopped)
    assert (whole.kind, whole.reason) == (after, "nothing to do; no margin")
    assert whole.refusal_verdicts == (REVERTED.verdicts if after is OutcomeKind.REFUSED and kind is OutcomeKind.HOLD else ())


def test_replanned_exit_without_a_hub_or_pool__begins_new_plans(ports: StepPorts) -> None:
    """Neither the owner's confirmation nor the approvals of the first plan cover the second."""
    outcome = planned(ports)
    assert outcome.plan is not None
    note = note_of(outcome, failed=True)
    before = replace(BEGUN, confirmation=confirmation_of(outcome, outcome.plan))
    direct = before.take_direct_route("0xtoken")
    cycle_after = skip_pool(before, "0xpool", note)
    for after in (direct, cycle_after):
        assert (after.confirmation, after.spend_caps, after.approval_attempts) == (None, (), ())
    own = cycle_after.layer(LiquidityCycle)
    assert (direct.direct_route_tokens, own.failed_withdrawal_pools, own.failed_withdrawals) == (("0xtoken",), ("0xpool",), (note,))
    assert cycle_after.is_risk_reducing_only
    assert cycle_after.skipped_exits == ()
    assert not direct.is_risk_reducing_only
