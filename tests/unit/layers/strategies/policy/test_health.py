"""Tests of agent/layers/strategies/policy/health.py: the Sharpe ratio, the pause and return of a strategy, and its index."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.layers.strategies.policy.health import FIXED_POINT_ONE, sharpe_milli, update_health, update_unit_index
from agent.layers.strategies.state import NavPoint, StrategyHealth, StrategyState
from tests.support.builders import NOW_S, RULE, strategy
from tests.support.constants import DAY_S, MONTH_S
from tests.support.tokens import USDC, WETH

START_S = NOW_S - NOW_S % DAY_S
ACTIVE = StrategyState("trend", StrategyHealth.ACTIVE, START_S)
PAUSED = StrategyState("trend", StrategyHealth.PAUSED, START_S)


def nav_points(indexes: Sequence[int], days: Sequence[int] | None = None) -> list[NavPoint]:
    """Return indexes in 10^-12 a minute before the end of each day, or of these days."""
    return [
        NavPoint(START_S + day * DAY_S + DAY_S - 60, index, index) for day, index in zip(days or range(len(indexes)), indexes, strict=True)
    ]


def walk_points(drift: float, days: int, seed: int = 7, noise: float = 0.01) -> list[NavPoint]:
    """Return the points of a random walk with this drift and noise of a day."""
    dice = random.Random(seed)
    levels = accumulate((1 + drift + dice.gauss(0, noise) for _ in range(days)), lambda level, factor: level * factor)
    return nav_points([round(level * FIXED_POINT_ONE) for level in levels])


def ratio_of(points: Sequence[NavPoint], window_s: int = MONTH_S) -> int | None:
    return sharpe_milli(points, window_s, points[-1].at_s)


# --- the ratio


@given(st.integers(0, 10_000), st.floats(-0.01, 0.01), st.floats(0.0005, 0.05))
def test_ratio_is_that_of_the_textbook(seed: int, drift: float, noise: float) -> None:
    """Mean over sample deviation of daily returns, times the root of 365, by Python's statistics."""
    points = walk_points(drift, 31, seed, noise)
    returns = [point.index / previous.index - 1 for previous, point in pairwise(points)]
    ratio = statistics.mean(returns) / statistics.stdev(returns) * 365**0.5

    assert ratio_of(points) == pytest.approx(ratio * 1_000, abs=1.01)


@pytest.mark.parametrize("missing_days", [range(5, 15), range(1, 30, 3), [1, 29], []], ids=["ten together", "every third", "two", "none"])
def test_ratio_with_missing_days_is_annual_by_the_returns_there_are(missing_days: Sequence[int]) -> None:
    """A return over ten days is one return, not ten, and no return of one day."""
    points = [point for number, point in enumerate(walk_points(0.002, 31)) if number not in missing_days]
    returns = [point.index / previous.index - 1 for previous, point in pairwise(points)]
    ratio = statistics.mean(returns) / statistics.stdev(returns) * (365 * len(returns) / 30) ** 0.5

    assert ratio_of(points) == pytest.approx(ratio * 1_000, abs=1.01)


