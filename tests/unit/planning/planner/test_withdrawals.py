"""A sale that raises a token for a withdrawal: what decides that it is possible, and what it sells."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.model import Payment, PendingPayment, Pool, StepInput
from agent.planning.problem import build_problem
from agent.planning.requests import raise_money_proposer
from agent.planning.solver.utility import bought_by_exit
from agent.policy.cash_flows import transfers
from agent.reference import reference_prices
from agent.units import Token
from tests.support.builders import raw, step_input, v2_pool, with_limits
from tests.support.tokens import USDC, WBTC, WETH


def step_with_claim(
    targets_bps: dict[str, int], values: dict[str, int], claimed: Token, coins: Fraction | int, *pools: Pool, **limits: object
) -> StepInput:
    step = with_limits(step_input(targets_bps, values, pools=pools), **limits)
    return transfers.reserve_claims(step, (PendingPayment(0, Payment(claimed.address, raw(coins, claimed))),))


def wallet_changes(step: StepInput, claimed: Token) -> dict[str, int]:
    """Change of each token in base units by the sale for the claim."""
    return raise_money_proposer(claimed.address)(step).plan.wallet_changes()


@pytest.mark.parametrize("dollars", [3_009, 3_010, 3_011, 3_041, 3_050])
def test_sale_for_weth_does_not_depend_on_unsold_dollars(dollars: int) -> None:
    """The goal of USDC is exactly its share, which is rarely a float."""
    step = step_with_claim(
        {"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000},
        {"WETH": 1_500, "WBTC": 6_000, "USDC": dollars},
        WETH,
        Fraction(5, 4),
        v2_pool(WETH, USDC, 2_000, 50_000_000),
        v2_pool(WBTC, USDC, 60_000, 50_000_000),
        v2_pool(WBTC, WETH, 30, 10_000),
        plan_cost_bps=100,
    )
    changes = wallet_changes(step, WETH)
    assert changes.keys() == {WETH.address, WBTC.address}
    assert changes[WETH.address] >= raw(Fraction(1, 2), WETH)


@pytest.mark.parametrize(("depth", "is_whole"), [(3_485_000, False), (3_490_000, True), (3_495_000, True)])
def test_withdrawal_sells_its_other_assets_where_one_leaves_a_rest(depth: int, is_whole: bool) -> None:
    """All WBTC is to be sold, and some WETH beside it; without the WETH the claim is not covered."""
    step = step_with_claim(
        {"WETH": 5_000, "WBTC": 0, "USDC": 5_000},
        {"WETH": 5_000, "WBTC": 3_500, "USDC": 1_500},
        USDC,
        6_000,
        v2_pool(WBTC, USDC, 60_000, depth),
        v2_pool(WETH, USDC, 2_000, 5_000_000),
        plan_cost_bps=50,
        price_impact_bps=300,
    )
    changes = wallet_changes(step, USDC)
    assert changes[USDC.address] >= raw(4_500, USDC)
    assert changes[WETH.address] < 0
    assert (changes[WBTC.address] == -raw(Fraction(3_500, 60_000), WBTC)) is is_whole


def test_withdrawal_of_weth_sells_the_leaving_token_for_weth() -> None:
    """The pool of WBTC takes less than all of it; with USDC as what it is sold for, no WETH would be raised."""
    step = step_with_claim(
        {"WETH": 5_000, "WBTC": 0, "USDC": 5_000},
        {"WETH": 1_500, "WBTC": 3_500, "USDC": 5_000},
        WETH,
        3,
        v2_pool(WBTC, USDC, 60_000, 4_200_000),
        v2_pool(WETH, USDC, 2_000, 20_000_000),
        plan_cost_bps=80,
        price_impact_bps=300,
        first_purchase_s=600,
    )
    changes = wallet_changes(step, WETH)
    assert changes[WETH.address] > raw(2, WETH)
    assert changes[WBTC.address] < 0
    assert changes[USDC.address] < 0


@pytest.mark.parametrize(("claimed", "coins"), [(USDC, 2_020), (WETH, Fraction(41, 16)), (WBTC, Fraction(101, 1000))])
def test_exit_buys_the_claimed_token_though_gas_money_is_set_aside(claimed: Token, coins: Fraction | int) -> None:
    """The refill of 60 dollars of WETH counts in the goal's total, not in the planner's."""
    targets_bps = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}
    step = step_with_claim(targets_bps, {"WETH": 5_000, "WBTC": 6_000, "USDC": 2_000}, claimed, coins)
    goal = transfers.goal_to_raise_shortfall(step, claimed.address)
    problem = build_problem(step, reference_prices(step))
    weth_index = problem.index_by_token[WETH.address]
    nodes = list(problem.nodes)
    nodes[weth_index] = replace(nodes[weth_index], investable_raw=nodes[weth_index].investable_raw - raw(Fraction(3, 100), WETH))
    for case in (problem, replace(problem, nodes=tuple(nodes))):
        assert bought_by_exit(case, goal, problem.index_by_token[USDC.address]) == problem.index_by_token[claimed.address]


def test_weights_after_a_sale__leave_out_what_the_claim_takes() -> None:
    """Of 1,500 held and 1,500 raised nothing is left to invest but the margin of the sale."""
    step = step_with_claim(
        {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000},
        {"WETH": 5_000, "WBTC": 3_500, "USDC": 1_500},
        USDC,
        3_000,
        v2_pool(WETH, USDC, 2_000, 50_000_000),
        v2_pool(WBTC, USDC, 60_000, 50_000_000),
        plan_cost_bps=100,
    )
    plan = raise_money_proposer(USDC.address)(step).plan
    assert plan.wallet_changes()[USDC.address] >= raw(1_500, USDC)
    assert dict(plan.weights_after_bps)[USDC.address] < 50
