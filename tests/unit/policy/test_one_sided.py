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
from agent.model import Destination, Hold, Plan, Rebalance, StepInput, Threshold, TradeSide, Trigger
from agent.planning.planner import plan
from agent.policy.decide import decide
from agent.policy.drift import corrections, rebalance_goal
from agent.policy.one_sided import restrict_to_side
from tests.support.builders import ETHER, step_input, token, with_limits, with_snapshot
from tests.support.planning_worlds import any_problem, check_legs
from tests.support.samples import slow
from tests.support.text import mentions

COIN = 10**6
FOUR = {"WETH": 4_000, "WBTC": 2_000, "LINK": 2_000, "USDC": 2_000}
NOW = {"WETH": 5_200, "WBTC": 2_100, "LINK": 1_300, "USDC": 1_400}
"""WETH is 12 points above, WBTC one, LINK seven below, USDC six."""
TENTH = Threshold(None, 1_000)


def sided(only: TradeSide | None, values: Mapping[str, int] = NOW, trigger: Trigger = TENTH, **changes: object) -> StepInput:
    step = step_input(FOUR, values, {"WBTC": 50_000}, trigger=trigger, **changes)  # type: ignore[arg-type]  # keywords of step_input
    return replace(step, policy=replace(step.policy, trade_side=only))


def moves(step: StepInput) -> dict[str, Fraction]:
    """Whole coins by which each value is to change, where that is said."""
    decided = decide(step)
    assert isinstance(decided.decision, Rebalance), decided.decision
    by_token = corrections(decided.drifts, decided.decision.goal)
    return {one.symbol: by_token[one.token] / COIN for one in decided.drifts if by_token[one.token]}


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (None, {"WETH": -1_200, "WBTC": -100, "LINK": 700, "USDC": 600}),
        (TradeSide.SELL, {"WETH": -1_200, "WBTC": -100, "USDC": 1_300}),
        (TradeSide.WINNERS, {"WETH": -1_200, "LINK": Fraction(8_400, 13), "USDC": Fraction(7_200, 13)}),
        (TradeSide.LOSERS, {"WETH": -1_200, "WBTC": -100, "LINK": 700, "USDC": 600}),
    ],
)
def test_what_each_side_moves(only: TradeSide | None, expected: Mapping[str, Fraction | int]) -> None:
    assert moves(sided(only)) == expected


def test_losers_alone_are_paid_for_by_all_that_is_above_in_proportion_and_what_is_below_within_its_band_waits() -> None:
    step = sided(TradeSide.LOSERS, {"WETH": 4_300, "WBTC": 2_300, "LINK": 1_500, "USDC": 1_900})
    assert moves(step) == {"WETH": -250, "WBTC": -250, "LINK": 500}


def test_buying_alone_spends_what_the_numeraire_has_above_its_target_and_no_more() -> None:
    rich = {"WETH": 4_100, "WBTC": 1_700, "LINK": 1_400, "USDC": 2_800}
    assert moves(sided(TradeSide.BUY, rich)) == {"WBTC": Fraction(800, 3), "LINK": Fraction(1_600, 3), "USDC": -800}
    richer = {"WETH": 3_500, "WBTC": 1_700, "LINK": 1_900, "USDC": 2_900}
    assert moves(sided(TradeSide.BUY, richer)) == {"WETH": 500, "WBTC": 300, "LINK": 100, "USDC": -900}


@pytest.mark.parametrize(
    ("only", "values"),
    [
        (TradeSide.BUY, NOW),
        (TradeSide.SELL, {"WETH": 3_000, "WBTC": 1_500, "LINK": 1_500, "USDC": 4_000}),
        (TradeSide.WINNERS, {"WETH": 4_300, "WBTC": 2_100, "LINK": 2_100, "USDC": 1_500}),
    ],
)
def test_where_that_side_has_nothing_to_do_it_holds_and_says_so(only: TradeSide, values: Mapping[str, int]) -> None:
    decision = decide(sided(only, values)).decision
    assert isinstance(decision, Hold)
    assert "its band" in decision.reason
    assert mentions(decision.reason, f"policy.only = {only.value}", "next cycle")


def test_destinations_count_for_one_side_too() -> None:
    half = sided(TradeSide.SELL, destination=Destination.HALFWAY)
    assert moves(half) == {"WETH": -600, "WBTC": -50, "USDC": 650}
    edge = sided(TradeSide.WINNERS, destination=Destination.BAND)
    assert moves(edge) == {"WETH": -800, "LINK": Fraction(5_600, 13), "USDC": Fraction(4_800, 13)}


