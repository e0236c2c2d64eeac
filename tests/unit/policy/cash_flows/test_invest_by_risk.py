"""`trimtab invest` under the tracking rule: the deposit alone is used, as far as it saves more than it costs, now or not at all."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import guards
from agent.model import Hold, Plan, Rebalance, StepInput
from agent.planning.proposals import Proposal, propose_rebalance
from agent.planning.requests import invest_proposer
from agent.policy.cash_flows import purchases
from agent.units import BPS
from tests.support.builders import history, price_of, raw, token, with_limits
from tests.support.decisions.top_ups import with_top_up
from tests.support.decisions.tracking import DEPTH, ON_TARGET, balance_changes, pools_of, tracking_step
from tests.support.plans import evidence
from tests.support.text import mentions


def after_deposit(dollars: int, symbol: str = "USDC", fee_pips: int = 500, **moves: int) -> StepInput:
    """50,000 dollars off target by `moves`, and a deposit."""
    values = balance_changes(**moves) if moves else dict(ON_TARGET)
    return tracking_step(values | {symbol: values[symbol] + dollars}, pools=pools_of(DEPTH, fee_pips))


def invested(step: StepInput, dollars: int, symbol: str = "USDC") -> Proposal:
    return invest_proposer({token(symbol).address: raw(Fraction(dollars) / price_of(symbol), token(symbol))})(step)


def sold(plan: Plan) -> set[str]:
    return {address for address, change_raw in plan.wallet_changes().items() if change_raw < 0}


def test_small_deposit__stays_and_says_why() -> None:
    proposal = invested(after_deposit(1_000), 1_000)
    assert proposal.plan is None
    assert isinstance(proposal.decision_result.decision, Hold)
    reason = proposal.decision_result.decision.reason
    assert mentions(reason, "stays uninvested for now: no purchase is worth its cost yet; all within their ranges; closest is")


def test_deposit_within_the_triggers_is_used_once_it_pays() -> None:
    """The owner asks now: the plan need not wait for the trigger, only pay for itself."""
    step = after_deposit(4_000)
    assert isinstance(propose_rebalance(step).decision_result.decision, Hold)
    plan = invested(step, 4_000).plan
    assert plan.zone_tradeoff.saved_risk > plan.zone_tradeoff.cost
    assert [verdict.guard for verdict in guards.judge(step, plan, evidence(step, plan)) if not verdict.passed] == []


def test_deposit_beyond_the_triggers_buys_like_a_run() -> None:
    step = after_deposit(10_000)
    by_run = propose_rebalance(step).plan
    plan = invested(step, 10_000).plan
    assert plan.legs == by_run.legs
    assert isinstance(plan.decision, Rebalance)
    assert plan.decision.by_owner


def test_deposit_beside_an_overweight_sells_only_the_deposit() -> None:
    step = after_deposit(20_000, WETH=8_000)
    plan = invested(step, 20_000).plan
    assert sold(plan) == {token("USDC").address}
    assert plan.wallet_changes().get(token("WETH").address, 0) == 0, "it is above its target still"


@pytest.mark.parametrize(("first_purchase_s", "is_whole"), [(600, True), (None, False)])
def test_turnover_binds_a_deposit_only_without_first_purchase(first_purchase_s: int | None, is_whole: bool) -> None:
    step = after_deposit(20_000)
    whole_plan = invested(step, 20_000).plan
    plan = invested(with_limits(step, turnover_bps=400, first_purchase_s=first_purchase_s), 20_000).plan
    assert (plan.legs == whole_plan.legs) is is_whole


def test_deposit_in_kind__sells_at_most_the_deposit() -> None:
    """WBTC was above its trigger before 500 of it came."""
    step = after_deposit(500, "WBTC", WBTC=9_000)
    by_run = propose_rebalance(step).plan
    plan = invested(step, 500, "WBTC").plan
    wbtc = token("WBTC")
    assert -by_run.wallet_changes()[wbtc.address] > raw(Fraction(2_000) / price_of("WBTC"), wbtc)
    assert 0 < -plan.wallet_changes()[wbtc.address] <= raw(Fraction(500) / price_of("WBTC"), wbtc)


def test_open_purchase__goes_on_towards_the_targets() -> None:
    """A purchase in parts that began before keeps its goal."""
    step = with_limits(after_deposit(1_000), first_purchase_s=600)
    plan = invested(with_top_up(step, 3_000, 2_000), 1_000).plan
    assert plan.zone_tradeoff is None


def test_first_rebalance_outstanding_exempts_only_the_deposit() -> None:
    step = with_limits(replace(after_deposit(10_000), history=history()), first_purchase_s=600)
    proposal = invested(step, 10_000)
    assert isinstance(proposal.plan.decision, Rebalance)
    assert proposal.changed_step is not None
    assert proposal.plan.decision.exempt_turnover == purchases.turnover_allowance(proposal.changed_step)
    assert proposal.plan.decision.exempt_turnover == pytest.approx(10_000 * 10**6, rel=1 / BPS)


def test_deposit_that_buys_nothing_says_why() -> None:
    """Fees of 1 % are above limits.plan_cost."""
    proposal = invested(after_deposit(20_000, fee_pips=10_000), 20_000)
    assert proposal.plan is None
    reason = proposal.decision_result.decision.reason
    assert mentions(reason, "stays uninvested for now: nothing to trade", "limits.plan_cost")
    assert not mentions(reason, "within their ranges")
