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
from tests.support.builders import NOW_S, brought_up, split, strategy, token, v2_pool, with_limits, zoned
from tests.support.constants import DAY_S
from tests.support.decisions.max_weights import step_with_max_weights
from tests.support.planning_worlds import DEEP
from tests.support.text import mentions

WETH = token("WETH").address
USDC = token("USDC").address
UNDUE: Mapping[str, Trigger] = {
    "interval": Every(28 * DAY_S),
    "hybrid": HybridTrigger(Threshold(None, 1_000), Every(28 * DAY_S)),
    "review": StagedTrigger(Every(7 * DAY_S), Every(28 * DAY_S), None),
    "drawdown": Drawdown(2_000, DAY_S, ()),
}


def step_between_reviews(trigger: Trigger, weth: int = 6_400, **policy: object) -> StepInput:
    """Ten thousand dollars, half of them wanted in WETH and 60 % at most, rebalanced an hour ago."""
    step = step_with_max_weights({"WETH": 6_000}, {"WETH": weth, "USDC": 10_000 - weth}, depth=DEEP)
    history = replace(step.history, reviews=replace(step.history.reviews, last_rebalance_s=NOW_S - 3_600, last_review_s=NOW_S - 3_600))
    return replace(step, policy=replace(step.policy, trigger=trigger, cooldown_s=0, **policy), history=history)  # type: ignore[arg-type]


def weth_bps_after(step: StepInput) -> Fraction:
    """Weight of WETH that the plan leaves, in bps."""
    plan = proposals.propose_rebalance(step).plan
    return Fraction(dict(plan.weights_after_bps)[WETH])


@pytest.mark.parametrize("name", UNDUE)
def test_max_weight_reduces_under_a_trigger_that_waits(name: str) -> None:
    assert isinstance(decide(step_between_reviews(UNDUE[name], 6_000)).decision, Hold), "at its limit it waits"
    step = step_between_reviews(UNDUE[name])
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Rebalance)
    assert decision_result.decision.by_trigger
    assert mentions(decision_result.decision.reason, "WETH", "64 %", "limits.max_weight", "60 %")
    assert weth_bps_after(step) == pytest.approx(5_000, abs=20)


def test_max_weight_reduces_halfway_below_the_limit() -> None:
    step = step_between_reviews(Every(28 * DAY_S), 8_000, destination=Destination.HALFWAY)
    assert 5_900 < weth_bps_after(step) <= 6_000


def test_max_weight_reduces_in_a_zone() -> None:
    targets = {"WETH": 5_000, "USDC": 5_000}
    values = {"WETH": 6_400, "USDC": 3_600}
    step = zoned(targets, values, depth=DEEP)
    assets = tuple(replace(asset, max_bps=6_000 if asset.token.address == WETH else None) for asset in step.portfolio.assets)
    step = replace(step, portfolio=replace(step.portfolio, assets=assets))
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Rebalance)
    assert "limits.max_weight" in decision_result.decision.reason
    assert 5_900 < weth_bps_after(step) <= 6_000


def test_max_weight_sells_nothing_when_only_buying() -> None:
    step = step_between_reviews(Every(28 * DAY_S), trade_side=TradeSide.BUY)
    assert isinstance(decide(step).decision, Hold)
    assert bands.overweight_assets(decide(step).drifts), "it is told all the same"


def test_max_weight_at_the_target_holds() -> None:
    step = step_between_reviews(Every(28 * DAY_S))
    assets = tuple(replace(asset, max_bps=5_000 if asset.token.address == WETH else None) for asset in step.portfolio.assets)
    assert isinstance(decide(replace(step, portfolio=replace(step.portfolio, assets=assets))).decision, Hold)


def test_max_weight_is_confirmed_by_past_blocks() -> None:
    step = step_between_reviews(Every(28 * DAY_S))
    prices = reference_prices(step).price_by_token
    assert trigger_signals(step, prices) == {("above limits.max_weight", WETH)}
    waits = decide(replace(step, policy=replace(step.policy, confirm_blocks=2)))
    assert isinstance(waits.decision, Hold)
    assert waits.decision.limiting_rule == "policy.confirm_blocks"


