"""A futures order that is refused just before sending, or reverts: what the rest of the step skips, tries smaller, and reports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from agent import codec
from agent.engine import skip_refusal
from agent.errors import ErrorCode, Refused, UnsendableTransaction
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_run import StepRun
from agent.layers.futures.execution.run import FEWER, MAX_ORDERS, MOST_PARTS, FuturesRun, leave_failed_market
from agent.layers.futures.state import margin_account, planned_futures
from agent.layers.liquidity.execution.run import LiquidityRun, leave_pool
from agent.model import AdjustFutures, AgentCycle, Intent, IntentKind, IntentState, Verdict
from agent.model.futures import MarginAccount
from agent.store import open_memory_store
from tests.support.builders import NOW_S, OWNER, with_snapshot
from tests.support.transactions import CHAIN_ID, receipt, tx
from tests.unit.test_futures_parts import EMPTY, outcome_of, step_of
from tests.unit.test_futures_step import EVEN, OVER

REVERTED = UnsendableTransaction("simulated: no", (Verdict("simulation", "no", "success", False),))
NO_KEY = Refused("the agent key may not trade", code=ErrorCode.AGENT_KEY)
PAUSED = Refused("the kill switch is on", (Verdict("kill_switch", "on", "off", False),))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[StepRun]:
    store = open_memory_store(CHAIN_ID, OWNER)
    yield StepRun(cast(Any, None), AgentCycle(), store)
    store.close()


def planned(run: StepRun, held: MarginAccount = OVER) -> StepOutcome:
    """A planned futures order, written as a step; the next plan of the step begins with caps of its own."""
    outcome = outcome_of(step_of(held, EVEN))
    assert outcome.kind is OutcomeKind.PLANNED and outcome.plan is not None and planned_futures(outcome.plan) is not None
    run.store.steps.begin(outcome.step_id, NOW_S, codec.dumps(outcome.step_input))
    run.spend_caps, run.approval_rounds = {"0x": 5}, 2
    return outcome


def futures(run: StepRun) -> FuturesRun:
    return run.layer(FuturesRun)


def market_of(outcome: StepOutcome) -> str:
    assert outcome.plan is not None and planned_futures(outcome.plan) is not None
    return planned_futures(outcome.plan).orders[0].market


def result(run: StepRun, outcome: StepOutcome) -> str | None:
    record = run.store.steps.get(outcome.step_id)
    assert record is not None
    return record.line.outcome


def test_a_reduction_that_reverts_in_simulation_is_tried_in_smaller_parts_and_then_skipped(run: StepRun) -> None:
    outcome = planned(run)
    market, parts = market_of(outcome), []
    while market not in futures(run).refused_markets:
        assert skip_refusal(run, outcome, REVERTED) is None
        assert result(run, outcome) == "refused", "each part is written"
        run.store.steps.end(outcome.step_id, "", "", None, "")
        assert (run.spend_caps, run.approval_rounds) == ({}, 0), "the next plan begins"
        parts.append(futures(run).order_parts.get(market))
    assert parts == [FEWER, FEWER**2, FEWER**3, FEWER**3] and FEWER**3 == MOST_PARTS
    assert len(futures(run).refused_orders) == 1
    assert futures(run).refused_markets == {market: outcome.step_input.snapshot.head.timestamp_s}
    again = skip_refusal(run, outcome, REVERTED)
    assert again is not None and again.kind is OutcomeKind.REFUSED, "a market is skipped once"


def test_a_part_of_an_opening_is_named_because_it_may_not_be_worth_its_cost(run: StepRun) -> None:
    outcome = planned(run, EMPTY)
    assert skip_refusal(run, outcome, REVERTED) is None
    assert [(one.kind, one.reason) for one in futures(run).refused_orders] == [(OutcomeKind.REFUSED, str(REVERTED))]
    assert futures(run).order_parts == {market_of(outcome): FEWER} and futures(run).refused_markets == {}
    assert skip_refusal(run, outcome, REVERTED) is None
    assert len(futures(run).refused_orders) == 1 and futures(run).order_parts == {market_of(outcome): FEWER**2}


def test_an_off_chain_venue_fills_parts_itself(run: StepRun) -> None:
    outcome = planned(run)
    account = margin_account(outcome.step_input.snapshot)
    assert account is not None
    step = with_snapshot(outcome.step_input, futures=replace(account, is_on_chain=False))
    assert skip_refusal(run, replace(outcome, step_input=step), REVERTED) is None
    assert futures(run).order_parts == {} and list(futures(run).refused_markets) == [market_of(outcome)]


def test_a_key_that_may_not_trade_holds_all_futures_of_the_step_once(run: StepRun) -> None:
    outcome = planned(run)
    assert skip_refusal(run, outcome, NO_KEY) is None
    assert futures(run).held == f"futures: {NO_KEY}" and len(futures(run).refused_orders) == 1 and futures(run).refused_markets == {}
    ended = skip_refusal(run, outcome, NO_KEY)
    assert ended is not None and ended.kind is OutcomeKind.REFUSED


def test_any_other_refusal_and_every_one_of_an_order_of_the_owner_ends_the_step(run: StepRun) -> None:
    outcome = planned(run)
    decision = outcome.decision
    assert isinstance(decision, AdjustFutures)
    own = replace(outcome, decided=replace(outcome.decided, decision=replace(decision, by_owner=True)))
    for refused, why in ((outcome, PAUSED), (own, REVERTED), (own, NO_KEY)):
        ended = skip_refusal(run, refused, why)
        assert ended is not None and (ended.kind, ended.reason) == (OutcomeKind.REFUSED, str(why))
        assert ended.verdicts == why.verdicts and result(run, outcome) == "refused"
    assert (futures(run).refused_orders, futures(run).refused_markets, futures(run).order_parts, futures(run).held) == ([], {}, {}, "")


def sent(run: StepRun, status: int | None = 0) -> Intent:
    mined = None if status is None else receipt("0x1", 1, "0x1", status)
    state = IntentState.BROADCAST if mined is None else IntentState.REVERTED
    return Intent("i", "s", IntentKind.FUTURES, state, tx(0), "order", NOW_S, None, "0x1", mined, None)


def test_the_market_of_a_reverted_reduction_is_left_and_no_other_order_is(run: StepRun) -> None:
    outcome = planned(run)
    assert outcome.plan is not None
    run.sent.append(sent(run))
    assert leave_failed_market(run, outcome, outcome.plan)
    assert futures(run).refused_markets == {market_of(outcome): outcome.step_input.snapshot.head.timestamp_s}
    assert futures(run).refused_orders == [outcome] and run.first_of_plan == 1 and run.spend_caps == {}
    assert not leave_failed_market(run, outcome, outcome.plan), "once"


@pytest.mark.parametrize("case", ["opening", "not settled", "by the owner", "too many orders"])
def test_the_step_ends_after_any_other_reverted_order(run: StepRun, case: str) -> None:
    outcome = planned(run, EMPTY if case == "opening" else OVER)
    plan, decision = outcome.plan, outcome.decision
    assert plan is not None and isinstance(decision, AdjustFutures)
    run.sent.append(sent(run, None if case == "not settled" else 0))
    futures(run).orders = MAX_ORDERS if case == "too many orders" else MAX_ORDERS - 1
    if case == "by the owner":
        outcome = replace(outcome, decided=replace(outcome.decided, decision=replace(decision, by_owner=True)))
    assert not leave_failed_market(run, outcome, plan)
    assert futures(run).refused_orders == [] and futures(run).refused_markets == {}


@pytest.mark.parametrize(
    ("kind", "failed", "after"),
    [
        (OutcomeKind.HOLD, False, OutcomeKind.REFUSED),
        (OutcomeKind.HOLD, True, OutcomeKind.FAILED),
        (OutcomeKind.HALT, False, OutcomeKind.HALT),
        (OutcomeKind.HALT, True, OutcomeKind.FAILED),
        (OutcomeKind.DONE, False, OutcomeKind.DONE),
        (OutcomeKind.DONE, True, OutcomeKind.FAILED),
        (OutcomeKind.REFUSED, True, OutcomeKind.REFUSED),
    ],
)
def test_refused_and_failed_orders_are_in_the_outcome_of_the_step(
    run: StepRun, kind: OutcomeKind, failed: bool, after: OutcomeKind
) -> None:
    outcome = planned(run)
    ended = replace(outcome, kind=kind, reason="nothing to do", verdicts=())
    assert futures(run).completed(ended) == ended
    refused = replace(outcome, kind=OutcomeKind.REFUSED, reason="no margin", verdicts=REVERTED.verdicts)
    futures(run).refused_orders += [replace(refused, kind=OutcomeKind.FAILED) if failed else refused, refused]
    whole = futures(run).completed(ended)
    assert (whole.kind, whole.reason) == (after, "nothing to do; no margin")
    assert whole.verdicts == (REVERTED.verdicts if after is OutcomeKind.REFUSED and kind is OutcomeKind.HOLD else ())


def test_an_exit_that_is_planned_again_without_a_hub_and_a_pool_that_is_left_begin_new_plans(run: StepRun) -> None:
    """Neither the owner's confirmation nor the approvals of the first plan cover the second."""
    outcome = planned(run)
    for leave in (
        lambda: run.go_directly("0xtoken"),
        lambda: leave_pool(run, "0xpool", outcome),
        lambda: leave_pool(run, "0xother", outcome),
    ):
        run.confirmed, run.spend_caps, run.approval_rounds = outcome, {"0x": 5}, 2
        leave()
        assert (run.confirmed, run.spend_caps, run.approval_rounds) == (None, {}, 0)
    own = run.layer(LiquidityRun)
    assert (run.direct, own.left_pools, own.unwithdrawn) == (("0xtoken",), ("0xpool", "0xother"), [outcome, outcome])
    assert run.is_risk_reducing_only and run.skipped == ()
