"""What holds for every plan over random markets: value conserved, legs in order, bounds kept, no cycles, no churn."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.errors import Refused
from agent.guards.replay import replay_legs
from agent.planning import planner
from agent.planning.planner import NothingPlanned
from agent.units import BPS
from tests.support.builders import price_of, with_limits
from tests.support.planning_worlds import (
    PRICES,
    assert_plan_refused,
    assert_within_limits,
    checked_plan,
    random_step,
    rebalance_to_targets,
    values_of,
)
from tests.support.samples import examples

MARKETS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "tokens": st.integers(2, 8),
        "pools": st.integers(1, 20),
        "depth": st.sampled_from([1e5, 1e6, 1e7, 1e9]),
        "worth": st.sampled_from([1_000, 100_000]),
        "skew": st.sampled_from([0.0, 0.001, 0.005, 0.02]),
    }
)
LIMITS = st.fixed_dictionaries(
    {
        "price_impact_bps": st.sampled_from([10, 100, 1_000]),
        "plan_cost_bps": st.sampled_from([20, 50, 200, None]),
        "turnover_bps": st.sampled_from([100, 3_000, None]),
        "min_trade": st.sampled_from([None, Fraction(10 * 10**6), Fraction(500 * 10**6)]),
    }
)


@examples(10)
@given(market=MARKETS, limits=LIMITS)
@example(
    market={"seed": 1, "tokens": 4, "pools": 1, "depth": 1e5, "worth": 1_000, "skew": 0.001},
    limits={"price_impact_bps": 10, "plan_cost_bps": None, "turnover_bps": 100, "min_trade": Fraction(10 * 10**6)},
)
def test_plan_keeps_to_every_limit(market: dict[str, float], limits: dict[str, object]) -> None:
    step = with_limits(random_step(**market), pool_min_value=None, daily_turnover_bps=None, **limits)  # type: ignore[arg-type]
    try:
        plan = checked_plan(step)
    except Refused as refusal:
        assert refusal.verdicts or isinstance(refusal, NothingPlanned)
        return
    assert_within_limits(step, plan)
    asset_values = values_of(step, plan)
    before = sum(v[0] for v in asset_values)
    after = sum(v[1] for v in asset_values)
    assert plan.turnover == sum(abs(b - a) for b, a, _ in asset_values) / 2
    drift = sum(max(Fraction(0), b - before * t / BPS) for b, _, t in asset_values)
    drift_left = sum(max(Fraction(0), a - after * t / BPS) for _, a, t in asset_values)
    assert plan.turnover <= (drift - drift_left) * Fraction(105, 100) + before / 100_000, "no churn beyond the drift corrected"
    replayed = replay_legs(step.snapshot, plan)
    assert replayed.fault is None
    assert not replayed.stranded_raw_by_token
    if step.limits.min_trade is not None:
        for moved in (replayed.sold_raw_by_token, replayed.bought_raw_by_token):
            for at, raw in moved.items():
                token = step.portfolio.token(at)
                assert raw * price_of(token.symbol, PRICES) * Fraction(10) ** (6 - token.decimals) >= step.limits.min_trade
    for b, a, target in asset_values:
        goal = after * target / BPS
        assert min(b, goal) - before / 50_000 <= a <= max(b, goal) + before / 50_000, "every asset moves toward its target and not past it"


@examples(8)
@given(seed=st.integers(0, 10**6), tokens=st.integers(2, 5))
def test_plan_in_deep_pools_ends_within_ten_bps_of_targets(seed: int, tokens: int) -> None:
    step = with_limits(
        random_step(seed, tokens, 3 * tokens, depth=1e8, worth=1_000_000),
        turnover_bps=None, daily_turnover_bps=None, plan_cost_bps=400, min_trade=None, pool_min_value=None,
    )  # fmt: skip
    plan = planner.plan(step, rebalance_to_targets(step))
    for asset, (at, bps) in zip(step.portfolio.assets, plan.weights_after_bps, strict=True):
        assert asset.token.address == at, plan.skipped
        assert abs(bps - asset.target_bps) <= 10, plan.skipped


TIGHT = {"price_impact_bps": 100, "plan_cost_bps": None, "turnover_bps": 100, "pool_min_value": None, "daily_turnover_bps": None}


@pytest.mark.slow
def test_search_without_turnover_limit_refuses_no_plan() -> None:
    """Without the limit of turnover this market has no plan that keeps to min_trade; with it there is nothing large enough to trade."""
    step = random_step(seed=14173, tokens=6, pools=17, depth=100_000.0, worth=1_000, skew=0.02)
    step = with_limits(step, **TIGHT, min_trade=Fraction(500 * 10**6))
    with pytest.raises(Refused) as raised:
        planner.plan(step, rebalance_to_targets(step))
    assert raised.value.verdicts or isinstance(raised.value, NothingPlanned)


def test_single_movable_token_has_nothing_to_trade() -> None:
    """The limit of turnover is a hair below min_trade: WETH stays, and USDC alone trades with nothing."""
    step = random_step(seed=0, tokens=2, pools=1, depth=100_000.0, worth=1_000, skew=0.005)
    assert_plan_refused(with_limits(step, **TIGHT, min_trade=Fraction(10 * 10**6)), "turnover", "limits.min_trade")
