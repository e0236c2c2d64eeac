"""An open purchase stops no other decision: a rest that is not worth its cost ends it, triggers and stop losses act meanwhile (T26)."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent import engine
from agent.app.cycles import continue_execution
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome, add_past_prices
from agent.layers.gradual.policy import NO_JITTER
from agent.layers.gradual.state import ExecutionProgress, GradualExecution, GradualResult, GradualState
from agent.model import (
    NO_PURCHASE,
    ConditionalOrder,
    Destination,
    LimitOrder,
    OrderKind,
    OrdersConfig,
    OrderStage,
    OrderTerms,
    PastPrices,
    Rebalance,
    StepInput,
)
from agent.planning import proposals
from agent.policy.cash_flows import purchases
from agent.policy.drift import compute_drifts, corrections, rebalance_goal
from agent.policy.one_sided import target_weights
from agent.policy.orders.exits import apply_orders
from agent.reference import reference_prices
from tests.support.builders import NOW_S, step_input, token, with_history, with_limits
from tests.support.decisions.purchases import MILLION
from tests.support.decisions.top_ups import with_top_up
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.planning_worlds import DEEP
from tests.support.standing_orders import price_of

TARGETS = {"WETH": 5_000, "WBTC": 2_500, "USDC": 2_500}
PRICES = {"WBTC": 60_000}


def step_with_purchase(values: dict[str, int], came_usd: int, sold_usd: int, due_s: int = 0, **limits: Any) -> StepInput:
    """A portfolio of these values with such a top-up."""
    step = with_limits(step_input(TARGETS, values, PRICES, depth=DEEP), first_purchase_s=600, **limits)
    return with_top_up(step, came_usd, sold_usd, due_s)


def outcome_of(step: StepInput) -> StepOutcome:
    return evaluation.evaluate_input(step, proposals.propose_rebalance, FakeEvidenceSource())


BALANCED = {"WETH": 4_970, "WBTC": 2_485, "USDC": 2_545}
"""Ten thousand dollars, 45 of them to be invested yet."""
CRASHED = {"WETH": 5_970, "WBTC": 1_485, "USDC": 2_545}


def test_part_that_waits_for_daily_loss_says_how_to_end_it() -> None:
    outcome = outcome_of(step_with_purchase({"WETH": 3_000, "WBTC": 1_500, "USDC": 5_500}, 4_000, 1_000, daily_loss_bps=0))
    assert outcome.kind is OutcomeKind.HOLD
    assert "waiting for limits.daily_loss" in outcome.reason
    assert "trimtab limit --cancel 7a ends it" in outcome.reason


def test_purchase_ends_where_the_rest_is_not_worth_its_cost() -> None:
    outcome = outcome_of(step_with_purchase(BALANCED, 400, 340, plan_cost_bps=10))
    assert outcome.kind is OutcomeKind.HOLD
    assert outcome.decision_result.purchase_result.due_part is None
    assert "is over: the rest is not worth its cost" in outcome.reason
    assert outcome.decision_result.purchase_result.end_reason
    assert outcome.step_input.history.cash_flows.purchase is not None, "the cycle records the end of this one"


def test_purchase_that_ends_leaves_its_cycle_to_the_trigger() -> None:
    outcome = outcome_of(step_with_purchase(CRASHED, 400, 340, plan_cost_bps=80))
    assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
    assert outcome.plan is not None, outcome.reason
    assert outcome.plan.turnover > 900 * MILLION


def test_part_waits_while_the_trigger_has_nothing_to_do() -> None:
    outcome = outcome_of(step_with_purchase(BALANCED, 400, 340, due_s=300, plan_cost_bps=80))

    assert outcome.kind is OutcomeKind.HOLD
    assert not outcome.decision_result.purchase_result.end_reason
    assert "trimtab limit --cancel 7a ends it" in outcome.reason


def test_trigger_acts_while_a_part_waits_that_would_not_do() -> None:
    outcome = outcome_of(step_with_purchase(CRASHED, 400, 340, due_s=300, plan_cost_bps=80))

    assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
    assert outcome.plan is not None, outcome.reason
    assert outcome.decision_result.purchase_result.end_reason
    assert outcome.plan.turnover > 900 * MILLION
    assert isinstance(outcome.decision_result.decision, Rebalance)
    assert not outcome.decision_result.decision.exempt_turnover, "drift, within the limits of turnover"


@pytest.mark.parametrize("values", [BALANCED, CRASHED])
def test_past_blocks_are_read_beside_a_waiting_purchase(values: dict[str, int]) -> None:
    step = step_with_purchase(values, 400, 340, due_s=300, plan_cost_bps=80)
    step = replace(step, policy=replace(step.policy, confirm_blocks=2))
    head = step.snapshot.head
    past = tuple(
        PastPrices(replace(head, number=head.number - back, timestamp_s=NOW_S - 12 * back), step.snapshot.feeds, step.snapshot.pools)
        for back in (1, 2)
    )
    readers: Any = SimpleNamespace(reader=SimpleNamespace(past_prices=lambda *_: past))
    outcome = outcome_of(add_past_prices(readers, step))
    assert outcome.kind is (OutcomeKind.HOLD if values is BALANCED else OutcomeKind.PLANNED), outcome.reason


def test_purchase_that_corrects_the_drift_goes_on() -> None:
    """Half of a deposit as large as the portfolio is invested: every asset is outside its band, and in it after the rest."""
    outcome = outcome_of(step_with_purchase({"WETH": 3_500, "WBTC": 1_750, "USDC": 4_750}, 5_000, 1_500, due_s=300))
    assert outcome.kind is OutcomeKind.HOLD, outcome.reason
    assert not outcome.decision_result.purchase_result.end_reason, outcome.reason


def test_purchase_that_waits_for_daily_loss_lets_a_trigger_act() -> None:
    """Four of the 131 dollars that the day may lose are left: too few for the part, enough for a part of the correction."""
    step = step_with_purchase({"WETH": 9_000, "WBTC": 100, "USDC": 4_000}, 800, 75, plan_cost_bps=80, daily_loss_bps=100)
    step = with_history(step, loss_24h=Fraction(127 * MILLION))
    outcome = outcome_of(step)
    assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
    assert outcome.decision_result.purchase_result.end_reason, outcome.reason
    assert "WETH at 68.7 % is" in outcome.reason


@pytest.mark.parametrize("due_s", [0, 300])
def test_a_stop_loss_sells_while_a_purchase_is_open(due_s: int) -> None:
    wbtc = token("WBTC").address
    step = step_with_purchase(CRASHED, 400, 340, due_s=due_s)
    order_terms = OrderTerms(wbtc, OrderKind.STOP_LOSS, share_bps=1_000)
    fired_order = ConditionalOrder(
        wbtc, order_terms.kind, OrderStage.FIRED, order_terms, 1, price_of("WBTC", 80_000), None, price_of("WBTC", 60_000)
    )
    portfolio = replace(step.portfolio, orders=OrdersConfig((order_terms,)))
    outcome = outcome_of(apply_orders(replace(with_history(step, states=(fired_order,)), portfolio=portfolio)))
    assert outcome.plan is not None, outcome.reason
    assert outcome.decision_result.exit_token == wbtc, outcome.reason


def test_execution_ends_where_a_slice_is_not_worth_its_cost() -> None:
    step = step_with_purchase(CRASHED, 400, 340, plan_cost_bps=10)
    drifts = compute_drifts(step, reference_prices(step).price_by_token)
    goal = rebalance_goal(drifts, Destination.TARGET)
    sides = tuple((token, 1 if lack > 0 else -1) for token, lack in corrections(drifts, goal).items())
    active = step.history.cash_flows.purchase
    execution = GradualExecution(
        pace=step.execution.pace,
        targets_bps=target_weights(step.effective_assets),
        destination=Destination.TARGET,
        goal=goal,
        arrival_prices=(),
        side_by_token=sides,
        value_to_move=active.terms.value_to_move,
        rounds=2,
        max_loss=None,
        began_s=NOW_S - 600,
        ends_s=NOW_S + 86_400,
        expires_s=NOW_S + 86_400,
        first_draw=NO_JITTER,
    )
    progress = ExecutionProgress("7a", execution, 1, active.moved_value, active.lost_value, NOW_S, NO_JITTER)
    outcome = outcome_of(purchases.with_purchase(step, None).with_layer(GradualState(progress)))
    assert outcome.kind is OutcomeKind.HOLD
    ended = outcome.decision_result.layer(GradualResult).end_reason
    assert ended.startswith("its next slice is not worth its cost"), outcome.reason


def hold_outcome(now_s: int) -> Any:
    """The outcome of a cycle that holds at this chain time."""
    step = SimpleNamespace(snapshot=SimpleNamespace(head=SimpleNamespace(timestamp_s=now_s)))
    return StepOutcome("1", OutcomeKind.HOLD, "holds", cast(Any, step), cast(Any, None), None)


@pytest.mark.parametrize(("times_s", "cycles"), [((1_060,), 0), ((1_000, 1_059, 1_060), 2)])
def test_command_leaves_after_a_single_hold_of_a_due_slice(monkeypatch: pytest.MonkeyPatch, times_s: tuple[int, ...], cycles: int) -> None:
    execution = SimpleNamespace(parts_done=1, next_s=1_060, terms=SimpleNamespace(part_count=3, style="rounds"))
    store = SimpleNamespace(budgets=SimpleNamespace(execution=lambda _: execution))
    switch = SimpleNamespace(read=lambda: SimpleNamespace(paused=False))
    context: Any = SimpleNamespace(store=store, readers=None, clock=SimpleNamespace(sleep=lambda _: None), kill_switch=switch)
    wallet: Any = SimpleNamespace(context=context, report_progress=lambda _: None, open_transactor=nullcontext)
    outcomes_left = [hold_outcome(now_s) for now_s in times_s[1:]]
    monkeypatch.setattr(engine, "run_cycle", lambda *_: outcomes_left.pop(0))
    assert continue_execution(wallet, hold_outcome(times_s[0])).reason == "holds"
    assert len(times_s) - 1 - len(outcomes_left) == cycles


@pytest.mark.parametrize("paused", [True, None])
def test_command_waits_for_no_slice_while_paused(paused: bool | None) -> None:
    execution = SimpleNamespace(parts_done=1, next_s=1_060, terms=SimpleNamespace(part_count=3, style="rounds"))
    store = SimpleNamespace(budgets=SimpleNamespace(execution=lambda _: execution))
    context: Any = SimpleNamespace(store=store, kill_switch=SimpleNamespace(read=lambda: SimpleNamespace(paused=paused)))
    assert continue_execution(cast(Any, SimpleNamespace(context=context)), hold_outcome(1_000)).kind is OutcomeKind.HOLD


def test_manual_swap_is_no_part_of_a_due_purchase() -> None:
    step = step_with_purchase({"WETH": 4_000, "WBTC": 2_000, "USDC": 4_000}, 2_000, 400)
    assert outcome_of(step).decision_result.purchase_result.due_part is not None
    usdc = token("USDC").address
    weth = token("WETH").address
    by_hand = proposals.manual_swap_proposer(usdc, weth, 50 * MILLION)(step)
    waiting = proposals.single_order_proposer(LimitOrder("1", usdc, weth, 50 * MILLION, Fraction(10**30), NOW_S + 60, NOW_S))(step)
    for proposal in (by_hand, waiting):
        assert proposal.decision_result.purchase_result == NO_PURCHASE
        assert proposal.decision_result.layers == ()
