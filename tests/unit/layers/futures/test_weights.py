"""Futures weights by volatility: equal risk, a bounded loss of each market, the target leverage in all, and spot targets that stay."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import codec
from agent.config.load import parse_config
from agent.config.weights import build_allocator
from agent.errors import ConfigError, Refused
from agent.layers.futures.state import futures_policy, with_policy
from agent.layers.futures.weights import futures_volatility_weights
from agent.layers.inputs import apply_effective_targets
from agent.model import AllocationMethod, AllocatorConfig, FuturesRisk, FuturesSide
from agent.policy.targets import bounds_of
from agent.units import BPS
from agent.weights.allocators import AllocatorData
from tests.support.builders import NOW_S, token, with_snapshot
from tests.support.configs.futures import FUTURES, address
from tests.support.configs.weights import config_text, portfolio_of
from tests.support.perpetuals.plans import pair_book
from tests.support.perpetuals.steps import FUTURES_POLICY
from tests.support.planning_worlds import COINS, PLAIN, allocator, bps_of, moves, recorded, weighed

NAMES = {token(symbol).address: symbol for symbol in COINS}
SIDES = tuple(FuturesSide(f"{symbol} market", token(symbol).address, symbol != "LINK") for symbol in ("WETH", "WBTC", "LINK"))
RISK = FuturesRisk(SIDES, 20_000, 2_000, 2_500, BPS)
WEIGHTS = """kind = "futures_volatility"
every = "7d"
window = "90d"
step = "1d"
min_history = "30d"
max_age = "2d"
keep = "14d"
churn = "1%"
until_chosen = "targets"
stress_loss = "25%"
"""


def by_risk(risk: FuturesRisk = RISK) -> AllocatorConfig:
    return allocator(AllocationMethod.FUTURES_VOLATILITY, (), limits=(), futures=risk)


def chosen(weights: AllocatorConfig, seed: int = 7) -> tuple[dict[str, int], list[float]]:
    """Weights by market, and the volatilities of the markets."""
    step = weighed(weights, recorded(moves(seed=seed)))
    facts = AllocatorData(NOW_S, step.history.prices, NAMES)
    unrounded_weights = futures_volatility_weights(weights, bounds_of(weights, step.portfolio.assets), facts)
    assert unrounded_weights.shares_bps == ()
    return dict(unrounded_weights.market_bps), [float(volatility) for volatility in unrounded_weights.returns.volatilities]


def test_weights__are_inverse_to_volatility_with_config_s_sides() -> None:
    weights, volatility = chosen(by_risk(replace(RISK, stress_loss_bps=BPS)))
    inverse = [1 / market for market in volatility]
    assert [abs(bps) for bps in weights.values()] == pytest.approx([BPS * market / sum(inverse) for market in inverse], abs=1)
    assert sum(map(abs, weights.values())) == BPS
    assert [bps > 0 for bps in weights.values()] == [True, True, False]


@given(st.integers(1, 50), st.integers(1_000, 60_000), st.integers(100, 5_000), st.integers(100, BPS))
def test_stress_loss__bounds_each_market_while_all_reach_leverage(seed: int, leverage_bps: int, move_bps: int, loss_bps: int) -> None:
    risk = replace(RISK, leverage_bps=leverage_bps, stress_move_bps=move_bps, stress_loss_bps=loss_bps)
    weights, _ = chosen(by_risk(risk), seed)
    losses = [Fraction(abs(bps) * leverage_bps * move_bps, BPS**3) for bps in weights.values()]
    assert max(losses) <= Fraction(loss_bps, BPS)
    assert sum(map(abs, weights.values())) == min(BPS, 3 * risk.max_weight_bps)


def test_step__lowers_leverage_where_the_stress_loss_bounds_it() -> None:
    step = weighed(by_risk(replace(RISK, stress_loss_bps=1_000)), recorded(moves()))
    step = with_policy(with_snapshot(step, futures=pair_book(10_000)), FUTURES_POLICY)
    step_with_targets = apply_effective_targets(step)
    assert bps_of(step_with_targets) == PLAIN
    assert futures_policy(step_with_targets).leverage_bps == 15_000, "10 % of 20 % at 2x: a quarter of the target notional each"
    assert [(target.market, target.weight_bps) for target in futures_policy(step_with_targets).targets] == [
        ("WETH market", 3_334), ("WBTC market", 3_333), ("LINK market", -3_333),
    ]  # fmt: skip
    assert any(
        "futures targets are those of the allocator: 75 % of the target notional" in why for why in step_with_targets.targets.reasons
    )
    assert any(
        "1.50x of the account value in all, and a move of 20 % against one market costs at most 10.00 %" in why
        for why in step_with_targets.targets.reasons
    )


def test_too_few_prices_choose_nothing() -> None:
    step = weighed(by_risk(), recorded(moves(days=5)))
    with pytest.raises(Refused, match="5 returns"):
        futures_volatility_weights(by_risk(), bounds_of(by_risk(), step.portfolio.assets), AllocatorData(NOW_S, step.history.prices, NAMES))


def with_weights(weights: str = WEIGHTS) -> str:
    """A config with futures of WETH and WBTC, and this allocator."""
    futures = FUTURES.replace(f'aggregator = "{address(23)}"', f'asset = "WBTC"\naggregator = "{address(23)}"')
    return config_text(weights) + futures.replace('band = "5%"', 'band = "5%"\nleverage_band = "20%"')


def test_the_config_names_the_markets_by_their_assets() -> None:
    config = parse_config(with_weights())
    built = build_allocator(config.portfolio.weights, portfolio_of(config), Path(), {}, config.futures, chain_id=config.chain.chain_id)
    assert (built.futures.leverage_bps, built.futures.stress_move_bps, built.futures.stress_loss_bps) == (20_000, 2_000, 2_500)
    assert [side.is_long for side in built.futures.sides] == [True, False]
    assert codec.loads(AllocatorConfig, codec.dumps(built)) == built


def test_a_mistake_of_the_allocator_is_named() -> None:
    for text, why in (
        (with_weights(WEIGHTS.replace('stress_loss = "25%"\n', "")), "stress_loss: missing"),
        (with_weights(WEIGHTS + 'cap = "50%"\n'), "cap: not a key of kind futures_volatility"),
        (with_weights(WEIGHTS.replace("25%", "0%")), "portfolio.weights.stress_loss"),
        (with_weights().replace('leverage_band = "20%"\n', ""), "futures.leverage_band: missing"),
        (with_weights().split("\n[futures]")[0], "needs [futures]"),
    ):
        with pytest.raises(ConfigError) as raised:
            parse_config(text)
        assert why in str(raised.value)


def test_max_weight__bounds_targets_that_weights_of_markets_leave() -> None:
    limited = with_weights().replace("# max_weight = ", 'max_weight = { any = "60%" }\n# ', 1)
    assert all(asset.max_bps == 6_000 for asset in portfolio_of(parse_config(limited)).assets if asset.token.symbol != "USDC")
    with pytest.raises(ConfigError, match=r"portfolio\.assets\.WETH\.target"):
        parse_config(limited.replace('any = "60%"', 'any = "1%"'))
