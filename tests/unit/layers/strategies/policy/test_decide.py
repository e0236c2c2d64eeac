"""Tests of agent/layers/strategies/policy/decide.py: what is traded, only netted, reviewed or halted with several strategies."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.app.alerting import RunFacts, cycle_alerts
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.inputs import apply_effective_targets
from agent.layers.strategies.policy import accounting, netting
from agent.layers.strategies.policy.decide import StrategiesResult
from agent.layers.strategies.policy.inputs import combine_targets
from agent.layers.strategies.policy.netting import NettingResult
from agent.layers.strategies.state import StrategiesState, StrategyHealth, StrategyLedger, StrategyState
from agent.model import Every, Halt, HaltCode, Hold, HybridTrigger, Rebalance, StepInput, Threshold, TradeSide
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import decide
from agent.policy.decision import DecisionResult
from agent.units import BPS
from tests.support.builders import (
    NOW_S,
    balances,
    books_of,
    brought_up,
    history,
    opening,
    price_of,
    split,
    step_input,
    strategy,
    with_state,
)
from tests.support.constants import DAY_S, HOUR_S, USD
from tests.support.strategies import DOWN, HALF, UP, shared_step
from tests.support.text import mentions

UP_AND_DOWN = (strategy("up", 5_000, UP), strategy("down", 5_000, DOWN))
UP_MORE = (strategy("up", 7_000, UP), strategy("down", 3_000, DOWN))


def netting_of(decision_result: DecisionResult) -> NettingResult:
    result = decision_result.layer(StrategiesResult).netting
    assert result is not None
    return result


def with_last_rebalance(step: StepInput, name: str, last_s: int) -> StepInput:
    """Return the step with the time of this strategy's last rebalance."""
    books = books_of(step)
    changed = tuple(replace(book, last_rebalance_s=last_s) if book.name == name else book for book in books.strategy_books)
    return step.with_layer(StrategiesState(replace(books, strategy_books=changed)))


# --- trades and netting


def test_opposite_strategies_are_netted_and_nothing_is_traded() -> None:
    step = shared_step(*UP_AND_DOWN)
    decision_result = decide(step)
    booking = accounting.netting_booking(step, "s1", netting.strategy_adjustments)
    assert booking is not None
    step_after = brought_up(step, replace(StrategyLedger(), bookings=(*books_of(step).unstored_bookings, booking)))

    assert isinstance(decision_result.decision, Hold)
    assert decision_result.layer(StrategiesResult).is_netting_only
    assert propose_rebalance(step).plan is None
    assert mentions(decision_result.decision.reason, "1500 USDC", "never in")
    assert isinstance(decide(step_after).decision, Hold)
    assert not decide(step_after).layer(StrategiesResult).is_netting_only


def test_rest_of_the_strategies_is_traded_towards_one_goal() -> None:
    """2,100 are wanted, 900 of them from the other strategy."""
    proposal = propose_rebalance(shared_step(*UP_MORE, depth=100_000_000))
    decision = proposal.decision_result.decision

    assert isinstance(decision, Rebalance)
    assert decision.goal == netting_of(proposal.decision_result).goal
    assert abs(proposal.plan.turnover - 1_200 * USD) < 10 * USD
    assert "900 USDC" in decision.reason


def test_paused_strategy_is_sold() -> None:
    step = shared_step(strategy("bad", 5_000, UP, floor_bps=1_000), strategy("good", 5_000, HALF))

    assert isinstance(decide(with_state(step, StrategyState("bad", StrategyHealth.PAUSED, NOW_S))).decision, Rebalance)
    assert isinstance(decide(shared_step(strategy("a", 5_000, HALF), strategy("b", 5_000, HALF))).decision, Hold)


@pytest.mark.parametrize("side", TradeSide)
def test_paused_strategy_is_sold_under_every_side(side: TradeSide) -> None:
    step = shared_step(strategy("bad", 5_000, UP, floor_bps=5_000), strategy("good", 5_000, HALF))
    paused_step = with_state(step, StrategyState("bad", StrategyHealth.PAUSED, NOW_S))

    decision_result = decide(replace(paused_step, policy=replace(step.policy, trade_side=side)))

    assert isinstance(decision_result.decision, Rebalance)
    assert [float(weight.high) for weight in decision_result.decision.goal.weights] == [0.25, 0.75]


