"""Answers of a pool: the means of its oracle are rounded like the contract's, and reserves that no pair can hold are not read."""

from __future__ import annotations

from typing import Any

import pytest

from agent.amm.v2_pool import V2Pool
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.chain.lens import CallStatus, LensAnswer, V3Answer, uint_word
from agent.chain.pools.reading import PoolRef, V2Reader, V3Reader
from agent.chain.watch import SnapshotParts, SnapshotScope, snapshot_parts, snapshot_questions
from tests.support.builders import address

TOKEN0, TOKEN1 = sorted((address("token a"), address("token b")))
V2 = PoolRef(address("pair"), "uniswap_v2", V2Reader(), TOKEN0, TOKEN1, 3_000)
V3 = PoolRef(address("pool"), "uniswap_v3", V3Reader(), TOKEN0, TOKEN1, 500, 10)
UNWRITTEN = uint_word(0)
UINT160_MAX = 2**160 - 1
WINDOW_S = 1_800


def read(pool: PoolRef, answer: LensAnswer, window_s: int = WINDOW_S) -> SnapshotParts:
    scope = SnapshotScope(address("wallet"), (), (), (pool,), (), (), window_s, 100)
    return snapshot_parts(scope, [answer, *[UNWRITTEN] * (len(snapshot_questions(scope)) - 1)])


def pair(*words: int) -> Any:
    (state,) = read(V2, b"".join(uint_word(word) for word in words)).pools
    return state


def reasons(pool: PoolRef, answer: LensAnswer) -> list[tuple[str, str]]:
    parts = read(pool, answer)
    assert parts.pools == ()
    return [(item.address, item.why) for item in parts.unreadable_items]


def pool_answer(twap: tuple[int, int] | None) -> V3Answer:
    return V3Answer(2**96, 3, 10**18, -60, 50, ((-20, 7), (30, -7)), twap, (8, 9))


def oracle(tick_delta: int, seconds_delta: int, window_s: int = WINDOW_S) -> tuple[int | None, int | None, int | None]:
    """Return mean tick, mean liquidity and window of a pool whose cumulatives changed by that much."""
    (state,) = read(V3, pool_answer((tick_delta, seconds_delta)), window_s).pools
    assert isinstance(state, V3Pool)
    return state.twap_tick, state.twap_liquidity, state.twap_window_s


def test_pair__reserves_are_read_in_the_order_of_the_tokens() -> None:
    assert pair(5, 7, 1) == V2Pool(V2.address, "uniswap_v2", TOKEN0, TOKEN1, 5, 7, 3_000)


@pytest.mark.parametrize("reserves", [(2**112 - 1, 1), (1, 2**112 - 1)])
def test_pair__reserve_of_112_bits_is_read(reserves: tuple[int, int]) -> None:
    state = pair(*reserves, 0)
    assert (state.reserve0, state.reserve1) == reserves


@pytest.mark.parametrize("reserves", [(2**112, 1), (1, 2**112), (2**112, 2**112)])
def test_pair__reserve_of_113_bits_is_malformed(reserves: tuple[int, int]) -> None:
    answer = b"".join(uint_word(word) for word in (*reserves, 0))
    assert reasons(V2, answer) == [(V2.address, CallStatus.MALFORMED.why)]


def test_pair__answer_of_two_words_is_malformed() -> None:
    assert reasons(V2, uint_word(5) + uint_word(7)) == [(V2.address, CallStatus.MALFORMED.why)]


@pytest.mark.parametrize("ref", [V2, V3])
@pytest.mark.parametrize("status", [CallStatus.FAILED, CallStatus.UNREAD, CallStatus.MALFORMED])
def test_pool__failure_of_the_call_is_the_reason(ref: PoolRef, status: CallStatus) -> None:
    assert reasons(ref, status) == [(ref.address, status.why)]


def test_pool__bytes_where_a_pool_was_asked_for_are_malformed() -> None:
    assert reasons(V3, uint_word(1)) == [(V3.address, CallStatus.MALFORMED.why)]


def test_pool__every_part_of_the_answer_is_in_its_place() -> None:
    (state,) = read(V3, pool_answer((-3_601, 2**64))).pools
    liquidity = WINDOW_S * UINT160_MAX // 2**96
    ticks = (TickLiquidity(-20, 7), TickLiquidity(30, -7))
    fields = (V3.address, "uniswap_v3", TOKEN0, TOKEN1, 500, 10, 2**96, 3, 10**18, ticks, -60, 50)
    assert state == V3Pool(*fields, twap_tick=-3, twap_liquidity=liquidity, twap_window_s=WINDOW_S, observation_counts=(8, 9))


@pytest.mark.parametrize(
    ("tick_delta", "tick"),
    [(-1_801, -2), (-1_800, -1), (-1_799, -1), (-1, -1), (0, 0), (1, 0), (1_799, 0), (1_800, 1), (1_801, 1)],
)
def test_oracle__mean_tick_is_rounded_towards_minus_infinity(tick_delta: int, tick: int) -> None:
    """OracleLibrary.consult: `if (tickCumulativesDelta < 0 && (tickCumulativesDelta % secondsAgo != 0)) arithmeticMeanTick--`."""
    assert oracle(tick_delta, 2**64)[0] == tick


def test_oracle__mean_liquidity_is_that_of_consult() -> None:
    """OracleLibrary.consult: secondsAgo * type(uint160).max / (uint192(secondsPerLiquidityCumulativesDelta) << 32)."""
    seconds_delta = (WINDOW_S << 128) // 10**18
    assert oracle(0, seconds_delta) == (0, 10**18, WINDOW_S)


def test_oracle__mean_liquidity_is_rounded_down() -> None:
    """Ten seconds at 3 units of liquidity: a delta rounded down leaves 3, one rounded up leaves less than 3."""
    assert oracle(0, (10 << 128) // 3, 10)[1] == 3
    assert oracle(0, (10 << 128) // 3 + 1, 10)[1] == 2


def test_oracle__mean_liquidity_is_capped_at_128_bits() -> None:
    assert oracle(0, 1)[1] == 2**128 - 1


def test_oracle__cap_is_met_from_the_delta_of_the_window() -> None:
    """With a delta equal to the window the quotient is (2^160 - 1) >> 32, the largest uint128 itself."""
    assert oracle(0, WINDOW_S)[1] == 2**128 - 1
    assert oracle(0, WINDOW_S + 1)[1] == WINDOW_S * UINT160_MAX // ((WINDOW_S + 1) << 32) < 2**128 - 1
    assert oracle(0, WINDOW_S - 1)[1] == 2**128 - 1


def test_oracle__change_of_no_second_per_liquidity_is_no_mean() -> None:
    assert oracle(1_800, 0) == (None, None, None)


def test_oracle__pool_without_one_is_read_without_means() -> None:
    (state,) = read(V3, pool_answer(None)).pools
    assert isinstance(state, V3Pool)
    assert (state.twap_tick, state.twap_liquidity, state.twap_window_s) == (None, None, None)


def test_oracle__mean_tick_of_zero_keeps_its_window() -> None:
    assert oracle(0, 1)[2] == WINDOW_S
