"""A zone and the tracking rule over random markets: what fires pays, less of it would not pay better, and the certificate holds."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.model import Destination, Hold, NoTradeZone, Plan, Rebalance, StepInput
from agent.planning import planner
from agent.planning.proposals import Proposal, propose_rebalance
from agent.policy import risk as risks
from agent.policy.decide import decide
from agent.units import BPS
from tests.support.builders import ETHER, MONTH_S, token, tracking, with_limits
from tests.support.decisions.native_coin import native_step
from tests.support.decisions.zone_plans import COIN, unit_value
from tests.support.planning_worlds import check_legs, gap_of, random_step, without_gas
from tests.support.plans import proposed_plan
from tests.support.samples import examples
from tests.support.text import mentions


@st.composite
def markets(draw: st.DrawFn) -> StepInput:
    """Two to six tokens over random pools, with volatilities and correlations of all kinds; a zone with a horizon, or the rule."""
    seed = draw(st.integers(0, 10**6))
    dice = random.Random(seed)
    size = dice.randint(2, 6)
    step = random_step(seed, size, dice.randint(size, 16), 10 ** dice.uniform(5.5, 8), 100_000, dice.choice([0.0, 0.001]))
    symbols = [asset.token.symbol for asset in step.portfolio.assets]
    trigger = tracking(
        *symbols,
        cost_bps=dice.choice([Fraction(1, 10), 1, 5, 100]),
        horizon_s=dice.choice([MONTH_S, MONTH_S, 365 * 86_400]),
        volatilities={symbol: dice.choice([50, 3_000, 8_000]) for symbol in symbols},
        correlations={(a, b): dice.choice([0, 3_000, 6_000]) for n, b in enumerate(symbols) for a in symbols[:n]},
    )
    assume(not list(risks.faults(trigger, {a.token.address: a.token.symbol for a in step.portfolio.assets})))
    if draw(st.booleans()):
        trigger = replace(trigger, horizon_s=None)
    policy = replace(step.policy, trigger=NoTradeZone(trigger), destination=Destination.ZONE)
    limits = {"plan_cost_bps": dice.choice([50, 200]), "turnover_bps": dice.choice([None, 500]), "daily_turnover_bps": None}
    return with_limits(replace(step, policy=policy), **limits)


def loss(step: StepInput, holdings: dict[str, int]) -> float:
    """½·λ·H/V·dᵀΣd in dollars, in floats and matrices of its own; the horizons of the rule are in its Σ, over a year."""
    risk = decide(step).zone.risk
    tokens = [asset.token.address for asset in step.portfolio.assets]
    before = {h.token: h.raw for h in step.snapshot.holdings}
    values, start = (
        np.array([float(raw_by_token[at] * unit_value(step, at)) / COIN for at in tokens]) for raw_by_token in (holdings, before)
    )
    targets = np.array([asset.target_bps / BPS for asset in step.effective_assets])
    spread = np.array([dict(risk.volatilities_bps)[at] / BPS for at in tokens])
    known = {frozenset((a, b)): bps / BPS for a, b, bps in risk.correlations_bps}
    related = np.array([[1.0 if a == b else known[frozenset((a, b))] for b in tokens] for a in tokens])
    off = values - targets * values.sum()
    return float(
        0.5 * 2 * float(risk.cost_bps) * risk.horizon_s / 31_536_000 / start.sum() * off @ (related * np.outer(spread, spread)) @ off
    )


@examples(3)
@given(markets())
def test_zone_plan_saves_more_than_its_cost_and_than_less_of_it(step: StepInput) -> None:
    """To within the gas of a leg and its approval, which are weighed pool by pool; where plan_cost cuts a plan, a smaller one may fit."""
    proposal = propose_rebalance(step)
    if proposal.plan is None:
        assert isinstance(proposal.decision_result.decision, Hold)
        return
    plan = proposal.plan
    saving = plan.zone_tradeoff
    check_legs(step, plan)
    raw_by_token = {h.token: h.raw for h in step.snapshot.holdings}
    saved_risk = loss(step, raw_by_token) - loss(step, dict(plan.holdings_after))
    assert float(saving.saved_risk) / COIN == pytest.approx(saved_risk, rel=1e-9, abs=1e-9)
    assert saving.cost == max(plan.cost.fees + plan.cost.impact + plan.cost.skew, Fraction(0)) + plan.cost.gas + saving.approval_gas
    assert saving.saved_risk > saving.cost
    net = net_saving(proposal)
    if is_near_plan_cost(step, plan):
        return
    for part in (Fraction(1, 2), Fraction(9, 10)):
        total = sum((raw * unit_value(step, at) for at, raw in raw_by_token.items()), Fraction(0))
        part_bps = int(plan.turnover * part / total * BPS)
        less = propose_rebalance(with_limits(step, turnover_bps=part_bps, min_trade=None)) if part_bps else None
        if less is not None and less.plan is not None:
            assert net_saving(less) <= net + 0.5 + net / 200, f"{part_bps} bps of turnover would do better"


@examples(8)
@given(markets())
def test_zone_plan_gap_covers_the_risk(step: StepInput) -> None:
    """Without gas and smallest trades, which are no part of the bound, next to nothing is left to the best plan there is."""
    step = without_gas(with_limits(step, min_trade=None))
    decision = decide(step).decision
    if not isinstance(decision, Rebalance):
        return
    try:
        plan = planner.plan(step, decision)
    except planner.NothingPlanned as error:
        # the trigger takes cost_bps for the cost of a trade, and these pools are dearer
        assert mentions(error.message, "costs more than the risk it saves") or mentions(error.message, "limits.plan_cost")
        return
    assert plan.zone_tradeoff.saved_risk > 0, "what is cheap to move is never moved the wrong way"
    leaves_pools_out = any("would exceed limits.plan_cost" in item.why for item in plan.skipped)
    assert leaves_pools_out or is_near_plan_cost(step, plan) or gap_of(plan) <= Fraction(1, 10)


def is_near_plan_cost(step: StepInput, plan: Plan) -> bool:
    """Whether plan_cost may cut the plan: what fits within it is no convex problem."""
    return plan.cost.total * BPS > plan.turnover * step.limits.plan_cost_bps * Fraction(3, 4)


def net_saving(proposal: Proposal) -> float:
    saving = proposal.plan.zone_tradeoff
    return float(saving.saved_risk - proposal.plan.cost.total - saving.approval_gas) / COIN


def test_zone_plan_counts_native_coin_as_wrapped() -> None:
    """All of the coin is native: the wallet's balance of the wrapped token is the same before and after."""
    trigger = NoTradeZone(tracking("WETH", "USDC", cost_bps=5))
    step = native_step(35 * ETHER, weth=0, usdc=30_000)
    step = replace(step, policy=replace(step.policy, trigger=trigger, destination=Destination.ZONE))
    plan = proposed_plan(step)
    assert plan.native_after_wei is not None
    assert dict(plan.holdings_after)[token("WETH").address] == 0
    assert plan.zone_tradeoff.approval_gas == 0, "native coin needs none"
    assert plan.zone_tradeoff.saved_risk > plan.zone_tradeoff.risk_before * Fraction(9, 10)
