"""No plan buys an asset beyond limits.max_weight, whatever its goal allows: the guard would refuse it in every cycle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction

import pytest

from agent.model import Destination, Payment, PendingPayment, Plan, StepInput
from agent.planning.problem import build_problem
from agent.planning.requests import invest_proposer, raise_money_proposer
from agent.planning.rounding import PlanDraft
from agent.planning.solver.draft_checks import excess_purchases
from agent.planning.solver.utility import objective_for_goal
from agent.policy.cash_flows import transfers
from agent.policy.decide import decide
from agent.policy.drift import rebalance_goal
from agent.reference import reference_prices
from agent.units import BPS
from tests.support.builders import raw, step_input, threshold, token, v2_pool, with_limits, zoned
from tests.support.decisions.tracking import tracking_step
from tests.support.plans import proposed_plan, refusing_guards
from tests.support.tokens import USDC, WBTC, WETH

LINK = token("LINK")
DEEP = 10**9


def with_max_weights(step: StepInput, max_bps_by_symbol: Mapping[str, int]) -> StepInput:
    assets = tuple(replace(asset, max_bps=max_bps_by_symbol.get(asset.token.symbol)) for asset in step.portfolio.assets)
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


def hedging_step(**max_bps_by_symbol: int) -> StepInput:
    """WBTC is far below its target, and too dear to buy: WETH, which moves with it, is bought in its place."""
    step = zoned(
        {"WETH": 4_000, "WBTC": 4_000, "USDC": 2_000},
        {"WETH": 40_000, "WBTC": 24_000, "USDC": 36_000},
        {"correlations": {("WETH", "WBTC"): 9_000}},
        pools=[v2_pool(WETH, USDC, 2_000, DEEP), v2_pool(WBTC, USDC, 60_000, DEEP, fee_pips=10_000)],
    )
    return with_max_weights(with_limits(step, turnover_bps=None, daily_turnover_bps=None, daily_loss_bps=None), max_bps_by_symbol)


CHEAP_FOR_LINK = (
    v2_pool(WETH, USDC, 2_000, DEEP),
    v2_pool(WBTC, USDC, 60_000, DEEP),
    v2_pool(LINK, USDC, 1, DEEP, fee_pips=10_000),
    v2_pool(WETH, LINK, 2_000, DEEP, fee_pips=500),
)
"""LINK is best sold for WETH."""


def leaving_step(**max_bps_by_symbol: int) -> StepInput:
    """LINK leaves under the tracking rule."""
    step = tracking_step(
        {"WETH": 40_500, "WBTC": 25_000, "LINK": 5_000, "USDC": 29_500},
        targets={"WETH": 4_000, "WBTC": 2_500, "LINK": 0, "USDC": 3_500},
        pools=CHEAP_FOR_LINK,
    )
    return with_max_weights(with_limits(step, plan_cost_bps=200), max_bps_by_symbol)


def band_step(**max_bps_by_symbol: int) -> StepInput:
    """LINK is above its band, WETH may end anywhere in its own, which reaches beyond a maximum at the target."""
    step = step_input(
        {"WETH": 4_000, "WBTC": 2_500, "LINK": 1_000, "USDC": 2_500},
        {"WETH": 39_000, "WBTC": 24_000, "LINK": 17_000, "USDC": 20_000},
        trigger=threshold(500),
        destination=Destination.BAND,
        pools=CHEAP_FOR_LINK,
    )
    return with_max_weights(with_limits(step, plan_cost_bps=200), max_bps_by_symbol)


def investment(step: StepInput) -> Plan:
    plan = invest_proposer({USDC.address: raw(14_000, USDC)})(step).plan
    assert plan is not None
    return plan


def weth_value_and_total(step: StepInput, plan: Plan) -> tuple[Fraction, Fraction]:
    price_by_token = reference_prices(step).price_by_token
    value_by_token = {address: after_raw * price_by_token[address] for address, after_raw in plan.holdings_after}
    return value_by_token[WETH.address], sum(value_by_token.values(), Fraction(0))


@pytest.mark.parametrize(
    ("build_step", "plan_of_step", "max_bps"),
    [
        pytest.param(hedging_step, proposed_plan, 4_100, id="a hedge in a zone"),
        pytest.param(hedging_step, proposed_plan, 4_200, id="a hedge in a zone, a higher limit"),
        pytest.param(hedging_step, investment, 4_100, id="a deposit in a zone"),
        pytest.param(leaving_step, proposed_plan, 4_100, id="a leaving token under the tracking rule"),
        pytest.param(band_step, proposed_plan, 4_000, id="a band around a target at the limit"),
    ],
)
def test_plan_buys_no_more_than_the_maximum_weight(
    build_step: Callable[..., StepInput], plan_of_step: Callable[[StepInput], Plan], max_bps: int
) -> None:
    free_step = build_step()
    value, total = weth_value_and_total(free_step, plan_of_step(free_step))
    assert value * BPS > max_bps * total, "without the limit it is exceeded"
    step = build_step(WETH=max_bps)
    plan = plan_of_step(step)
    value, total = weth_value_and_total(step, plan)
    assert (max_bps - 2) * total < value * BPS <= max_bps * total
    assert plan.wallet_changes()[WETH.address] > 0
    assert refusing_guards(step, plan) == []


@pytest.mark.parametrize(("more_raw", "is_excess"), [(0, False), (1, True)])
def test_purchase_may_end_at_the_maximum_weight_but_no_unit_beyond(more_raw: int, is_excess: bool) -> None:
    step = hedging_step(WETH=4_100)
    problem = build_problem(step, reference_prices(step))
    goal = replace(rebalance_goal(decide(step).drifts, Destination.ZONE), risk=step.policy.trigger.risk)
    draft = PlanDraft(delta_raw={WETH.address: raw(1, WETH) // 2 + more_raw, USDC.address: -raw(1_000, USDC)})
    assert bool(excess_purchases(problem, objective_for_goal(problem, goal), draft)) is is_excess


def test_maximum_weight_binds_no_withdrawal() -> None:
    step = step_input({"WETH": 2_000, "USDC": 8_000}, depth=10**8)
    step = transfers.reserve_claims(step, (PendingPayment(0, Payment(WETH.address, raw(2, WETH))),))
    plan = raise_money_proposer(WETH.address)(with_max_weights(step, {"WETH": 2_000})).plan
    assert plan.wallet_changes()[WETH.address] >= raw(1, WETH)
