"""Tests of agent/layers/strategies/policy/futures.py: futures targets of strategies, and the growth that their health counts."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
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
    StrategyLedger,
    StrategyState,
)
from agent.model import MarketGrowthInputs, StepInput
from agent.model.futures import FuturesTarget
from tests.support.builders import NOW_S, RULE, books_of, brought_up, split, strategy, with_snapshot
from tests.support.configs.futures import FUTURES, address
from tests.support.configs.strategies import CARRY, TREND, config_with_strategies
from tests.support.constants import DAY_S, HOUR_S
from tests.support.perpetuals.steps import FUTURES_POLICY, book, step_of
from tests.support.tokens import USDC

ONE = 10**12
START_S = NOW_S - NOW_S % DAY_S
LONG = replace(strategy("long", 6_000, {"USDC": 10_000}, health=RULE), market_bps=(("ETH", 10_000),))
SHORT = replace(strategy("short", 4_000, {"USDC": 10_000}, health=RULE), market_bps=(("ETH", -5_000), ("BTC", 5_000)))
SPOT = strategy("spot", 4_000, {"USDC": 10_000})


def books(*paused_names: str, fault: str = "") -> StrategyBooks:
    """Return the books of both strategies, some of them paused."""
    return StrategyBooks(
        tuple(
            StrategyBook(name, (), 0, StrategyState(name, StrategyHealth.PAUSED if name in paused_names else StrategyHealth.ACTIVE, 0))
            for name in ("long", "short")
        ),
        fault,
    )


# --- targets


@pytest.mark.parametrize(
    ("strategy_books", "shares"),
    [
        pytest.param(books(), {"ETH": Fraction(4, 10), "BTC": Fraction(2, 10)}, id="both"),
        pytest.param(books("short"), {"ETH": Fraction(1), "BTC": Fraction(0)}, id="one paused, at a floor of zero"),
        pytest.param(books("long", "short"), {"ETH": Fraction(0), "BTC": Fraction(0)}, id="both paused"),
        pytest.param(None, {"ETH": Fraction(4, 10), "BTC": Fraction(2, 10)}, id="no books"),
        pytest.param(books("short", fault="a difference"), {"ETH": Fraction(1), "BTC": Fraction(0)}, id="one paused, holdings in doubt"),
        pytest.param(StrategyBooks((), "unknown"), {"ETH": Fraction(4, 10), "BTC": Fraction(2, 10)}, id="books unknown"),
    ],
)
def test_market_shares_add_up_by_capital(strategy_books: StrategyBooks | None, shares: dict[str, Fraction]) -> None:
    """60 % long; 40 % half short of one market and half long of another."""
    assert strategy_market_shares(split(LONG, SHORT), strategy_books) == shares


def test_paused_strategy_has_no_share_while_a_strategy_is_added() -> None:
    config = split(replace(LONG, share_bps=5_000), SHORT, strategy("new", 1_000, {"USDC": 10_000}))
    assert strategy_market_shares(config, books("long", fault="names differ")) == {"ETH": Fraction(-2, 10), "BTC": Fraction(2, 10)}


@pytest.mark.parametrize("unread", [{"feeds": (), "pools": ()}, {"holdings": ()}], ids=["prices", "balances"])
def test_paused_strategy_has_no_share_while_its_books_are_unknown(unread: dict[str, object]) -> None:
    ledger = StrategyLedger(states=(StrategyState("long", StrategyHealth.PAUSED, 0), StrategyState("short", StrategyHealth.ACTIVE, 0)))
    step = brought_up(with_snapshot(step_of(book(10_000)), **unread).with_config(split(LONG, SHORT)), ledger)

    assert not books_of(step).strategy_books
    assert strategy_market_shares(split(LONG, SHORT), books_of(step)) == {"ETH": Fraction(-2, 10), "BTC": Fraction(2, 10)}


@pytest.mark.parametrize(
    ("config", "has_targets"),
    [
        pytest.param(split(LONG, SHORT), True, id="both have futures"),
        pytest.param(split(LONG, SPOT), True, id="one has"),
        pytest.param(split(SPOT, replace(SPOT, name="other", share_bps=6_000)), False, id="none has"),
    ],
)
def test_target_market_shares_need_futures_weights(config: CapitalSplit, has_targets: bool) -> None:
    assert (target_market_shares(config, StrategiesState()) is not None) is has_targets


def with_targets(step: StepInput) -> StepInput:
    """Return the step with the futures targets of its strategies, as agent/layers/inputs.py adds them."""
    return with_market_weights(step, target_market_shares(step.config(CapitalSplit), step.layer(StrategiesState)), "the strategies")


def test_targets_of_strategies_lower_the_leverage_once() -> None:
    step = step_of(book(10_000), FUTURES_POLICY).with_config(split(LONG, SHORT)).with_layer(StrategiesState(books()))
    policy = futures_policy(with_targets(step))

    assert policy.targets == (FuturesTarget("ETH", 6_667), FuturesTarget("BTC", 3_333))
    assert (policy.leverage_bps, policy.configured_leverage_bps) == (12_000, 20_000)
    assert futures_policy(with_targets(with_targets(step))) == policy


def test_strategies_without_futures_leave_the_config_s_targets() -> None:
    step = step_of(book(10_000), FUTURES_POLICY).with_config(split(SPOT, replace(SPOT, name="other", share_bps=6_000)))

    assert with_targets(step) == step


# --- growth


def growth_inputs(
    price: Fraction | int, leverage: int = 1, margin_share: Fraction = Fraction(1), funding_daily: Fraction = Fraction(0)
) -> MarketGrowthInputs:
    return MarketGrowthInputs({"ETH": Fraction(price)}, {"ETH": funding_daily}, Fraction(leverage), margin_share)


def state_after(inputs_by_hour: Mapping[int, MarketGrowthInputs | None], of: Strategy = LONG, unit_nav: int = ONE) -> StrategyState:
    """Return the state after readings of the markets at these hours; `unit_nav` is the value of a unit at the last."""
    state = StrategyState(of.name, StrategyHealth.ACTIVE, START_S)
    last_hour = max(inputs_by_hour)
    for hour, inputs in inputs_by_hour.items():
        nav = unit_nav if hour == last_hour else ONE
        updated = health.update_unit_index(state, of, nav, {USDC.address: Fraction(1)}, START_S + hour * HOUR_S)
        state = with_market_growth(updated, state, of, inputs)
    return state


@pytest.mark.parametrize(
    ("inputs_by_hour", "unit_nav", "index"),
    [
        pytest.param({0: growth_inputs(100, 2), 1: growth_inputs(110, 2)}, ONE, ONE * 12 // 10, id="10 % at 2x"),
        pytest.param(
            {0: growth_inputs(100, 2, Fraction(1, 2)), 1: growth_inputs(110, 2, Fraction(1, 2))},
            ONE,
            ONE * 11 // 10,
            id="10 % at 2x on half of the capital",
        ),
        pytest.param(
            {0: growth_inputs(100, 2, Fraction(1, 2)), 1: growth_inputs(110, 2, Fraction(1, 2))},
            ONE * 12 // 10,
            ONE * 12 // 10,
            id="spot and futures, halves",
        ),
        pytest.param(
            {0: growth_inputs(1, 2), 24: growth_inputs(1, 2, funding_daily=Fraction(1, 1_000))},
            ONE,
            ONE * 998 // 1_000,
            id="a day's funding at 2x",
        ),
        pytest.param(
            {0: growth_inputs(100, 3, Fraction(1, 2)), 1: growth_inputs(60, 3, Fraction(1, 2))}, ONE, ONE // 2, id="more than the margin"
        ),
        pytest.param({0: growth_inputs(0), 1: growth_inputs(100)}, ONE, ONE, id="a price of zero before"),
        pytest.param(
            {0: growth_inputs(100), 1: MarketGrowthInputs({}, {}, Fraction(1), Fraction(1))}, ONE, ONE, id="no price of the market"
        ),
    ],
)
def test_index_grows_with_futures_by_the_margin_s_share(
    inputs_by_hour: dict[int, MarketGrowthInputs | None], unit_nav: int, index: int
) -> None:
    assert state_after(inputs_by_hour, unit_nav=unit_nav).index == index


def test_index_counts_an_unknown_account_at_its_next_reading() -> None:
    """100, unknown for two hours, 50: half, less the funding of the three hours."""
    funding_daily = Fraction(8, 1_000)

    state = state_after({0: growth_inputs(100), 1: None, 2: None, 3: growth_inputs(50, funding_daily=funding_daily)})

    assert state.index == ONE * 499 // 1_000
    assert (dict(state.last_prices), state.markets_read_s) == ({USDC.address: 1, "ETH": 50}, START_S + 3 * HOUR_S)


@pytest.mark.parametrize(
    ("inputs_by_hour", "index"),
    [
        pytest.param({0: growth_inputs(100, 1, Fraction(1, 2)), 1: None}, ONE * 9 // 10, id="unknown"),
        pytest.param({0: growth_inputs(100, 1, Fraction(1, 2)), 1: None, 2: None}, ONE * 9 // 10, id="unknown twice"),
        pytest.param({0: growth_inputs(100, 1, Fraction(1, 2)), 1: growth_inputs(100, 1, Fraction(1, 2))}, ONE * 9 // 10, id="known"),
        pytest.param({0: None, 1: None}, ONE * 8 // 10, id="never known"),
    ],
)
def test_index_weighs_spot_by_the_last_known_share(inputs_by_hour: dict[int, MarketGrowthInputs | None], index: int) -> None:
    """A fifth less in the last hour; half of the capital is margin."""
    assert state_after(inputs_by_hour, unit_nav=ONE * 8 // 10).index == index


def test_index_keeps_its_weight_of_spot_at_the_next_reading() -> None:
    """A fifth less while the account is unknown, then known with flat prices."""
    half = growth_inputs(100, 1, Fraction(1, 2))
    state = state_after({0: half, 1: None}, unit_nav=ONE * 8 // 10)
    assert codec.loads(StrategyState, codec.dumps(state)) == state
    updated = health.update_unit_index(state, LONG, ONE * 8 // 10, {USDC.address: Fraction(1)}, START_S + 2 * HOUR_S)
    assert with_market_growth(updated, state, LONG, half).index == ONE * 9 // 10


def test_state_without_a_margin_share__counts_spot_alone() -> None:
    """As an earlier version stored it."""
    fields = json.loads(codec.dumps(StrategyState("long", StrategyHealth.ACTIVE, START_S)))
    fields.pop("margin_share", None)
    state = codec.loads(StrategyState, json.dumps(fields))
    assert with_market_growth(replace(state, index=ONE // 2), state, LONG, None).index == ONE // 2


def test_index_counts_a_market_without_a_price_at_its_next_one() -> None:
    """Its last price is kept."""
    without_price = MarketGrowthInputs({}, {}, Fraction(1), Fraction(1))

    assert state_after({0: growth_inputs(100), 1: without_price, 2: growth_inputs(110)}).index == ONE * 11 // 10


@pytest.mark.parametrize(
    ("missing_hours", "unknown_hours"), [((1,), ()), ((1, 2), ()), ((1,), (2,))], ids=["once", "twice", "then the account too"]
)
def test_index_counts_the_funding_of_a_market_that_was_missing(missing_hours: tuple[int, ...], unknown_hours: tuple[int, ...]) -> None:
    """Flat prices and 2.4 % a day for three hours, of which ETH was not read in some: 0.15 % of half of the capital's notional."""
    daily = Fraction(24, 1_000)
    both = MarketGrowthInputs({"ETH": Fraction(1), "BTC": Fraction(1)}, {"ETH": daily, "BTC": daily}, Fraction(1), Fraction(1))
    without_eth = replace(both, prices={"BTC": Fraction(1)}, funding_daily={"BTC": daily})
    halves = replace(LONG, market_bps=(("ETH", 5_000), ("BTC", 5_000)))
    inputs_by_hour = {hour: without_eth if hour in missing_hours else None if hour in unknown_hours else both for hour in range(4)}
    eth_only = replace(LONG, market_bps=(("ETH", 5_000),))

    assert state_after(inputs_by_hour, eth_only).index // 10**6 == 998_500
    state = state_after(dict(list(inputs_by_hour.items())[:3]), halves)
    assert dict(state.late_markets) == ({"ETH": START_S} if 2 in missing_hours + unknown_hours else {})
    assert codec.loads(StrategyState, codec.dumps(state)) == state
    assert state_after(inputs_by_hour, halves).late_markets == ()


