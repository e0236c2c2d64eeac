"""Uniswap V3 pools: state, whole swaps, and the largest amounts within a price bound, in closed
form.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from math import isqrt
from typing import ClassVar, Self

from agent.amm.pools import is_zero_for_one, missing_twap_refusal, partly_moved_point
from agent.amm.swap_errors import BeyondKnownTicks
from agent.amm.v3.math import (
    MAX_SQRT_RATIO,
    MAX_TICK,
    MIN_TICK,
    Q96,
    get_sqrt_ratio_at_tick,
    get_tick_at_sqrt_ratio,
    price_limit,
)
from agent.amm.v3.pool_swap import (
    SwapState,
    amount_between,
    largest_in,
    max_sqrt_price_x96,
    min_sqrt_price_x96,
    quoter,
    swap,
)
from agent.amm.v3.reverts import V3_REVERT_MESSAGES
from agent.amm.v3.state import V3State
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.floats import log
from agent.model import (
    IdlePoolFee,
    PriceCurve,
    SwapGas,
    SwapResult,
    SwapStyle,
    TickState,
    VenueKeys,
)
from agent.units import BPS, PIPS, Token, floor_int, mul_div_up

Q192 = Q96 * Q96
WIDEST_SPACING = 1700
"""Largest spacing for which a word of 256 ticks spans a price ratio below 2^64, so that the
contract never leaves its precise formula.

A step from √P down to √Q needs L·2^96·√P/√Q in 256 bits, with L below 2^128: √P/√Q below 2^32.
"""
DEPTH_BPS = 200
"""Depth counts the pool's amounts within this distance of its price."""
SPACING_BY_FEE_PIPS = {100: 1, 500: 10, 3000: 60, 10_000: 200}
"""Tick spacing by fee, as enabled in the factory. Other fees get the spacing of 0.3 %."""
UNBOUNDED_AMOUNT = 2**127
"""Bound for trades that restore a price, larger than any pool takes."""


