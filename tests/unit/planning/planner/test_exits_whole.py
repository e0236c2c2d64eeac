"""What is to leave the portfolio is sold to the last base unit; what stays is worth naming, and its reason is the true one."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agent.errors import Refused
from agent.model import Plan, Pool, Rebalance, StepInput
from agent.planning import planner
from agent.planning.problem import PoolGraph
from agent.planning.rounding import PlanDraft
from agent.planning.solver.fixed_point import FixedPoint
from agent.policy.decide import decide
from agent.policy.drift import compute_drifts
from agent.policy.orders.exits import exit_goal, exit_tokens
from agent.reference import reference_prices
from tests.support.builders import step_input, v2_pool, with_limits
from tests.support.decisions.exits import MARKET, SOUND, USDC, WBTC, WETH, outcome_of, step_with_stops
from tests.support.lp_worlds import ranged, world
from tests.support.planning_worlds import LINK, PRICES, SYMBOLS, random_pools, rebalance_to_targets, wide
from tests.support.samples import examples
from tests.support.text import mentions


def balances_after(step: StepInput, plan: Plan) -> dict[str, int]:
    """Base units of each asset after a plan by symbol."""
    return {step.portfolio.token(token).symbol: raw for token, raw in plan.holdings_after}


def step_with_leaving_tokens(seed: int, tokens: int, skew: float, target_bps: int) -> StepInput:
    """A portfolio of random values in deep pools, all but two of whose targets are 0 %."""
    dice = random.Random(seed)
    symbols = SYMBOLS[:tokens]
    values = {symbol: Fraction(int(10 ** dice.uniform(1, 5))) for symbol in symbols}
    pools = random_pools(dice, symbols, tokens * 2, 30_000_000, skew)
    targets = dict.fromkeys(symbols, 0) | {symbols[0]: 10_000 - target_bps, symbols[1]: target_bps}
    return wide(step_input(targets, values, PRICES, pools=pools), min_trade=None, pool_min_value=None)


@example(16_692, 6, 0.003, 0)  # two routes of one token merged into one, the first of which ends at its bound
@example(145_607_306, 6, 0.001, 3_000)  # no other pool: what stays is named, however little
@examples(20)
@given(st.integers(0, 10**9), st.integers(2, 7), st.sampled_from([0.0, 0.001, 0.003]), st.sampled_from([0, 3_000]))
def test_plan_sells_every_base_unit_of_a_leaving_token(seed: int, tokens: int, skew: float, target_bps: int) -> None:
    step = step_with_leaving_tokens(seed, tokens, skew, target_bps)
    try:
        plan = planner.plan(step, rebalance_to_targets(step))
    except Refused:
        assume(False)
        return
    for token, raw in plan.holdings_after:
        asset = next(asset for asset in step.portfolio.assets if asset.token.address == token)
        if asset.target_bps == 0 and raw and token in {leg.token_in for leg in plan.legs}:
            assert any(item.subject == asset.token.label for item in plan.skipped), (asset.token.symbol, raw)


@pytest.mark.parametrize(
    ("seed", "tokens", "target_bps"),
    [
        pytest.param(18_845_229, 7, 3_000, id="a pool at its bound takes a leaving token after one that stays"),
        pytest.param(682_815_733, 6, 0, id="the second of two routes of one token ends at its pool's bound"),
        pytest.param(743_768_496, 7, 3_000, id="in whole units the bound comes a little sooner"),
        pytest.param(401_600_169, 5, 3_000, id="the solver's last solution is a little below all of it"),
    ],
)
def test_plan_sells_the_last_part_through_another_pool(seed: int, tokens: int, target_bps: int) -> None:
    step = step_with_leaving_tokens(seed, tokens, 0.003, target_bps)
    plan = planner.plan(step, rebalance_to_targets(step))
    assert not any(balances_after(step, plan)[symbol] for symbol in SYMBOLS[2 if target_bps else 1 : tokens])
    assert not {item.subject for item in plan.skipped} & {asset.token.label for asset in step.portfolio.assets if asset.target_bps == 0}


def test_skipped_does_not_name_dust() -> None:
    values = {"USDC": Fraction(100_000), "WETH": Fraction(10_000), "LINK": Fraction(1, 100)}
    step = step_input({"USDC": 10_000, "WETH": 0, "LINK": 0}, values, PRICES, pools=[*MARKET, v2_pool(LINK, USDC, 15, 1_000_000)])
    plan = planner.plan(step, rebalance_to_targets(step))
    assert {leg.token_in for leg in plan.legs} == {WETH.address}
    assert LINK.label not in {item.subject for item in plan.skipped}


@pytest.mark.parametrize("pools", [MARKET, (*MARKET, v2_pool(WETH, WBTC, Fraction(1, 30), 20_000))])
@pytest.mark.parametrize("symbol", ["WETH", "WBTC"])
def test_stop_sells_the_whole_token(pools: tuple[Pool, ...], symbol: str) -> None:
    outcome = outcome_of(step_with_stops(symbol, pools=(*pools, SOUND)))
    assert outcome.plan is not None
    assert not outcome.decision_result.blocked_exits
    assert balances_after(outcome.step_input, outcome.plan)[symbol] == 0


@pytest.mark.parametrize(("below_raw", "is_sold"), [(0, True), (1, True), (-1, False)])
def test_exit_tokens_include_a_remainder_of_min_trade(below_raw: int, is_sold: bool) -> None:
    step = step_with_stops("WETH", pools=(*MARKET, SOUND))
    drifts = decide(step).drifts
    value = next(drift.investable_raw * drift.price for drift in drifts if drift.token == WETH.address)
    step = replace(step, limits=replace(step.limits, min_trade=value - below_raw))
    assert (WETH.address in exit_tokens(step, drifts)) is is_sold


def test_exit_is_whole_where_only_its_last_unit_is_dear() -> None:
    shallow = (v2_pool(WETH, USDC, 2_000, 50_000_000), v2_pool(WBTC, USDC, 60_000, 2_300_000), SOUND)
    outcome = outcome_of(step_with_stops("WBTC", pools=shallow))
    assert balances_after(outcome.step_input, outcome.plan)["WBTC"] == 0
    assert outcome.plan.cost.total < outcome.plan.turnover * Fraction(50, 10_000), "all of it costs less than plan_cost"
    dear = outcome_of(step_with_stops("WBTC", pools=(*shallow[:1], v2_pool(WBTC, USDC, 60_000, 1_000_000), SOUND)))
    unsold_raw = 0 if dear.plan is None else balances_after(dear.step_input, dear.plan)["WBTC"]
    assert unsold_raw > 0, "where all of it costs more, the limit keeps the rest"


@pytest.mark.parametrize("position_usd", [1_000, 1_500, 2_000])
def test_what_the_market_leaves_of_an_exit_is_not_in_liquidity(position_usd: int) -> None:
    """The goal of a token that leaves is what is in positions, of a total that the exit's cost lowers."""
    step = with_limits(world([ranged(position_usd, 1_500, 2_666)], values={"WETH": 400_000, "USDC": 240_000}), plan_cost_bps=50)
    drifts = compute_drifts(step, reference_prices(step).price_by_token)
    plan = planner.plan(step, Rebalance("exit", exit_goal(step.portfolio, drifts, WETH.address), is_exit=True))
    why = next(item.why for item in plan.skipped if item.subject == "WETH")
    assert "liquidity" not in why
    assert mentions(why, "off target", "plan_cost")


def test_exit_is_tried_whole_when_the_search_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(
        market: PoolGraph, aim: object, budget: object, least: object, dropped: dict[str, str], unmoved: dict[int, str]
    ) -> FixedPoint:
        return FixedPoint(PlanDraft(), dropped_pools=dict(dropped), unmoved_tokens=dict(unmoved))

    monkeypatch.setattr(planner, "find_fixed_point", blind)
    outcome = outcome_of(step_with_stops("WBTC", pools=(*MARKET, SOUND)))
    assert outcome.plan is not None
    assert not outcome.decision_result.blocked_exits
    assert balances_after(outcome.step_input, outcome.plan)["WBTC"] == 0