@pytest.mark.parametrize(
    ("small_bps", "min_trade", "confirm_blocks", "is_reduced"),
    [
        pytest.param(500, 300, 0, True, id="too small a trade of a strategy"),
        pytest.param(1_000, 50, 0, True, id="a trade of a strategy beside it"),
        pytest.param(1_000, 50, 3, False, id="not confirmed"),
    ],
)
def test_weight_above_its_limit_is_reduced_though_a_strategy_acts(
    small_bps: int, min_trade: int, confirm_blocks: int, is_reduced: bool
) -> None:
    wide = strategy("wide", BPS - small_bps, HALF, Threshold(4_000, None))
    timed = strategy("timed", small_bps, HALF, Every(DAY_S))
    step = step_input(values={"WETH": 7_000, "USDC": 3_000}, depth=100_000_000)
    [weth, usdc] = step.portfolio.assets
    step = replace(
        step,
        portfolio=replace(step.portfolio, assets=(replace(weth, max_bps=6_000), usdc)),
        limits=replace(step.limits, min_trade=Fraction(min_trade * USD)),
        policy=replace(step.policy, confirm_blocks=confirm_blocks),
    )

    decision_result = decide(brought_up(step.with_config(split(wide, timed))))
    decision = decision_result.decision

    assert [adjustment.name for adjustment in netting_of(decision_result).adjustments if adjustment.acts] == ["timed"]
    assert mentions(decision.reason, "timed acts", "WETH at 70 % is above limits.max_weight of 60 %")
    assert decision_result.is_reviewed == is_reduced
    assert isinstance(decision, Rebalance) == is_reduced
    if isinstance(decision, Rebalance):
        assert decision.goal.weights[0].high == Fraction(595, 1_000)


def test_strategy_waits_for_the_blocks_before() -> None:
    step = shared_step(*UP_AND_DOWN)

    decision_result = decide(replace(step, policy=replace(step.policy, confirm_blocks=3)))

    assert not decision_result.layer(StrategiesResult).is_netting_only
    assert not any(adjustment.acts for adjustment in netting_of(decision_result).adjustments)
    assert mentions(decision_result.decision.reason, "3 preceding", "missing")


# --- reviews


def test_schedule_is_reviewed_by_each_strategy_for_itself() -> None:
    strategies = (strategy("timed", 5_000, UP, Every(DAY_S)), strategy("banded", 5_000, HALF))
    first = decide(shared_step(*strategies))
    reviewed_past = history(by_schedule=(("timed: review every 86400", NOW_S - HOUR_S),))
    second = decide(shared_step(*strategies, past=reviewed_past))

    assert (first.is_reviewed, first.due_schedules) == (True, ("timed: review every 86400",))
    assert isinstance(second.decision, Hold)
    assert not second.is_reviewed
    assert not any(adjustment.acts for adjustment in netting_of(second).adjustments)


@pytest.mark.parametrize(
    ("cooldown_s", "confirm_blocks", "next_s"),
    [
        pytest.param(36 * HOUR_S, 0, NOW_S + 12 * HOUR_S - 60, id="cooldown"),
        pytest.param(0, 3, None, id="preceding blocks"),
    ],
)
def test_review_of_a_strategy_that_waits_stays_due(cooldown_s: int, confirm_blocks: int, next_s: int | None) -> None:
    last_s = NOW_S - DAY_S - 60
    timed = strategy("timed", 5_000, UP, HybridTrigger(Threshold(500, None), Every(DAY_S)), cooldown_s=cooldown_s)
    other = strategy("other", 5_000, HALF, Every(DAY_S))
    reviewed_past = history(by_schedule=(("timed: review every 86400", last_s), ("other: review every 86400", NOW_S - HOUR_S)))
    step = with_last_rebalance(shared_step(timed, other, past=reviewed_past), "timed", last_s)

    decision_result = decide(replace(step, policy=replace(step.policy, confirm_blocks=confirm_blocks)))
    [waiting, _] = netting_of(decision_result).adjustments

    assert isinstance(decision_result.decision, Hold)
    assert not decision_result.is_reviewed
    assert decision_result.due_schedules == ()
    assert not waiting.acts
    assert waiting.next_s == next_s


