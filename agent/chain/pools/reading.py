"""How the pools of one style are read: lens items and their answers as pool states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from agent.amm.v2_pool import V2Pool
from agent.amm.v3.math import MAX_TICK
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.chain.lens import (
    FEE_GROWTH_GLOBAL_0,
    FEE_GROWTH_GLOBAL_1,
    GET_RESERVES,
    PRICE_0_CUMULATIVE,
    CallItem,
    CallStatus,
    LensAnswer,
    LensItem,
    V3Answer,
    V3Item,
    answer_words,
)
from agent.chain.pools.observations import mean_over
from agent.errors import ErrorCode, Retryable
from agent.model import Pool, SwapStyle, TickMean

MAX_TICKS_PER_POOL = 256
"""Initialised ticks read per pool, half on each side. Beyond them the known window ends earlier
than asked, and a larger swap raises BeyondKnownTicks.
"""
POOL_GAS = 100_000


@dataclass(frozen=True, slots=True)
class PoolRef:
    """A discovered pool. `address` is that of its state (Pool), `venue` the name in the config;
    `tick_spacing` is 0 for V2; token0 sorts below token1.
    """

    address: str
    venue: str
    reader: PoolReader
    token0: str
    token1: str
    fee_pips: int
    tick_spacing: int = 0

    @property
    def style(self) -> SwapStyle:
        """How a swap in the pool is paid."""
        return self.reader.style

    @property
    def tier(self) -> int:
        """See Pool."""
        return self.reader.tier(self)

    @property
    def contract(self) -> str:
        """See Pool."""
        return self.reader.manager or self.address

    @property
    def id(self) -> str:
        """Id within its contract; empty for a contract of its own."""
        return self.address if self.reader.manager else ""

    @property
    def has_ticks(self) -> bool:
        """True if its liquidity is in ranges."""
        return isinstance(self.reader, V3Reader)

    @property
    def keeps_observations(self) -> bool:
        """See Pool."""
        return isinstance(self.reader, V3Reader) and self.reader.pool_class.keeps_observations


class PoolReader(Protocol):
    """Reads the state of pools of one style."""

    @property
    def style(self) -> SwapStyle:
        """How a swap in these pools is paid."""

    def tier(self, pool: PoolRef) -> int:
        """Return what tells the pools of two tokens apart; see Pool."""

    @property
    def manager(self) -> str:
        """The contract that holds all these pools; empty if each has its own."""

    @property
    def depends_on_caller(self) -> bool:
        """Whether answers depend on the account that asks, such as a fee with its discount."""

    def unwritten_calldata(self, pool: PoolRef) -> Sequence[bytes]:
        """Return calls of what is zero until the pool's first trade: for token0 and token1, or for
        both.
        """

    def items(self, pool: PoolRef, tick_window: int, twap_window_s: int) -> list[LensItem]:
        """Return the items that read the pool's state, as many for each pool."""

    def state(
        self, pool: PoolRef, answers: Sequence[LensAnswer], twap_window_s: int
    ) -> V2Pool | V3Pool | CallStatus:
        """Return the state in the items' answers, or their failure."""


class V2Reader:
    """Reads pairs: UniswapV2Pair.getReserves, (uint112, uint112, uint32)."""

    style = SwapStyle.V2
    manager = ""
    depends_on_caller = False

    def tier(self, pool: PoolRef) -> int:
        """See PoolReader."""
        return pool.fee_pips

    def unwritten_calldata(self, pool: PoolRef) -> Sequence[bytes]:
        """See PoolReader."""
        return (PRICE_0_CUMULATIVE,)

    def items(self, pool: PoolRef, tick_window: int, twap_window_s: int) -> list[LensItem]:
        """See PoolReader."""
        return [CallItem(pool.address, GET_RESERVES, 96, POOL_GAS, likely_gas=12_000)]

    def state(
        self, pool: PoolRef, answers: Sequence[LensAnswer], twap_window_s: int
    ) -> V2Pool | CallStatus:
        """See PoolReader."""
        reserve_words = answer_words(answers[0], 3)
        if isinstance(reserve_words, CallStatus):
            return reserve_words
        reserve0, reserve1, _ = reserve_words
        if reserve0 >> 112 or reserve1 >> 112:
            return CallStatus.MALFORMED
        return V2Pool(
            pool.address, pool.venue, pool.token0, pool.token1, reserve0, reserve1, pool.fee_pips
        )


