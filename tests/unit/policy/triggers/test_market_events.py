"""Falls and jumps of volatility: by tables of prices, against an independent calculation, confirmed, answered once, never guessed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import codec
from agent.model import (
    AnyOf,
    Drawdown,
    Every,
    History,
    Hold,
    PastPrices,
    PricePoint,
    PriceSource,
    Rebalance,
    StepInput,
    Threshold,
    VolatilityJump,
)
from agent.policy.decide import decide
from agent.policy.triggers import rules
from agent.policy.triggers.rules import trigger_history_s
from tests.support.builders import NOW_S, feed_round, history, step_input, token, unit_price
from tests.support.constants import DAY_S, HOUR_S
from tests.support.text import mentions
from tests.support.tokens import USDC, WETH

FALL = Drawdown(2_000, DAY_S, (WETH.address,))
JUMP = VolatilityJump(DAY_S, 7 * DAY_S, 20_000, (WETH.address,))
OFF = {"WETH": 5_200, "USDC": 4_800}


def points(prices: Sequence[object], every_s: int = HOUR_S, until_s: int = NOW_S - 60) -> tuple[PricePoint, ...]:
    """Prices of WETH in USDC, the newest last."""
    first_s = until_s - (len(prices) - 1) * every_s
    return tuple(
        PricePoint(WETH.address, first_s + number * every_s, unit_price(WETH, Fraction(str(price)), USDC))
        for number, price in enumerate(prices)
    )


def step_with_trigger(trigger: Drawdown | VolatilityJump | AnyOf, price: object, past: History, **changes: object) -> StepInput:
    step = step_input(
        values=OFF,
        prices={"WETH": Fraction(str(price)), "USDC": 1},
        trigger=trigger,
        past=past,
        kinds=[PriceSource.FEED],
        cooldown_s=0,
        **changes,  # type: ignore[arg-type]  # keywords of step_input
    )
    return codec.loads(StepInput, codec.dumps(step))


FLAT = [2_000] * 26


@pytest.mark.parametrize(
    ("before", "now", "fires", "reason"),
    [
        pytest.param(
            FLAT, 1_600, False, "no asset has a drawdown of more than 20 %: WETH is 20 % below its highest of 1 day", id="at the limit"
        ),
        pytest.param(
            FLAT,
            1_599,
            True,
            "a drawdown of more than 20 %: WETH is 20.05 % below its highest of 1 day, that of 2027-01-15 07:59:00 UTC",
            id="beyond the limit",
        ),
        pytest.param(FLAT, 2_400, False, "WETH is at its highest of 1 day", id="at its highest"),
        pytest.param(
            [*[2_000] * 20, 2_500, *[2_000] * 5],
            1_999,
            True,
            "WETH is 20.04 % below its highest of 1 day, that of 2027-01-15 02:59:00 UTC",
            id="high within the window",
        ),
        pytest.param([2_500, *FLAT], 1_999, False, "WETH is 0.05 % below its highest of 1 day", id="high before the window"),
    ],
)
def test_drawdown_fires_beyond_its_limit_from_the_window_high(before: Sequence[int], now: int, fires: bool, reason: str) -> None:
    decision = decide(step_with_trigger(FALL, now, history(prices=points(before)))).decision
    assert isinstance(decision, Rebalance if fires else Hold)
    assert reason in decision.reason


@pytest.mark.parametrize(
    ("before", "now", "fires", "reason"),
    [
        pytest.param(
            [2_000],
            1_599,
            True,
            "WETH is 20.05 % below its highest recorded since 2027-01-15 07:59:00 UTC, that of 2027-01-15 07:59:00 UTC",
            id="one price",
        ),
        pytest.param(
            [2_000] * 24, 1_599, True, "WETH is 20.05 % below its highest recorded since 2027-01-14 08:59:00 UTC", id="a day of prices"
        ),
        pytest.param(
            [2_000] * 24,
            1_600,
            False,
            "no asset has a drawdown of more than 20 %: WETH is 20 % below its highest recorded since",
            id="a day of prices, at the limit",
        ),
        pytest.param([1_000], 1_100, False, "WETH is at its highest recorded since 2027-01-15 07:59:00 UTC", id="at its highest"),
    ],
)
def test_drawdown_counts_a_recorded_high_from_the_first_step(before: Sequence[int], now: int, fires: bool, reason: str) -> None:
    decision = decide(step_with_trigger(FALL, now, history(prices=points(before)))).decision
    assert isinstance(decision, Rebalance if fires else Hold)
    assert reason in decision.reason


def test_drawdown_without_a_recorded_price_holds() -> None:
    decision = decide(step_with_trigger(FALL, 1_000, history(prices=()))).decision
    assert isinstance(decision, Hold)
    assert mentions(decision.reason, "WETH", "no recorded price")
    assert "next cycle" in decision.reason


def test_drawdown_is_answered_once() -> None:
    prices = points([*[2_000] * 20, 1_500, 1_500, 1_500, 1_500, 1_500, 1_500])
    done = history(prices=prices, last_rebalance_s=NOW_S - 5 * HOUR_S)
    assert isinstance(decide(step_with_trigger(FALL, 1_500, history(prices=prices))).decision, Rebalance)
    decision = decide(step_with_trigger(FALL, 1_490, done)).decision
    assert isinstance(decision, Hold)
    assert mentions(decision.reason, "WETH", "0.67 %")
    assert isinstance(decide(step_with_trigger(FALL, 1_199, done)).decision, Rebalance)


@pytest.mark.parametrize(("early_s", "fires"), [(0, True), (1, False)])
def test_drawdown_counts_a_high_at_the_start_of_its_window(early_s: int, fires: bool) -> None:
    high = points([2_500], until_s=NOW_S - DAY_S - early_s)
    decision = decide(step_with_trigger(FALL, 1_999, history(prices=high + points(FLAT[:20])))).decision
    assert isinstance(decision, Rebalance if fires else Hold)


def test_drawdown_watches_its_tokens_or_all() -> None:
    prices = points(FLAT)
    elsewhere = replace(FALL, tokens=(token("WBTC").address,))
    decision = decide(step_with_trigger(elsewhere, 1_000, history(prices=prices))).decision
    assert isinstance(decision, Hold)
    assert "none of" in decision.reason
    named_none = decide(step_with_trigger(replace(FALL, tokens=()), 1_000, history(prices=prices))).decision
    assert isinstance(named_none, Rebalance)
    assert "USDC is" in named_none.reason


def test_drawdown_is_confirmed_by_past_blocks() -> None:
    def with_past(prices: Sequence[int]) -> StepInput:
        step = step_with_trigger(FALL, 1_500, history(prices=points(FLAT)))
        past = tuple(
            PastPrices(
                replace(step.snapshot.head, number=step.snapshot.head.number - back, hash=f"0x{back:064x}"),
                (feed_round("USDC", 1), feed_round("WETH", price)),
                (),
            )
            for back, price in enumerate(prices, 1)
        )
        step = replace(step, policy=replace(step.policy, confirm_blocks=2))
        return replace(step, snapshot=replace(step.snapshot, past_prices=past))

    assert isinstance(decide(with_past([1_500, 1_590])).decision, Rebalance)
    decision = decide(with_past([1_500, 1_610])).decision
    assert isinstance(decision, Hold)
    assert "block 998" in decision.reason


def zigzag(percent: float, count: int, start: float = 2_000.0) -> list[str]:
    """Prices that go up and down by that much in turn."""
    prices = []
    price = start
    for number in range(count):
        prices.append(f"{price:.9f}")
        price *= 1 + (percent if number % 2 == 0 else -percent) / 100
    return prices


def joined_prices(calm: float, wild: float, hours: int = 24) -> list[str]:
    before = zigzag(calm, 7 * 24 + 2)
    return before + zigzag(wild, hours, float(before[-1]))[1:]


@pytest.mark.parametrize(("wild", "fires"), [(0.4, False), (0.9, False), (1.1, True), (3.0, True)])
def test_volatility_jump_fires_beyond_its_ratio(wild: float, fires: bool) -> None:
    prices = joined_prices(0.5, wild)
    decision = decide(step_with_trigger(JUMP, prices[-1], history(prices=points(prices)))).decision
    assert isinstance(decision, Rebalance if fires else Hold), decision.reason
    assert mentions(decision.reason, "volatility", "WETH")


@given(st.integers(0, 10**6), st.floats(0.5, 3.5))
def test_volatility_jump_equals_a_calculation_from_logarithms(seed: int, wild: float) -> None:
    """Realised volatility of log returns differs from that of simple ones by less than the hair left between the two sides."""
    random_source = random.Random(seed)
    prices = [2_000.0]
    for hour in range(8 * 24 + 1):
        prices.append(prices[-1] * (1 + random_source.gauss(0, 0.002 * (wild if hour > 7 * 24 else 1))))
    price_texts = [f"{price:.9f}" for price in prices]
    until_s = NOW_S - 60
    price_points = points(price_texts, until_s=until_s)
    times = [point.at_s for point in price_points]

    def volatility(is_in_window: Callable[[int, int], bool]) -> float:
        moves = [
            (times[i + 1] - times[i], math.log(float(price_texts[i + 1]) / float(price_texts[i])))
            for i in range(len(times) - 1)
            if is_in_window(times[i], times[i + 1])
        ]
        return math.sqrt(sum(move**2 for _, move in moves) / sum(span for span, _ in moves))

    border = NOW_S - DAY_S
    oldest = NOW_S - 8 * DAY_S
    short = volatility(lambda start, _: start >= border)
    long = volatility(lambda start, end: oldest <= start and end <= border)
    # The price now is the newest one: the last minute adds its time and no move.
    moves_s = sum(b - a for a, b in pairwise(times) if a >= border)
    short *= math.sqrt(moves_s / (moves_s + 60))
    ratio = short / max(long, 0.01 / math.sqrt(365 * DAY_S))
    if abs(ratio / 2 - 1) < 0.02:
        return
    decision = decide(step_with_trigger(JUMP, price_texts[-1], history(prices=price_points))).decision
    assert isinstance(decision, Rebalance) is (ratio > 2)


@pytest.mark.parametrize(
    ("prices", "reason"),
    [
        (zigzag(1, 30), "too few recorded prices in the long 7 days"),
        (zigzag(1, 5), "too few recorded prices in the last 1 day"),
        ([], "too few recorded prices in the last 1 day"),
    ],
)
def test_volatility_jump_with_too_little_history_holds(prices: Sequence[str], reason: str) -> None:
    decision = decide(step_with_trigger(JUMP, 500, history(prices=points(prices)))).decision
    assert isinstance(decision, Hold)
    assert mentions(decision.reason, "WETH", f"{reason}")


@pytest.mark.parametrize(("count", "enough"), [(150, True), (149, False)])
def test_return_that_ends_at_the_border_is_in_the_long_window(count: int, enough: bool) -> None:
    """126 hours are three quarters of seven days; the short window is the last 24."""
    prices = zigzag(0.5, count)
    decision = decide(step_with_trigger(JUMP, prices[-1], history(prices=points(prices, until_s=NOW_S - HOUR_S)))).decision
    assert ("7 days;" not in decision.reason) is enough, decision.reason


def test_volatility_jump_with_a_hole_in_the_history_holds() -> None:
    full = points(joined_prices(0.5, 3))
    border = NOW_S - DAY_S
    holed = tuple(point for point in full if point.at_s > border or point.at_s < border - 3 * DAY_S)
    assert isinstance(decide(step_with_trigger(JUMP, "2000", history(prices=full))).decision, Rebalance)
    assert "long 7 days" in decide(step_with_trigger(JUMP, "2000", history(prices=holed))).decision.reason


def test_small_move_of_a_constant_price_is_no_jump() -> None:
    unmoved = ["1"] * (8 * 24 + 2)
    assert isinstance(decide(step_with_trigger(JUMP, "1.0005", history(prices=points(unmoved)))).decision, Hold)
    assert isinstance(decide(step_with_trigger(JUMP, "1.03", history(prices=points(unmoved)))).decision, Rebalance)


def test_volatility_jump_is_answered_once_a_short_window() -> None:
    prices = points(joined_prices(0.5, 3))
    answered = decide(step_with_trigger(JUMP, "2000", history(prices=prices, last_rebalance_s=NOW_S - 6 * HOUR_S))).decision
    assert isinstance(answered, Hold)
    assert "2027-01-16 02:00:00 UTC" in answered.reason
    assert isinstance(decide(step_with_trigger(JUMP, "2000", history(prices=prices, last_rebalance_s=NOW_S - DAY_S))).decision, Rebalance)


def test_market_event_fires_beside_bands_and_schedules() -> None:
    several = AnyOf((Threshold(500, None), FALL, Every(7 * DAY_S)))
    past = history(prices=points(FLAT), last_review_s=NOW_S - DAY_S)
    calm = decide(step_with_trigger(several, 2_000, past)).decision
    assert isinstance(calm, Hold)
    for reason in ("all within their bands", "no asset has a drawdown of more than 20 %", "next review 2027-01-21 08:00:00 UTC"):
        assert reason in calm.reason
    assert mentions(decide(step_with_trigger(several, 1_500, past)).decision.reason, "20 %")


def test_trigger_history_is_as_long_as_its_windows() -> None:
    assert trigger_history_s(FALL) == 2 * DAY_S
    assert trigger_history_s(JUMP) == 8 * DAY_S + 2 * HOUR_S
    assert trigger_history_s(AnyOf((FALL, JUMP, Every(DAY_S)))) == 8 * DAY_S + 2 * HOUR_S
    assert trigger_history_s(Threshold(500, None)) == 0
    step = step_with_trigger(JUMP, 2_000, history())
    assert rules.required_history_s(step.policy) >= trigger_history_s(JUMP)
