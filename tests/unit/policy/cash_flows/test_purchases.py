"""What a purchase frees of the limits of turnover: what its owner confirmed, once, and nothing that an attacker could add."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind
from agent.guards.case import MissingData, build_guard_case
from agent.model import (
    Decision,
    Destination,
    History,
    Hold,
    Payment,
    PendingPayment,
    Plan,
    Purchase,
    PurchaseKind,
    PurchaseProgress,
    PurchaseResult,
    Rebalance,
    StepInput,
)
from agent.planning import planner, proposals
from agent.policy.cash_flows import purchases, transfers
from agent.policy.drift import compute_drifts, rebalance_goal
from agent.reference import reference_prices
from agent.units import floor_int, format_time, value_text
from tests.support.builders import DAY_S, NOW_S, step_input, token, v2_pool, with_history, with_limits, without_feed
from tests.support.constants import MONTH_S
from tests.support.decisions.purchases import HALVES, MILLION, money_step
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.planning_worlds import DEEP, rebalance_to_targets
from tests.support.plans import evidence
from tests.support.text import mentions


def counted_turnover(step: StepInput, apart: Fraction) -> Fraction:
    """What the guards count of the whole purchase."""
    free = with_limits(step, turnover_bps=None, daily_turnover_bps=None)
    plan: Plan = planner.plan(free, rebalance_to_targets(step))
    assert isinstance(plan.decision, Rebalance)
    plan = replace(plan, decision=replace(plan.decision, exempt_turnover=apart))
    return build_guard_case(step, plan, evidence(step, plan)).counted_turnover() / MILLION


def test_first_purchase_buys_the_whole_at_once() -> None:
    outcome = evaluation.evaluate_input(money_step(), proposals.propose_rebalance, None)
    assert outcome.kind is OutcomeKind.PLANNED
    assert outcome.plan.turnover > 4_950 * MILLION
    assert "first purchase" in outcome.reason


def test_turnover_guards_show_the_purchase_and_its_allowance() -> None:
    outcome = evaluation.evaluate_input(money_step(), proposals.propose_rebalance, FakeEvidenceSource())
    verdict_by_guard = {verdict.guard: verdict for verdict in outcome.plan.verdicts}
    moved = value_text(outcome.plan.turnover, 6)
    for name, bps in (("turnover", 3_000), ("daily_turnover", 6_000)):
        assert verdict_by_guard[name].passed
        assert mentions(verdict_by_guard[name].measured_text, f"{moved} USDC", "0 bps (0 USDC)")
        assert mentions(verdict_by_guard[name].limit, "5000 USDC", f"{bps} bps")


def test_turnover_guards_show_only_the_limit_for_drift() -> None:
    outcome = evaluation.evaluate_input(money_step(last_rebalance_s=1), proposals.propose_rebalance, FakeEvidenceSource())
    turnover_verdict = next(verdict for verdict in outcome.plan.verdicts if verdict.guard == "turnover")
    assert turnover_verdict.limit == "3000 bps"
    assert "plus" not in turnover_verdict.measured_text


@pytest.mark.parametrize(
    ("part_count", "interval_s", "days"),
    [
        pytest.param(3, 600, 7, id="at least a week"),
        pytest.param(6, 600, 7, id="six parts within a week"),
        pytest.param(7, 600, 8, id="a day for each part and one more"),
        pytest.param(3, 4 * DAY_S, 16, id="parts further apart than a day"),
    ],
)
def test_parts_expire_after_the_last_is_due(part_count: int, interval_s: int, days: int) -> None:
    assert purchases.parts_expiry_s(NOW_S, part_count, interval_s) == NOW_S + days * DAY_S


@pytest.mark.parametrize("interval_s", [600, DAY_S + 1, 4 * DAY_S])
def test_purchase_in_parts_ends_after_its_last_part_is_due(interval_s: int) -> None:
    step = step_input(HALVES, {"WETH": 0, "USDC": 10_000}, depth=250_000)
    step = with_limits(with_history(step, last_rebalance_s=None), first_purchase_s=interval_s, plan_cost_bps=None)
    terms = proposals.propose_rebalance(step).decision_result.purchase_result.new_purchase
    assert terms.part_count > 2
    assert terms.expires_s > NOW_S + terms.part_count * interval_s


@pytest.mark.parametrize("daily_loss_bps", [100, None])
def test_shallowest_market_sets_the_part_of_every_asset(daily_loss_bps: int | None) -> None:
    """WBTC's pool takes a fraction of what is wanted: WETH, which could be bought whole, is bought in the same proportion."""
    targets = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}
    weth = token("WETH")
    wbtc = token("WBTC")
    home = token("USDC")
    pools = [v2_pool(weth, home, 2_000, DEEP), v2_pool(wbtc, home, 30_000, 200_000)]
    step = step_input(targets, {"WETH": 0, "WBTC": 0, "USDC": 10_000}, {"WBTC": 30_000}, pools=pools)
    step = with_limits(step, first_purchase_s=600, turnover_bps=None, daily_turnover_bps=None, pool_min_value=None)
    step = with_limits(step, daily_loss_bps=daily_loss_bps)
    outcome = evaluation.evaluate_input(
        with_history(step, last_rebalance_s=None),
        proposals.propose_rebalance,
        None,
    )
    assert outcome.plan is not None, outcome.reason
    assert outcome.decision_result.purchase_result.due_part is not None, outcome.reason
    part = outcome.decision_result.purchase_result.due_part.share
    raw_after = dict(outcome.plan.holdings_after)
    bought_value = {"WETH": raw_after[weth.address] * Fraction(2_000, 10**18), "WBTC": raw_after[wbtc.address] * Fraction(30_000, 10**8)}
    assert part < Fraction(1, 10)
    assert abs(bought_value["WETH"] - 5_000 * part) < 1, (part, bought_value)
    assert abs(bought_value["WBTC"] - 3_000 * part) < 1, (part, bought_value)


