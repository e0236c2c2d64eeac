"""The health rule on tables of unit values: what is below its limit for a period is cut, what is above a higher one is let back."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.layers.strategies.policy import health
from agent.layers.strategies.state import NavPoint, StrategyHealth, StrategyState
from tests.support.builders import DAY_S, NOW_S, RULE, strategy, token

ONE = 10**12
START_S = NOW_S - NOW_S % DAY_S
ACTIVE = StrategyState("trend", StrategyHealth.ACTIVE, START_S)
MONTH = 30 * DAY_S


def points(values: list[float], step_s: int = DAY_S) -> list[NavPoint]:
    """Unit values, one at the end of each day."""
    return [NavPoint(START_S + number * step_s + DAY_S - 60, round(v * ONE), round(v * ONE)) for number, v in enumerate(values)]


def walk(drift: float, days: int, seed: int = 7, noise: float = 0.01) -> list[float]:
    chance = random.Random(seed)
    value = 1.0
    dice = []
    for _ in range(days):
        value *= 1 + drift + chance.gauss(0, noise)
        dice.append(value)
    return dice


def judged_daily(state: StrategyState, table: list[NavPoint], since: int = 0) -> list[StrategyState]:
    """The state after the last look of each day of a table."""
    judgements = []
    for number, point in enumerate(table):
        if number >= since:
            sharpe = health.sharpe_milli(table[: number + 1], RULE.window_s, point.at_s)
            state = health.update_health(state, RULE, sharpe, point.at_s)
            judgements.append(state)
    return judgements


@given(st.integers(0, 10_000), st.floats(-0.01, 0.01), st.floats(0.0005, 0.05))
def test_the_ratio_is_that_of_the_textbook(seed: int, drift: float, noise: float) -> None:
    """Mean over sample deviation of daily returns, times the root of 365, by Python's statistics."""
    table = points(walk(drift, 31, seed, noise))
    values = [point.index / ONE for point in table]
    returns = [now / before - 1 for before, now in pairwise(values)]
    expected = statistics.mean(returns) / statistics.stdev(returns) * 365**0.5
    sharpe_milli = health.sharpe_milli(table, MONTH, table[-1].at_s)
    assert sharpe_milli is not None
    assert sharpe_milli == pytest.approx(expected * 1000, abs=1.01)


@pytest.mark.parametrize("missing_days", [range(5, 15), range(1, 30, 3), [1, 29], []], ids=["ten together", "every third", "two", "none"])
def test_ratio_with_missing_days__is_annual_by_the_returns_there_are(missing_days: Sequence[int]) -> None:
    """A return over ten days is one return, not ten, and no return of one day."""
    table = [point for number, point in enumerate(points(walk(0.002, 31))) if number not in missing_days]
    returns = [now.index / before.index - 1 for before, now in pairwise(table)]
    expected = statistics.mean(returns) / statistics.stdev(returns) * (365 * len(returns) / 30) ** 0.5
    sharpe_milli = health.sharpe_milli(table, MONTH, table[-1].at_s)
    assert sharpe_milli is not None
    assert sharpe_milli == pytest.approx(expected * 1000, abs=1.01)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_ratio_is_rounded_down_to_the_thousandth(sign: int) -> None:
    """Against exact fractions, where the square of the ratio is just beside a whole number's."""
    for small in range(50, 1_500, 25):
        steps = [small, 1_000_000, -1_000_000]
        closes = [ONE]
        for step in steps:
            closes.append(closes[-1] + sign * step)
        table = [NavPoint(START_S + number * DAY_S + DAY_S - 60, close, close) for number, close in enumerate(closes)]
        sharpe_milli = health.sharpe_milli(table, 3 * DAY_S, table[-1].at_s)
        returns = [now * ONE // before - ONE for before, now in pairwise(closes)]
        mean = Fraction(sum(returns), 3)
        squared = mean**2 / (sum((daily_return - mean) ** 2 for daily_return in returns) / 2) * 365 * 10**6
        assert sharpe_milli is not None
        low, high = (sharpe_milli, sharpe_milli + 1) if sharpe_milli >= 0 else (-sharpe_milli - 1, -sharpe_milli)
        assert low**2 <= squared < high**2 if sharpe_milli >= 0 else low**2 < squared <= high**2, (small, sharpe_milli)


@pytest.mark.parametrize(
    ("days", "window_s", "known"),
    [
        pytest.param([0, 1, 2], 2 * DAY_S, True, id="each day"),
        pytest.param([0, 2], 2 * DAY_S, False, id="a day missing of three"),
        pytest.param([0, 2, 4, 6], 6 * DAY_S, True, id="two thirds"),
        pytest.param([0, 3, 6], 6 * DAY_S, False, id="half"),
        pytest.param([0, 2, 4, 6], 6 * DAY_S + DAY_S // 2, True, id="window of half a day more"),
        pytest.param([1, 2, 4, 6], 6 * DAY_S, False, id="first day missing"),
    ],
)
def test_two_thirds_of_the_days_and_three_values_are_enough(days: list[int], window_s: int, known: bool) -> None:
    table = [NavPoint(START_S + day * DAY_S + DAY_S - 60, ONE + day**3, ONE + day**3) for day in days]
    assert (health.sharpe_milli(table, window_s, table[-1].at_s) is not None) is known


def test_a_strategy_that_was_worth_nothing_once_has_no_ratio() -> None:
    closes = [ONE, 0, ONE, 2 * ONE]
    table = [NavPoint(START_S + number * DAY_S + DAY_S - 60, close, close) for number, close in enumerate(closes)]
    assert health.sharpe_milli(table, 3 * DAY_S, table[-1].at_s) is None


def test_the_index_of_a_strategy_is_rounded_down() -> None:
    usdc = token("USDC").address
    trend = strategy("trend", 5_000, {"USDC": 10_000})
    state = replace(ACTIVE, index=10, unit_nav=3)
    assert health.update_unit_index(state, trend, 5, {usdc: Fraction(1)}, START_S).index == 16
    assert health.update_unit_index(replace(state, unit_nav=0), trend, 5, {usdc: Fraction(1)}, START_S).index == 10
    paused = replace(state, health=StrategyHealth.PAUSED, last_prices=((usdc, Fraction(3)),))
    assert health.update_unit_index(paused, trend, None, {usdc: Fraction(5)}, START_S).index == 16


def test_a_new_strategy_begins_with_a_unit_and_an_index_of_one() -> None:
    trend = strategy("trend", 5_000, {"USDC": 10_000})
    usdc = token("USDC").address
    first = health.update_unit_index(ACTIVE, trend, ONE, {usdc: Fraction(1)}, START_S)
    assert (first.unit_nav, first.index) == (ONE, ONE)
    assert health.update_unit_index(first, trend, 2 * ONE, {usdc: Fraction(1)}, START_S).index == 2 * ONE


def test_of_several_values_of_a_day_the_last_one_counts() -> None:
    daily = points(walk(0.001, 40))
    noisy = [NavPoint(point.at_s - 7_200, 3 * ONE, 3 * ONE) for point in daily]
    assert health.sharpe_milli([*noisy, *daily], MONTH, daily[-1].at_s) == health.sharpe_milli(daily, MONTH, daily[-1].at_s)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([], "nothing at all"),
        (walk(-0.01, 29), "it does not reach back to the beginning of the window"),
        ([1.0] * 40, "nothing ever moved"),
    ],
)
def test_of_too_little_history_nothing_is_said(values: list[float], why: str) -> None:
    table = points(values)
    assert health.sharpe_milli(table, MONTH, START_S + max(len(values), 1) * DAY_S - 60) is None, why


