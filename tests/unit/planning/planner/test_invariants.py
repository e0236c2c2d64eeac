"""What holds for every plan over random markets: value conserved, legs in order, bounds kept, no cycles, no churn."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.amm import pools as amm
from agent.amm.swap_errors import BeyondKnownTicks, ContractRevert
from agent.errors import Refused
from agent.guards.replay import replay_legs
from agent.model import Pool, StepInput
from agent.planning import planner
from agent.planning.plan_builder import MIN_TRADE_LIMIT, PLAN_COST_LIMIT
from agent.planning.planner import NothingPlanned
from agent.units import BPS
from tests.support.builders import price_of, with_limits
from tests.support.planning_worlds import (
    PRICES,
    assert_plan_refused,
    assert_within_limits,
    checked_plan,
    plan_refusal,
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

SPARE = Fraction(9, 10)
"""Share of each limit that a witness uses: what the planner reckons otherwise is far less than the rest."""
SWAP_GAS_UNITS = 400_000
"""More than one swap and its approvals use."""


def excess_by_token(step: StepInput) -> dict[str, Fraction]:
    """Return the value of each asset beyond its target, at feed prices, negative below it."""
    value_by_token = {holding.token: holding.raw * price_by_token(step)[holding.token] for holding in step.snapshot.holdings}
    total = sum(value_by_token.values(), Fraction(0))
    return {asset.token.address: value_by_token[asset.token.address] - total * asset.target_bps / BPS for asset in step.effective_assets}


def price_by_token(step: StepInput) -> dict[str, Fraction]:
    return {
        asset.token.address: price_of(asset.token.symbol, PRICES) * Fraction(10) ** (6 - asset.token.decimals)
        for asset in step.portfolio.assets
    }


def turnover_cap(step: StepInput) -> Fraction:
    total = sum((holding.raw * price_by_token(step)[holding.token] for holding in step.snapshot.holdings), Fraction(0))
    return total * (BPS if step.limits.turnover_bps is None else step.limits.turnover_bps) / BPS


def swap_within_limits(step: StepInput) -> str:
    """Return a single swap that brings two assets closer to their targets within every limit; empty if there is none.

    It is searched without the planner: in each pool, from one asset to the other, by feed prices.
    """
    prices = price_by_token(step)
    excesses = excess_by_token(step)
    for pool in step.snapshot.pools:
        for sold, bought in ((pool.token0, pool.token1), (pool.token1, pool.token0)):
            largest = SPARE * min(excesses[sold], -excesses[bought], turnover_cap(step))
            for share in (1, 4, 16, 64):
                amount_in_raw = int(largest / share / prices[sold])
                if amount_in_raw > 0 and is_within_limits(step, pool, sold, amount_in_raw, prices):
                    return f"{amount_in_raw} of {sold} in {pool.address}"
    return ""


def is_within_limits(step: StepInput, pool: Pool, sold: str, amount_in_raw: int, prices: dict[str, Fraction]) -> bool:
    """Return whether a swap alone keeps to the limits of size, impact and cost, each with something to spare."""
    limits = step.limits
    try:
        swapped = pool.swap(sold, amount_in_raw)
    except (BeyondKnownTicks, ContractRevert):
        return False
    sold_value = amount_in_raw * prices[sold]
    bought_value = swapped.amount_out_raw * prices[amm.token_out(pool, sold)]
    gas_value = SWAP_GAS_UNITS * step.snapshot.current_gas_price_wei * prices[step.portfolio.wrapped_native]
    lost_value = sold_value * (1 - Fraction(pool.fee_pips, 10**6)) - bought_value
    impact_bps = amm.price_move_bps(pool, swapped.pool_after, sold)
    return (
        bought_value * SPARE >= (limits.min_trade or 0)
        and limits.price_impact_bps is not None
        and max(impact_bps, lost_value * BPS / sold_value) <= SPARE * limits.price_impact_bps
        and (limits.plan_cost_bps is None or (sold_value - bought_value + gas_value) * BPS <= SPARE * limits.plan_cost_bps * bought_value)
    )


def assert_reason_holds(step: StepInput, refusal: NothingPlanned) -> None:
    """Require what the refusal names as its only obstacle: too little to move, costs at any size, or the limit of turnover."""
    lack = -min(excess_by_token(step).values())
    excess = max(excess_by_token(step).values())
    if refusal.limiting_rule == MIN_TRADE_LIMIT:
        assert min(excess, lack) < (step.limits.min_trade or 0), "an asset above its target, and one below, could move enough"
    elif refusal.limiting_rule == PLAN_COST_LIMIT:
        swap = swap_within_limits(with_limits(step, min_trade=None, turnover_bps=None, price_impact_bps=BPS))
        assert not swap or checked_plan(with_limits(step, plan_cost_bps=None)), "no swap is cheap enough, or a plan of any cost is possible"
    elif [verdict.guard for verdict in refusal.verdicts] == ["turnover"]:
        assert checked_plan(with_limits(step, turnover_bps=None)).turnover > turnover_cap(step), "a plan keeps to the limit of turnover"
    else:
        assert not refusal.limiting_rule


@examples(10)
@given(market=MARKETS, limits=LIMITS)
@example(
    market={"seed": 1, "tokens": 4, "pools": 1, "depth": 1e5, "worth": 1_000, "skew": 0.001},
    limits={"price_impact_bps": 10, "plan_cost_bps": None, "turnover_bps": 100, "min_trade": Fraction(10 * 10**6)},
)
@example(
    market={"seed": 3, "tokens": 2, "pools": 1, "depth": 1e9, "worth": 100_000, "skew": 0.0},
    limits={"price_impact_bps": 100, "plan_cost_bps": 50, "turnover_bps": 100, "min_trade": Fraction(500 * 10**6)},
)
@example(
    market={"seed": 25, "tokens": 4, "pools": 1, "depth": 1e7, "worth": 1000, "skew": 0.02},
    limits={"price_impact_bps": 10, "plan_cost_bps": 20, "turnover_bps": 3000, "min_trade": Fraction(500 * 10**6)},
)
@example(
    market={"seed": 23, "tokens": 2, "pools": 2, "depth": 1e6, "worth": 1000, "skew": 0.0},
    limits={"price_impact_bps": 1000, "plan_cost_bps": 20, "turnover_bps": None, "min_trade": Fraction(10 * 10**6)},
)
@example(
    market={"seed": 49, "tokens": 2, "pools": 2, "depth": 1e6, "worth": 1000, "skew": 0.0},
    limits={"price_impact_bps": 100, "plan_cost_bps": 200, "turnover_bps": 100, "min_trade": None},
)
@example(
    market={"seed": 217, "tokens": 3, "pools": 12, "depth": 1e6, "worth": 1_000, "skew": 0.02},
    limits={"price_impact_bps": 10, "plan_cost_bps": None, "turnover_bps": 100, "min_trade": None},
)
@example(
    market={"seed": 217, "tokens": 3, "pools": 12, "depth": 1e6, "worth": 1_000, "skew": 0.02},
    limits={"price_impact_bps": 1_000, "plan_cost_bps": None, "turnover_bps": None, "min_trade": None},
)
@example(
    market={"seed": 208_302, "tokens": 4, "pools": 18, "depth": 1e6, "worth": 1_000, "skew": 0.02},
    limits={"price_impact_bps": 1_000, "plan_cost_bps": None, "turnover_bps": 100, "min_trade": None},
)
def test_plan_keeps_to_every_limit(market: dict[str, float], limits: dict[str, object]) -> None:
    step = with_limits(random_step(**market), pool_min_value=None, daily_turnover_bps=None, **limits)  # type: ignore[arg-type]
    try:
        plan = checked_plan(step)
    except Refused as refusal:
        assert isinstance(refusal, NothingPlanned)
        assert not swap_within_limits(step), refusal
        assert_reason_holds(step, refusal)
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
    assert plan_refusal(step).limiting_rule == MIN_TRADE_LIMIT


def test_single_movable_token_has_nothing_to_trade() -> None:
    """The limit of turnover is a hair below min_trade: WETH stays, and USDC alone trades with nothing."""
    step = random_step(seed=0, tokens=2, pools=1, depth=100_000.0, worth=1_000, skew=0.005)
    assert_plan_refused(with_limits(step, **TIGHT, min_trade=Fraction(10 * 10**6)), "turnover", "limits.min_trade")