def zone_step_above_max_weight() -> StepInput:
    values = {"WETH": 6_400, "USDC": 3_600}
    step = zoned({"WETH": 5_000, "USDC": 5_000}, values, pools=[v2_pool(token("WETH"), token("USDC"), 2_000, DEEP)])
    assets = tuple(replace(asset, max_bps=6_000 if asset.token.address == WETH else None) for asset in step.portfolio.assets)
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


@pytest.mark.parametrize("step", [step_between_reviews(Threshold(None, 1_000)), zone_step_above_max_weight()], ids=["band", "zone"])
def test_max_weight_is_no_signal_where_only_is_bought(step: StepInput) -> None:
    buying = replace(step, policy=replace(step.policy, trade_side=TradeSide.LOSERS))
    signals = trigger_signals(buying, reference_prices(step).price_by_token)
    assert (bands.TOO_LITTLE, USDC) in signals
    assert (bands.ABOVE_MAX_WEIGHT, WETH) not in signals


@pytest.mark.parametrize("limiting_rule", ["limits.plan_cost", "policy.cooldown", "limits.min_trade"])
def test_max_weight_that_must_wait_is_a_hold_with_an_alert(limiting_rule: str) -> None:
    step = step_between_reviews(Every(28 * DAY_S))
    match limiting_rule:
        case "limits.plan_cost":
            step = with_limits(step, plan_cost_bps=1)
        case "limits.min_trade":
            step = with_limits(step, min_trade=Fraction(2_000 * 10**6))
        case _:
            step = replace(step, policy=replace(step.policy, cooldown_s=DAY_S))
    decision_result = proposals.propose_rebalance(step).decision_result
    assert isinstance(decision_result.decision, Hold), decision_result.decision
    assert decision_result.decision.limiting_rule == limiting_rule, decision_result.decision
    outcome = StepOutcome("1", OutcomeKind.HOLD, decision_result.decision.reason, step, decision_result, None)
    (alert,) = drift_alerts(outcome)
    assert alert.kind is AlertKind.PRICE
    assert alert.is_lasting
    assert alert.key == f"max_weight:{WETH}"
    assert mentions(alert.text, "WETH", "64 %", "limits.max_weight", "60 %")


def test_max_weight_reduces_strategies_together() -> None:
    step = step_between_reviews(Every(28 * DAY_S))
    strategies = [strategy(name, 5_000, {"WETH": 5_000, "USDC": 5_000}, Every(28 * DAY_S)) for name in ("one", "two")]
    step = brought_up(step.with_config(split(*strategies)))
    books = step.layer(StrategiesState).books
    strategy_books = tuple(replace(book, last_rebalance_s=NOW_S - 3_600) for book in books.strategy_books)
    step = step.with_layer(StrategiesState(replace(books, strategy_books=strategy_books)))
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Rebalance)
    assert "limits.max_weight" in decision_result.decision.reason
    assert not decision_result.layer(StrategiesResult).is_netting_only
    assert 5_900 < weth_bps_after(step) <= 6_000
    assert codec.loads(StepInput, codec.dumps(step)) == step


def test_reduction_goal_ends_at_a_target_near_the_limit() -> None:
    """LINK is above its target too, so that less lacks than WETH has to sell."""
    weth, usdc = decide(step_between_reviews(Every(28 * DAY_S))).drifts
    link = replace(weth, token=token("LINK").address, share=Fraction(32, 100), target_bps=3_000, max_bps=None)
    drifts = [
        replace(weth, share=Fraction(60, 100), target_bps=4_000, max_bps=4_001),
        replace(usdc, share=Fraction(8, 100), target_bps=3_000),
        link,
    ]
    goal = {weight.token: weight.low for weight in bands.reduction_goal(drifts).weights}
    assert goal == {WETH: Fraction(40, 100), USDC: Fraction(28, 100), link.token: Fraction(32, 100)}


@pytest.mark.parametrize("weth_usd", [6_400, 9_900])
def test_reduction_goal_moves_the_excess_to_what_lacks(weth_usd: int) -> None:
    drifts = decide(step_between_reviews(Every(28 * DAY_S), weth_usd)).drifts
    down = {weight.token: weight.low for weight in bands.reduction_goal(drifts).weights}
    assert sum(down.values()) == 1
    assert down[WETH] == Fraction(6_000 - bands.LIMIT_MARGIN_BPS, BPS)
    assert down[USDC] > 0
