"""What the planner makes within its limits, the guards let pass; a plan that is altered after it was made, they do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent import guards
from agent.errors import Refused
from agent.model import Plan, Rebalance, StepInput
from agent.planning import planner
from agent.policy.decide import decide
from tests.support.builders import address, step_input, token, v2_pool, v3_pool
from tests.support.plans import evidence, with_leg
from tests.support.samples import examples

SYMBOLS = ("WETH", "WBTC", "LINK", "USDC")
PRICES = {"WETH": Fraction(2_000), "WBTC": Fraction(60_000), "LINK": Fraction(15), "USDC": Fraction(1)}


def step_of_four_assets(values: tuple[int, ...], depth: int, skew_bps: int = 0) -> StepInput:
    """Four assets at equal targets; every one trades with USDC in both versions, two of them with each other."""
    tokens = {symbol: token(symbol) for symbol in SYMBOLS}
    usdc, at = tokens["USDC"], 1 + Fraction(skew_bps, 10_000)
    pools = [v2_pool(tokens[s], usdc, PRICES[s], depth) for s in SYMBOLS[:3]]
    pools += [
        v3_pool(tokens[s], usdc, PRICES[s] * at, 20 * depth, fee_pips=fee) for s, fee in zip(SYMBOLS, (500, 3000, 10_000), strict=False)
    ]
    pools.append(v3_pool(tokens["WBTC"], tokens["WETH"], 30, depth // 100, fee_pips=500))
    return step_input(dict.fromkeys(SYMBOLS, 2_500), dict(zip(SYMBOLS, values, strict=True)), prices=PRICES, pools=pools)


def planner_plan(step: StepInput) -> Plan | None:
    """The planner's plan; None where it holds or refuses by itself."""
    decision = decide(step).decision
    try:
        return planner.plan(step, decision) if isinstance(decision, Rebalance) else None
    except Refused:
        return None


@examples(10)
@given(
    values=st.tuples(*[st.integers(500, 5_000)] * 4),
    depth=st.sampled_from([200_000, 1_000_000, 50_000_000]),
    skew_bps=st.integers(-60, 60),
)
def test_every_plan_of_the_planner_passes_every_guard(values: tuple[int, ...], depth: int, skew_bps: int) -> None:
    step = step_of_four_assets(values, depth, skew_bps)
    plan = planner_plan(step)
    assume(plan is not None)
    assert plan is not None
    guards.require_all_passed(plan, guards.judge(step, plan, evidence(step, plan)))


def _spend_more(plan: Plan) -> Plan:
    return with_leg(plan, 0, amount_in_raw=plan.legs[0].amount_in_raw * 101 // 100)


def _lower_floor(plan: Plan) -> Plan:
    return with_leg(plan, 0, min_out_raw=plan.legs[0].min_out_raw * 99 // 100)


ALTERATIONS: dict[str, Callable[[Plan], Plan]] = {
    "prediction": _spend_more,
    "slippage": _lower_floor,
    "fair_floor": lambda plan: with_leg(plan, 0, min_out_raw=1),
    "allowlist": lambda plan: with_leg(plan, 0, pool=address("bait")),
    "expiry": lambda plan: replace(plan, block=plan.block - 1),
    "min_trade": lambda plan: replace(plan, legs=(replace(plan.legs[0], amount_in_raw=plan.legs[0].amount_in_raw // 1_000),)),
    "balance": lambda plan: with_leg(plan, 0, amount_in_raw=plan.legs[0].amount_in_raw * 100),
    "turnover": lambda plan: with_leg(plan, 0, amount_in_raw=plan.legs[0].amount_in_raw * 100),
    "gas_per_day": lambda plan: replace(plan, gas_units=10**9),
    "plan_cost": lambda plan: replace(plan, gas_units=10**9),
}


@pytest.mark.parametrize("guard", list(ALTERATIONS))
def test_a_plan_that_was_altered_is_refused(guard: str) -> None:
    step = step_of_four_assets((4_000, 2_000, 2_500, 1_500), 1_000_000)
    plan = planner_plan(step)
    assert plan is not None
    altered = ALTERATIONS[guard](plan)
    verdicts = guards.judge(step, altered, evidence(step, altered))
    assert guard in {verdict.guard for verdict in verdicts if not verdict.passed}
    with pytest.raises(Refused, match=guard):
        guards.require_all_passed(altered, verdicts)