def test_index_of_nothing_stays_nothing() -> None:
    previous = StrategyState("long", StrategyHealth.ACTIVE, START_S, index=0, last_prices=(("ETH", Fraction(100)),), recorded_s=START_S)

    assert with_market_growth(replace(previous, recorded_s=START_S + HOUR_S), previous, LONG, growth_inputs(110)).index == 0


def test_index_of_a_strategy_without_futures_is_that_of_its_units() -> None:
    state = StrategyState("spot", StrategyHealth.ACTIVE, START_S)

    assert with_market_growth(replace(state, index=5), state, SPOT, growth_inputs(110)) == replace(state, index=5)


def health_after(moves: Sequence[Fraction], of: Strategy) -> StrategyState:
    """Return the state after these daily moves of ETH, at 2x on half of the capital, without funding."""
    state = StrategyState(of.name, StrategyHealth.ACTIVE, START_S)
    price = Fraction(2_000)
    points = []
    for day, move in enumerate(moves):
        price *= 1 + move
        now_s = START_S + day * DAY_S + DAY_S - 60
        updated = health.update_unit_index(state, of, ONE, {USDC.address: Fraction(1)}, now_s)
        state = with_market_growth(updated, state, of, growth_inputs(price, 2, Fraction(1, 2)))
        points.append(NavPoint(now_s, state.unit_nav, state.index))
        state = health.update_health(state, RULE, health.sharpe_milli(points, RULE.window_s, now_s), now_s)
    return state


