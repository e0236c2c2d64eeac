"""Plans of the planner before the guards: within its limits every one passes, altered afterwards none does."""

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
from agent.units import BPS
from tests.support.builders import address, step_input, token, v2_pool, v3_pool
from tests.support.plans import evidence, with_leg
from tests.support.samples import examples

PRICES = {"WETH": Fraction(2_000), "WBTC": Fraction(60_000), "LINK": Fraction(15), "USDC": Fraction(1)}
FEE_PIPS = {"WETH": 500, "WBTC": 3_000, "LINK": 10_000}


def drifted_step(values: tuple[int, ...], depth: int, skew_bps: int = 0) -> StepInput:
    """Return four assets at equal targets: each trades with USDC in V2 and in V3, which is skewed, and WBTC with WETH."""
    tokens = {symbol: token(symbol) for symbol in PRICES}
    skew = 1 + Fraction(skew_bps, BPS)
    pools = [v2_pool(tokens[symbol], tokens["USDC"], PRICES[symbol], depth) for symbol in FEE_PIPS]
    pools += [v3_pool(tokens[symbol], tokens["USDC"], PRICES[symbol] * skew, 20 * depth, fee) for symbol, fee in FEE_PIPS.items()]
    pools.append(v3_pool(tokens["WBTC"], tokens["WETH"], 30, depth // 100, fee_pips=500))
    return step_input(dict.fromkeys(PRICES, 2_500), dict(zip(PRICES, values, strict=True)), prices=PRICES, pools=pools)


def plan_if_any(step: StepInput) -> Plan | None:
    """Return the planner's plan; None where it holds or refuses by itself."""
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
def test_plan_of_the_planner_passes_every_guard(values: tuple[int, ...], depth: int, skew_bps: int) -> None:
    step = drifted_step(values, depth, skew_bps)
    plan = plan_if_any(step)
    assume(plan is not None)
    assert plan is not None

    guards.require_all_passed(plan, guards.judge(step, plan, evidence(step, plan)))


def with_first_leg_scaled(field: str, share: Fraction) -> Callable[[Plan], Plan]:
    """Return the alteration that scales a field of the first leg."""
    return lambda plan: with_leg(plan, 0, **{field: int(getattr(plan.legs[0], field) * share)})


def with_only_dust(plan: Plan) -> Plan:
    """Return the plan with a thousandth of its first leg alone."""
    return replace(plan, legs=(replace(plan.legs[0], amount_in_raw=plan.legs[0].amount_in_raw // 1_000),))


@pytest.mark.parametrize(
    ("guard", "altered"),
    [
        pytest.param("prediction", with_first_leg_scaled("amount_in_raw", Fraction(101, 100)), id="spends 1 % more"),
        pytest.param("balance", with_first_leg_scaled("amount_in_raw", Fraction(100)), id="spends more than there is"),
        pytest.param("turnover", with_first_leg_scaled("amount_in_raw", Fraction(100)), id="moves more than allowed"),
        pytest.param("min_trade", with_only_dust, id="trades dust"),
        pytest.param("slippage", with_first_leg_scaled("min_out_raw", Fraction(99, 100)), id="minimum 1 % lower"),
        pytest.param("fair_floor", lambda plan: with_leg(plan, 0, min_out_raw=1), id="minimum of one base unit"),
        pytest.param("allowlist", lambda plan: with_leg(plan, 0, pool=address("bait")), id="another pool"),
        pytest.param("expiry", lambda plan: replace(plan, block=plan.block - 1), id="made a block before"),
        pytest.param("gas_per_day", lambda plan: replace(plan, gas_units=10**9), id="gas beyond the day"),
        pytest.param("plan_cost", lambda plan: replace(plan, gas_units=10**9), id="gas beyond the cost"),
    ],
)
def test_altered_plan_is_refused_by_its_guard(guard: str, altered: Callable[[Plan], Plan]) -> None:
    step = drifted_step((4_000, 2_000, 2_500, 1_500), 1_000_000)
    plan = plan_if_any(step)
    assert plan is not None
    plan = altered(plan)

    verdicts = guards.judge(step, plan, evidence(step, plan))

    assert guard in {judged.guard for judged in verdicts if not judged.passed}
    with pytest.raises(Refused, match=guard):
        guards.require_all_passed(plan, verdicts)