def mean_and_squared_ratio(indexes: Sequence[int]) -> tuple[Fraction, Fraction]:
    """Return the mean of four days' three returns, and the square of the ratio in thousandths, exactly."""
    returns = [index * FIXED_POINT_ONE // previous - FIXED_POINT_ONE for previous, index in pairwise(indexes)]
    mean = Fraction(sum(returns), 3)
    return mean, mean**2 / (sum((daily_return - mean) ** 2 for daily_return in returns) / 2) * 365 * 10**6


@pytest.mark.parametrize("small_move", range(50, 1_500, 25))
def test_ratio_of_a_gain_is_rounded_down_to_the_thousandth(small_move: int) -> None:
    """Where the square of the ratio is just beside a whole number's."""
    indexes = list(accumulate((small_move, 1_000_000, -1_000_000), initial=FIXED_POINT_ONE))
    mean, squared_ratio = mean_and_squared_ratio(indexes)
    assert mean > 0

    ratio = ratio_of(nav_points(indexes), 3 * DAY_S)

    assert ratio is not None
    assert ratio >= 0
    assert ratio**2 <= squared_ratio < (ratio + 1) ** 2


@pytest.mark.parametrize("small_move", range(50, 1_500, 25))
def test_ratio_of_a_loss_is_rounded_down_to_the_thousandth(small_move: int) -> None:
    """Where the square of the ratio is just beside a whole number's."""
    indexes = list(accumulate((-small_move, -1_000_000, 1_000_000), initial=FIXED_POINT_ONE))
    mean, squared_ratio = mean_and_squared_ratio(indexes)
    assert mean < 0

    ratio = ratio_of(nav_points(indexes), 3 * DAY_S)

    assert ratio is not None
    assert ratio < 0
    assert (ratio + 1) ** 2 < squared_ratio <= ratio**2


@pytest.mark.parametrize(
    ("days", "window_s", "is_known"),
    [
        pytest.param([0, 1, 2], 2 * DAY_S, True, id="three values, each day"),
        pytest.param([0, 2], 2 * DAY_S, False, id="two values"),
        pytest.param([0, 2, 4, 6], 6 * DAY_S, True, id="two thirds of the days"),
        pytest.param([0, 3, 6], 6 * DAY_S, False, id="half of the days"),
        pytest.param([0, 2, 4, 6], 6 * DAY_S + DAY_S // 2, True, id="half a day more"),
        pytest.param([1, 2, 4, 6], 6 * DAY_S, False, id="first day missing"),
        pytest.param([-1, 2, 3, 4, 6], 6 * DAY_S, True, id="a value before the first day"),
    ],
)
def test_ratio_needs_three_values_on_two_thirds_of_the_days(days: list[int], window_s: int, is_known: bool) -> None:
    points = nav_points([FIXED_POINT_ONE + day**3 for day in days], days)

    assert (ratio_of(points, window_s) is not None) is is_known


@pytest.mark.parametrize(
    "points",
    [
        pytest.param([NavPoint(START_S + 2 * MONTH_S, FIXED_POINT_ONE, FIXED_POINT_ONE)], id="one value"),
        pytest.param(walk_points(-0.01, 30), id="a day too short"),
        pytest.param([point for day, point in enumerate(walk_points(-0.01, 40)) if day < 10 or day % 3 == 0], id="many days missing"),
    ],
)
def test_ratio_is_unknown_with_too_little_history(points: list[NavPoint]) -> None:
    assert sharpe_milli(points, MONTH_S, points[-1].at_s) is None


def test_ratio_is_unknown_without_a_move() -> None:
    assert ratio_of(nav_points([FIXED_POINT_ONE] * 40)) is None


def test_ratio_is_unknown_without_history() -> None:
    assert sharpe_milli([], MONTH_S, START_S) is None


@pytest.mark.parametrize(("lowest_index", "is_known"), [(0, False), (1, True)], ids=["nothing", "one unit"])
def test_ratio_needs_an_index_above_zero(lowest_index: int, is_known: bool) -> None:
    points = nav_points([FIXED_POINT_ONE, lowest_index, FIXED_POINT_ONE, 2 * FIXED_POINT_ONE])

    assert (ratio_of(points, 3 * DAY_S) is not None) is is_known


def test_ratio_counts_the_last_value_of_a_day() -> None:
    points = walk_points(0.001, 40)
    earlier_points = [NavPoint(point.at_s - 7_200, 3 * FIXED_POINT_ONE, 3 * FIXED_POINT_ONE) for point in points]

    assert ratio_of([*earlier_points, *points]) == ratio_of(points)


def test_ratio_counts_no_value_after_its_time() -> None:
    points = walk_points(0.001, 40)
    later_points = [NavPoint(points[-1].at_s + 30, 3 * FIXED_POINT_ONE, 3 * FIXED_POINT_ONE)]

    assert sharpe_milli([*points, *later_points], MONTH_S, points[-1].at_s) == ratio_of(points)


# --- pause and return: below 0.5 for a period, at 0.8 or above for another


@pytest.mark.parametrize(
    ("state", "ratio_milli", "counts"),
    [
        pytest.param(ACTIVE, 500, False, id="active, at the limit"),
        pytest.param(ACTIVE, 499, True, id="active, below it"),
        pytest.param(ACTIVE, None, False, id="active, unknown"),
        pytest.param(PAUSED, 799, False, id="paused, below recovery"),
        pytest.param(PAUSED, 800, True, id="paused, at recovery"),
        pytest.param(PAUSED, None, False, id="paused, unknown"),
    ],
)
@pytest.mark.parametrize("since_s", [None, START_S - DAY_S], ids=["first", "counting before"])
def test_period_counts_while_the_ratio_calls_for_a_change(
    state: StrategyState, ratio_milli: int | None, counts: bool, since_s: int | None
) -> None:
    updated = update_health(replace(state, opposite_since_s=since_s), RULE, ratio_milli, START_S)

    assert (updated.health, updated.sharpe_milli) == (state.health, ratio_milli)
    assert updated.opposite_since_s == ((START_S if since_s is None else since_s) if counts else None)


@pytest.mark.parametrize(
    ("state", "period_s", "ratio_milli", "health", "reason"),
    [
        pytest.param(ACTIVE, RULE.period_s, 499, StrategyHealth.PAUSED, "below 0.5 since", id="paused"),
        pytest.param(PAUSED, RULE.recover_s, 800, StrategyHealth.ACTIVE, "at or above 0.8 since", id="restored"),
    ],
)
def test_strategy_changes_at_the_end_of_its_period(
    state: StrategyState, period_s: int, ratio_milli: int, health: StrategyHealth, reason: str
) -> None:
    counting = replace(state, opposite_since_s=START_S)
    end_s = START_S + period_s

    second_before = update_health(counting, RULE, ratio_milli, end_s - 1)
    changed = update_health(counting, RULE, ratio_milli, end_s)

    assert (second_before.health, second_before.opposite_since_s) == (state.health, START_S)
    assert (changed.health, changed.since_s, changed.opposite_since_s) == (health, end_s, None)
    assert reason in changed.reason


def daily_states(points: Sequence[NavPoint]) -> list[StrategyState]:
    """Return the state after each day of a strategy that was active before."""
    state = ACTIVE
    states = []
    for number, point in enumerate(points):
        state = update_health(state, RULE, sharpe_milli(points[: number + 1], RULE.window_s, point.at_s), point.at_s)
        states.append(state)
    return states


def test_bad_strategy_is_paused_after_window_and_period() -> None:
    """30 days of window, then 30 days below."""
    states = daily_states(walk_points(-0.004, 70))

    assert [state.health for state in states[:60]] == [StrategyHealth.ACTIVE] * 60
    assert (states[60].health, states[60].since_s) == (StrategyHealth.PAUSED, START_S + 61 * DAY_S - 60)
    assert "below 0.5 since" in states[60].reason


def test_good_strategy_is_never_paused() -> None:
    assert {state.health for state in daily_states(walk_points(0.004, 200))} == {StrategyHealth.ACTIVE}


# --- the index


PRICES = {WETH.address: Fraction(2_000), USDC.address: Fraction(1)}
TREND = strategy("trend", 5_000, {"WETH": 6_000, "USDC": 4_000}, health=RULE)


@pytest.mark.parametrize(
    ("unit_nav", "nav_per_unit", "index"),
    [
        pytest.param(3, 5, 16, id="rounded down"),
        pytest.param(3, 3, 10, id="unchanged"),
        pytest.param(3, None, 10, id="no units"),
        pytest.param(0, 5, 10, id="no value before"),
        pytest.param(3, 0, 0, id="no value"),
        pytest.param(3, -5, 0, id="less than no value"),
    ],
)
def test_index_of_an_active_strategy_follows_its_unit(unit_nav: int, nav_per_unit: int | None, index: int) -> None:
    updated = update_unit_index(replace(ACTIVE, index=10, unit_nav=unit_nav), TREND, nav_per_unit, PRICES, NOW_S)

    assert updated.index == index
    assert updated.unit_nav == (unit_nav if nav_per_unit is None else nav_per_unit)
    assert (updated.recorded_s, dict(updated.last_prices)) == (NOW_S, PRICES)


@pytest.mark.parametrize(
    ("weights_bps", "last_prices", "index"),
    [
        pytest.param({"WETH": 6_000, "USDC": 4_000}, {WETH: 2_000, USDC: 1}, 1_060, id="by its weights"),
        pytest.param({"WETH": 10_000, "USDC": 0}, {WETH: 2_000}, 1_100, id="a token without a weight"),
        pytest.param({"WETH": 6_000, "USDC": 4_000}, {WETH: 2_000}, 1_000, id="a price not known before"),
        pytest.param({"WETH": 6_000, "USDC": 4_000}, {WETH: 0, USDC: 1}, 1_000, id="a price of zero before"),
        pytest.param({"WETH": 5_000, "USDC": 5_000}, {WETH: 2_001, USDC: 1}, 1_049, id="rounded down"),
    ],
)
def test_index_of_a_paused_strategy_follows_its_weights(
    weights_bps: Mapping[str, int], last_prices: Mapping[object, int], index: int
) -> None:
    """WETH is at 2,200; what the unit does meanwhile, in the numeraire, does not count."""
    known_prices = tuple((token.address, Fraction(price)) for token, price in last_prices.items())  # type: ignore[attr-defined]  # tokens
    state = replace(PAUSED, index=1_000, last_prices=known_prices)

    updated = update_unit_index(
        state, strategy("trend", 5_000, weights_bps), 2 * FIXED_POINT_ONE, PRICES | {WETH.address: Fraction(2_200)}, NOW_S
    )

    assert (updated.index, updated.unit_nav) == (index, 2 * FIXED_POINT_ONE)


def test_index_goes_on_from_the_pause_by_its_unit() -> None:
    first = update_unit_index(PAUSED, TREND, FIXED_POINT_ONE, PRICES, START_S)
    risen = update_unit_index(first, TREND, FIXED_POINT_ONE, PRICES | {WETH.address: Fraction(2_200)}, START_S + 3_600)

    restored = update_unit_index(replace(risen, health=StrategyHealth.ACTIVE), TREND, FIXED_POINT_ONE * 11 // 10, PRICES, START_S + 7_200)

    assert (first.index, risen.index) == (FIXED_POINT_ONE, FIXED_POINT_ONE * 106 // 100)
    assert restored.index == risen.index * 11 // 10
