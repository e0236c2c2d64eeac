"""The fee of a Slipstream pool by the settings of its factory's module, at the block and at the expected time of a swap."""

from __future__ import annotations

import pytest

from agent.amm.v3.math import get_sqrt_ratio_at_tick
from agent.amm.v3.slipstream import FEE_WINDOW_S, SlipstreamPool
from agent.chain.lens import CallItem, CallStatus, LensAnswer, V3Answer, uint_word
from agent.chain.pools.observations import observe_calldata
from agent.chain.pools.reading import PoolRef
from agent.venues.kinds.slipstream import SlipstreamReader
from tests.support.builders import address

READER = SlipstreamReader(factory=address("factory"))
POOL = PoolRef(address("pool"), "slipstream", READER, address("token0"), address("token1"), 0, 200)
TICK = 1_000
MEAN_AT_INCLUSION = 900
OBSERVED = (0, -5_000 * 4, -5_000 * 4 + 596 * 900)
"""Four seconds at -5,000, which leave the window until the swap, then 900."""


def words(*numbers: int) -> bytes:
    return b"".join(uint_word(number % 2**256) for number in numbers)


def read(
    fee_pips: int,
    config: tuple[int, ...] = (500, 20_000, 10**7),
    tier_pips: int = 300,
    defaults: tuple[int, int] = (10**6, 5_000),
    window_s: int = 600,
    observation_counts: tuple[int, int] = (300, 300),
    cumulatives: tuple[int, int, int] = OBSERVED,
) -> SlipstreamPool | CallStatus:
    pool = V3Answer(get_sqrt_ratio_at_tick(TICK), TICK, 10**18, -10_000, 10_000, (), None, observation_counts)
    observed = words(64, 192, 3, *cumulatives, 3, 0, 0, 0)
    answers: list[LensAnswer] = [pool, words(fee_pips), observed, words(tier_pips), words(*config)]
    state = READER.state(POOL, [*answers, *(words(number) for number in (*defaults, window_s))], 0)
    assert isinstance(state, SlipstreamPool | CallStatus)
    return state


FEES: dict[str, tuple[int, dict[str, object], int]] = {
    "base and distance": (1_900, {}, 1_500),
    "base of the tick spacing": (1_700, {"config": (0, 20_000, 10**7)}, 1_300),
    "default scaling": (640, {"config": (500, 20_000, 0)}, 600),
    "default cap": (550, {"config": (500, 20_000, 0), "defaults": (10**6, 550)}, 550),
    "cap": (1_450, {"config": (500, 1_450, 10**7)}, 1_450),
    "largest cap": (1_900, {"config": (500, 100_000, 10**7)}, 1_500),
    "zero": (0, {"config": (420, 20_000, 10**7)}, 0),
    "too few observations": (500, {"observation_counts": (299, 600)}, 500),
    "more observations": (1_900, {"observation_counts": (301, 301)}, 1_500),
    "initial": (3_000, {"config": (500, 20_000, 10**7, 1, 3_000)}, 3_000),
    "initial of the next block": (1_900, {"config": (500, 20_000, 10**7, 1, 3_000)}, 3_000),
    "initial is the base": (500, {"config": (500, 20_000, 10**7, 1, 0)}, 500),
    "initial is zero": (0, {"config": (500, 20_000, 10**7, 1, 420)}, 0),
    "largest initial": (100_000, {"config": (500, 20_000, 10**7, 1, 100_000)}, 100_000),
    "initial is off": (1_900, {"config": (500, 20_000, 10**7, 0, 3_000)}, 1_500),
}


@pytest.mark.parametrize(("fee_at_block", "settings", "fee_at_inclusion"), FEES.values(), ids=FEES)
def test_fee__known_rule__is_that_of_the_swap(fee_at_block: int, settings: dict[str, object], fee_at_inclusion: int) -> None:
    pool = read(fee_at_block, **settings)  # type: ignore[arg-type]  # keywords of `read`
    assert isinstance(pool, SlipstreamPool)
    assert pool.fee_pips == fee_at_inclusion
    assert pool.dynamic_fee is not None
    assert pool.dynamic_fee.pips(TICK) == fee_at_inclusion


@pytest.mark.parametrize(
    ("fee_at_block", "settings"),
    [
        (1_901, {}),
        (1_500, {}),
        (1_900, {"window_s": 599}),
        (1_900, {"config": (500, 100_001, 10**7)}),
        (1_900, {"config": (500, 20_000, 10**7, 1, 100_001)}),
        (100_000, {}),
    ],
    ids=["another fee", "that of the swap", "another window", "cap too large", "initial too large", "largest fee"],
)
def test_fee__unknown_rule__is_that_of_the_block(fee_at_block: int, settings: dict[str, object]) -> None:
    pool = read(fee_at_block, **settings)  # type: ignore[arg-type]  # keywords of `read`
    assert isinstance(pool, SlipstreamPool)
    assert (pool.fee_pips, pool.dynamic_fee) == (fee_at_block, None)


def test_fee__larger_than_any__is_no_fee() -> None:
    assert read(100_001) is CallStatus.MALFORMED


def test_fee__zero_by_its_module__does_not_grow() -> None:
    pool = read(0, config=(420, 20_000, 10**7))
    assert isinstance(pool, SlipstreamPool)
    assert pool.dynamic_fee is not None
    assert pool.dynamic_fee.pips(TICK + 500) == 0


@pytest.mark.parametrize("tick", [TICK, TICK + 10])
def test_fee__mean_is_that_of_the_swaps_window(tick: int) -> None:
    pool = read(1_900)
    assert isinstance(pool, SlipstreamPool)
    assert pool.dynamic_fee is not None
    assert pool.dynamic_fee.mean_tick == MEAN_AT_INCLUSION
    assert pool.dynamic_fee.pips(tick) == 500 + 10 * (tick - MEAN_AT_INCLUSION)


@pytest.mark.parametrize(("tick_seconds", "mean_tick"), [(4_201, 7), (599, 0), (-599, 0), (-4_200, -7), (-4_201, -7)])
def test_mean_tick__is_rounded_towards_zero(tick_seconds: int, mean_tick: int) -> None:
    """Until the swap four seconds at the pool's tick are added; at the block the mean is 900."""
    cumulative_now = tick_seconds - 4 * TICK
    pool = read(1_500, cumulatives=(cumulative_now - 900 * FEE_WINDOW_S, 0, cumulative_now))
    assert isinstance(pool, SlipstreamPool)
    assert pool.dynamic_fee is not None
    assert pool.dynamic_fee.mean_tick == mean_tick


def test_items__both_starts_of_the_window_are_observed() -> None:
    calldata = [item.calldata for item in READER.items(POOL, 100, 0) if isinstance(item, CallItem) and item.target == POOL.address]
    assert observe_calldata((600, 596, 0)) in calldata