def test_losing_futures_pause_a_strategy_and_winning_ones_restore_it() -> None:
    """Below 0.5 for 30 days after the first window; while it is paused its weights still count."""
    dice = random.Random(7)
    falls = [Fraction(round(dice.gauss(-40, 100)), 10_000) for _ in range(70)]
    rises = [Fraction(round(dice.gauss(60, 100)), 10_000) for _ in range(120)]

    paused = health_after(falls, LONG)
    restored = health_after([*falls, *rises], LONG)
    mirrored = health_after(falls, replace(LONG, market_bps=(("ETH", -10_000),)))

    assert (paused.health, restored.health, mirrored.health) == (StrategyHealth.PAUSED, StrategyHealth.ACTIVE, StrategyHealth.ACTIVE)
    assert "below 0.5" in paused.reason
    assert "at or above 0.8" in restored.reason


def test_growth_inputs_have_the_margin_s_share_of_the_capital() -> None:
    inputs = market_terms(step_of(book(10_000), FUTURES_POLICY), Fraction(30_000 * 10**6))

    assert (inputs.margin_share, inputs.leverage, inputs.prices["ETH"]) == (Fraction(1, 4), 2, book(10_000).market("ETH").index)
    assert market_terms(step_of(None), Fraction(1)) is None


# --- records and config


