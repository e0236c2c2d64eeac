"""Futures targets of strategies: what they add up to, what a pause takes away, and how health counts them."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.config.load import parse_config
from agent.config.strategies import build_split
from agent.errors import ConfigError
from agent.layers.futures.policy.chosen_weights import with_market_weights
from agent.layers.futures.policy.exposure import market_terms
from agent.layers.futures.state import futures_policy
from agent.layers.strategies.policy import health
from agent.layers.strategies.policy.futures import strategy_market_shares, target_market_shares, with_market_growth
from agent.layers.strategies.state import (
    CapitalSplit,
    NavPoint,
    StrategiesState,
    Strategy,
    StrategyBook,
    StrategyBooks,
    StrategyHealth,
    StrategyState,
)
from agent.model import MarketGrowthInputs, StepInput
from agent.model.futures import FuturesTarget
from tests.support.builders import DAY_S, NOW_S, RULE, split, strategy, token
from tests.support.configs.futures import FUTURES, address
from tests.support.configs.strategies import CARRY, TREND, config_with_strategies
from tests.support.perpetuals.steps import FUTURES_POLICY, book, step_of

ONE = 10**12
START_S = NOW_S - NOW_S % DAY_S
USDC = token("USDC").address
LONG = replace(strategy("long", 6_000, {"USDC": 10_000}, health=RULE), market_bps=(("ETH", 10_000),))
SHORT = replace(strategy("short", 4_000, {"USDC": 10_000}, health=RULE), market_bps=(("ETH", -5_000), ("BTC", 5_000)))
PLAIN = strategy("plain", 4_000, {"USDC": 10_000})


def books(*paused: str) -> StrategyBooks:
    """Both strategies, some of them paused."""
    return StrategyBooks(
        tuple(
            StrategyBook(name, (), 0, StrategyState(name, StrategyHealth.PAUSED if name in paused else StrategyHealth.ACTIVE, 0))
            for name in ("long", "short")
        )
    )


def apply_shares(step: StepInput) -> StepInput:
    """As agent/layers/inputs.py does."""
    return with_market_weights(step, target_market_shares(step.config(CapitalSplit), step.layer(StrategiesState)), "the strategies")


def test_strategies__count_by_share_and_opposite_weights_offset() -> None:
    shares = strategy_market_shares(split(LONG, SHORT), books())
    assert shares == {"ETH": Fraction(4, 10), "BTC": Fraction(2, 10)}
    step = step_of(book(10_000), FUTURES_POLICY)
    step = apply_shares(step.with_config(split(LONG, SHORT)).with_layer(StrategiesState(books())))
    assert futures_policy(step) is not None
    assert futures_policy(step).targets == (FuturesTarget("ETH", 6_667), FuturesTarget("BTC", 3_333))
    assert (futures_policy(step).leverage_bps, futures_policy(step).configured_leverage_bps) == (12_000, 20_000)
    assert futures_policy(apply_shares(step)) == futures_policy(step), "the leverage is not lowered twice"


def test_a_paused_strategy_holds_no_futures() -> None:
    """Its floor is 0: the other one gets all of the capital."""
    assert strategy_market_shares(split(LONG, SHORT), books("short")) == {"ETH": Fraction(1), "BTC": Fraction(0)}
    assert strategy_market_shares(split(LONG, SHORT), books("long", "short")) == {"ETH": Fraction(0), "BTC": Fraction(0)}


def test_strategies_without_futures__leave_the_config_s_targets() -> None:
    step = step_of(book(10_000), FUTURES_POLICY).with_config(split(PLAIN, replace(PLAIN, name="other", share_bps=6_000)))
    assert apply_shares(step) == step


def updated(
    state: StrategyState, strategy: Strategy, prices: dict[str, Fraction], now_s: int, growth: MarketGrowthInputs | None
) -> StrategyState:
    """The state at one unit's value, with its futures weights in the index."""
    return with_market_growth(health.update_unit_index(state, strategy, ONE, prices, now_s), state, strategy, growth)


def state_after(days: list[Fraction], strategy: Strategy, part: Fraction) -> tuple[StrategyState, list[NavPoint]]:
    """The state and unit values after these daily moves of ETH, at 2x and no funding."""
    state = StrategyState(strategy.name, StrategyHealth.ACTIVE, START_S)
    price = Fraction(2_000)
    points = []
    for day, move in enumerate(days):
        price *= 1 + move
        growth = MarketGrowthInputs({"ETH": price}, {}, Fraction(2), part)
        now_s = START_S + day * DAY_S + DAY_S - 60
        state = updated(state, strategy, {USDC: Fraction(1)}, now_s, growth)
        points.append(NavPoint(now_s, state.unit_nav, state.index))
        sharpe = health.sharpe_milli(points, RULE.window_s, now_s)
        state = health.update_health(state, RULE, sharpe, now_s)
    return state, points


def test_health_follows_futures_with_the_margin_accounts_part() -> None:
    """10 % up at 2x on half of the capital, spot unmoved: 10 %."""
    state, _ = state_after([Fraction(0), Fraction(1, 10)], LONG, Fraction(1, 2))
    assert state.index == ONE * 11 // 10
    assert dict(state.last_prices)["ETH"] == 2_200


