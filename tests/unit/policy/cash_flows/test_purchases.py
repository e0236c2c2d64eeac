"""What a purchase frees of the limits of turnover: what its owner confirmed, once, and nothing that an attacker could add."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind
from agent.guards.case import MissingData, build_guard_case
from agent.model import History, Payment, PendingPayment, Plan, Rebalance, StepInput
from agent.planning import planner, proposals
from agent.policy.cash_flows import purchases, transfers
from agent.reference import reference_prices
from agent.units import floor_int, value_text
from tests.support.builders import step_input, token, v2_pool, with_history, with_limits
from tests.support.decisions.purchases import HALVES, MILLION, PassingEvidence, money_step
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
    assert outcome.plan is not None
    assert outcome.plan.turnover > 4_950 * MILLION
    assert "first purchase" in outcome.reason


def test_turnover_guards_show_the_purchase_and_its_allowance() -> None:
    outcome = evaluation.evaluate_input(money_step(), proposals.propose_rebalance, PassingEvidence())
    assert outcome.plan is not None
    verdict_by_guard = {verdict.guard: verdict for verdict in outcome.plan.verdicts}
    moved = value_text(outcome.plan.turnover, 6)
    for name, bps in (("turnover", 3_000), ("daily_turnover", 6_000)):
        assert verdict_by_guard[name].passed
        assert mentions(verdict_by_guard[name].measured_text, f"{moved} USDC", "0 bps (0 USDC)")
        assert mentions(verdict_by_guard[name].limit, "5000 USDC", f"{bps} bps")


def test_turnover_guards_show_only_the_limit_for_drift() -> None:
    outcome = evaluation.evaluate_input(money_step(last_rebalance_s=1), proposals.propose_rebalance, PassingEvidence())
    assert outcome.plan is not None
    turnover_verdict = next(verdict for verdict in outcome.plan.verdicts if verdict.guard == "turnover")
    assert turnover_verdict.limit == "3000 bps"
    assert "plus" not in turnover_verdict.measured_text


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
    assert outcome.plan is not None
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
    outcome = evaluation.evaluate_input(step, proposals.propose_rebalance, PassingEvidence())
    assert outcome.kind is OutcomeKind.REFUSED
    assert "daily_loss" in {verdict.guard for verdict in outcome.refusal_verdicts if not verdict.passed}


def test_history_of_a_new_store_has_no_purchase() -> None:
    assert codec.loads(History, codec.dumps(money_step().history)).cash_flows.newly_invested_raw == ()