def test_purchase_that_sells_other_assets_is_a_rebalance() -> None:
    mixed = with_limits(step_input(HALVES, {"WETH": 8_000, "USDC": 2_000}, depth=DEEP), first_purchase_s=600)
    mixed = with_history(mixed, last_rebalance_s=None)
    assert evaluation.evaluate_input(mixed, proposals.propose_rebalance, None).reason.startswith("first rebalance; ")
    assert evaluation.evaluate_input(money_step(), proposals.propose_rebalance, None).reason.startswith("first purchase; ")


def test_first_purchase_off_leaves_turnover_limits() -> None:
    outcome = evaluation.evaluate_input(with_limits(money_step(), first_purchase_s=None), proposals.propose_rebalance, None)
    assert outcome.plan.turnover <= 3_000 * MILLION


def test_turnover_allowance_is_zero_after_the_first_rebalance() -> None:
    step = money_step(last_rebalance_s=1)
    assert not purchases.is_first_purchase(step.limits, step.history)
    assert purchases.turnover_allowance(step) == 0
    assert counted_turnover(step, Fraction(10**18)) > 4_900, "a plan that claims more than was confirmed is counted whole"
    assert counted_turnover(money_step(), Fraction(10**18)) < 50


def step_with_withdrawal(step: StepInput, lacks_usd: int) -> StepInput:
    """The same with a withdrawal of WETH worth so much, of which there is none."""
    token = step.portfolio.assets[0].token.address
    price = reference_prices(step).reference_by_token[token].price
    return transfers.reserve_claims(step, (PendingPayment(1, Payment(token, floor_int(lacks_usd * MILLION / price))),))


def test_withdrawal_sale_counts_beyond_its_shortfall() -> None:
    free = with_limits(money_step(), turnover_bps=None, daily_turnover_bps=None)
    plan = planner.plan(free, rebalance_to_targets(money_step()))
    assert isinstance(plan.decision, Rebalance)
    for lacks_usd, least, most in ((0, 4_900, 5_100), (2_000, 2_900, 3_100), (6_000, 0, 0)):
        plan = replace(plan, decision=replace(plan.decision, is_exit=True, exempt_turnover=Fraction(10**18)))
        step = step_with_withdrawal(money_step(), lacks_usd) if lacks_usd else money_step()
        assert least <= build_guard_case(step, plan, evidence(step, plan)).counted_turnover() / MILLION <= most


def test_withdrawal_shortfall_is_unknown_with_an_unread_balance() -> None:
    free = with_limits(money_step(), turnover_bps=None, daily_turnover_bps=None)
    plan = planner.plan(free, rebalance_to_targets(money_step()))
    assert isinstance(plan.decision, Rebalance)
    plan = replace(plan, decision=replace(plan.decision, is_exit=True, exempt_turnover=Fraction(1)))
    step = step_with_withdrawal(money_step(), 2_000)
    unread = replace(step, snapshot=replace(step.snapshot, holdings=step.snapshot.holdings[:1]))
    with pytest.raises(MissingData):
        build_guard_case(unread, plan, evidence(unread, plan)).counted_turnover()


def test_turnover_allowance_is_less_by_the_turnover_of_the_day() -> None:
    assert purchases.turnover_allowance(money_step(turnover_24h=Fraction(4_000 * MILLION))) == 1_000 * MILLION
    assert purchases.turnover_allowance(money_step(turnover_24h=Fraction(9_000 * MILLION))) == 0