@pytest.mark.parametrize("recorded", [SPOT, SHORT], ids=["without futures", "with futures"])
def test_strategy_is_read_back(recorded: Strategy) -> None:
    assert codec.loads(Strategy, codec.dumps(recorded)) == recorded


BANDED_FUTURES = FUTURES.replace('band = "5%"', 'band = "5%"\nleverage_band = "20%"', 1)


def test_config_gives_a_strategy_futures_weights() -> None:
    config = parse_config(config_with_strategies(TREND | {"futures": '{ WETH = "60%", WBTC = "-40%" }'}, CARRY) + BANDED_FUTURES)

    capital_split = build_split(config)

    assert [part.market_bps for part in capital_split.strategies] == [((address(20), 6_000), (address(22), -4_000)), ()]


@pytest.mark.parametrize(
    ("futures", "table", "reason"),
    [
        pytest.param('{ WETH = "60%" }', "", "strategies.trend.futures: the config has no [futures]", id="no futures in the config"),
        pytest.param(
            '{ DOGE = "60%" }',
            BANDED_FUTURES,
            "strategies.trend.futures: DOGE is not a futures market; choose from WETH, WBTC",
            id="unknown market",
        ),
        pytest.param('{ WETH = "60%", WBTC = "-60%" }', BANDED_FUTURES, "trend: absolute futures weights sum to 120 %", id="above a whole"),
        pytest.param('{ WETH = "60%" }', FUTURES, "futures.leverage_band: missing", id="missing leverage band"),
    ],
)
def test_mistake_in_futures_of_a_strategy_is_named(futures: str, table: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(config_with_strategies(TREND | {"futures": futures}, CARRY) + table)

    assert reason in str(caught.value)