@dataclass(frozen=True, slots=True)
class V3Pool(V3State):
    """See Pool."""

    kind: ClassVar[str] = "uniswap_v3"
    curve_names: ClassVar[tuple[str, ...]] = ("v3",)
    gas: ClassVar[SwapGas] = SwapGas(
        {"swap_router_02": 65_600, "rebalancer": 60_500},
        repeat_saving=25_400,
        first_write_slots=1,
        observation_gas=8_800,
        tick_gas=65_400,
        stop_gas=7_400,
    )
    """A changed tick writes an observation (UniswapV3Pool.swap). The first crossing of a tick
    writes storage slots that were zero (Tick.cross of v3-core). A stop at a bitmap word's border is
    a cold read and one more swap step (TickBitmap.sol).
    """
    venue_keys: ClassVar[VenueKeys] = VenueKeys(
        ("router", "quoter", "fee_tiers"),
        ("quoter_v1", "position_manager", "init_code_hash", "pools"),
    )
    style: ClassVar[SwapStyle] = SwapStyle.V3
    label: ClassVar[str] = ""
    revert_messages: ClassVar[Mapping[str, str]] = V3_REVERT_MESSAGES
    keeps_observations: ClassVar[bool] = True
    trades_native: ClassVar[bool] = False

    @classmethod
    def simulated(
        cls,
        address: str,
        tokens: tuple[Token, Token],
        price: Fraction,
        reserves: tuple[int, int],
        fee_pips: int,
    ) -> Self:
        """See Pool: the liquidity spans every tick, and the reserves are virtual."""
        sqrt_x96 = isqrt(floor_int(price * Q192))
        liquidity = isqrt(reserves[0] * reserves[1])
        spacing = SPACING_BY_FEE_PIPS.get(fee_pips, 60)
        edge_tick = MAX_TICK // spacing * spacing
        end_ticks = (TickLiquidity(-edge_tick, liquidity), TickLiquidity(edge_tick, -liquidity))
        price_state = spacing, sqrt_x96, get_tick_at_sqrt_ratio(sqrt_x96), liquidity
        return cls(
            address,
            cls.kind,
            tokens[0].address,
            tokens[1].address,
            fee_pips,
            *price_state,
            end_ticks,
            -edge_tick,
            edge_tick,
        )

    @property
    def fault(self) -> str:
        """See Pool: a tick spacing that no factory allows. With a negative one, a quote would move
        away from the price.
        """
        return (
            ""
            if 0 < self.tick_spacing <= WIDEST_SPACING
            else f"a tick spacing of {self.tick_spacing}"
        )

    @property
    def tier(self) -> int:
        """See Pool: the fee."""
        return self.fee_pips

    @property
    def contract(self) -> str:
        """See Pool."""
        return self.address

    def fee_for(self, token_in: str) -> int:
        """See Pool."""
        return self.fee_toward(is_zero_for_one(self, token_in))

    @property
    def idle_fee(self) -> IdlePoolFee | None:
        """See Pool."""
        return None

    @property
    def fee_gas(self) -> int:
        """See Pool."""
        return 0

    @property
    def is_empty(self) -> bool:
        """True if the pool has no price, or no liquidity in range and no known initialised tick."""
        return self.sqrt_price_x96 <= 0 or (self.liquidity == 0 and not self.ticks)

    @property
    def has_price(self) -> bool:
        """True if the pool is initialised."""
        return self.sqrt_price_x96 > 0

    @property
    def observation_key(self) -> int:
        """See Pool: the tick."""
        return self.tick

    @property
    def tick_state(self) -> TickState:
        """See Pool."""
        return TickState(self.sqrt_price_x96, self.tick, self.tick_spacing)

    def quote(self, token_in: str, amount_in_raw: int) -> int:
        """See Pool."""
        return self._run_swap(
            is_zero_for_one(self, token_in), max(amount_in_raw, 0), None
        ).amount_out

    def quoter(self, token_in: str) -> Callable[[int], int]:
        """See Pool. Walks each range once, whatever the number of quotes."""
        return quoter(
            self,
            is_zero_for_one(self, token_in),
            lambda amount_in_raw: self.quote(token_in, amount_in_raw),
        )

    def swap(
        self, token_in: str, amount_in_raw: int, sqrt_price_limit_x96: int | None = None
    ) -> SwapResult[Self]:
        """See Pool: UniswapV3Pool.swap. Without a limit it may move to the end of the price range,
        as through a router.
        """
        end_state = self._run_swap(
            is_zero_for_one(self, token_in), amount_in_raw, sqrt_price_limit_x96
        )
        pool_after = replace(
            self,
            sqrt_price_x96=end_state.sqrt_price_x96,
            tick=end_state.tick,
            liquidity=end_state.liquidity,
        )
        return SwapResult(
            amount_in_raw - end_state.amount_remaining,
            end_state.amount_out,
            end_state.fee,
            pool_after,
            end_state.ticks_crossed,
            end_state.stops,
        )

    def _run_swap(self, zero_for_one: bool, amount_in: int, limit_x96: int | None) -> SwapState:
        price_limit_x96 = price_limit(zero_for_one) if limit_x96 is None else limit_x96
        end_state = swap(self, zero_for_one, amount_in, price_limit_x96)
        if end_state.left_known_ticks:
            raise BeyondKnownTicks(
                self.address,
                amount_in,
                largest_in(self, zero_for_one, price_limit(zero_for_one)),
                self.known_from_tick,
                self.known_to_tick,
            )
        return end_state

    def price_terms(self, token_in: str) -> tuple[int, int]:
        """See Pool."""
        price_x192 = self.sqrt_price_x96 * self.sqrt_price_x96
        return (price_x192, Q192) if is_zero_for_one(self, token_in) else (Q192, price_x192)

    def max_in(self, token_in: str, impact_bps: int) -> int:
        """See Pool. Exact: one more unit moves the price too far, leaves the known ticks, or is not
        fully used.
        """
        zero_for_one = is_zero_for_one(self, token_in)
        return largest_in(self, zero_for_one, self._impact_bound(zero_for_one, impact_bps))

    def best_amount_in(self, token_in: str, price: Fraction, impact_bps: int) -> int:
        """See Pool: the input at which (1 - fee)·marginal_price = price (Angeris, Evans, Chitra,
        Boyd 2022).
        """
        if price <= 0:
            return self.max_in(token_in, impact_bps)
        zero_for_one = is_zero_for_one(self, token_in)
        price_numerator = price.numerator
        price_denominator = price.denominator
        kept_pips = PIPS - self.fee_toward(zero_for_one)
        bound_x96 = self._impact_bound(zero_for_one, impact_bps)
        if zero_for_one:
            bound_x96 = max(
                bound_x96, min_sqrt_price_x96(price_numerator * PIPS, price_denominator * kept_pips)
            )
        else:
            bound_x96 = min(
                bound_x96, max_sqrt_price_x96(price_denominator * kept_pips, price_numerator * PIPS)
            )
        return largest_in(self, zero_for_one, bound_x96)

    def exceeds_known_ticks(self, token_in: str, impact_bps: int) -> bool:
        """See Pool: the trade passes the last tick that was read."""
        bound_x96 = self._impact_bound(zero_for_one := is_zero_for_one(self, token_in), impact_bps)
        if zero_for_one:
            return self.known_from_tick > MIN_TICK and bound_x96 <= get_sqrt_ratio_at_tick(
                self.known_from_tick
            )
        return self.known_to_tick < MAX_TICK and bound_x96 >= get_sqrt_ratio_at_tick(
            self.known_to_tick
        )

    def _impact_bound(self, zero_for_one: bool, impact_bps: int) -> int:
        """Return the furthest sqrt price (Q96) at which price_move_bps is at most impact_bps."""
        min_price_bps = max(0, BPS - impact_bps)
        price_x192 = self.sqrt_price_x96 * self.sqrt_price_x96
        if zero_for_one:
            floor_x192 = mul_div_up(price_x192, min_price_bps, BPS)
            return isqrt(floor_x192 - 1) + 1 if floor_x192 else 0
        return isqrt(price_x192 * BPS // min_price_bps) if min_price_bps else MAX_SQRT_RATIO

    def curve(self, token_in: str, impact_bps: int) -> PriceCurve | None:
        """See Pool: from the current price to the bound or to the end of the known ticks."""
        if self.sqrt_price_x96 <= 0:
            return None
        zero_for_one = is_zero_for_one(self, token_in)
        start_sqrt_price = self.sqrt_price_x96 / 2**96
        start_sqrt_price = start_sqrt_price if zero_for_one else 1 / start_sqrt_price
        impact_share = min(impact_bps, BPS - 1) / BPS
        stop_sqrt_price = start_sqrt_price * math.sqrt(1 - impact_share)
        reach_ticks = _reach_in_ticks(impact_bps)
        ticks = self.ticks
        current_index = bisect_right(ticks, self.tick, key=lambda tick: tick.index)
        if zero_for_one:
            first_index = bisect_left(ticks, self.tick - reach_ticks, key=lambda tick: tick.index)
            near_ticks = ticks[first_index:current_index][::-1]
            end_sqrt_prices = [_sqrt_price_at(tick.index) for tick in near_ticks] + [
                _sqrt_price_at(self.known_from_tick)
            ]
            liquidity_steps = [-tick.liquidity_net for tick in near_ticks]
        else:
            last_index = bisect_right(ticks, self.tick + reach_ticks, key=lambda tick: tick.index)
            near_ticks = ticks[current_index:last_index]
            end_sqrt_prices = [1 / _sqrt_price_at(tick.index) for tick in near_ticks] + [
                1 / _sqrt_price_at(self.known_to_tick)
            ]
            liquidity_steps = [tick.liquidity_net for tick in near_ticks]
        edge_sqrt_prices = accumulate(
            (
                min(max(end_sqrt_price, stop_sqrt_price), start_sqrt_price)
                for end_sqrt_price in end_sqrt_prices
            ),
            min,
        )
        liquidities = [
            max(float(liquidity), 0.0)
            for liquidity in accumulate(liquidity_steps, initial=self.liquidity)
        ]
        return PriceCurve([start_sqrt_price, *edge_sqrt_prices], liquidities)

    def depth(self, token: str) -> int:
        """See Pool: the amount in liquidity between the price and DEPTH_BPS away, within known
        ticks.

        Computed from liquidity. The pool's balance also holds uncollected fees and distant
        positions.
        """
        is_token0 = is_zero_for_one(self, token)
        price_x192 = (
            self.sqrt_price_x96
            * self.sqrt_price_x96
            * (BPS + (DEPTH_BPS if is_token0 else -DEPTH_BPS))
            // BPS
        )
        return amount_between(self, not is_token0, isqrt(price_x192))

    def spot_depth(self, token: str) -> int:
        """See Pool."""
        if min(self.liquidity, self.sqrt_price_x96) <= 0:
            return 0
        return _virtual_raw(self.liquidity, Fraction(*self.price_terms(token)))

    def partly_recovered(self, start: Self, remaining_share: Fraction) -> Self:
        """See Pool."""
        target_x96 = partly_moved_point(start.sqrt_price_x96, self.sqrt_price_x96, remaining_share)
        if target_x96 == self.sqrt_price_x96:
            return self
        token_in = self.token1 if target_x96 > self.sqrt_price_x96 else self.token0
        return self.swap(token_in, UNBOUNDED_AMOUNT, target_x96).pool_after

    @property
    def mean_window_s(self) -> int | None:
        """See Pool."""
        return None if self.twap_tick is None else self.twap_window_s

    def mean_price(self, token: str) -> Fraction:
        """See Pool: the price at twap_tick (OracleLibrary.getQuoteAtTick, unrounded)."""
        if self.twap_tick is None:
            raise missing_twap_refusal(self)
        mean_sqrt_price_x96 = get_sqrt_ratio_at_tick(self.twap_tick)
        price_x192 = mean_sqrt_price_x96 * mean_sqrt_price_x96
        return (
            Fraction(price_x192, Q192)
            if is_zero_for_one(self, token)
            else Fraction(Q192, price_x192)
        )

    def mean_depth(self, token: str) -> int:
        """See Pool. Liquidity added for only a few blocks hardly changes it."""
        return _virtual_raw(self.twap_liquidity or 0, self.mean_price(token))

    def over_short_window(self) -> Self:
        """See Pool."""
        mean = self.short_mean
        return replace(
            self,
            twap_tick=None if mean is None else mean.tick,
            twap_liquidity=None if mean is None else mean.liquidity,
            twap_window_s=None if mean is None else mean.window_s,
        )


def _virtual_raw(liquidity: int, price: Fraction) -> int:
    """Return L/√P, the virtual reserve of a token in base units."""
    return isqrt(floor_int(liquidity * liquidity / price))


def _sqrt_price_at(tick: int) -> float:
    """Return the sqrt price at a tick, clamped to the tick range."""
    return get_sqrt_ratio_at_tick(min(max(tick, MIN_TICK), MAX_TICK)) / Q96


@lru_cache(maxsize=64)
def _reach_in_ticks(impact_bps: int) -> int:
    """Return the number of ticks that a price may move within the bound, plus two."""
    return math.ceil(-log(1 - min(impact_bps, BPS - 1) / BPS) / log(1.0001)) + 2
