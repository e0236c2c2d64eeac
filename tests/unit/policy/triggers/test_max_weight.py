"""A weight above limits.max_weight is brought down under every trigger, unless cost, side or cooldown forbid; then it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.app.alerting import drift_alerts
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.strategies.policy.decide import StrategiesResult
from agent.layers.strategies.state import StrategiesState
from agent.model import (
    AlertKind,
    Destination,
    Drawdown,
    Every,
    Hold,
    HybridTrigger,
    Rebalance,
    StagedTrigger,
    StepInput,
    Threshold,
    TradeSide,
    Trigger,
)
from agent.planning import proposals
from agent.policy.decide import decide
from agent.policy.triggers import bands
from agent.policy.triggers.price_confirmation import trigger_signals
from agent.reference import reference_prices
from agent.units import BPS
from tests.support.builders import NOW_S, brought_up, split, strategy, token, with_limits, zoned
from tests.support.decisions.max_weights import step_with_max_weights as capped
from tests.support.planning_worlds import DEEP
from tests.support.text import mentions

WETH, USDC = token("WETH").address, token("USDC").address
DAY_S = 86_400
UNDUE: Mapping[str, Trigger] = {
    "interval": Every(28 * DAY_S),
    "hybrid": HybridTrigger(Threshold(None, 1_000), Every(28 * DAY_S)),
    "review": StagedTrigger(Every(7 * DAY_S), Every(28 * DAY_S), None),
    "drawdown": Drawdown(2_000, DAY_S, ()),
}


def undue(trigger: Trigger, weth: int = 6_400, **policy: object) -> StepInput:
    """Ten thousand dollars, half of them wanted in WETH and 60 % at most, rebalanced an hour ago."""
    step = capped({"WETH": 6_000}, {"WETH": weth, "USDC": 10_000 - weth}, depth=DEEP)
    history = replace(step.history, reviews=replace(step.history.reviews, last_rebalance_s=NOW_S - 3_600, last_review_s=NOW_S - 3_600))
    return replace(step, policy=replace(step.policy, trigger=trigger, cooldown_s=0, **policy), history=history)  # type: ignore[arg-type]


def after(step: StepInput) -> Fraction:
    """Weight of WETH that the plan leaves, in bps."""
    plan = proposals.propose_rebalance(step).plan
    assert plan is not None
    return Fraction(dict(plan.weights_after_bps)[WETH])


@pytest.mark.parametrize("name", UNDUE)
def test_a_weight_above_its_limit_is_brought_down_under_a_trigger_that_waits(name: str) -> None:
    assert isinstance(decide(undue(UNDUE[name], 6_000)).decision, Hold), "at its limit it waits"
    step = undue(UNDUE[name])
    decided = decide(step)
    assert isinstance(decided.decision, Rebalance)
    assert decided.decision.by_trigger
    assert mentions(decided.decision.reason, "WETH", "64 %", "limits.max_weight", "60 %")
    assert after(step) == pytest.approx(5_000, abs=20)


def test_half_of_the_way_ends_below_the_limit_too() -> None:
    step = undue(Every(28 * DAY_S), 8_000, destination=Destination.HALFWAY)
    assert 5_900 < after(step) <= 6_000


def test_a_zone_does_what_the_limit_demands_whatever_it_saves() -> None:
    targets, values = {"WETH": 5_000, "USDC": 5_000}, {"WETH": 6_400, "USDC": 3_600}
    step = zoned(targets, values, depth=DEEP)
    assets = tuple(replace(one, max_bps=6_000 if one.token.address == WETH else None) for one in step.portfolio.assets)
    step = replace(step, portfolio=replace(step.portfolio, assets=assets))
    decided = decide(step)
    assert isinstance(decided.decision, Rebalance)
    assert "limits.max_weight" in decided.decision.reason
    assert 5_900 < after(step) <= 6_000


def test_only_buy_sells_nothing_and_says_so() -> None:
    step = undue(Every(28 * DAY_S), trade_side=TradeSide.BUY)
    assert isinstance(decide(step).decision, Hold)
    assert bands.overweight_assets(decide(step).drifts), "it is told all the same"


def test_a_limit_at_the_target_asks_for_nothing() -> None:
    step = undue(Every(28 * DAY_S))
    assets = tuple(replace(one, max_bps=5_000 if one.token.address == WETH else None) for one in step.portfolio.assets)
    assert isinstance(decide(replace(step, portfolio=replace(step.portfolio, assets=assets))).decision, Hold)


def test_the_blocks_before_have_to_ask_for_it_too() -> None:
    step = undue(Every(28 * DAY_S))
    prices = reference_prices(step).price_by_token
    assert trigger_signals(step, prices) == {("above limits.max_weight", WETH)}
    waits = decide(replace(step, policy=replace(step.policy, confirm_blocks=2)))
    assert isinstance(waits.decision, Hold)
    assert waits.decision.limiting_rule == "policy.confirm_blocks"


@pytest.mark.parametrize("limiting_rule", ["limits.plan_cost", "policy.cooldown", "limits.min_trade"])
def test_what_cost_or_cooldown_forbids_is_a_hold_with_an_alert(limiting_rule: str) -> None:
    step = undue(Every(28 * DAY_S))
    match limiting_rule:
        case "limits.plan_cost":
            step = with_limits(step, plan_cost_bps=1)
        case "limits.min_trade":
            step = with_limits(step, min_trade=Fraction(2_000 * 10**6))
        case _:
            step = replace(step, policy=replace(step.policy, cooldown_s=DAY_S))
    found = proposals.propose_rebalance(step).decision_result
    assert isinstance(found.decision, Hold), found.decision
    assert found.decision.limiting_rule == limiting_rule, found.decision
    outcome = StepOutcome("1", OutcomeKind.HOLD, found.decision.reason, step, found, None)
    (alert,) = drift_alerts(outcome)
    assert alert.kind is AlertKind.PRICE
    assert alert.is_lasting
    assert alert.key == f"max_weight:{WETH}"
    assert mentions(alert.text, "WETH", "64 %", "limits.max_weight", "60 %")


def test_strategies_over_one_wallet_are_brought_down_together() -> None:
    step = undue(Every(28 * DAY_S))
    lazy = [strategy(name, 5_000, {"WETH": 5_000, "USDC": 5_000}, Every(28 * DAY_S)) for name in ("one", "two")]
    step = brought_up(step.with_config(split(*lazy)))
    named = step.layer(StrategiesState).books
    assert named is not None
    rested = tuple(replace(one, last_rebalance_s=NOW_S - 3_600) for one in named.strategy_books)
    step = step.with_layer(StrategiesState(replace(named, strategy_books=rested)))
    decided = decide(step)
    assert isinstance(decided.decision, Rebalance)
    assert "limits.max_weight" in decided.decision.reason
    assert not decided.layer(StrategiesResult).is_netting_only
    assert 5_900 < after(step) <= 6_000
    assert codec.loads(StepInput, codec.dumps(step)) == step


@pytest.mark.parametrize("weths", [6_400, 9_900])
def test_what_is_sold_goes_to_what_lacks_most(weths: int) -> None:
    drifts = decide(undue(Every(28 * DAY_S), weths)).drifts
    down = {one.token: one.low for one in bands.reduction_goal(drifts).weights}
    assert sum(down.values()) == 1
    assert down[WETH] == Fraction(6_000 - bands.LIMIT_MARGIN_BPS, BPS)
    assert down[USDC] > 0