# --- targets, halts and records


def test_targets_of_the_portfolio_are_those_of_all_strategies() -> None:
    step = apply_effective_targets(step_input().with_config(split(strategy("up", 6_000, UP), strategy("down", 4_000, DOWN))))

    assert [asset.target_bps for asset in step.effective_assets] == [5_600, 4_400]
    assert "up 60 %, down 40 %" in step.targets.reasons[-1]


def test_paused_strategy_targets_the_numeraire_alone() -> None:
    """Without a trade of its own; what another asset above its limit frees buys nothing for it."""
    bad = strategy("bad", 5_000, {"WETH": 10_000}, floor_bps=4_000)
    good = strategy("good", 5_000, {"LINK": 5_000, "USDC": 5_000}, Threshold(4_000, None))
    step = step_input(targets_bps={"WETH": 3_000, "LINK": 3_000, "USDC": 4_000}, values={"WETH": 0, "LINK": 4_200, "USDC": 5_800})
    assets = tuple(replace(asset, max_bps=3_500) if asset.token.symbol == "LINK" else asset for asset in step.portfolio.assets)
    step = replace(step, portfolio=replace(step.portfolio, assets=assets)).with_config(split(bad, good))
    ledger = opening({"bad": {"USDC": 4_000}, "good": {"LINK": Fraction(4_200) / Fraction(price_of("LINK", None)), "USDC": 1_800}})

    step = combine_targets(with_state(brought_up(step, ledger), StrategyState("bad", StrategyHealth.PAUSED, NOW_S)))
    decision = decide(step).decision

    assert [asset.target_bps for asset in step.effective_assets] == [0, 3_000, 7_000]
    assert isinstance(decision, Rebalance)
    assert mentions(decision.reason, "LINK", "above limits.max_weight")
    assert [weight.high for weight in decision.goal.weights[:2]] == [0, Fraction(345, 1_000)]


STEP = shared_step(*UP_AND_DOWN)


@pytest.mark.parametrize(
    ("step", "reasons"),
    [
        pytest.param(
            brought_up(balances(STEP, WETH="2.4"), StrategyLedger(books_of(STEP).unstored_bookings)),
            ("WETH: 2.5", "2.4", "trimtab strategies apply"),
            id="a difference to the wallet",
        ),
        pytest.param(step_input().with_config(split(*UP_AND_DOWN)), ("books of the strategies are missing",), id="no books"),
    ],
)
def test_decision_halts_while_the_books_are_unknown(step: StepInput, reasons: tuple[str, ...]) -> None:
    decision = decide(step).decision

    assert isinstance(decision, Halt)
    assert decision.codes == (HaltCode.STRATEGIES,)
    assert mentions(decision.reason, *reasons)


def test_recorded_step_decides_the_same() -> None:
    step = shared_step(*UP_MORE)

    step_read = codec.loads(StepInput, codec.dumps(step))

    assert step_read == step
    assert decide(step_read) == decide(step)


@pytest.mark.parametrize(
    ("step", "texts"),
    [
        pytest.param(STEP, (), id="active"),
        pytest.param(
            with_state(STEP, StrategyState("up", StrategyHealth.PAUSED, NOW_S, "the Sharpe ratio was low")),
            (("up", "paused", "USDC", "Sharpe ratio", "trimtab strategies"),),
            id="paused",
        ),
    ],
)
def test_paused_strategy_is_a_lasting_alert(step: StepInput, texts: tuple[tuple[str, ...], ...]) -> None:
    facts = RunFacts(paused=False, heartbeat_fault="", low_gas_wei=None)
    decision_result = decide(step)
    outcome = StepOutcome("s", OutcomeKind.HOLD, decision_result.decision.reason, step, decision_result, None)

    alerts = [alert for alert in cycle_alerts(outcome, facts) if alert.key == "strategy:up" and alert.is_lasting]

    assert len(alerts) == len(texts)
    assert all(mentions(alert.text, *terms) for alert, terms in zip(alerts, texts, strict=True))
