"""Tests of agent/chain/pools/observations.py: means over a window, rounded like OracleLibrary.consult, from the answers of observe."""

from __future__ import annotations

import pytest

from agent.amm.v3.math import MAX_TICK
from agent.chain.lens import CallStatus, LensAnswer, uint_word
from agent.chain.pools.observations import mean_over, observe_calldata, observed_mean
from agent.model import TickMean

WINDOW_S = 1_800
UINT160_MAX = 2**160 - 1
SECONDS_PER_LIQUIDITY = 2**64


def test_observe_calldata_has_each_age_in_seconds() -> None:
    assert observe_calldata((600, 0)) == bytes.fromhex("883bdbfd") + b"".join(map(uint_word, (32, 2, 600, 0)))


@pytest.mark.parametrize(
    ("tick_change", "tick"),
    [(-1_801, -2), (-1_800, -1), (-1_799, -1), (-1, -1), (0, 0), (1, 0), (1_799, 0), (1_800, 1), (1_801, 1)],
)
def test_mean_tick_is_rounded_towards_minus_infinity(tick_change: int, tick: int) -> None:
    """OracleLibrary.consult: `if (tickCumulativesDelta < 0 && (tickCumulativesDelta % secondsAgo != 0)) arithmeticMeanTick--`."""
    mean = mean_over(WINDOW_S, tick_change, SECONDS_PER_LIQUIDITY)

    assert mean == TickMean(WINDOW_S, tick, WINDOW_S * UINT160_MAX // 2**96)


@pytest.mark.parametrize(
    ("window_s", "seconds_per_liquidity", "liquidity"),
    [
        pytest.param(WINDOW_S, (WINDOW_S << 128) // 10**18, 10**18, id="exact"),
        pytest.param(10, (10 << 128) // 3, 3, id="change rounded down"),
        pytest.param(10, (10 << 128) // 3 + 1, 2, id="change rounded up"),
        pytest.param(WINDOW_S, 1, 2**128 - 1, id="capped at 128 bits"),
        pytest.param(WINDOW_S, WINDOW_S - 1, 2**128 - 1, id="one second short of the cap"),
        pytest.param(WINDOW_S, WINDOW_S, 2**128 - 1, id="at the cap"),
        pytest.param(WINDOW_S, WINDOW_S + 1, WINDOW_S * UINT160_MAX // ((WINDOW_S + 1) << 32), id="one second beyond the cap"),
    ],
)
def test_mean_liquidity_is_that_of_consult(window_s: int, seconds_per_liquidity: int, liquidity: int) -> None:
    """OracleLibrary.consult: secondsAgo * type(uint160).max / (uint192(secondsPerLiquidityCumulativesDelta) << 32)."""
    assert mean_over(window_s, 0, seconds_per_liquidity) == TickMean(window_s, 0, liquidity)


@pytest.mark.parametrize("tick", [MAX_TICK, -MAX_TICK], ids=["highest", "lowest"])
def test_mean_at_the_ends_of_the_ticks_counts(tick: int) -> None:
    assert mean_over(1, tick, SECONDS_PER_LIQUIDITY) == TickMean(1, tick, UINT160_MAX // 2**96)


@pytest.mark.parametrize(
    ("tick_change", "seconds_per_liquidity"),
    [
        pytest.param(MAX_TICK + 1, SECONDS_PER_LIQUIDITY, id="tick above the highest"),
        pytest.param(-MAX_TICK - 1, SECONDS_PER_LIQUIDITY, id="tick below the lowest"),
        pytest.param(0, 0, id="no second"),
        pytest.param(0, -1, id="negative seconds"),
    ],
)
def test_mean_that_no_pool_can_have_is_none(tick_change: int, seconds_per_liquidity: int) -> None:
    assert mean_over(1, tick_change, seconds_per_liquidity) is None


def observed(
    ticks: tuple[int, int], seconds: tuple[int, int] = (0, SECONDS_PER_LIQUIDITY), head: tuple[int, ...] = (64, 160, 2), count: int = 2
) -> bytes:
    """Return the answer of observe: two arrays of the cumulatives at the start and the end of the window."""
    numbers = (*head, ticks[0] % 2**256, ticks[1] % 2**256, count, *seconds)
    return b"".join(map(uint_word, numbers))


@pytest.mark.parametrize(
    ("ticks", "tick"),
    [((0, 300), 1), ((0, 299), 0), ((0, -1), -1), ((0, -300), -1), ((0, -301), -2), ((700, -500), -4)],
)
def test_observed_mean_is_of_the_change_in_the_window(ticks: tuple[int, int], tick: int) -> None:
    assert observed_mean(300, observed(ticks)) == mean_over(300, 300 * tick, SECONDS_PER_LIQUIDITY)


def test_observed_mean_follows_an_overflow_of_the_seconds() -> None:
    overflowed = observed((0, 300), (2**160 - 5, SECONDS_PER_LIQUIDITY - 5))

    assert observed_mean(300, overflowed) == observed_mean(300, observed((0, 300)))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(CallStatus.FAILED, id="too old"),
        pytest.param(CallStatus.UNREAD, id="unread"),
        pytest.param(CallStatus.NO_CODE, id="no code"),
        pytest.param(observed((0, 300))[:-32], id="short"),
        pytest.param(observed((0, 300), head=(32, 160, 2)), id="first offset"),
        pytest.param(observed((0, 300), head=(64, 128, 2)), id="second offset"),
        pytest.param(observed((0, 300), head=(64, 160, 3)), id="first length"),
        pytest.param(observed((0, 300), count=1), id="second length"),
        pytest.param(observed((0, 300), (7, 7)), id="no second"),
        pytest.param(observed((0, 300 * (MAX_TICK + 1))), id="tick above the highest"),
        pytest.param(observed((0, -300 * (MAX_TICK + 1))), id="tick below the lowest"),
    ],
)
def test_observed_mean_of_another_answer_is_none(answer: LensAnswer) -> None:
    assert observed_mean(300, answer) is None
