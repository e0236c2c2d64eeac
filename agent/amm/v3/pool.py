"""Uniswap V3 pools: state, whole swaps, and the largest amounts within a price bound, in closed
form.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from math import isqrt
from typing import ClassVar, NamedTuple

from agent.amm.pools import (
    BeyondKnownTicks,
    ContractRevert,
    is_zero_for_one,
    moved_back,
    without_mean,
)
from agent.amm.v3.sqrt_price_math import get_amount0_delta, get_amount1_delta
from agent.amm.v3.swap_math import compute_swap_step, whole_step
from agent.amm.v3.tick_bitmap import End, TickLiquidity, next_step, stop_table, tick_table
from agent.amm.v3.tick_math import (
    MAX_SQRT_RATIO,
    MAX_TICK,
    MIN_SQRT_RATIO,
    MIN_TICK,
    Q96,
    get_sqrt_ratio_at_tick,
    get_tick_at_sqrt_ratio,
    price_limit,
)
from agent.floats import log
from agent.model import PriceCurve, SwapGas, SwapResult, TickState
from agent.units import BPS, PIPS, Token, floor_int, mul_div_up

# --- State of a pool, with the pool functions of planning, guards and simulation.


Q192 = Q96 * Q96
DEPTH_BPS = 200
"""Depth counts the pool's amounts within this distance of its price."""
WIDEST_SPACING = 1700
"""Largest spacing for which a word of 256 ticks spans a price ratio below 2^64, so that the
contract never leaves its precise formula.

A step from √P down to √Q needs L·2^96·√P/√Q in 256 bits, with L below 2^128: √P/√Q below 2^32.
"""
_SPACINGS = {100: 1, 500: 10, 3000: 60, 10_000: 200}
"""Tick spacing by fee, as enabled in the factory. Other fees get the spacing of 0.3 %."""
ALL = 2**127
"""Bound for trades that restore a price, larger than any pool takes."""