def test_daily_loss_binds_a_purchase() -> None:
    step = with_limits(money_step(loss_24h=Fraction(99 * MILLION)), daily_loss_bps=100)
    outcome = evaluation.evaluate_input(step, proposals.propose_rebalance, FakeEvidenceSource())
    assert outcome.kind is OutcomeKind.REFUSED
    assert "daily_loss" in {verdict.guard for verdict in outcome.refusal_verdicts if not verdict.passed}


def test_history_of_a_new_store_has_no_purchase() -> None:
    assert codec.loads(History, codec.dumps(money_step().history)).cash_flows.newly_invested_raw == ()


# --- One purchase, part by part


WETH = token("WETH").address
USDC = token("USDC").address
MONTH_AGO_S = NOW_S - MONTH_S


def progress(
    kind: PurchaseKind, *, moved_usd: int = 0, sold_usd: int = 0, next_s: int = NOW_S, expires_s: int = NOW_S + 1
) -> PurchaseProgress:
    """Return a purchase of 1,000 dollars with one part done, and so much moved and sold of it."""
    deposits = ((USDC, 1_000 * MILLION),) if kind is PurchaseKind.TOP_UP else ()
    terms = Purchase(kind, Fraction(1_000 * MILLION), 3, 600, (), MONTH_AGO_S, expires_s, deposits)
    return PurchaseProgress("7a", terms, 1, Fraction(moved_usd * MILLION), Fraction(0), next_s, ((USDC, sold_usd * MILLION),))


FIRST = PurchaseKind.FIRST
TOP_UP = PurchaseKind.TOP_UP


def bought_step(purchase: PurchaseProgress | None = None, newly_invested_usd: int = 0) -> StepInput:
    """Return a step after the first rebalance, with 2,000 dollars of USDC above the target, and this purchase."""
    step = step_input(HALVES, {"WETH": 3_000, "USDC": 7_000}, depth=DEEP)
    newly_invested_raw = ((USDC, newly_invested_usd * MILLION),) if newly_invested_usd else ()
    step = with_history(with_limits(step, first_purchase_s=600), last_rebalance_s=1, newly_invested_raw=newly_invested_raw)
    return purchases.with_purchase(step, purchase)


@pytest.mark.parametrize(
    ("first_purchase_s", "last_rebalance_s", "is_first"),
    [(600, None, True), (None, None, False), (600, 1, False)],
    ids=["no trade yet", "off", "after a rebalance"],
)
def test_first_purchase_is_that_of_a_store_without_a_trade(
    first_purchase_s: int | None, last_rebalance_s: int | None, is_first: bool
) -> None:
    step = with_limits(money_step(last_rebalance_s=last_rebalance_s), first_purchase_s=first_purchase_s)

    assert purchases.is_first_purchase(step.limits, step.history) is is_first


def test_first_purchase_is_none_while_one_is_active() -> None:
    step = purchases.with_purchase(money_step(), progress(FIRST))

    assert not purchases.is_first_purchase(step.limits, step.history)


@pytest.mark.parametrize(
    ("min_trade_usd", "name"), [(100, "first rebalance"), (101, "first purchase")], ids=["at the minimum", "one dollar below it"]
)
def test_first_rebalance_is_one_that_sells_a_tradable_value(min_trade_usd: int, name: str) -> None:
    step = with_limits(step_input(HALVES, {"WETH": 5_100, "USDC": 4_900}), min_trade=Fraction(min_trade_usd * MILLION))
    drifts = compute_drifts(step, reference_prices(step).price_by_token)

    goal = rebalance_goal(drifts, Destination.TARGET)

    assert purchases.first_rebalance_name(step.portfolio, step.limits, drifts, goal) == name


@pytest.mark.parametrize(
    ("purchase", "newly_invested_usd", "uninvested_usd"),
    [
        pytest.param(None, 0, 0, id="nothing"),
        pytest.param(None, 5, 5, id="new deposit"),
        pytest.param(progress(TOP_UP, sold_usd=400), 0, 600, id="rest of a top-up"),
        pytest.param(progress(TOP_UP, sold_usd=400), 5, 605, id="both"),
        pytest.param(progress(TOP_UP, sold_usd=1_000), 0, 0, id="all sold"),
        pytest.param(progress(TOP_UP, sold_usd=1_001), 5, 5, id="more sold than came"),
        pytest.param(progress(FIRST), 5, 5, id="first purchase"),
    ],
)
def test_uninvested_deposits_are_those_not_sold_yet(
    purchase: PurchaseProgress | None, newly_invested_usd: int, uninvested_usd: int
) -> None:
    history = bought_step(purchase, newly_invested_usd).history

    assert purchases.uninvested_deposits(history) == ({USDC: uninvested_usd * MILLION} if uninvested_usd else {})