def test_a_window_with_many_days_missing_says_nothing() -> None:
    table = points(walk(-0.01, 40))
    holes = [point for number, point in enumerate(table) if number < 10 or number % 3 == 0]
    assert health.sharpe_milli(holes, MONTH, table[-1].at_s) is None


def test_bad_strategy__is_cut_after_the_whole_period_exactly() -> None:
    states = judged_daily(ACTIVE, points(walk(-0.004, 70)))
    assert [state.health for state in states[:60]] == [StrategyHealth.ACTIVE] * 60, "30 days of window, then 30 days below"
    assert states[60].health is StrategyHealth.PAUSED
    assert "below 0.5 since" in states[60].reason
    assert states[60].since_s == START_S + 61 * DAY_S - 60


def test_a_good_strategy_is_never_cut() -> None:
    assert {state.health for state in judged_daily(ACTIVE, points(walk(0.004, 200)))} == {StrategyHealth.ACTIVE}


def test_one_good_day_begins_the_period_anew() -> None:
    low = replace(ACTIVE, opposite_since_s=START_S)
    almost = health.update_health(low, RULE, 100, START_S + RULE.period_s - 1)
    assert (almost.health, almost.opposite_since_s) == (StrategyHealth.ACTIVE, START_S)
    assert health.update_health(almost, RULE, 500, START_S + RULE.period_s).opposite_since_s is None
    assert health.update_health(almost, RULE, None, START_S + RULE.period_s).opposite_since_s is None, "what is unknown cuts nothing"
    assert health.update_health(almost, RULE, 499, START_S + RULE.period_s).health is StrategyHealth.PAUSED


def test_cut_strategy__returns_at_its_higher_limit_and_period() -> None:
    paused = StrategyState("trend", StrategyHealth.PAUSED, START_S)
    between = health.update_health(paused, RULE, 799, START_S + DAY_S)
    assert (between.health, between.opposite_since_s) == (StrategyHealth.PAUSED, None), (
        "0.5 to 0.8 changes nothing, whichever side it comes from"
    )
    high = health.update_health(paused, RULE, 800, START_S + DAY_S)
    assert (high.health, high.opposite_since_s) == (StrategyHealth.PAUSED, START_S + DAY_S)
    back = health.update_health(high, RULE, 800, START_S + DAY_S + RULE.recover_s)
    assert back.health is StrategyHealth.ACTIVE
    assert "above 0.8" in back.reason


def test_paused_strategy__is_judged_by_its_hypothetical_weights() -> None:
    weth = token("WETH").address
    usdc = token("USDC").address
    trend = strategy("trend", 5_000, {"WETH": 6_000, "USDC": 4_000}, health=RULE)
    prices = {weth: Fraction(2_000), usdc: Fraction(1)}
    first = health.update_unit_index(replace(ACTIVE, health=StrategyHealth.PAUSED), trend, ONE, prices, START_S)
    assert first.index == ONE, "nothing to compare with yet"
    later = health.update_unit_index(first, trend, ONE, prices | {weth: Fraction(2_200)}, START_S + 3_600)
    assert later.unit_nav == ONE
    assert later.index == ONE * 106 // 100
    back = health.update_unit_index(replace(later, health=StrategyHealth.ACTIVE), trend, ONE * 11 // 10, prices, START_S + 7_200)
    assert back.index == later.index * 11 // 10, "working again it follows its own unit value"