@given(
    st.lists(st.integers(0, 10_000), min_size=4, max_size=4).filter(lambda values: sum(values) > 0),
    st.sampled_from(TradeSide),
    st.sampled_from([Destination.TARGET, Destination.HALFWAY, Destination.BAND]),
)
def test_points_and_what_is_left_alone_sum_to_the_whole_for_all_values(values: list[int], only: TradeSide, where: Destination) -> None:
    step = sided(only, dict(zip(FOUR, values, strict=True)))
    drifts = decide(with_limits(step, min_trade=None)).drifts
    money = step.portfolio.numeraire.address
    found = restrict_to_side(drifts, rebalance_goal(drifts, where), only, money)
    moved = {one.token: want.low - one.share for one, want in zip(drifts, found.weights, strict=True) if want.low == want.high}
    assert sum(moved.values()) == 0
    assert only not in (TradeSide.SELL, TradeSide.BUY) or moved[money] * (1 if only is TradeSide.SELL else -1) >= 0
    for one in drifts:
        if one.token == money and only is TradeSide.SELL:
            continue  # it takes what is sold, whatever its own target
        change, target = moved.get(one.token, Fraction(0)), Fraction(one.target_bps, 10_000)
        assert abs(change) <= abs(target - one.share)
        assert change * (target - one.share) >= 0
        if change < 0:
            assert one.token not in found.never_sold
        if change > 0:
            assert one.token not in found.never_bought
    assert codec.loads(type(found), codec.dumps(found)) == found


def deltas(step: StepInput, found: Plan) -> dict[str, int]:
    before = {holding.token: holding.raw for holding in step.snapshot.holdings}
    return {token: raw - before[token] for token, raw in found.holdings_after}


@pytest.mark.parametrize("only", [TradeSide.LOSERS, TradeSide.SELL, *slow([TradeSide.WINNERS, TradeSide.BUY])])
def test_a_plan_of_one_side_never_moves_the_other(only: TradeSide) -> None:
    """Over random pools, skewed ones among them, whatever arbitrage they offer: not one base unit on the wrong side."""
    gaps = []
    for seed in range(14):
        step = any_problem(seed, 10, 30)
        step = replace(step, policy=replace(step.policy, trade_side=only, trigger=TENTH, destination=Destination.TARGET, cooldown_s=0))
        decision = decide(step).decision
        if not isinstance(decision, Rebalance):
            continue
        try:
            found = plan(step, decision)
        except Refused:
            continue
        check_legs(step, found)
        changed = deltas(step, found)
        assert all(changed.get(token, 0) >= 0 for token in decision.goal.never_sold), seed
        assert all(changed.get(token, 0) <= 0 for token in decision.goal.never_bought), seed
        gaps.append(found.gap_bps or Fraction(0))
    assert len(gaps) >= 6
    assert sorted(gaps)[len(gaps) * 4 // 5] < Fraction(1, 50), "what one side leaves undone does not make plans worse"


def test_sold_winners_reach_their_goal_and_the_proceeds_wait_in_the_numeraire() -> None:
    step = with_limits(sided(TradeSide.SELL, trigger=Threshold(300, None), depth=10**8), turnover_bps=None)
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)
    found = plan(step, decision)
    after = {step.portfolio.token(token).symbol: bps for token, bps in found.weights_after_bps}
    assert {leg.token_out for leg in found.legs} == {step.portfolio.numeraire.address}
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
def test_gas_is_refilled_from_the_wrapped_coin_whichever_side_is_traded(only: TradeSide, values: Mapping[str, int]) -> None:
    """What is unwrapped for gas is no sale: a side that leaves the coin alone does not hold it back, and nothing loops for it."""
    step = with_limits(sided(only, values, depth=10**8), native_top_up_wei=ETHER // 10, turnover_bps=None, plan_cost_bps=None)
    step = with_snapshot(step, native_wei=ETHER // 50)
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)
    weth = token("WETH").address
    assert weth in decision.goal.never_sold
    found = plan(step, decision)
    assert any(leg.venue == "wrapped_native" and leg.token_in == weth for leg in found.legs)
    assert not any(leg.venue != "wrapped_native" and leg.token_in == weth for leg in found.legs)
