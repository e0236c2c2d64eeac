"""The futures layer in decide, guards and failures: what reduces goes first, what opens waits, no limit is broken."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
from rich.console import Console

from agent import guards
from agent.app.documents.futures import margin_document, optional_futures_summary
from agent.app.documents.futures_report import build_futures_report
from agent.cli.display.futures_tables import show_futures_summary, show_margin
from agent.execution.evaluation import evaluate_input
from agent.execution.step_context import OutcomeKind
from agent.layers.futures.guards import FUTURES_GUARDS
from agent.layers.futures.notes import order_note
from agent.layers.futures.policy.needs import reduction_goals, spendable_collateral_raw
from agent.layers.futures.state import FuturesProgress, planned_futures, with_policy
from agent.model import AdjustFutures, Destination, ExitFailures, Hold, Holding, Plan, Rebalance, StepInput, UnreadableItem
from agent.model.futures import PerpOrder, PerpOrderKind
from agent.planning.proposals import propose_rebalance
from agent.policy import failures
from agent.policy.decide import current_drifts, decide
from agent.policy.risk_estimates import complete_risk
from agent.policy.triggers.no_trade_zone import build_tracking
from tests.support.builders import NOW_S, step_input, token, with_history, with_limits, with_snapshot
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.steps import EMPTY, EVEN, FUTURES_POLICY, LIMITS, OVER, PUSHED, book, step_of
from tests.support.plans import evidence


@pytest.mark.parametrize(
    "history",
    [{}, {"is_stopped": True}, {"reverts_in_row": 5}, {"last_rebalance_s": NOW_S - 1}, {"turnover_24h": Fraction(10**12)}],
    ids=["plain", "failures stop", "reverts", "cooldown", "turnover"],
)
def test_nothing_but_a_stop_or_a_fault_holds_a_reduction_back(history: dict[str, object]) -> None:
    step = step_of(OVER, **history)
    proposal = propose_rebalance(step)
    assert isinstance(proposal.decision_result.decision, AdjustFutures)
    assert proposal.decision_result.decision.is_reducing
    assert proposal.plan is not None
    assert planned_futures(proposal.plan) is not None
    assert all(order.is_reduce_only and order.size_raw < 0 for order in planned_futures(proposal.plan).orders)
    refusing = [verdict for verdict in guards.judge(step, proposal.plan, evidence(step, proposal.plan)) if not verdict.passed]
    assert [guard.guard for guard in refusing] == []


def test_a_stopped_agent_reduces_nothing() -> None:
    assert not isinstance(decide(step_of(OVER, stop_reason="by the owner")).decision, AdjustFutures)


def test_reduction__precedes_a_rebalance_and_an_opening_follows() -> None:
    skewed = step_input(values={"WETH": 8_000, "USDC": 2_000})
    for margin_account, first in ((OVER, AdjustFutures), (EMPTY, Rebalance)):
        step = with_policy(with_snapshot(skewed, futures=margin_account), FUTURES_POLICY)
        assert isinstance(decide(step).decision, first)
    assert isinstance(decide(step_of(EMPTY)).decision, AdjustFutures)


def test_tracking__plan_that_saves_too_little_holds_no_futures() -> None:
    """WETH is beyond its range, and no swap keeps within plan_cost."""
    drifted = step_input(values={"WETH": 6_900, "USDC": 3_100})
    policy = replace(drifted.policy, trigger=build_tracking("normal"), destination=Destination.ZONE)
    drifted = with_limits(with_history(replace(drifted, policy=policy), last_rebalance_s=1), plan_cost_bps=15)
    drifted = complete_risk(drifted)
    assert isinstance(decide(drifted).decision, Rebalance)
    hold = propose_rebalance(drifted).decision_result.decision
    assert isinstance(hold, Hold)
    assert hold.limiting_rule == "limits.plan_cost"
    proposal = propose_rebalance(with_policy(with_snapshot(drifted, futures=EMPTY), FUTURES_POLICY))
    assert proposal.plan is not None
    assert planned_futures(proposal.plan) is not None


def test_spot_drift_not_worth_its_cost__holds_no_futures() -> None:
    drifted = step_input(values={"WETH": 5_600, "USDC": 4_400})
    drifted = replace(drifted, limits=replace(drifted.limits, plan_cost_bps=15))
    alone = propose_rebalance(drifted)
    assert alone.plan is None
    assert isinstance(alone.decision_result.decision, Hold)
    proposal = propose_rebalance(with_policy(with_snapshot(drifted, futures=EMPTY), FUTURES_POLICY))
    assert proposal.plan is not None
    assert planned_futures(proposal.plan) is not None
    assert proposal.changed_step is not None
    assert isinstance(proposal.decision_result.decision, AdjustFutures)
    assert "not worth its cost" in proposal.changed_step.progress.spot_hold_reason
    assert propose_rebalance(proposal.changed_step).plan == proposal.plan, "a recorded step decides the same"
    step_within = with_policy(with_snapshot(drifted, futures=book(10_000, 10 * E18)), FUTURES_POLICY)
    assert propose_rebalance(step_within).decision_result.decision == alone.decision_result.decision


def test_refused_spot_plan__holds_no_futures_and_stays_the_outcome() -> None:
    skewed = step_input(values={"WETH": 8_000, "USDC": 2_000})
    skewed = replace(skewed, limits=replace(skewed.limits, daily_loss_bps=None))
    opens, stays = (
        evaluate_input(
            with_policy(with_snapshot(skewed, futures=margin_account), FUTURES_POLICY),
            propose_rebalance,
            FakeEvidenceSource(second_quotes=()),
        )
        for margin_account in (EMPTY, book(10_000, 10 * E18))
    )
    assert opens.kind is OutcomeKind.PLANNED, opens.reason
    assert opens.plan is not None
    assert planned_futures(opens.plan) is not None
    assert stays.kind is OutcomeKind.REFUSED
    assert [refusal_verdict.guard for refusal_verdict in stays.refusal_verdicts if not refusal_verdict.passed] == ["second_quote_deviation"]


def test_opening_not_worth_its_cost__holds_unlike_a_reduction() -> None:
    """Small margin: each order of the way to the targets would be refused at every block."""
    dear = step_of(EMPTY)
    dear = replace(dear, limits=replace(dear.limits, plan_cost_bps=5))
    proposal = propose_rebalance(dear)
    assert isinstance(proposal.decision_result.decision, Hold)
    assert proposal.plan is None
    assert "above limits.plan_cost of 5 bps" in proposal.decision_result.decision.reason
    over = step_of(OVER)
    over = replace(over, limits=replace(over.limits, plan_cost_bps=5))
    assert propose_rebalance(over).plan is not None


def test_the_margin_document_names_why_its_orders_are_not_sent() -> None:
    dear = step_of(EMPTY)
    dear = replace(dear, limits=replace(dear.limits, plan_cost_bps=5))
    stopped = step_of(OVER).with_progress(FuturesProgress(hold_reason="futures: no order, the key may not trade"))
    free = step_of(OVER)
    for step, why in ((dear, "above limits.plan_cost of 5 bps"), (stopped, "the key may not trade"), (free, "")):
        document = margin_document(build_futures_report(step, FUTURES_POLICY, current_drifts(step)))
        assert document["plan"] is not None
        assert document["plan"]["orders"]
        assert (why in document["plan"]["hold_reason"]) if why else document["plan"]["hold_reason"] == ""
        console = Console(file=io.StringIO(), width=80)
        show_margin(console, document)
        printed = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]  # a StringIO
        assert ("Nothing of this is sent: " in printed and "Orders that wait" in printed) == bool(why), printed


def test_margin_document__leaves_out_a_market_that_backs_off() -> None:
    failed = (ExitFailures("ETH", failures.MAX_REVERTS_IN_ROW, 0, NOW_S - 10),)
    step = step_of(OVER, failed_exits=failed)
    document = margin_document(build_futures_report(step, FUTURES_POLICY, current_drifts(step)))
    assert document["plan"] is not None
    assert "ETH: its orders failed or were refused" in document["plan"]["hold_reason"]


def test_the_summary_names_a_market_that_the_venue_paused() -> None:
    for step, paused in ((step_of(book(10_000, 20 * E18, is_paused=True)), ["ETH"]), (step_of(OVER), [])):
        summary = optional_futures_summary(step, current_drifts(step))
        assert summary["futures"]["paused"] == paused
        console = Console(file=io.StringIO(), width=80)
        show_futures_summary(console, {"numeraire": "USDC", **summary})
        assert ("Paused by the venue: ETH" in console.file.getvalue()) == bool(paused)  # type: ignore[attr-defined]  # a StringIO


@pytest.mark.parametrize("history", [{"is_stopped": True}, {"reverts_in_row": 3}])
def test_an_opening_waits_while_failures_stop_rebalances(history: dict[str, object]) -> None:
    assert isinstance(decide(step_of(EMPTY, **history)).decision, Hold)


def test_unknown_account_or_index__orders_nothing_and_says_why() -> None:
    stale = decide(step_of(book(10_000, 20 * E18, index_s=NOW_S - 10_000))).decision
    assert isinstance(stale, Hold)
    assert "futures: no order, the index of ETH is" in stale.reason
    unknown = with_snapshot(step_of(None), futures_unknown="free margin could not be read")
    assert "futures: no order, free margin could not be read" in decide(unknown).decision.reason


def test_without_futures_nothing_changes() -> None:
    step = step_of(None, None)
    assert decide(step) == decide(step_input(values=EVEN))
    plan = propose_rebalance(step_input(values={"WETH": 8_000, "USDC": 2_000})).plan
    assert plan is not None
    assert len(guards.judge(step, plan, evidence(step, plan))) == len(guards.table.GUARDS) - len(FUTURES_GUARDS)


@pytest.mark.parametrize(("top_up_bps", "deposits"), [(None, True), (100, False)])
def test_the_margin_document_plans_what_the_step_may_deposit(top_up_bps: int | None, deposits: bool) -> None:
    """5,000 USDC are at hand for the 4,035 that restore 3x; 1 % of the spot portfolio is not enough."""
    policy = replace(FUTURES_POLICY, collateral=token("USDC").address, limits=replace(LIMITS, top_up_per_day_bps=top_up_bps))
    step = step_of(replace(OVER, collateral_unit_raw=10**12), policy)
    futures_report = build_futures_report(step, policy, current_drifts(step))
    proposed = propose_rebalance(step).plan
    assert futures_report.plan is not None
    assert proposed is not None
    assert planned_futures(proposed) is not None
    assert bool(futures_report.plan.top_up_raw) is deposits
    assert (futures_report.plan.top_up_raw, bool(futures_report.plan.orders)) == (
        planned_futures(proposed).top_up_raw,
        bool(planned_futures(proposed).orders),
    )


def test_collateral_of_an_uncertain_balance_is_not_deposited() -> None:
    step = step_of(OVER)
    usdc = token("USDC").address
    assert spendable_collateral_raw(step.snapshot, step.portfolio, step.limits, usdc) > 0
    doubtful = with_snapshot(step, unreadable_items=(UnreadableItem("balance", usdc, "differs"),))
    assert spendable_collateral_raw(doubtful.snapshot, doubtful.portfolio, doubtful.limits, usdc) == 0
    twice = with_snapshot(step, holdings=(*step.snapshot.holdings, Holding(usdc, 1)))
    assert spendable_collateral_raw(twice.snapshot, twice.portfolio, twice.limits, usdc) == 0
    assert spendable_collateral_raw(step.snapshot, step.portfolio, step.limits, token("DAI").address) == 0


def test_a_market_whose_orders_failed_waits_and_spot_goes_on() -> None:
    failed = (ExitFailures("ETH", failures.MAX_REVERTS_IN_ROW, 0, NOW_S - 10),)
    proposal = propose_rebalance(step_of(OVER, failed_exits=failed))
    assert isinstance(proposal.decision_result.decision, Hold)
    assert "ETH: its orders failed or were refused; tried again at" in proposal.decision_result.decision.reason
    refused = failures.with_refused_markets(step_of(OVER), {"ETH": NOW_S})
    assert isinstance(propose_rebalance(refused).decision_result.decision, Hold)


def planned(step: StepInput, change: Callable[[PerpOrder], PerpOrder]) -> Plan:
    """The plan that the step has with a fresh budget of reductions, with its first order changed."""
    plan = propose_rebalance(with_history(step, reduced_notional_24h=Fraction(0))).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    orders = (change(planned_futures(plan).orders[0]), *planned_futures(plan).orders[1:])
    return plan.with_layer(replace(planned_futures(plan), orders=orders))


@pytest.mark.parametrize(
    ("step", "change", "guard"),
    [
        (step_of(EMPTY), lambda order: replace(order, size_raw=order.size_raw * 2, bound_raw=order.bound_raw * 2), "futures_state"),
        (step_of(EMPTY), lambda order: replace(order, bound_raw=order.bound_raw + 1), "order_bound"),
        (step_of(OVER), lambda order: replace(order, bound_raw=order.bound_raw - 1), "order_bound"),
        (step_of(OVER), lambda order: replace(order, bound_raw=0), "order_bound"),
        (step_of(OVER), lambda order: replace(order, size_raw=-25 * E18, bound_raw=50_000 * E18), "futures_state"),
        (step_of(PUSHED, reduced_notional_24h=Fraction(20_000 * 10**6)), lambda order: order, "reduction_per_day"),
    ],
    ids=["leverage", "buy bound", "sale bound", "no bound", "turned position", "budget"],
)  # fmt: skip
def test_each_limit_of_futures_orders_refuses_by_its_guard(step: StepInput, change: Callable[[PerpOrder], PerpOrder], guard: str) -> None:
    plan = planned(step, change)
    refusing = {verdict.guard for verdict in guards.judge(step, plan, evidence(step, plan)) if not verdict.passed}
    assert guard in refusing


def test_daily_budget__never_holds_what_the_index_demands() -> None:
    """A crash of the index takes more reductions in a day than a pushed mark may (T12)."""
    step = step_of(OVER, reduced_notional_24h=Fraction(90_000 * 10**6))
    plan = propose_rebalance(step).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    assert planned_futures(plan).is_reducing
    assert "reduction_per_day" not in {verdict.guard for verdict in guards.judge(step, plan, evidence(step, plan)) if not verdict.passed}


def test_two_reductions_that_turn_one_market__are_refused() -> None:
    """Each alone is smaller than the position of 20."""
    step = step_of(OVER)
    plan = planned(step, lambda order: replace(order, size_raw=-15 * E18, bound_raw=15 * 2_000 * E18))
    assert planned_futures(plan) is not None
    [order] = planned_futures(plan).orders
    twice = plan.with_layer(replace(planned_futures(plan), orders=(order, order)))
    assert not guards.case.build_guard_case(step, twice, evidence(step, twice)).is_risk_reducing()
    refusing = {verdict.guard: verdict.measured_text for verdict in guards.judge(step, twice, evidence(step, twice)) if not verdict.passed}
    assert refusing["futures_state"] == "a reduction that opens"


def test_a_reduction_under_way_goes_on_to_its_goals() -> None:
    """Also once its first order has restored the limit; then limits are judged again."""
    step = step_of(OVER)
    plan = propose_rebalance(step).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    [order] = planned_futures(plan).orders
    assert reduction_goals(step.snapshot, planned_futures(plan)) == (("ETH", 20 * E18 + order.size_raw),)
    under_way = step_of(book(10_000, 12 * E18)).with_progress(FuturesProgress(reduction_goals=(("ETH", 10 * E18),)))
    decision = decide(under_way).decision
    assert isinstance(decision, AdjustFutures)
    assert decision.is_reducing
    rest = propose_rebalance(under_way).plan
    assert rest is not None
    assert planned_futures(rest) is not None
    assert [(order.size_raw, order.is_reduce_only) for order in planned_futures(rest).orders] == [(-2 * E18, True)]
    done = step_of(book(10_000, 10 * E18)).with_progress(FuturesProgress(reduction_goals=(("ETH", 10 * E18),)))
    assert not isinstance(decide(done).decision, AdjustFutures)


def test_orders_to_targets_leave_no_goals() -> None:
    step = step_of(EMPTY)
    plan = propose_rebalance(step).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    assert not planned_futures(plan).is_reducing
    assert reduction_goals(step.snapshot, planned_futures(plan)) == ()


def test_order_note__has_six_places_and_stays_within_the_bound() -> None:
    step = step_of(EMPTY)
    size = E18 + 1_234_567_890_123
    bound = 3_000 * E18 + 1
    buy = PerpOrder("ETH", size, PerpOrderKind.MARKET, bound, is_reduce_only=False)
    sell = PerpOrder("ETH", -size, PerpOrderKind.MARKET, bound, is_reduce_only=True)
    assert order_note(step.snapshot, buy).startswith("open futures: buy 1.000001 ETH for at most 3000.000001 ")
    assert order_note(step.snapshot, sell).startswith("reduce futures: sell 1.000001 ETH for at least 3000 ")
    assert "buy 0.000000000000000007 ETH" in order_note(step.snapshot, replace(buy, size_raw=7))
