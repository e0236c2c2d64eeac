"""State of a Uniswap V2 pair, as a Pool."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import isqrt
from typing import ClassVar

from agent.amm.pools import (
    is_zero_for_one,
    last_that_fits,
    missing_twap_refusal,
    partly_moved_point,
    sqrt_ratio_x96,
)
from agent.amm.v2 import (
    UINT112_MAX,
    V2_REVERT_MESSAGES,
    get_amount_out,
    quoter,
    require_pair_swaps,
)
from agent.floats import power
from agent.model import PriceCurve, SwapGas, SwapResult, SwapStyle, VenueKeys
from agent.units import BPS, PIPS, Token, mul_div_up


@dataclass(frozen=True, slots=True)
class V2Pool:
    """State of a Uniswap V2 pair; reserves are in base units of token0 and token1.

    `unwritten_slots` is true for each price accumulator that is still zero; its first write costs
    more gas.
    """

    address: str
    venue: str
    token0: str
    token1: str
    reserve0: int
    reserve1: int
    fee_pips: int = 3000
    unwritten_slots: tuple[bool, bool] = field(default=(False, False), compare=False)

    kind: ClassVar[str] = "uniswap_v2"
    curve_names: ClassVar[tuple[str, ...]] = ("v2",)
    gas: ClassVar[SwapGas] = SwapGas(
        {"swap_router_02": 65_600, "rebalancer": 57_400}, repeat_saving=33_400, first_write_slots=2
    )
    venue_keys: ClassVar[VenueKeys] = VenueKeys(("router",), ("fee", "init_code_hash", "pools"))
    style: ClassVar[SwapStyle] = SwapStyle.V2
    label: ClassVar[str] = " V2"
    fault: ClassVar[str] = ""
    idle_fee: ClassVar[None] = None
    fee_gas: ClassVar[int] = 0
    revert_messages: ClassVar[Mapping[str, str]] = V2_REVERT_MESSAGES
    keeps_observations: ClassVar[bool] = False
    trades_native: ClassVar[bool] = False
    observation_key: ClassVar[None] = None
    observation_counts: ClassVar[None] = None
    mean_window_s: ClassVar[None] = None
    tick_state: ClassVar[None] = None

    @classmethod
    def simulated(
        cls,
        address: str,
        tokens: tuple[Token, Token],
        price: Fraction,
        reserves: tuple[int, int],
        fee_pips: int,
    ) -> V2Pool:
        """See Pool: the price follows from the reserves."""
        return cls(address, cls.kind, tokens[0].address, tokens[1].address, *reserves, fee_pips)

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
        return self.fee_pips

    @property
    def is_empty(self) -> bool:
        """True if a reserve is zero."""
        return self.reserve0 <= 0 or self.reserve1 <= 0

    @property
    def has_price(self) -> bool:
        """True if both reserves are above zero."""
        return not self.is_empty

    def _reserves(self, token_in: str) -> tuple[int, int]:
        """Return the reserves of token_in and of token_out."""
        if is_zero_for_one(self, token_in):
            return self.reserve0, self.reserve1
        return self.reserve1, self.reserve0

    def quote(self, token_in: str, amount_in_raw: int) -> int:
        """See Pool: UniswapV2Library.getAmountOut."""
        return get_amount_out(amount_in_raw, *self._reserves(token_in), self.fee_pips)

    def quoter(self, token_in: str) -> Callable[[int], int]:
        """See Pool."""
        return quoter(*self._reserves(token_in), self.fee_pips)

    def swap(self, token_in: str, amount_in_raw: int) -> SwapResult[V2Pool]:
        """See Pool: UniswapV2Pair.swap, called by Router02."""
        reserve_in, reserve_out = self._reserves(token_in)
        amount_out_raw = self.quote(token_in, amount_in_raw)
        require_pair_swaps(amount_in_raw, amount_out_raw, reserve_in, reserve_out)
        reserve_in += amount_in_raw
        reserve_out -= amount_out_raw
        if token_in == self.token0:
            pool_after = replace(self, reserve0=reserve_in, reserve1=reserve_out)
        else:
            pool_after = replace(self, reserve0=reserve_out, reserve1=reserve_in)
        return SwapResult(
            amount_in_raw,
            amount_out_raw,
            mul_div_up(amount_in_raw, self.fee_pips, PIPS),
            pool_after,
            0,
        )

    def price_terms(self, token_in: str) -> tuple[int, int]:
        """See Pool."""
        reserve_in, reserve_out = self._reserves(token_in)
        return reserve_out, reserve_in

    def max_in(self, token_in: str, impact_bps: int) -> int:
        """See Pool. Exact: one more unit exceeds the impact bound or the maximum reserve."""
        return _max_in(*self._reserves(token_in), self.fee_pips, impact_bps)

    def best_amount_in(self, token_in: str, price: Fraction, impact_bps: int) -> int:
        """See Pool: φ·Rin·Rout / (Rin + φ·x)² = price (Angeris, Evans, Chitra, Boyd 2022)."""
        if price <= 0:
            return self.max_in(token_in, impact_bps)
        reserve_in, reserve_out = self._reserves(token_in)
        price_numerator = price.numerator
        price_denominator = price.denominator
        kept_pips = PIPS - self.fee_pips
        best_response = (
            isqrt(
                kept_pips * PIPS * reserve_in * reserve_out * price_denominator // price_numerator
            )
            - reserve_in * PIPS
        ) // kept_pips
        return min(best_response, self.max_in(token_in, impact_bps)) if best_response > 0 else 0

    def exceeds_known_ticks(self, token_in: str, impact_bps: int) -> bool:
        """See Pool: the whole state of a pair is known."""
        return False

    def curve(self, token_in: str, impact_bps: int) -> PriceCurve | None:
        """See Pool. The bound includes the fee in the reserves: (1 + x)^(1+φ) = 1/(1 − impact), x
        in reserves.

        This is the largest total input over any number of swaps; for a single swap the largest
        input is some millionths smaller.
        """
        reserve_in, reserve_out = self._reserves(token_in)
        if reserve_in <= 0 or reserve_out <= 0:
            return None
        start_sqrt_price = math.sqrt(reserve_out / reserve_in)
        fee_factor = 1 - self.fee_pips / PIPS
        relative_input = power(1 - min(impact_bps, BPS - 1) / BPS, -1 / (1 + fee_factor)) - 1
        return PriceCurve(
            [start_sqrt_price, start_sqrt_price / (1 + fee_factor * relative_input)],
            [math.sqrt(reserve_in) * math.sqrt(reserve_out)],
        )

    def depth(self, token: str) -> int:
        """See Pool: the reserve."""
        return self._reserves(token)[0]

    def spot_depth(self, token: str) -> int:
        """See Pool: the reserve."""
        return 0 if self.is_empty else self.depth(token)

    def partly_recovered(self, start: V2Pool, remaining_share: Fraction) -> V2Pool:
        """See Pool."""
        if self == start:
            return self
        target_sqrt_x96 = partly_moved_point(
            sqrt_ratio_x96(start.reserve1, start.reserve0),
            sqrt_ratio_x96(self.reserve1, self.reserve0),
            remaining_share,
        )
        product = self.reserve0 * self.reserve1
        return replace(
            self,
            reserve0=isqrt((product << 192) // (target_sqrt_x96 * target_sqrt_x96)),
            reserve1=isqrt(product * (target_sqrt_x96 * target_sqrt_x96) >> 192),
        )

    def mean_price(self, token: str) -> Fraction:
        """See Pool. Always raises, because a pair has no TWAP."""
        raise missing_twap_refusal(self)

    def mean_depth(self, token: str) -> int:
        """See Pool. Always raises, because a pair has no TWAP."""
        raise missing_twap_refusal(self)

    def over_short_window(self) -> V2Pool:
        """See Pool. A pair has no TWAP."""
        return self


def _max_in(reserve_in: int, reserve_out: int, fee_pips: int, impact_bps: int) -> int:
    """Return max_in of a pair: the root of (Rin + φ·x)·(Rin + x) = Rin² / (1 - impact), then a
    search upwards.

    The root always fits: the output is rounded down, so the price moves less than in exact
    arithmetic.
    """
    if reserve_in <= 0 or reserve_out <= 0:
        return 0
    max_amount_in = UINT112_MAX - reserve_in
    min_price_bps = max(0, BPS - impact_bps)
    if min_price_bps == 0:
        return max(max_amount_in, 0)

    def fits(amount_in: int) -> bool:
        if amount_in > max_amount_in:
            return False
        reserve_left = reserve_out - get_amount_out(amount_in, reserve_in, reserve_out, fee_pips)
        return reserve_left * reserve_in * BPS >= min_price_bps * reserve_out * (
            reserve_in + amount_in
        )

    linear_term = reserve_in * (2 * PIPS - fee_pips)
    constant_term = reserve_in * reserve_in * impact_bps * PIPS // min_price_bps
    exact_amount_in = (
        isqrt(linear_term * linear_term + 4 * (PIPS - fee_pips) * constant_term) - linear_term
    ) // (2 * (PIPS - fee_pips))
    return last_that_fits(fits, min(max(exact_amount_in, 0), max_amount_in))
