"""One side alone: exactly what is sold and bought under policy.only, in goals and in plans over pools of every kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import codec
from agent.errors import Refused
from agent.model import Destination, Goal, GoalWeight, Hold, Plan, Rebalance, StepInput, Threshold, TradeSide, Trigger
from agent.planning import planner
from agent.policy.decide import current_drifts, decide
from agent.policy.drift import corrections, rebalance_goal
from agent.policy.one_sided import partial_goal, restrict_to_side
from tests.support.builders import ETHER, step_input, token, with_limits, with_snapshot
from tests.support.planning_worlds import any_problem, check_legs
from tests.support.samples import slow
from tests.support.text import mentions

COIN = 10**6
FOUR = {"WETH": 4_000, "WBTC": 2_000, "LINK": 2_000, "USDC": 2_000}
NOW = {"WETH": 5_200, "WBTC": 2_100, "LINK": 1_300, "USDC": 1_400}
"""WETH is 12 points above, WBTC one, LINK seven below, USDC six."""
TENTH = Threshold(None, 1_000)


def step_of_side(only: TradeSide | None, values: Mapping[str, int] = NOW, trigger: Trigger = TENTH, **changes: object) -> StepInput:
    step = step_input(FOUR, values, {"WBTC": 50_000}, trigger=trigger, **changes)  # type: ignore[arg-type]  # keywords of step_input
    return replace(step, policy=replace(step.policy, trade_side=only))


def goal_changes(step: StepInput) -> dict[str, Fraction]:
    """Whole coins by which each value is to change, where that is said."""
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Rebalance), decision_result.decision
    by_token = corrections(decision_result.drifts, decision_result.decision.goal)
    return {drift.symbol: by_token[drift.token] / COIN for drift in decision_result.drifts if by_token[drift.token]}


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (None, {"WETH": -1_200, "WBTC": -100, "LINK": 700, "USDC": 600}),
        (TradeSide.SELL, {"WETH": -1_200, "WBTC": -100, "USDC": 1_300}),
        (TradeSide.WINNERS, {"WETH": -1_200, "LINK": Fraction(8_400, 13), "USDC": Fraction(7_200, 13)}),
        (TradeSide.LOSERS, {"WETH": -1_200, "WBTC": -100, "LINK": 700, "USDC": 600}),
    ],
)
def test_trade_side_moves_only_that_side(only: TradeSide | None, expected: Mapping[str, Fraction | int]) -> None:
    assert goal_changes(step_of_side(only)) == expected


def test_selling_keeps_an_excess_of_the_numeraire() -> None:
    step = step_of_side(TradeSide.SELL, {"WETH": 5_200, "WBTC": 2_100, "LINK": 300, "USDC": 2_400})

    assert goal_changes(step) == {"WETH": -1_200, "WBTC": -100, "USDC": 1_300}


@pytest.mark.parametrize(
    ("only", "sellable", "buyable"),
    [
        pytest.param(TradeSide.SELL, {"WETH", "WBTC"}, {"USDC"}, id="sell"),
        pytest.param(TradeSide.BUY, {"USDC"}, {"WBTC", "LINK"}, id="buy"),
    ],
)
def test_numeraire_moves_only_against_the_side(only: TradeSide, sellable: set[str], buyable: set[str]) -> None:
    values = NOW if only is TradeSide.SELL else {"WETH": 4_100, "WBTC": 1_700, "LINK": 1_400, "USDC": 2_800}
    step = step_of_side(only, values)
    drifts = decide(step).drifts
    symbols = {drift.token: drift.symbol for drift in drifts}

    goal = restrict_to_side(drifts, rebalance_goal(drifts, Destination.TARGET), only, step.portfolio.numeraire.address)

    assert {symbols[token] for token in symbols.keys() - set(goal.never_sold)} == sellable
    assert {symbols[token] for token in symbols.keys() - set(goal.never_bought)} == buyable


@pytest.mark.parametrize(
    ("low", "high", "part"),
    [
        pytest.param("0.32", "0.32", ("0.47", "0.47"), id="point below the weight"),
        pytest.param("0.6", "0.6", ("0.54", "0.54"), id="point above the weight"),
        pytest.param("0.3", "0.4", ("0.3", "0.49"), id="interval below the weight"),
        pytest.param("0.6", "0.7", ("0.54", "0.7"), id="interval above the weight"),
        pytest.param("0.4", "0.6", ("0.4", "0.6"), id="weight inside"),
        pytest.param("0.52", "0.6", ("0.52", "0.6"), id="weight at the lower edge"),
        pytest.param("0.4", "0.52", ("0.4", "0.52"), id="weight at the upper edge"),
    ],
)
def test_partial_goal_goes_a_quarter_of_the_way_to_an_edge(low: str, high: str, part: tuple[str, str]) -> None:
    """WETH is at 52 %."""
    drift = replace(decide(step_of_side(None)).drifts[0], share=Fraction(52, 100))
    goal = Goal((GoalWeight(drift.token, Fraction(low), Fraction(high)),))

    (weight,) = partial_goal([drift], goal, Fraction(1, 4)).weights

    assert (weight.low, weight.high) == tuple(map(Fraction, part))


def test_losers_are_paid_for_by_all_overweight_in_proportion() -> None:
    step = step_of_side(TradeSide.LOSERS, {"WETH": 4_300, "WBTC": 2_300, "LINK": 1_500, "USDC": 1_900})
    assert goal_changes(step) == {"WETH": -250, "WBTC": -250, "LINK": 500}


def test_buying_spends_only_the_excess_of_the_numeraire() -> None:
    rich = {"WETH": 4_100, "WBTC": 1_700, "LINK": 1_400, "USDC": 2_800}
    assert goal_changes(step_of_side(TradeSide.BUY, rich)) == {"WBTC": Fraction(800, 3), "LINK": Fraction(1_600, 3), "USDC": -800}
    richer = {"WETH": 3_500, "WBTC": 1_700, "LINK": 1_900, "USDC": 2_900}
    assert goal_changes(step_of_side(TradeSide.BUY, richer)) == {"WETH": 500, "WBTC": 300, "LINK": 100, "USDC": -900}


@pytest.mark.parametrize(
    ("only", "values"),
    [
        (TradeSide.BUY, NOW),
        (TradeSide.SELL, {"WETH": 3_000, "WBTC": 1_500, "LINK": 1_500, "USDC": 4_000}),
        (TradeSide.WINNERS, {"WETH": 4_300, "WBTC": 2_100, "LINK": 2_100, "USDC": 1_500}),
    ],
)
def test_trade_side_with_nothing_to_do_holds(only: TradeSide, values: Mapping[str, int]) -> None:
    decision = decide(step_of_side(only, values)).decision
    assert isinstance(decision, Hold)
    assert "its band" in decision.reason
    assert mentions(decision.reason, f"policy.only = {only.value}", "next cycle")


def test_trade_side_goes_by_the_destination() -> None:
    half = step_of_side(TradeSide.SELL, destination=Destination.HALFWAY)
    assert goal_changes(half) == {"WETH": -600, "WBTC": -50, "USDC": 650}
    bought = step_of_side(TradeSide.BUY, {"WETH": 3_500, "WBTC": 2_000, "LINK": 2_000, "USDC": 2_500}, destination=Destination.BAND)
    assert goal_changes(bought) == {"WETH": 100, "USDC": -100}
    edge = step_of_side(TradeSide.WINNERS, destination=Destination.BAND)
    assert goal_changes(edge) == {"WETH": -800, "LINK": Fraction(5_600, 13), "USDC": Fraction(4_800, 13)}


@given(
    st.lists(st.integers(0, 10_000), min_size=4, max_size=4).filter(lambda values: sum(values) > 0),
    st.sampled_from(TradeSide),
    st.sampled_from([Destination.TARGET, Destination.HALFWAY, Destination.BAND]),
)
def test_restricted_goal_sums_up_and_never_overshoots(values: list[int], only: TradeSide, where: Destination) -> None:
    step = step_of_side(only, dict(zip(FOUR, values, strict=True)))
    drifts = decide(with_limits(step, min_trade=None)).drifts
    money = step.portfolio.numeraire.address
    goal = restrict_to_side(drifts, rebalance_goal(drifts, where), only, money)
    changes = {
        drift.token: weight.low - drift.share for drift, weight in zip(drifts, goal.weights, strict=True) if weight.low == weight.high
    }
    assert sum(changes.values()) == 0
    assert only not in (TradeSide.SELL, TradeSide.BUY) or changes[money] * (1 if only is TradeSide.SELL else -1) >= 0
    for drift in drifts:
        if drift.token == money and only is TradeSide.SELL:
            continue  # it takes what is sold, whatever its own target
        change = changes.get(drift.token, Fraction(0))
        target = Fraction(drift.target_bps, 10_000)
        assert abs(change) <= abs(target - drift.share)
        assert change * (target - drift.share) >= 0
        if change < 0:
            assert drift.token not in goal.never_sold
        if change > 0:
            assert drift.token not in goal.never_bought
    assert codec.loads(type(goal), codec.dumps(goal)) == goal


def deltas(step: StepInput, plan: Plan) -> dict[str, int]:
    before = {holding.token: holding.raw for holding in step.snapshot.holdings}
    return {token: raw - before[token] for token, raw in plan.holdings_after}


@pytest.mark.parametrize("only", [TradeSide.LOSERS, TradeSide.SELL, *slow([TradeSide.WINNERS, TradeSide.BUY])])
def test_plan_of_a_side_never_moves_the_other(only: TradeSide) -> None:
    """Over random pools, skewed ones among them, whatever arbitrage they offer: not one base unit on the wrong side."""
    gaps = []
    for seed in range(14):
        step = any_problem(seed, 10, 30)
        step = replace(step, policy=replace(step.policy, trade_side=only, trigger=TENTH, destination=Destination.TARGET, cooldown_s=0))
        decision = decide(step).decision
        if not isinstance(decision, Rebalance):
            continue
        try:
            plan = planner.plan(step, decision)
        except Refused:
            continue
        check_legs(step, plan)
        changed = deltas(step, plan)
        assert all(changed.get(token, 0) >= 0 for token in decision.goal.never_sold), seed
        assert all(changed.get(token, 0) <= 0 for token in decision.goal.never_bought), seed
        gaps.append(plan.gap_bps or Fraction(0))
    assert len(gaps) >= 6
    assert sorted(gaps)[len(gaps) * 4 // 5] < Fraction(1, 50), "what one side leaves undone does not make plans worse"


def test_sold_winners_reach_their_goal_and_become_numeraire() -> None:
    step = with_limits(step_of_side(TradeSide.SELL, trigger=Threshold(300, None), depth=10**8), turnover_bps=None)
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)
    plan = planner.plan(step, decision)
    after = {step.portfolio.token(token).symbol: bps for token, bps in plan.weights_after_bps}
    assert {leg.token_out for leg in plan.legs} == {step.portfolio.numeraire.address}
    assert abs(after["WETH"] - 4_000) <= 2
    assert abs(after["WBTC"] - 2_000) <= 2
    assert after["USDC"] > 2_650


@pytest.mark.parametrize(
    ("only", "values"),
    [
        (TradeSide.SELL, {"WETH": 3_900, "WBTC": 2_600, "LINK": 1_400, "USDC": 2_100}),
        (TradeSide.BUY, {"WETH": 4_100, "WBTC": 1_800, "LINK": 1_200, "USDC": 2_900}),
    ],
)
def test_gas_refill_is_no_trade_of_a_side(only: TradeSide, values: Mapping[str, int]) -> None:
    """What is unwrapped for gas is no sale: a side that leaves the coin alone does not hold it back, and nothing loops for it."""
    step = with_limits(step_of_side(only, values, depth=10**8), native_top_up_wei=ETHER // 10, turnover_bps=None, plan_cost_bps=None)
    step = with_snapshot(step, native_wei=ETHER // 50)
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)
    weth = token("WETH").address
    assert weth in decision.goal.never_sold
    plan = planner.plan(step, decision)
    assert any(leg.venue == "wrapped_native" and leg.token_in == weth for leg in plan.legs)
    assert not any(leg.venue != "wrapped_native" and leg.token_in == weth for leg in plan.legs)


@pytest.mark.parametrize("destination", [Destination.TARGET, Destination.BAND])
@pytest.mark.parametrize("share", [Fraction(1, 3), Fraction(1)], ids=["a third", "all"])
def test_partial_goal_corrects_every_token_by_its_share(destination: Destination, share: Fraction) -> None:
    step = step_input({"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}, {"WETH": 700, "WBTC": 290, "USDC": 10})
    drifts = current_drifts(step)
    goal = rebalance_goal(drifts, destination)

    whole = corrections(drifts, goal)

    assert corrections(drifts, partial_goal(drifts, goal, share)) == {token: value * share for token, value in whole.items()}
    assert any(whole.values())