@pytest.mark.parametrize(
    ("purchase", "newly_invested_usd", "allowance_usd"),
    [
        pytest.param(None, 0, 0, id="nothing"),
        pytest.param(None, 5, 5, id="new deposit"),
        pytest.param(progress(TOP_UP, sold_usd=400), 5, 605, id="top-up and new deposit"),
        pytest.param(progress(FIRST, moved_usd=999), 0, 1, id="rest of the first purchase"),
        pytest.param(progress(FIRST, moved_usd=1_000), 5, 5, id="first purchase moved"),
        pytest.param(progress(FIRST, moved_usd=1_001), 5, 5, id="more moved than confirmed"),
    ],
)
def test_turnover_allowance_is_what_was_confirmed_and_not_used(
    purchase: PurchaseProgress | None, newly_invested_usd: int, allowance_usd: int
) -> None:
    assert purchases.turnover_allowance(bought_step(purchase, newly_invested_usd)) == allowance_usd * MILLION


def test_turnover_allowance_of_a_first_purchase_needs_every_price() -> None:
    step = step_input({"WETH": 4_000, "WBTC": 1_000, "USDC": 5_000}, {"WETH": 0, "WBTC": 0, "USDC": 10_000})
    step = with_history(with_limits(step, first_purchase_s=600), last_rebalance_s=None)

    assert purchases.turnover_allowance(step) == 5_000 * MILLION
    assert purchases.turnover_allowance(without_feed(step, "WBTC")) == 0


def part_of(step: StepInput) -> tuple[Decision, PurchaseResult] | None:
    return purchases.decide_part(step, compute_drifts(step, reference_prices(step).price_by_token))


def test_part_needs_a_purchase() -> None:
    assert part_of(bought_step()) is None


@pytest.mark.parametrize(("kind", "by_owner"), [(FIRST, False), (TOP_UP, True)], ids=["first purchase", "top-up"])
def test_part_that_is_due_buys_what_was_confirmed(kind: PurchaseKind, by_owner: bool) -> None:
    part = part_of(bought_step(progress(kind, moved_usd=400, sold_usd=400)))

    assert part is not None
    decision, result = part
    assert isinstance(decision, Rebalance)
    assert (decision.by_owner, decision.exempt_turnover) == (by_owner, 600 * MILLION)
    assert decision.title == ("top-up" if by_owner else "rebalance")
    assert (result.due_part.number, result.due_part.share) == (2, 1)
    assert result.due_part.remaining_value == (600 if by_owner else 2_000) * MILLION


def test_part_that_is_not_due_waits_until_then() -> None:
    part = part_of(bought_step(progress(TOP_UP, next_s=NOW_S + 1)))

    assert part is not None
    decision, result = part
    assert isinstance(decision, Hold)
    assert f", next at {format_time(NOW_S + 1)}; " in decision.reason
    assert decision.limiting_rule == "limits.first_purchase"
    assert result == PurchaseResult()


@pytest.mark.parametrize(
    ("purchase", "reason"),
    [
        pytest.param(progress(TOP_UP, expires_s=NOW_S), "its time ended", id="at its end"),
        pytest.param(progress(TOP_UP, expires_s=NOW_S, next_s=NOW_S + 1), "its time ended", id="at its end before a part"),
        pytest.param(progress(FIRST, moved_usd=1_000), "done in 1 part", id="all moved"),
        pytest.param(progress(TOP_UP, sold_usd=1_000), "done in 1 part", id="all sold"),
    ],
)
def test_purchase_that_is_over_says_why(purchase: PurchaseProgress, reason: str) -> None:
    part = part_of(bought_step(purchase))

    assert part is not None
    decision, result = part
    assert isinstance(decision, Hold)
    assert reason in decision.reason
    assert result.due_part is None
    assert result.end_reason.startswith(reason)


@pytest.mark.parametrize(
    ("moved_raw", "is_over"), [(1_000 * MILLION - 1, False), (1_000 * MILLION - Fraction(3, 4), True)], ids=["one base unit left", "less"]
)
def test_purchase_of_less_than_a_base_unit_is_over(moved_raw: Fraction, is_over: bool) -> None:
    step = with_limits(bought_step(replace(progress(FIRST), moved_value=Fraction(moved_raw))), min_trade=Fraction(1, 2))

    part = part_of(step)

    assert bool(part[1].end_reason) is is_over