def test_funding_lowers_the_health_of_what_pays_it() -> None:
    begun = StrategyState("long", StrategyHealth.ACTIVE, START_S)
    first = updated(begun, LONG, {}, START_S, MarketGrowthInputs({"ETH": Fraction(1)}, {}, Fraction(2), Fraction(1)))
    growth = MarketGrowthInputs({"ETH": Fraction(1)}, {"ETH": Fraction(1, 1_000)}, Fraction(2), Fraction(1))
    assert updated(first, LONG, {}, START_S + DAY_S, growth).index == ONE * 998 // 1_000


def test_fall_beyond_the_margin__takes_no_more_than_all_of_it() -> None:
    """At three times the capital a fall of 40 % between two readings would leave less than nothing of the margin's half."""
    state = StrategyState("long", StrategyHealth.ACTIVE, START_S)
    for hour, price in enumerate((100, 60)):
        growth = MarketGrowthInputs({"ETH": Fraction(price)}, {}, Fraction(3), Fraction(1, 2))
        state = updated(state, LONG, {USDC: Fraction(1)}, START_S + hour * 3_600, growth)
    assert state.index == ONE // 2


def test_markets_during_an_unknown_account__count_at_next_reading() -> None:
    """100, unknown for two hours, 50: half, less the funding of the three hours."""
    state = StrategyState("long", StrategyHealth.ACTIVE, START_S)
    for hour, price in enumerate((100, None, None, 50)):
        now_s = START_S + hour * 3_600
        growth = (
            None if price is None else MarketGrowthInputs({"ETH": Fraction(price)}, {"ETH": Fraction(8, 1_000)}, Fraction(1), Fraction(1))
        )
        state = updated(state, LONG, {USDC: Fraction(1)}, now_s, growth)
    assert state.index == ONE * 499 // 1_000
    assert (dict(state.last_prices), state.markets_read_s) == ({USDC: 1, "ETH": 50}, START_S + 3 * 3_600)


def test_a_losing_futures_strategy_is_paused_and_comes_back() -> None:
    """Below 0.5 for 30 days after the first window; while paused its weights are still judged."""
    chance = random.Random(7)
    falling = [Fraction(round(chance.gauss(-40, 100)), 10_000) for _ in range(70)]
    rising = [Fraction(round(chance.gauss(60, 100)), 10_000) for _ in range(120)]
    paused, _ = state_after(falling, LONG, Fraction(1, 2))
    assert paused.health is StrategyHealth.PAUSED
    assert "below 0.5" in paused.reason
    back, _ = state_after([*falling, *rising], LONG, Fraction(1, 2))
    assert back.health is StrategyHealth.ACTIVE
    assert "at or above 0.8" in back.reason
    mirrored = replace(LONG, market_bps=(("ETH", -10_000),))
    assert state_after(falling, mirrored, Fraction(1, 2))[0].health is StrategyHealth.ACTIVE


def test_the_account_says_its_part_of_the_capital() -> None:
    market_growth_inputs = market_terms(step_of(book(10_000), FUTURES_POLICY), Fraction(30_000 * 10**6))
    assert market_growth_inputs is not None
    assert (market_growth_inputs.margin_share, market_growth_inputs.leverage, market_growth_inputs.prices["ETH"]) == (
        Fraction(1, 4),
        2,
        book(10_000).market("ETH").index,
    )
    assert market_terms(step_of(None), Fraction(1)) is None


def test_strategies_are_read_back_with_and_without_futures() -> None:
    assert codec.loads(Strategy, codec.dumps(PLAIN)) == PLAIN
    assert codec.loads(Strategy, codec.dumps(SHORT)) == SHORT


BANDED = FUTURES.replace('band = "5%"', 'band = "5%"\nleverage_band = "20%"', 1)


def test_the_config_gives_a_strategy_futures_weights() -> None:
    config = parse_config(config_with_strategies(TREND | {"futures": '{ WETH = "60%", WBTC = "-40%" }'}, CARRY) + BANDED)
    capital_split = build_split(config)
    assert capital_split is not None
    assert [strategy.market_bps for strategy in capital_split.strategies] == [((address(20), 6_000), (address(22), -4_000)), ()]


@pytest.mark.parametrize(
    ("futures", "table", "reason"),
    [
        pytest.param('{ WETH = "60%" }', "", "strategies.trend.futures: the config has no [futures]", id="no futures in the config"),
        pytest.param(
            '{ DOGE = "60%" }',
            BANDED,
            "strategies.trend.futures: DOGE is not a futures market; choose from WETH, WBTC",
            id="unknown market",
        ),
        pytest.param('{ WETH = "60%", WBTC = "-60%" }', BANDED, "trend: absolute futures weights sum to 120 %", id="weights above a whole"),
        pytest.param('{ WETH = "60%" }', FUTURES, "futures.leverage_band: missing", id="missing leverage band"),
    ],
)
def test_a_mistake_in_futures_of_a_strategy_is_named(futures: str, table: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(config_with_strategies(TREND | {"futures": futures}, CARRY) + table)
    assert reason in str(caught.value)
