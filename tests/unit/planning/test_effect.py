"""A triggered plan must help what fired: most of a drift that no route within plan_cost corrects is no reason to trade the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.model import (
    Cron,
    Destination,
    Every,
    Goal,
    GoalWeight,
    Hold,
    HybridTrigger,
    Plan,
    Rebalance,
    SkippedItem,
    StepInput,
    Threshold,
    TradeSide,
    Trigger,
)
from agent.planning.effect import EFFECT_RULE, little_effect_reason
from agent.planning.partial_plans import plan_within_daily_loss
from agent.planning.proposals import decision_after_plan, propose_rebalance
from agent.policy.decide import decide
from agent.reference import reference_prices
from tests.support.builders import GWEI, NOW_S, history, price_of, split, step_input, strategy, token, v2_pool, with_limits, with_snapshot
from tests.support.text import mentions

TARGETS = {"WBTC": 5_000, "WETH": 3_000, "USDC": 2_000}
VALUES = {"WBTC": 27_500, "WETH": 12_750, "USDC": 10_000}
"""BTC rose by a tenth, ETH fell by 15 %: the exchange of one for the other costs two pools of 30 bps, and plan_cost is 50."""
BAND = Threshold(None, 1_000)
TEN_DAYS_S = 864_000


def step_without_cheap_route(
    values: Mapping[str, int | Fraction] | None = None,
    trigger: Trigger = BAND,
    destination: Destination = Destination.TARGET,
    **changes: Any,
) -> StepInput:
    step = step_input(
        TARGETS,
        values or VALUES,
        depth=10**9,
        trigger=trigger,
        destination=destination,
        past=history(last_rebalance_s=NOW_S - TEN_DAYS_S),
        cooldown_s=0,
        **changes,
    )
    head = step.snapshot.head
    return with_snapshot(step, priority_fee_wei=0, head=replace(head, base_fee_wei=GWEI // 100))


def is_effect_hold(step: StepInput) -> bool:
    """Whether the step holds for this rule; status says the same as the run."""
    decision = propose_rebalance(step).decision_result.decision
    is_held = isinstance(decision, Hold) and decision.limiting_rule == EFFECT_RULE
    assert decision_after_plan(step).decision == decision or not is_held
    return is_held


def plan_of(step: StepInput) -> Plan:
    plan = propose_rebalance(step).plan
    assert plan is not None
    return plan


@pytest.mark.parametrize(
    "trigger",
    [BAND, Threshold(300, None), HybridTrigger(BAND, Every(3_600)), Every(3_600), Cron("0 * * * *", "UTC")],
    ids=["relative", "absolute", "hybrid", "every", "cron"],
)
def test_effect_holds_a_drift_without_route_for_any_trigger(trigger: Trigger) -> None:
    step = step_without_cheap_route(trigger=trigger)
    assert is_effect_hold(step)
    proposal = propose_rebalance(step)
    reason = proposal.decision_result.decision.reason
    assert mentions(reason, "no route within limits.plan_cost", "WBTC to USDC to WETH 60 bps, limit 50 bps", "removes", "held")
    assert proposal.plan is None
    schedules = isinstance(trigger, Every | Cron | HybridTrigger)
    assert proposal.decision_result.is_reviewed is schedules, "the review is done"


def test_effect_trades_a_drift_that_is_half_correctable() -> None:
    """The cash is as far below its target as ETH is."""
    step = step_without_cheap_route({"WBTC": 30_000, "WETH": 12_500, "USDC": 7_500})
    assert not is_effect_hold(step)
    assert plan_of(step).turnover > 2_000 * 10**6


def test_effect_trades_a_drift_with_a_cheap_pool() -> None:
    bitcoin, ether = (price_of(symbol, None) for symbol in ("WBTC", "WETH"))
    direct = v2_pool(token("WBTC"), token("WETH"), bitcoin / ether, 10**6, fee_pips=500)
    step = step_without_cheap_route()
    step = with_snapshot(step, pools=(*step.snapshot.pools, direct))
    assert not is_effect_hold(step)
    after = dict(plan_of(step).weights_after_bps)
    assert after[token("WETH").address] == pytest.approx(3_000, abs=30)


@pytest.mark.parametrize("plan_cost_bps", [61, 80])
def test_effect_trades_where_plan_cost_allows_the_route(plan_cost_bps: int) -> None:
    step = with_limits(step_without_cheap_route(), plan_cost_bps=plan_cost_bps)
    assert not is_effect_hold(step)
    assert isinstance(propose_rebalance(step).decision_result.decision, Rebalance)


@pytest.mark.parametrize("turnover_bps", [20, 100])
def test_effect_trades_a_plan_cut_by_turnover(turnover_bps: int) -> None:
    """A cut is not a skip: the rest follows."""
    step = with_limits(step_without_cheap_route({"WBTC": 35_000, "WETH": 15_000, "USDC": 0}), turnover_bps=turnover_bps)
    assert not is_effect_hold(step)
    assert plan_of(step).turnover > 0


def test_effect_trades_halfway_by_design() -> None:
    step = step_without_cheap_route({"WBTC": 30_000, "WETH": 15_000, "USDC": 5_000}, Every(3_600), Destination.HALFWAY)
    assert not is_effect_hold(step)


@pytest.mark.parametrize("side", [TradeSide.SELL, TradeSide.BUY])
def test_effect_ignores_the_side_that_policy_does_not_trade(side: TradeSide) -> None:
    values = {"WBTC": 30_000, "WETH": 12_000, "USDC": 8_000} if side is TradeSide.SELL else {"WBTC": 25_000, "WETH": 11_000, "USDC": 14_000}
    step = step_without_cheap_route(values)
    step = replace(step, policy=replace(step.policy, trade_side=side))
    assert not is_effect_hold(step)
    assert plan_of(step).turnover > 1_000 * 10**6


def test_effect_allows_reducing_a_weight_above_its_limit() -> None:
    step = step_without_cheap_route()
    assets = tuple(replace(asset, max_bps=5_200) if asset.token.symbol == "WBTC" else asset for asset in step.portfolio.assets)
    step = replace(step, portfolio=replace(step.portfolio, assets=assets))
    assert not is_effect_hold(step)


def test_effect_holds_at_each_of_ten_prices() -> None:
    """Before: 44 rebalances of some dollars of cash, and ETH never corrected."""
    trades = 0
    values = {symbol: Fraction(value) for symbol, value in VALUES.items()}
    for hour in range(0, 240, 24):
        wobble = 1 + Fraction((hour * 7) % 11 - 5, 2_000)
        step = step_without_cheap_route({symbol: value * (wobble if symbol == "WBTC" else 1) for symbol, value in values.items()})
        trades += propose_rebalance(step).plan is not None
    assert trades == 0


EXEMPT: dict[str, Callable[[StepInput, Rebalance], tuple[StepInput, Rebalance]]] = {
    "a request of the owner": lambda step, decision: (step, replace(decision, by_owner=True)),
    "a part of a purchase": lambda step, decision: (step, replace(decision, exempt_turnover=Fraction(1))),
    "a part of a divided wallet": lambda step, decision: (step.with_config(split(strategy("all", 10_000, TARGETS))), decision),
}


@pytest.mark.parametrize("change", EXEMPT.values(), ids=EXEMPT)
def test_effect_judges_only_plans_of_a_trigger(
    change: Callable[[StepInput, Rebalance], tuple[StepInput, Rebalance]],
) -> None:
    step = step_without_cheap_route()
    decision_result = decide(step)
    decision = decision_result.decision
    assert isinstance(decision, Rebalance)
    plan = plan_within_daily_loss(step, decision)
    reasons = [
        little_effect_reason(judged_step, decision_result.references, decision_result.drifts, judged_decision, plan)
        for judged_step, judged_decision in ((step, decision), change(step, decision))
    ]
    assert mentions(reasons[0], "held")
    assert reasons[1] == ""


@pytest.mark.parametrize("trigger", [BAND, Every(3_600)], ids=["band", "schedule"])
def test_effect_ignores_a_goal_that_removes_no_excess(trigger: Trigger) -> None:
    """The goal is where the weights are: there is nothing to leave, and nothing to divide by."""
    step = step_without_cheap_route(trigger=trigger)
    references = reference_prices(step)
    drifts = decide(step).drifts
    stays = Rebalance("", Goal(tuple(GoalWeight(drift.token, drift.share, drift.share) for drift in drifts)))
    plan = plan_of(with_limits(step, plan_cost_bps=80))
    unmoved = replace(plan, weights_after_bps=tuple((drift.token, drift.weight_bps - 1) for drift in drifts))
    skipped = tuple(SkippedItem(drift.symbol, "plan_cost allows 1; fees 2") for drift in drifts)
    assert little_effect_reason(step, references, drifts, stays, replace(unmoved, skipped=skipped)) == ""
