"""Tests of agent/chain/pools/reading.py: the state of a pool in its answers, and more ticks of the same pool."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.amm.v2_pool import V2Pool
from agent.amm.v3.math import MAX_TICK, MIN_TICK
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.chain.lens import PAGE_BYTES, CallStatus, LensAnswer, V3Answer, uint_word
from agent.chain.pools.observations import mean_over
from agent.chain.pools.reading import PoolRef, V2Reader, V3Reader, deep_pool_item, with_deeper_ticks
from agent.chain.watch import SnapshotParts, SnapshotScope, snapshot_parts, snapshot_questions
from agent.errors import Retryable
from tests.support.amm_pools import v3_pools, with_known_ticks
from tests.support.builders import address
from tests.support.text import raises_code

TOKEN0, TOKEN1 = sorted((address("token a"), address("token b")))
PAIR = PoolRef(address("pair"), "uniswap_v2", V2Reader(), TOKEN0, TOKEN1, 3_000)
POOL = PoolRef(address("pool"), "uniswap_v3", V3Reader(), TOKEN0, TOKEN1, 500, 10)
UNWRITTEN = uint_word(0)
WINDOW_S = 1_800


def parts_of(pool: PoolRef, answer: LensAnswer, window_s: int = WINDOW_S) -> SnapshotParts:
    """Return the parts of a snapshot of this pool alone."""
    scope = SnapshotScope(address("wallet"), (), (), (pool,), (), (), window_s, 100)
    return snapshot_parts(scope, [answer, *[UNWRITTEN] * (len(snapshot_questions(scope)) - 1)])


def reserves(*numbers: int) -> bytes:
    return b"".join(map(uint_word, numbers))


def pool_answer(twap: tuple[int, int] | None = None) -> V3Answer:
    return V3Answer(2**96, 3, 10**18, -60, 50, ((-20, 7), (30, -7)), twap, (8, 9))


@pytest.mark.parametrize(
    "amounts",
    [(5, 7), (2**112 - 1, 1), (1, 2**112 - 1)],
    ids=["in the order of the tokens", "first of 112 bits", "second of 112 bits"],
)
def test_pair_has_the_reserves_of_its_answer(amounts: tuple[int, int]) -> None:
    assert parts_of(PAIR, reserves(*amounts, 1)).pools == (V2Pool(PAIR.address, "uniswap_v2", TOKEN0, TOKEN1, *amounts, 3_000),)


def test_pool_has_every_part_of_its_answer() -> None:
    mean = mean_over(WINDOW_S, -3_601, 2**64)
    assert mean is not None

    (state,) = parts_of(POOL, pool_answer((-3_601, 2**64))).pools

    fields = (
        POOL.address,
        "uniswap_v3",
        TOKEN0,
        TOKEN1,
        500,
        10,
        2**96,
        3,
        10**18,
        (TickLiquidity(-20, 7), TickLiquidity(30, -7)),
        -60,
        50,
    )
    assert mean.tick == -3
    assert state == V3Pool(*fields, twap_tick=-3, twap_liquidity=mean.liquidity, twap_window_s=WINDOW_S, observation_counts=(8, 9))


@pytest.mark.parametrize("twap", [None, (1_800, 0)], ids=["no observations", "no second per liquidity"])
def test_pool_without_a_mean_is_read(twap: tuple[int, int] | None) -> None:
    (state,) = parts_of(POOL, pool_answer(twap)).pools

    assert isinstance(state, V3Pool)
    assert (state.twap_tick, state.twap_liquidity, state.twap_window_s) == (None, None, None)


def test_pool_with_a_mean_tick_of_zero_has_its_window() -> None:
    (state,) = parts_of(POOL, pool_answer((0, 1))).pools

    assert isinstance(state, V3Pool)
    assert (state.twap_tick, state.twap_window_s) == (0, WINDOW_S)


@pytest.mark.parametrize(
    ("pool", "answer", "status"),
    [
        *(
            pytest.param(pool, status, status, id=f"{pool.venue} {status.name}")
            for pool in (PAIR, POOL)
            for status in (CallStatus.FAILED, CallStatus.UNREAD, CallStatus.MALFORMED)
        ),
        pytest.param(PAIR, reserves(5, 7), CallStatus.MALFORMED, id="two words"),
        pytest.param(PAIR, reserves(2**112, 1, 0), CallStatus.MALFORMED, id="first of 113 bits"),
        pytest.param(PAIR, reserves(1, 2**112, 0), CallStatus.MALFORMED, id="second of 113 bits"),
        pytest.param(PAIR, reserves(2**112, 2**112, 0), CallStatus.MALFORMED, id="both of 113 bits"),
        pytest.param(POOL, uint_word(1), CallStatus.MALFORMED, id="bytes in place of a pool"),
    ],
)
def test_pool_that_is_unreadable_is_omitted_with_a_reason(pool: PoolRef, answer: LensAnswer, status: CallStatus) -> None:
    parts = parts_of(pool, answer)

    assert parts.pools == ()
    assert [(item.address, item.why) for item in parts.unreadable_items] == [(pool.address, status.why)]


def test_pool_whose_mean_nobody_asked_for_is_malformed() -> None:
    (item,) = parts_of(POOL, pool_answer((0, 1)), window_s=0).unreadable_items

    assert item.why == CallStatus.MALFORMED.why


# --- More ticks


def answer_of(pool: V3Pool) -> V3Answer:
    ticks = tuple((tick.index, tick.liquidity_net) for tick in pool.ticks)
    return V3Answer(pool.sqrt_price_x96, pool.tick, pool.liquidity, pool.known_from_tick, pool.known_to_tick, ticks, None)


@given(v3_pools(moderate=True), st.integers(0, 5_000))
def test_deeper_ticks_are_those_read_at_the_pool_s_block(whole: V3Pool, window: int) -> None:
    narrow = with_known_ticks(whole, window, window)

    assert with_deeper_ticks(narrow, answer_of(whole)) == whole
    assert with_deeper_ticks(whole, answer_of(narrow)) == whole
    assert with_deeper_ticks(narrow, CallStatus.UNREAD) == narrow


KNOWN_TICKS = ((-100, 3), (100, -3))
KNOWN = V3Pool(
    POOL.address, "uniswap_v3", TOKEN0, TOKEN1, 3_000, 60, 2**96, 0, 10**18, tuple(TickLiquidity(*tick) for tick in KNOWN_TICKS), -100, 100
)
DEEP_ANSWER = replace(answer_of(KNOWN), ticks=((-200, 5), *KNOWN_TICKS, (200, -5)), known_from_tick=MIN_TICK, known_to_tick=MAX_TICK)


def test_deeper_ticks_extend_both_ends() -> None:
    deeper = with_deeper_ticks(KNOWN, DEEP_ANSWER)

    assert [tick.index for tick in deeper.ticks] == [-200, -100, 100, 200]
    assert (deeper.known_from_tick, deeper.known_to_tick) == (MIN_TICK, MAX_TICK)


@pytest.mark.parametrize("ends", [{"known_from_tick": -99}, {"known_to_tick": 99}], ids=["lower end", "upper end"])
def test_deeper_ticks_that_know_less_on_one_side_are_ignored(ends: dict[str, int]) -> None:
    assert with_deeper_ticks(KNOWN, replace(DEEP_ANSWER, **ends)) == KNOWN  # type: ignore[arg-type]  # field names


@pytest.mark.parametrize(
    "changes",
    [
        {"sqrt_price_x96": 2**96 + 1},
        {"liquidity": 1},
        {"tick": 1},
        {"ticks": (*KNOWN_TICKS, (60, 5))},
        {"ticks": KNOWN_TICKS[:1]},
        {"ticks": (KNOWN_TICKS[0], (100, -4))},
    ],
    ids=["price", "liquidity", "tick", "another tick", "a tick less", "liquidity at the end"],
)
def test_deeper_ticks_of_another_state_are_refused(changes: dict[str, object]) -> None:
    with raises_code(Retryable, "block_changed", POOL.address):
        with_deeper_ticks(KNOWN, replace(DEEP_ANSWER, **changes))  # type: ignore[arg-type]  # field names


@pytest.mark.parametrize("spacing", [1, 10, 60, 200, 16_383])
def test_deep_pool_item_fits_the_answer_to_a_call(spacing: int) -> None:
    item = deep_pool_item(replace(POOL, tick_spacing=spacing))

    assert item.max_bytes() <= PAGE_BYTES - 64
    assert item.likely_gas < 16_000_000
    assert item.window_ticks >= (2 * MAX_TICK if spacing >= 14 else 92_108), "a fall of the price to a ten-thousandth"
    assert item.window_ticks <= 2 * MAX_TICK