@dataclass(frozen=True, slots=True)
class V3Reader:
    """Reads pools with liquidity in ranges, by the lens's own item for them."""

    pool_class: type[V3Pool] = V3Pool
    manager: str = ""
    depends_on_caller: ClassVar[bool] = False

    @property
    def style(self) -> SwapStyle:
        """See PoolReader."""
        return self.pool_class.style

    def tier(self, pool: PoolRef) -> int:
        """See PoolReader."""
        return pool.fee_pips

    def unwritten_calldata(self, pool: PoolRef) -> Sequence[bytes]:
        """See PoolReader."""
        return FEE_GROWTH_GLOBAL_0, FEE_GROWTH_GLOBAL_1

    def items(self, pool: PoolRef, tick_window: int, twap_window_s: int) -> list[LensItem]:
        """See PoolReader."""
        read_limits = tick_window, MAX_TICKS_PER_POOL, twap_window_s
        return [V3Item(pool.contract, pool.tick_spacing, *read_limits, pool.id)]

    def state(
        self, pool: PoolRef, answers: Sequence[LensAnswer], twap_window_s: int
    ) -> V3Pool | CallStatus:
        """See PoolReader."""
        pool_answer = answers[0]
        if not isinstance(pool_answer, V3Answer):
            return pool_answer if isinstance(pool_answer, CallStatus) else CallStatus.MALFORMED
        mean: TickMean | None = None
        if pool_answer.twap_deltas is not None:
            if not twap_window_s:
                return CallStatus.MALFORMED
            mean = mean_over(twap_window_s, *pool_answer.twap_deltas)
        return self.pool_class(
            address=pool.address,
            venue=pool.venue,
            token0=pool.token0,
            token1=pool.token1,
            fee_pips=pool.fee_pips,
            tick_spacing=pool.tick_spacing,
            sqrt_price_x96=pool_answer.sqrt_price_x96,
            tick=pool_answer.tick,
            liquidity=pool_answer.liquidity,
            ticks=tuple(
                TickLiquidity(tick_index, liquidity_net)
                for tick_index, liquidity_net in pool_answer.ticks
            ),
            known_from_tick=pool_answer.known_from_tick,
            known_to_tick=pool_answer.known_to_tick,
            twap_tick=None if mean is None else mean.tick,
            twap_liquidity=None if mean is None else mean.liquidity,
            twap_window_s=None if mean is None else mean.window_s,
            observation_counts=pool_answer.observation_counts,
        )


DEEP_TICKS = 1_280
"""Ticks read if more are requested: the most that fit in one answer of the lens (EIP-170)."""
DEEP_BITMAP_WORDS = 1_000
"""Bitmap words covered by such an answer. With all its ticks they stay below 16 million gas."""


def deep_pool_item(pool: PoolRef) -> V3Item:
    """Return the item that reads as many ticks of a V3 pool as one answer holds. At usual prices
    its window covers all ticks, unless the tick spacing is 1.
    """
    return V3Item(
        pool.contract,
        pool.tick_spacing,
        min(2 * MAX_TICK, DEEP_BITMAP_WORDS * 128 * pool.tick_spacing),
        DEEP_TICKS,
        0,
        pool.id,
    )


def with_deeper_ticks(pool: Pool, answer: LensAnswer) -> Pool:
    """Return the pool with all ticks of an answer at its block; unchanged if the answer has no
    more. Raises Retryable if the pool's state differs.
    """
    if not isinstance(pool, V3Pool) or not isinstance(answer, V3Answer):
        return pool
    ticks = tuple(
        TickLiquidity(tick_index, liquidity_net) for tick_index, liquidity_net in answer.ticks
    )
    known_ticks = tuple(
        tick for tick in ticks if pool.known_from_tick <= tick.index <= pool.known_to_tick
    )
    if not (
        answer.known_from_tick <= pool.known_from_tick
        and pool.known_to_tick <= answer.known_to_tick
    ):
        return pool
    if (answer.sqrt_price_x96, answer.tick, answer.liquidity, known_ticks) != (
        pool.sqrt_price_x96,
        pool.tick,
        pool.liquidity,
        pool.ticks,
    ):
        raise Retryable(
            f"pool {pool.address} changed at the same block while more ticks were read",
            "run the command again",
            code=ErrorCode.BLOCK_CHANGED,
        )
    return replace(
        pool,
        ticks=ticks,
        known_from_tick=answer.known_from_tick,
        known_to_tick=answer.known_to_tick,
    )