@dataclass(frozen=True, slots=True)
class V3Pool:
    """State of a Uniswap V3 pool.

    `ticks` holds every initialised tick with known_from_tick <= index <= known_to_tick, ascending;
    a quote that leaves this window is refused. `twap_tick` is the time-weighted mean tick over
    `twap_window_s` (None if the pool's observations do not reach back), `twap_liquidity` the
    harmonic mean in-range liquidity of the same window (OracleLibrary.consult). `observations` are
    the current and the next number of price observations (slot0.observationCardinality and -Next).
    `unwritten` is true per token of (token0, token1) whose fee growth is still zero: a trade that
    writes it costs more gas.
    """

    address: str
    venue: str
    token0: str
    token1: str
    fee_pips: int
    tick_spacing: int
    sqrt_price_x96: int
    tick: int
    liquidity: int
    ticks: tuple[TickLiquidity, ...]
    known_from_tick: int
    known_to_tick: int
    twap_tick: int | None = None
    twap_liquidity: int | None = None
    twap_window_s: int | None = None
    observations: tuple[int, int] | None = field(default=None, compare=False)
    unwritten: tuple[bool, bool] = field(default=(False, False), compare=False)

    kind: ClassVar[str] = "uniswap_v3"
    forms: ClassVar[tuple[str, ...]] = ("v3",)
    gas: ClassVar[SwapGas] = SwapGas(
        {"swap_router_02": 65_600, "rebalancer": 56_600},
        again=25_400,
        first_writes=1,
        moved=8_800,
        tick=44_000,
        stop=7_400,
    )
    """A changed tick writes an observation (UniswapV3Pool.swap). Tick.cross writes slots of zero at
    the first crossing (v3-core, Tick.sol). A stop at a bitmap word's border is a cold read and one
    more swap step (TickBitmap.sol).
    """
    paid_first: ClassVar[bool] = False
    label: ClassVar[str] = ""
    keeps_observations: ClassVar[bool] = True

    @classmethod
    def simulated(
        cls,
        form: str,
        address: str,
        tokens: tuple[Token, Token],
        price: Fraction,
        reserves: tuple[int, int],
        fee_pips: int,
    ) -> V3Pool:
        """See Pool: the liquidity spans every tick, and the reserves are virtual."""
        sqrt_x96, liquidity = isqrt(floor_int(price * Q192)), isqrt(reserves[0] * reserves[1])
        spacing = _SPACINGS.get(fee_pips, 60)
        edge = MAX_TICK // spacing * spacing
        ends = (TickLiquidity(-edge, liquidity), TickLiquidity(edge, -liquidity))
        ranges = spacing, sqrt_x96, get_tick_at_sqrt_ratio(sqrt_x96), liquidity
        return cls(
            address,
            cls.kind,
            tokens[0].address,
            tokens[1].address,
            fee_pips,
            *ranges,
            ends,
            -edge,
            edge,
        )

    @property
    def fault(self) -> str:
        """Return a tick spacing that no factory allows. With a negative one, a quote would move
        away from the price.
        """
        return (
            ""
            if 0 < self.tick_spacing <= WIDEST_SPACING
            else f"a tick spacing of {self.tick_spacing}"
        )

    @property
    def is_empty(self) -> bool:
        """Return whether the pool has no price, or no liquidity in range and at every known tick."""
        return self.sqrt_price_x96 <= 0 or (self.liquidity == 0 and not self.ticks)

    @property
    def has_price(self) -> bool:
        """Return whether the pool is initialised."""
        return self.sqrt_price_x96 > 0

    @property
    def observed(self) -> int:
        """Return the tick. The first swap in a block that changes it writes an observation."""
        return self.tick

    @property
    def tick_state(self) -> TickState:
        """See Pool."""
        return TickState(self.sqrt_price_x96, self.tick, self.tick_spacing)

    def quote(self, token_in: str, amount_in_raw: int) -> int:
        """See Pool."""
        return self._run(
            is_zero_for_one(self, token_in), max(amount_in_raw, 0), None
        ).amount_calculated

    def quoter(self, token_in: str) -> Callable[[int], int]:
        """See Pool. Uses prefix sums over the ranges, so a quote across fifty ticks is as fast as
        one across two.
        """
        return quoter(
            self,
            is_zero_for_one(self, token_in),
            lambda amount_in_raw: self.quote(token_in, amount_in_raw),
        )

    def swap(
        self, token_in: str, amount_in_raw: int, sqrt_price_limit_x96: int | None = None
    ) -> SwapResult[V3Pool]:
        """See Pool: UniswapV3Pool.swap. Without a limit it may move to the end of the price range,
        as through a router.
        """
        ended = self._run(
            is_zero_for_one(self, token_in), max(amount_in_raw, 0), sqrt_price_limit_x96
        )
        return self._swapped(ended, amount_in_raw - ended.amount_remaining, ended.amount_calculated)

    def swap_exact_out(
        self, token_in: str, amount_out_raw: int, sqrt_price_limit_x96: int | None = None
    ) -> SwapResult[V3Pool]:
        """Swap token_in for up to amount_out_raw base units of the other token; limit and errors as
        in `swap`.
        """
        ended = self._run(
            is_zero_for_one(self, token_in), -max(amount_out_raw, 0), sqrt_price_limit_x96
        )
        return self._swapped(
            ended, ended.amount_calculated, amount_out_raw + ended.amount_remaining
        )

    def _run(self, zero_for_one: bool, amount_specified: int, limit_x96: int | None) -> SwapState:
        limit = price_limit(zero_for_one) if limit_x96 is None else limit_x96
        ended = swap(self, zero_for_one, amount_specified, limit)
        if not ended.left_known_ticks:
            return ended
        if amount_specified > 0:
            side, largest = "in", largest_in(self, zero_for_one, price_limit(zero_for_one))
        else:
            side, largest = "out", largest_out(self, zero_for_one)
        raise BeyondKnownTicks(
            self.address,
            side,
            abs(amount_specified),
            largest,
            self.known_from_tick,
            self.known_to_tick,
        )

    def _swapped(self, ended: SwapState, amount_in: int, amount_out: int) -> SwapResult[V3Pool]:
        after = replace(
            self,
            sqrt_price_x96=ended.sqrt_price_x96,
            tick=ended.end_tick(),
            liquidity=ended.liquidity,
        )
        return SwapResult(amount_in, amount_out, ended.fee, after, ended.ticks_crossed, ended.stops)

    def price_terms(self, token_in: str) -> tuple[int, int]:
        """See Pool."""
        squared = self.sqrt_price_x96 * self.sqrt_price_x96
        return (squared, Q192) if is_zero_for_one(self, token_in) else (Q192, squared)

    def max_in(self, token_in: str, impact_bps: int) -> int:
        """See Pool. Exact: one more unit moves the price too far, leaves the known ticks, or is not
        fully used.
        """
        zero_for_one = is_zero_for_one(self, token_in)
        return largest_in(self, zero_for_one, self._impact_bound(zero_for_one, impact_bps))

    def best_response(self, token_in: str, price: Fraction, impact_bps: int) -> int:
        """See Pool: the input at which (1 - fee)·marginal_price = price (Angeris, Evans, Chitra,
        Boyd 2022).
        """
        if price <= 0:
            return self.max_in(token_in, impact_bps)
        zero_for_one = is_zero_for_one(self, token_in)
        p, q, kept = price.numerator, price.denominator, PIPS - self.fee_pips
        bound = self._impact_bound(zero_for_one, impact_bps)
        if zero_for_one:
            bound = max(bound, price_floor(p * PIPS, q * kept))
        else:
            bound = min(bound, price_ceiling(q * kept, p * PIPS))
        return largest_in(self, zero_for_one, bound)

    def runs_out(self, token_in: str, impact_bps: int) -> bool:
        """See Pool: the trade passes the last tick that was read."""
        bound = self._impact_bound(zero_for_one := is_zero_for_one(self, token_in), impact_bps)
        if zero_for_one:
            return self.known_from_tick > MIN_TICK and bound <= get_sqrt_ratio_at_tick(
                self.known_from_tick
            )
        return self.known_to_tick < MAX_TICK and bound >= get_sqrt_ratio_at_tick(self.known_to_tick)

    def _impact_bound(self, zero_for_one: bool, impact_bps: int) -> int:
        """Return the furthest sqrt price (Q96) at which price_move_bps is at most impact_bps."""
        kept = max(0, BPS - impact_bps)
        squared = self.sqrt_price_x96 * self.sqrt_price_x96
        if zero_for_one:
            least = mul_div_up(squared, kept, BPS)
            return isqrt(least - 1) + 1 if least else 0
        return isqrt(squared * BPS // kept) if kept else MAX_SQRT_RATIO

    def curve(self, token_in: str, impact_bps: int) -> PriceCurve | None:
        """See Pool: from the current price to the bound or to the end of the known ticks."""
        if self.sqrt_price_x96 <= 0:
            return None
        forward = token_in == self.token0
        start = self.sqrt_price_x96 / 2**96
        start = start if forward else 1 / start
        share = min(impact_bps, BPS - 1) / BPS
        stop, reach, ticks = start * math.sqrt(1 - share), _reach(impact_bps), self.ticks
        here = bisect_right(ticks, self.tick, key=lambda tick: tick.index)
        if forward:
            first = bisect_left(ticks, self.tick - reach, key=lambda tick: tick.index)
            near = ticks[first:here][::-1]
            ends = [_root(tick.index) for tick in near] + [_root(self.known_from_tick)]
            steps = [-tick.liquidity_net for tick in near]
        else:
            last = bisect_right(ticks, self.tick + reach, key=lambda tick: tick.index)
            near = ticks[here:last]
            ends = [1 / _root(tick.index) for tick in near] + [1 / _root(self.known_to_tick)]
            steps = [tick.liquidity_net for tick in near]
        edges = accumulate((min(max(end, stop), start) for end in ends), min)
        depths = [max(float(depth), 0.0) for depth in accumulate(steps, initial=self.liquidity)]
        return PriceCurve([start, *edges], depths)

    def depth(self, token: str) -> int:
        """See Pool: the amount in liquidity between the price and DEPTH_BPS away, within known
        ticks.

        Computed from liquidity. The pool's balance also holds uncollected fees and distant
        positions.
        """
        is_token0 = is_zero_for_one(self, token)
        squared = (
            self.sqrt_price_x96
            * self.sqrt_price_x96
            * (BPS + (DEPTH_BPS if is_token0 else -DEPTH_BPS))
            // BPS
        )
        return amount_between(self, not is_token0, isqrt(squared))

    def spot_depth(self, token: str) -> int:
        """See Pool."""
        if min(self.liquidity, self.sqrt_price_x96) <= 0:
            return 0
        return _virtual_raw(self.liquidity, Fraction(*self.price_terms(token)))

    def recovered(self, start: V3Pool, left: Fraction) -> V3Pool:
        """See Pool."""
        target = moved_back(start.sqrt_price_x96, self.sqrt_price_x96, left)
        if target == self.sqrt_price_x96:
            return self
        token_in = self.token1 if target > self.sqrt_price_x96 else self.token0
        return self.swap(token_in, ALL, target).after

    @property
    def mean_window_s(self) -> int | None:
        """See Pool."""
        return None if self.twap_tick is None else self.twap_window_s

    def mean_price(self, token: str) -> Fraction:
        """See Pool: the price at twap_tick (OracleLibrary.getQuoteAtTick, unrounded)."""
        if self.twap_tick is None:
            raise without_mean(self)
        root = get_sqrt_ratio_at_tick(self.twap_tick)
        squared = root * root
        return Fraction(squared, Q192) if is_zero_for_one(self, token) else Fraction(Q192, squared)

    def mean_depth(self, token: str) -> int:
        """See Pool. Liquidity added for only a few blocks hardly changes it."""
        return _virtual_raw(self.twap_liquidity or 0, self.mean_price(token))


def _virtual_raw(liquidity: int, price: Fraction) -> int:
    """Return L/√P, the virtual reserve of a token in base units."""
    return isqrt(floor_int(liquidity * liquidity / price))


def _root(tick: int) -> float:
    """Return the sqrt price at a tick, clamped to the tick range."""
    return get_sqrt_ratio_at_tick(min(max(tick, MIN_TICK), MAX_TICK)) / Q96


@lru_cache(maxsize=64)
def _reach(impact_bps: int) -> int:
    """Return the number of ticks that a price may move within the bound, plus two."""
    return math.ceil(-log(1 - min(impact_bps, BPS - 1) / BPS) / log(1.0001)) + 2


# --- A whole V3 swap over many ranges: UniswapV3Pool.swap (v3-core) without its transfers and
# oracle.


INT256_MAX = 2**255 - 1


class SwapState(NamedTuple):
    """Result of a swap.

    Amounts are in base units. `amount_remaining` has the sign of the specified amount;
    `amount_calculated` is the other side, unsigned; `fee` is part of the input. `stops` is the
    number of steps, each of which ends at a tick, a word border, the price limit or inside a range.
    `tick` is that of the last stop; if the swap ended inside a range (`inside`), the pool's tick
    follows from the price. `left_known_ticks` is true if the next step needs unknown ticks; the
    other fields then describe the state before that step.
    """

    amount_remaining: int
    amount_calculated: int
    fee: int
    sqrt_price_x96: int
    tick: int
    liquidity: int
    ticks_crossed: int
    stops: int
    inside: bool
    left_known_ticks: bool

    def end_tick(self) -> int:
        """Return the pool's tick after the swap."""
        return get_tick_at_sqrt_ratio(self.sqrt_price_x96) if self.inside else self.tick


def swap(
    pool: V3Pool, zero_for_one: bool, amount_specified: int, sqrt_price_limit_x96: int
) -> SwapState:
    """Swap as UniswapV3Pool.swap: amount_specified > 0 is an exact input, < 0 an exact output.
    Fills in part at the price limit.

    After the first stop it uses the pool's prefix sums, so the loop runs at most three times,
    however many ticks the swap crosses. It stops before a step that needs unknown ticks. Raises
    ContractRevert like the contract.
    """
    price, tick, liquidity = pool.sqrt_price_x96, pool.tick, pool.liquidity
    limit, remaining, exact_in = sqrt_price_limit_x96, amount_specified, amount_specified > 0
    allowed = MIN_SQRT_RATIO < limit < price if zero_for_one else price < limit < MAX_SQRT_RATIO
    if not allowed or not remaining or not -INT256_MAX <= remaining <= INT256_MAX:
        raise _refusal(remaining)
    ticks = tick_table(pool.ticks)
    calculated = fees = ticks_crossed = stops = 0
    inside = left_known = False
    at = bisect_right(ticks.indices, tick)
    while remaining and price != limit:
        stop, next_price, beyond, at_beyond, end = next_step(
            pool, ticks, at, tick, price, liquidity, zero_for_one
        )
        if zero_for_one:
            target = limit if next_price < limit else next_price
        else:
            target = limit if next_price > limit else next_price
        reached, amount_in, amount_out, fee = compute_swap_step(
            price, target, liquidity, remaining, pool.fee_pips
        )
        if end is End.KNOWLEDGE and reached == next_price != limit:
            # the contract's target is further away, so its amounts for this step differ
            left_known = True
            break
        stops += 1
        fees += fee
        if exact_in:
            remaining -= amount_in + fee
            calculated += amount_out
        else:
            remaining += amount_out
            calculated += amount_in + fee
        if reached != next_price or end in (End.KNOWLEDGE, End.PRICES):
            # A step ends inside a range only if the amount is used up or the price limit is
            # reached. If the price did not move, the tick stays; after a downward crossing it is
            # one below that of the price.
            inside = reached != price
            price = reached
            break
        if end is End.REVERTS:
            raise ContractRevert(
                "LiquidityMath.addDelta",
                "LS" if beyond < 0 else "LA",
                "the ticks do not fit this pool's liquidity",
            )
        ticks_crossed += at != at_beyond
        price, tick, liquidity, at = reached, stop - 1 if zero_for_one else stop, beyond, at_beyond
        if stops == 1 and remaining and price != limit:
            table, sums, start = stop_table(pool, zero_for_one, stop, liquidity)
            cost, out, fee, skipped, price, tick, liquidity = table.skip(
                sums, start, remaining, limit
            )
            remaining += -cost if exact_in else out
            calculated += out if exact_in else cost
            fees, stops, before = fees + fee, stops + skipped, at
            at = bisect_right(ticks.indices, tick)
            ticks_crossed += abs(at - before)
    return SwapState(
        remaining,
        calculated,
        fees,
        price,
        tick,
        liquidity,
        ticks_crossed,
        stops,
        inside,
        left_known,
    )


def _refusal(amount_specified: int) -> ContractRevert:
    """Return the failed requirement at the start of UniswapV3Pool.swap, or of the int256 cast of
    its callers.
    """
    if amount_specified == 0:
        return ContractRevert("UniswapV3Pool.swap", "AS", "trade more than zero")
    if not -INT256_MAX <= amount_specified <= INT256_MAX:
        return ContractRevert("SafeCast.toInt256", "", "trade less than 2^255 base units")
    return ContractRevert(
        "UniswapV3Pool.swap",
        "SPL",
        "the price limit is on the wrong side of the price, or the pool is at the end of its range",
    )


class Range(NamedTuple):
    """The range in which a swap meets a price, or the last one it can reach before the price.

    `cost` (base units in, with fee) and `out` are the totals of all whole steps up to `start_x96`.
    `end` is the reason why nothing lies beyond `end_x96`, else None.
    """

    cost: int
    out: int
    start_x96: int
    end_x96: int
    liquidity: int
    end: End | None


def range_at(pool: V3Pool, zero_for_one: bool, price_x96: int) -> Range:
    """Return the range that holds a sqrt price (Q96) between the pool's own and the end of the
    price range. At a stop, that is the range before the stop.
    """
    ticks = tick_table(pool.ticks)
    start, liquidity = pool.sqrt_price_x96, pool.liquidity
    at = bisect_right(ticks.indices, pool.tick)
    stop, stop_x96, beyond, _, end = next_step(
        pool, ticks, at, pool.tick, start, liquidity, zero_for_one
    )
    if end is not None or (stop_x96 < price_x96 if zero_for_one else stop_x96 > price_x96):
        return Range(0, 0, start, stop_x96, liquidity, end)
    step_in, step_out, fee = whole_step(start, stop_x96, liquidity, pool.fee_pips)
    table, sums, first = stop_table(pool, zero_for_one, stop, beyond)
    sums = table.reach(sums, tick=get_tick_at_sqrt_ratio(price_x96))
    last = table.within(sums, len(sums.rows) - 1, price_x96)
    before_cost, before_out, _, _, _ = sums.rows[first]
    cost, out, _, start, liquidity = sums.rows[last]
    is_end = last == len(sums.rows) - 1
    end_x96 = sums.end_x96 if is_end else sums.rows[last + 1][3]
    cost, out = cost - before_cost + step_in + fee, out - before_out + step_out
    return Range(cost, out, start, end_x96, liquidity, sums.end if is_end else None)


def largest_in(pool: V3Pool, zero_for_one: bool, bound_x96: int) -> int:
    """Return the largest exact input, base units with fee, that moves the sqrt price at most to the
    bound and stays within known ticks. One more unit would pass the bound, leave the window, or
    fill only in part at the end of the price range. 0 if the pool is already past the bound.
    """
    bound = _within_prices(zero_for_one, bound_x96)
    if pool.sqrt_price_x96 < bound if zero_for_one else pool.sqrt_price_x96 > bound:
        return 0
    cost, _, start, end_x96, liquidity, end = range_at(pool, zero_for_one, bound)
    if end is End.PRICES and bound == end_x96:  # the swap stops there and takes no more than needed
        amount_in, _, fee = whole_step(start, end_x96, liquidity, pool.fee_pips)
        return min(cost + amount_in + fee, INT256_MAX)
    if end in (
        End.KNOWLEDGE,
        End.REVERTS,
    ):  # stop short of this price: the contract reverts at it, or its behaviour is unknown
        bound = max(bound, end_x96 + 1) if zero_for_one else min(bound, end_x96 - 1)
    if liquidity > 0 and (start >= bound if zero_for_one else start <= bound):
        less_fee = (
            _largest_down(start, bound, liquidity)
            if zero_for_one
            else _largest_up(start, bound, liquidity)
        )
        cost += mul_div_up(less_fee + 1, PIPS, PIPS - pool.fee_pips) - 1
    return min(cost, INT256_MAX)


def largest_out(pool: V3Pool, zero_for_one: bool) -> int:
    """Return the largest exact output, base units, that can be quoted from known ticks, if a larger
    one would leave them.
    """
    _, out, start, end_x96, liquidity, _ = range_at(pool, zero_for_one, price_limit(zero_for_one))
    _, past, _ = whole_step(start, end_x96, liquidity, pool.fee_pips)
    inside = 0
    while past - inside > 1:  # rounding may let the price reach the end of the last range early
        middle = (inside + past) // 2
        if compute_swap_step(start, end_x96, liquidity, -middle, pool.fee_pips)[0] == end_x96:
            past = middle
        else:
            inside = middle
    return min(out + inside, INT256_MAX)


def amount_between(pool: V3Pool, zero_for_one: bool, bound_x96: int) -> int:
    """Return the base units of the output token for a move of the sqrt price to the bound, within
    known ticks, rounded down.
    """
    bound = _within_prices(zero_for_one, bound_x96)
    if pool.sqrt_price_x96 <= bound if zero_for_one else pool.sqrt_price_x96 >= bound:
        return 0
    _, out, start, end_x96, liquidity, _ = range_at(pool, zero_for_one, bound)
    stop = max(end_x96, bound) if zero_for_one else min(end_x96, bound)
    delta = get_amount1_delta if zero_for_one else get_amount0_delta
    return out + delta(start, stop, liquidity, False)


def _within_prices(zero_for_one: bool, bound_x96: int) -> int:
    """Return the bound, or the last price that a swap can reach before it."""
    last = price_limit(zero_for_one)
    return max(bound_x96, last) if zero_for_one else min(bound_x96, last)


def price_floor(numerator: int, denominator: int) -> int:
    """Return the least sqrt price (Q96) whose square is at least numerator / denominator · 2^192,
    for a positive price.
    """
    squared = -((-numerator << 192) // denominator)
    return isqrt(squared - 1) + 1


def price_ceiling(numerator: int, denominator: int) -> int:
    """Return the greatest sqrt price (Q96) whose square is at most numerator / denominator · 2^192."""
    return isqrt((numerator << 192) // denominator)


def _largest_down(start: int, bound: int, liquidity: int) -> int:
    """Return the largest token0 amount (after fee) for which getNextSqrtPriceFromAmount0RoundingUp
    stays at or above `bound`. ceil(N·s / (N + a·s)) >= b ⇔ N·s > (b - 1)·(N + a·s), with N =
    L·2^96. If the sum exceeds 256 bits, which takes a fall by a factor of 2^32 within one range,
    contract and function use ceil(N / (N // s + a)).
    """
    numerator = liquidity << 96
    amount = mul_div_up(numerator, start - bound + 1, (bound - 1) * start) - 1
    if numerator + amount * start >> 256:
        amount = (numerator - 1) // (bound - 1) - numerator // start
    return amount


def _largest_up(start: int, bound: int, liquidity: int) -> int:
    """Return the largest token1 amount (after fee) for which
    getNextSqrtPriceFromAmount1RoundingDown stays at or below `bound`.
    """
    return ((bound - start + 1) * liquidity - 1) >> 96


# --- Exact outputs of many inputs for one V3 pool state and direction, at the price of a bisection
# and one step each. Everything independent of the amount is computed beforehand: the first range's
# input and output, and from the table those of every further stop. The arithmetic is that of
# swap_math for a step that stops short of its target, without the amounts that a quote does not
# need.
# amounts that a quote does not need.


Quote = Callable[[int], int]
Row = tuple[int, int, int, int, int]
Known = tuple[int, tuple[int, ...], tuple[Row, ...]]
"""(input beyond which rows are missing, input of each row, rows), starting at the pool's price.

A row is (input, output, sqrt price, liquidity, liquidity · 2^96), the last two for the range beyond
the stop.
"""

NOTHING: Known = (0, (), ())


def quoter(pool: V3Pool, zero_for_one: bool, otherwise: Quote) -> Quote:
    """Return a function from base units in to base units out. It calls `otherwise` for any amount
    that is not a whole exact input within the known ticks.
    """
    price, tick, liquidity = pool.sqrt_price_x96, pool.tick, pool.liquidity
    last = price_limit(zero_for_one)
    if pool.tick_spacing > WIDEST_SPACING or (price <= last if zero_for_one else price >= last):
        return otherwise
    ticks = tick_table(pool.ticks)
    at = bisect_right(ticks.indices, tick)
    stop, target, beyond, _, end = next_step(pool, ticks, at, tick, price, liquidity, zero_for_one)
    step_in, first_out, fee = whole_step(price, target, liquidity, pool.fee_pips)
    first_cost = step_in + fee

    def know(amount: int) -> Known | None:
        """Return the rows up to beyond the amount; None if known ticks cannot take all of it."""
        if end is not None:
            return None
        table, sums, start = stop_table(pool, zero_for_one, stop, beyond)
        cost, out, _, _, _ = sums.rows[start]
        ahead, paid = first_cost - cost, first_out - out
        sums = table.reach(sums, cost=amount - ahead)
        if sums.end_cost + ahead <= amount:
            return None
        rows = tuple(
            [
                (cost + ahead, out + paid, price, depth, depth << 96)
                for cost, out, _, price, depth in sums.rows[start:]
            ]
        )
        return sums.end_cost + ahead, tuple([row[0] for row in rows]), rows

    make = _falling if zero_for_one else _rising
    return make(price, liquidity, PIPS - pool.fee_pips, first_cost, know, otherwise)


def _falling(
    price: int,
    liquidity: int,
    kept: int,
    first_cost: int,
    know: Callable[[int], Known | None],
    otherwise: Quote,
) -> Quote:
    """token0 in: getNextSqrtPriceFromAmount0RoundingUp and getAmount1Delta, as P − ⌈N·P/(N + a·P)⌉
    = ⌊a·P·P/(N + a·P)⌋.
    """
    shifted, nearest, known = liquidity << 96, max(first_cost, 1), NOTHING

    def quote(amount: int) -> int:
        nonlocal known
        if amount < nearest:
            if amount <= 0:
                return otherwise(amount)
            product = amount * kept // PIPS * price
            return product * price // (shifted + product) * liquidity >> 96
        end, costs, rows = known
        if amount >= end:
            more = know(amount)
            if more is None:
                return otherwise(amount)
            end, costs, rows = known = more
        cost, out, start, depth, numerator = rows[bisect_right(costs, amount) - 1]
        product = (amount - cost) * kept // PIPS * start
        return out + (product * start // (numerator + product) * depth >> 96)

    return quote


def _rising(
    price: int,
    liquidity: int,
    kept: int,
    first_cost: int,
    know: Callable[[int], Known | None],
    otherwise: Quote,
) -> Quote:
    """token1 in: getNextSqrtPriceFromAmount1RoundingDown and getAmount0Delta, two floor divisions
    in one.
    """
    shifted, nearest, known = liquidity << 96, max(first_cost, 1), NOTHING

    def quote(amount: int) -> int:
        nonlocal known
        if amount < nearest:
            if amount <= 0:
                return otherwise(amount)
            rise = (amount * kept // PIPS << 96) // liquidity
            return shifted * rise // ((price + rise) * price)
        end, costs, rows = known
        if amount >= end:
            more = know(amount)
            if more is None:
                return otherwise(amount)
            end, costs, rows = known = more
        cost, out, start, depth, numerator = rows[bisect_right(costs, amount) - 1]
        rise = ((amount - cost) * kept // PIPS << 96) // depth
        return out + numerator * rise // ((start + rise) * start)

    return quote
