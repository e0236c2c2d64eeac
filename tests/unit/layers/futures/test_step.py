"""The futures layer in decide, guards and failures: what reduces goes first, what opens waits, no limit is broken."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

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
from agent.layers.futures.state import FuturesProgress, with_policy
from agent.model import AdjustFutures, Decision, Destination, ExitFailures, Halt, Hold, Holding, Plan, Rebalance, StepInput, UnreadableItem
from agent.model.futures import MarginAccount, PerpOrder, PerpOrderKind
from agent.planning.proposals import propose_rebalance
from agent.policy import failures
from agent.policy.decide import current_drifts, decide
from agent.policy.risk_estimates import complete_risk
from agent.policy.triggers.no_trade_zone import build_tracking
from tests.support.builders import NOW_S, step_input, token, with_history, with_limits, with_snapshot
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.steps import EMPTY, EVEN, FUTURES_POLICY, LIMITS, OVER, PUSHED, book, futures_of, proposed_futures, step_of
from tests.support.plans import evidence, proposed_plan, refusing_guards, verdict

SKEWED = step_input(values={"WETH": 8_000, "USDC": 2_000})
FAILED_ETH = (ExitFailures("ETH", failures.MAX_REVERTS_IN_ROW, 0, NOW_S - 10),)
AT_TARGET = book(10_000, 10 * E18)
DEAR = with_limits(step_of(EMPTY), plan_cost_bps=5)


def with_futures(step: StepInput, margin_account: MarginAccount) -> StepInput:
    """Return the step beside a margin account."""
    return with_policy(with_snapshot(step, futures=margin_account), FUTURES_POLICY)


def decision_of(step: StepInput) -> Decision:
    return propose_rebalance(step).decision_result.decision


def printed(show: Callable[[Console, Any], None], document: object) -> str:
    console = Console(file=io.StringIO(), width=80)
    show(console, document)
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]  # a StringIO


# --- What goes first, and what waits


@pytest.mark.parametrize(
    "history",
    [{}, {"is_stopped": True}, {"reverts_in_row": 5}, {"last_rebalance_s": NOW_S - 1}, {"turnover_24h": Fraction(10**12)}],
    ids=["plain", "failures stop", "reverts", "cooldown", "turnover"],
)
def test_reduction__is_held_back_by_nothing_but_a_stop_or_a_fault(history: dict[str, object]) -> None:
    step = step_of(OVER, **history)
    plan = proposed_plan(step)
    assert isinstance(plan.decision, AdjustFutures)
    assert plan.decision.is_reducing
    assert all(order.is_reduce_only and order.size_raw < 0 for order in futures_of(plan).orders)
    assert refusing_guards(step, plan) == []


def test_stopped_agent__reduces_nothing() -> None:
    assert not isinstance(decide(step_of(OVER, stop_reason="by the owner")).decision, AdjustFutures)


@pytest.mark.parametrize(
    ("step", "first"),
    [
        pytest.param(with_futures(SKEWED, OVER), AdjustFutures, id="reduction before a rebalance"),
        pytest.param(with_futures(SKEWED, EMPTY), Rebalance, id="rebalance before an opening"),
        pytest.param(step_of(EMPTY), AdjustFutures, id="opening"),
    ],
)
def test_reduction__precedes_a_rebalance_and_an_opening_follows(step: StepInput, first: type) -> None:
    assert isinstance(decide(step).decision, first)


def test_tracking__plan_that_saves_too_little_holds_no_futures() -> None:
    """WETH is beyond its range, and no swap keeps within plan_cost."""
    step = step_input(values={"WETH": 6_900, "USDC": 3_100})
    step = replace(step, policy=replace(step.policy, trigger=build_tracking("normal"), destination=Destination.ZONE))
    step = complete_risk(with_limits(with_history(step, last_rebalance_s=1), plan_cost_bps=15))
    assert isinstance(decide(step).decision, Rebalance)
    hold = decision_of(step)
    assert isinstance(hold, Hold)
    assert hold.limiting_rule == "limits.plan_cost"
    proposed_futures(with_futures(step, EMPTY))


def test_spot_drift_not_worth_its_cost__holds_no_futures() -> None:
    drifted = with_limits(step_input(values={"WETH": 5_600, "USDC": 4_400}), plan_cost_bps=15)
    alone = propose_rebalance(drifted)
    assert alone.plan is None
    assert isinstance(alone.decision_result.decision, Hold)
    proposal = propose_rebalance(with_futures(drifted, EMPTY))
    assert futures_of(proposal.plan)
    assert isinstance(proposal.decision_result.decision, AdjustFutures)
    assert "not worth its cost" in proposal.changed_step.progress.spot_hold_reason
    assert propose_rebalance(proposal.changed_step).plan == proposal.plan, "a recorded step decides the same"
    assert decision_of(with_futures(drifted, AT_TARGET)) == alone.decision_result.decision


def test_refused_spot_plan__holds_no_futures_and_stays_the_outcome() -> None:
    opens, stays = (
        evaluate_input(
            with_futures(with_limits(SKEWED, daily_loss_bps=None), margin_account),
            propose_rebalance,
            FakeEvidenceSource(second_quotes=()),
        )
        for margin_account in (EMPTY, AT_TARGET)
    )
    assert opens.kind is OutcomeKind.PLANNED, opens.reason
    assert futures_of(opens.plan)
    assert stays.kind is OutcomeKind.REFUSED
    assert [verdict.guard for verdict in stays.refusal_verdicts if not verdict.passed] == ["second_quote_deviation"]


def test_opening_not_worth_its_cost__holds_unlike_a_reduction() -> None:
    """Small margin: each order of the way to the targets would be refused at every block."""
    proposal = propose_rebalance(DEAR)
    assert proposal.plan is None
    assert isinstance(proposal.decision_result.decision, Hold)
    assert "above limits.plan_cost of 5 bps" in proposal.decision_result.decision.reason
    assert propose_rebalance(with_limits(step_of(OVER), plan_cost_bps=5)).plan is not None


@pytest.mark.parametrize("history", [{"is_stopped": True}, {"reverts_in_row": 3}])
def test_opening__waits_while_failures_stop_rebalances(history: dict[str, object]) -> None:
    assert isinstance(decide(step_of(EMPTY, **history)).decision, Hold)


@pytest.mark.parametrize(
    ("step", "kind", "reason"),
    [
        pytest.param(step_of(book(10_000, 20 * E18, index_s=NOW_S - 10_000)), Hold, "futures: no order, the index of ETH is", id="index"),
        pytest.param(
            with_snapshot(step_of(None), futures_unknown="free margin could not be read"),
            Halt,
            "futures: no order, free margin could not be read",
            id="account",
        ),
    ],
)
def test_unknown_account_or_index__orders_nothing_and_says_why(step: StepInput, kind: type, reason: str) -> None:
    decision = decide(step).decision
    assert isinstance(decision, kind)
    assert reason in decision.reason


def test_step_without_futures__changes_nothing() -> None:
    step = step_of(None, None)
    plan = proposed_plan(SKEWED)
    assert decide(step) == decide(step_input(values=EVEN))
    assert len(guards.judge(step, plan, evidence(step, plan))) == len(guards.table.GUARDS) - len(FUTURES_GUARDS)


def test_market_whose_orders_failed__waits_and_spot_goes_on() -> None:
    decision = decision_of(step_of(OVER, failed_exits=FAILED_ETH))
    assert isinstance(decision, Hold)
    assert "ETH: its orders failed or were refused; tried again at" in decision.reason
    assert isinstance(decision_of(failures.with_refused_markets(step_of(OVER), {"ETH": NOW_S})), Hold)


# --- Documents


@pytest.mark.parametrize(
    ("step", "why"),
    [
        pytest.param(DEAR, "above limits.plan_cost of 5 bps", id="cost"),
        pytest.param(
            step_of(OVER).with_progress(FuturesProgress(hold_reason="futures: no order, the key may not trade")),
            "the key may not trade",
            id="key",
        ),
        pytest.param(step_of(OVER, failed_exits=FAILED_ETH), "ETH: its orders failed or were refused", id="market that backs off"),
    ],
)
def test_margin_document__names_why_its_orders_are_not_sent(step: StepInput, why: str) -> None:
    document = margin_document(build_futures_report(step, FUTURES_POLICY, current_drifts(step)))
    text = printed(show_margin, document)
    assert why in document["plan"]["hold_reason"]
    assert "Nothing of this is sent: " in text
    assert document["plan"]["orders"]
    assert "Orders that wait" in text, text


def test_margin_document__of_orders_that_are_sent_names_no_reason() -> None:
    document = margin_document(build_futures_report(step_of(OVER), FUTURES_POLICY, current_drifts(step_of(OVER))))
    assert document["plan"]["orders"]
    assert document["plan"]["hold_reason"] == ""
    assert "Nothing of this is sent: " not in printed(show_margin, document)


@pytest.mark.parametrize(("is_paused", "names"), [(True, ["ETH"]), (False, [])])
def test_summary__names_a_market_that_the_venue_paused(is_paused: bool, names: list[str]) -> None:
    step = step_of(book(10_000, 20 * E18, is_paused=is_paused))
    summary = optional_futures_summary(step, current_drifts(step))
    assert summary["futures"]["paused"] == names
    assert ("Paused by the venue: ETH" in printed(show_futures_summary, {"numeraire": "USDC", **summary})) is is_paused


@pytest.mark.parametrize(("top_up_bps", "deposits"), [(None, True), (100, False)])
def test_margin_document__plans_what_the_step_may_deposit(top_up_bps: int | None, deposits: bool) -> None:
    """5,000 USDC are at hand for the 4,035 that restore 3x; 1 % of the spot portfolio is not enough."""
    policy = replace(FUTURES_POLICY, collateral=token("USDC").address, limits=replace(LIMITS, top_up_per_day_bps=top_up_bps))
    step = step_of(replace(OVER, collateral_unit_raw=10**12), policy)
    report_plan = build_futures_report(step, policy, current_drifts(step)).plan
    proposed = proposed_futures(step)
    assert bool(report_plan.top_up_raw) is deposits
    assert (report_plan.top_up_raw, bool(report_plan.orders)) == (proposed.top_up_raw, bool(proposed.orders))


def test_order_note__has_six_places_and_stays_within_the_bound() -> None:
    snapshot = step_of(EMPTY).snapshot
    buy = PerpOrder("ETH", E18 + 1_234_567_890_123, PerpOrderKind.MARKET, 3_000 * E18 + 1, is_reduce_only=False)
    sell = replace(buy, size_raw=-buy.size_raw, is_reduce_only=True)
    assert order_note(snapshot, buy).startswith("open futures: buy 1.000001 ETH for at most 3000.000001 ")
    assert order_note(snapshot, sell).startswith("reduce futures: sell 1.000001 ETH for at least 3000 ")
    assert "buy 0.000000000000000007 ETH" in order_note(snapshot, replace(buy, size_raw=7))


# --- Collateral at hand


USDC = token("USDC").address


@pytest.mark.parametrize(
    ("step", "collateral", "is_spendable"),
    [
        pytest.param(step_of(OVER), USDC, True, id="known"),
        pytest.param(
            with_snapshot(step_of(OVER), unreadable_items=(UnreadableItem("balance", USDC, "differs"),)), USDC, False, id="unread"
        ),
        pytest.param(
            with_snapshot(step_of(OVER), holdings=(*step_of(OVER).snapshot.holdings, Holding(USDC, 1))), USDC, False, id="two balances"
        ),
        pytest.param(step_of(OVER), token("DAI").address, False, id="of no asset"),
    ],
)
def test_collateral_of_an_uncertain_balance__is_not_deposited(step: StepInput, collateral: str, is_spendable: bool) -> None:
    assert (spendable_collateral_raw(step.snapshot, step.portfolio, step.limits, collateral) > 0) is is_spendable


# --- Limits and guards


def planned(step: StepInput, *changes: Callable[[PerpOrder], PerpOrder]) -> Plan:
    """Return the plan that the step has with a fresh budget of reductions, with its first order changed to these."""
    plan = proposed_plan(with_history(step, reduced_notional_24h=Fraction(0)))
    first, *rest = futures_of(plan).orders
    return plan.with_layer(replace(futures_of(plan), orders=(*(change(first) for change in changes), *rest)))


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
    assert guard in refusing_guards(step, planned(step, change))


def test_daily_budget__never_holds_what_the_index_demands() -> None:
    """A crash of the index takes more reductions in a day than a pushed mark may (T12)."""
    step = step_of(OVER, reduced_notional_24h=Fraction(90_000 * 10**6))
    plan = proposed_plan(step)
    assert futures_of(plan).is_reducing
    assert "reduction_per_day" not in refusing_guards(step, plan)


def test_two_reductions_that_turn_one_market__are_refused() -> None:
    """Each alone is smaller than the position of 20."""
    step = step_of(OVER)
    plan = planned(step, *[lambda order: replace(order, size_raw=-15 * E18, bound_raw=15 * 2_000 * E18)] * 2)
    assert len(futures_of(plan).orders) == 2
    assert not guards.case.build_guard_case(step, plan, evidence(step, plan)).is_risk_reducing()
    refused = verdict("futures_state", step, plan)
    assert (refused.passed, refused.measured_text) == (False, "a reduction that opens")


def test_reduction_under_way__goes_on_to_its_goals() -> None:
    """Also once its first order has restored the limit; then limits are judged again."""
    [order] = proposed_futures(step_of(OVER)).orders
    assert reduction_goals(step_of(OVER).snapshot, proposed_futures(step_of(OVER))) == (("ETH", 20 * E18 + order.size_raw),)
    under_way, done = (
        step_of(book(10_000, eth * E18)).with_progress(FuturesProgress(reduction_goals=(("ETH", 10 * E18),))) for eth in (12, 10)
    )
    decision = decide(under_way).decision
    assert isinstance(decision, AdjustFutures)
    assert decision.is_reducing
    assert [(rest.size_raw, rest.is_reduce_only) for rest in proposed_futures(under_way).orders] == [(-2 * E18, True)]
    assert not isinstance(decide(done).decision, AdjustFutures)


def test_orders_to_targets__leave_no_goals() -> None:
    futures = proposed_futures(step_of(EMPTY))
    assert not futures.is_reducing
    assert reduction_goals(step_of(EMPTY).snapshot, futures) == ()
