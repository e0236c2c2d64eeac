"""Solidly pairs, volatile (x·y) and stable (x³y + y³x): the integer arithmetic of BaseV1Pair, and
the state of a pair as a Pool.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import isqrt
from typing import ClassVar

from agent.amm.pools import (
    is_zero_for_one,
    last_that_fits,
    missing_twap,
    moved_back,
    sqrt_ratio_x96,
)
from agent.amm.swap_errors import ContractRevert
from agent.model import PriceCurve, SwapGas, SwapResult
from agent.units import BPS, PIPS, UINT256_MAX, Token

UINT112_MAX = 2**112 - 1
"""Largest reserve in plans. The contract allows more."""
ONE = 10**18
MAX_NEWTON_STEPS = 255
RANGE_COUNT = 256
"""Number of ranges of constant liquidity that approximate a stable curve."""
MIN_ROOT_FALL = 1e-8
"""Smallest fall of the square root of the price in a range: a smaller difference has too few exact
digits.
"""
_Q96 = 1 << 96
_Q384 = 1 << 384


@dataclass(frozen=True, slots=True)
class SolidlyPool:
    """State of a Solidly pair; reserves in base units, `unit0` and `unit1` base units of one whole
    token.

    `precision` is the fixed-point unit of the stable curve. `fee_stays` is true for Sushi's Trident
    (precision 10^12), a fork that leaves fees in the reserves and does not check the invariant.
    Volatile pairs ignore units and precision.
    """

    address: str
    venue: str
    token0: str
    token1: str
    reserve0: int
    reserve1: int
    fee_pips: int
    stable: bool
    unit0: int = ONE
    unit1: int = ONE
    precision: int = ONE
    fee_stays: bool = False
    unwritten: tuple[bool, bool] = field(default=(False, False), compare=False)

    kind: ClassVar[str] = "solidly"
    forms: ClassVar[tuple[str, ...]] = ("volatile", "stable")
    gas: ClassVar[SwapGas] = SwapGas(
        {"swap_router_02": 110_000, "rebalancer": 99_000}, again=33_400, first_writes=2
    )
    """Estimates: gas of a Uniswap V2 pair plus the fee transfer. No router in this repository
    supports these pairs yet.
    """
    paid_first: ClassVar[bool] = True
    keeps_observations: ClassVar[bool] = False
    observed: ClassVar[None] = None
    observations: ClassVar[None] = None
    mean_window_s: ClassVar[None] = None
    tick_state: ClassVar[None] = None

    @classmethod
    def simulated(
        cls,
        form: str,
        address: str,
        tokens: tuple[Token, Token],
        price: Fraction,
        reserves: tuple[int, int],
        fee_pips: int,
    ) -> SolidlyPool:
        """See Pool. A stable pair starts balanced with these reserves and is then traded to the
        price.
        """
        units = tokens[0].unit, tokens[1].unit
        addresses = tokens[0].address, tokens[1].address
        pair = cls(address, cls.kind, *addresses, *reserves, fee_pips, form == "stable", *units)
        if not pair.stable:
            return pair
        balanced_reserve = isqrt(reserves[0] * units[1] * reserves[1] * units[0])
        x, y = pair._reserves_at(
            balanced_reserve,
            balanced_reserve,
            price.numerator * units[0],
            price.denominator * units[1],
        )
        return replace(pair, reserve0=x // units[1], reserve1=y // units[0])

    @property
    def label(self) -> str:
        """See Pool: the form of the curve."""
        return " stable" if self.stable else " volatile"

    @property
    def fault(self) -> str:
        """See Pool: units and precision must be positive."""
        smallest = min(self.unit0, self.unit1, self.precision)
        return "" if smallest > 0 else f"a unit or precision of {smallest}"

    @property
    def is_empty(self) -> bool:
        """True if a reserve is zero."""
        return self.reserve0 <= 0 or self.reserve1 <= 0

    @property
    def has_price(self) -> bool:
        """True if both reserves are above zero."""
        return not self.is_empty

    def _side(self, token_in: str) -> tuple[int, int, int, int]:
        """Return the reserves of token_in and of token_out, then their units."""
        if is_zero_for_one(self, token_in):
            return self.reserve0, self.reserve1, self.unit0, self.unit1
        return self.reserve1, self.reserve0, self.unit1, self.unit0

    def quote(self, token_in: str, amount_in_raw: int) -> int:
        """See Pool: BaseV1Pair.getAmountOut."""
        reserve_in, reserve_out, unit_in, unit_out = self._side(token_in)
        if amount_in_raw <= 0:
            raise ContractRevert("BaseV1Pair.swap", "IIA", "trade more than zero")
        if self.is_empty:
            raise ContractRevert("BaseV1Pair.getAmountOut", "", "the pair is empty")
        net_in = amount_in_raw - amount_in_raw * self.fee_pips // PIPS
        if not self.stable:
            return net_in * reserve_out // (reserve_in + net_in)
        precision = self.precision
        x, y = reserve_in * precision // unit_in, reserve_out * precision // unit_out
        y_after = _get_y(net_in * precision // unit_in + x, _k(x, y, precision), y, precision)
        if y_after > y:
            raise ContractRevert(
                "BaseV1Pair.getAmountOut",
                "",
                "trade more: the amount is below the resolution of the curve",
            )
        return (y - y_after) * unit_out // precision

    def quoter(self, token_in: str) -> Callable[[int], int]:
        """See Pool."""
        return lambda amount_in_raw: self.quote(token_in, amount_in_raw)

    def swap(self, token_in: str, amount_in_raw: int) -> SwapResult[SolidlyPool]:
        """See Pool: BaseV1Pair.swap, called by BaseV1Router01. The fee leaves the reserves unless
        `fee_stays`.
        """
        amount_out_raw = self.quote(token_in, amount_in_raw)
        _, reserve_out, _, _ = self._side(token_in)
        if amount_out_raw <= 0:
            raise ContractRevert(
                "BaseV1Pair.swap", "IOA", "trade more: this buys less than one base unit"
            )
        if amount_out_raw >= reserve_out:
            raise ContractRevert("BaseV1Pair.swap", "IL", "request less than the reserve")
        fee_raw = amount_in_raw * self.fee_pips // PIPS
        added_raw = amount_in_raw if self.fee_stays else amount_in_raw - fee_raw
        after = self._moved(token_in, added_raw, amount_out_raw)
        if not self.fee_stays and after.invariant() < self.invariant():
            raise ContractRevert(
                "BaseV1Pair.swap",
                "K",
                "trade a different amount: rounding would lower the invariant",
            )
        return SwapResult(amount_in_raw, amount_out_raw, fee_raw, after, 0)

    def _moved(self, token_in: str, amount_in: int, amount_out: int) -> SolidlyPool:
        if token_in == self.token0:
            return replace(
                self, reserve0=self.reserve0 + amount_in, reserve1=self.reserve1 - amount_out
            )
        return replace(
            self, reserve0=self.reserve0 - amount_out, reserve1=self.reserve1 + amount_in
        )

    def invariant(self) -> int:
        """Return BaseV1Pair._k of the reserves; no swap may lower it."""
        if not self.stable:
            return self.reserve0 * self.reserve1
        precision = self.precision
        return _k(
            self.reserve0 * precision // self.unit0,
            self.reserve1 * precision // self.unit1,
            precision,
        )

    def price_terms(self, token_in: str) -> tuple[int, int]:
        """See Pool: for the stable curve (3x²y + y³) / (x³ + 3xy²)."""
        reserve_in, reserve_out, unit_in, unit_out = self._side(token_in)
        if not self.stable:
            return reserve_out, reserve_in
        x, y = reserve_in * unit_out, reserve_out * unit_in
        return y * (3 * x * x + y * y) * unit_out, x * (x * x + 3 * y * y) * unit_in

    def max_in(self, token_in: str, impact_bps: int) -> int:
        """See Pool. Exact up to the last base units, where the output of the stable curve may vary
        by one.
        """
        numerator, denominator = self.price_terms(token_in)
        return self._input_to_price(
            token_in, numerator * max(0, BPS - impact_bps), denominator * BPS
        )

    def best_response(self, token_in: str, price: Fraction, impact_bps: int) -> int:
        """See Pool: the input at which (1 - fee)·marginal_price = price (Angeris, Evans, Chitra,
        Boyd 2022).
        """
        max_input = self.max_in(token_in, impact_bps)
        if price <= 0:
            return max_input
        return min(
            max_input,
            self._input_to_price(
                token_in, price.numerator * PIPS, price.denominator * (PIPS - self.fee_pips)
            ),
        )

    def _input_to_price(self, token_in: str, numerator: int, denominator: int) -> int:
        """Return the largest input after which the marginal price is at least numerator /
        denominator; 0 if the price is already lower.
        """
        reserve_in, reserve_out, unit_in, unit_out = self._side(token_in)
        if self.is_empty:
            return 0
        max_input = max(0, UINT112_MAX - reserve_in)
        if numerator <= 0:
            return max_input
        num, den = self.price_terms(token_in)
        if num * denominator < numerator * den:
            return 0

        def reaches_price(amount_in: int) -> bool:
            if amount_in > max_input:
                return False
            fee = amount_in * self.fee_pips // PIPS
            try:
                out = self.quote(token_in, amount_in) if amount_in else 0
            except ContractRevert:  # below the resolution of the curve: no output
                out = 0
            added_raw = amount_in if self.fee_stays else amount_in - fee
            num, den = self._moved(token_in, added_raw, out).price_terms(token_in)
            return num * denominator >= numerator * den

        end_reserve, _ = self._reserves_at(
            reserve_in * unit_out,
            reserve_out * unit_in,
            numerator * unit_in,
            denominator * unit_out,
        )
        guess = min(
            max_input,
            max(0, end_reserve // unit_out - reserve_in) * PIPS // max(1, PIPS - self.fee_pips),
        )
        start = max(0, guess - (guess >> 40) - 2)
        while not reaches_price(start):
            start = start * 7 // 8
        return last_that_fits(reaches_price, start)

    def _reserves_at(self, x: int, y: int, numerator: int, denominator: int) -> tuple[int, int]:
        """Return the reserves on the curve through (x, y) at which the price, y per x, is numerator
        / denominator.

        With c = (x − y) / (x + y) the price of the stable curve is (1 − c³) / (1 + c³), and (x +
        y)⁴·(1 − c⁴) is constant.
        """
        if not self.stable:
            return isqrt(x * y * denominator // numerator), isqrt(x * y * numerator // denominator)
        price_gap = denominator - numerator
        c_x96 = _cube_root((abs(price_gap) << 288) // (denominator + numerator))
        sum_of_reserves = isqrt(
            isqrt((8 * x * y * (x * x + y * y) << 384) // (_Q384 - c_x96 * c_x96 * c_x96 * c_x96))
        )
        larger, smaller = (
            sum_of_reserves * (_Q96 + c_x96) >> 97,
            sum_of_reserves * (_Q96 - c_x96) >> 97,
        )
        return (larger, smaller) if price_gap >= 0 else (smaller, larger)

    def runs_out(self, token_in: str, impact_bps: int) -> bool:
        """See Pool: the whole state of a pair is known."""
        return False

    def curve(self, token_in: str, impact_bps: int) -> PriceCurve | None:
        """See Pool. If fees leave the reserves, the end price depends only on the total input,
        however many swaps it is split into; fees that stay (`fee_stays`) are ignored.

        The stable curve consists of at most RANGE_COUNT ranges of constant liquidity, of which flat
        ones are joined. Prices at their ends are exact; the error between them is below 4 · impact
        / RANGE_COUNT² + 2 · MIN_ROOT_FALL. All prices are raised by this bound at unchanged inputs,
        so that the curve never pays less than the pair.
        """
        reserve_in, reserve_out, unit_in, unit_out = self._side(token_in)
        if self.is_empty:
            return None
        impact_share = min(impact_bps, BPS - 1) / BPS
        if not self.stable:
            start_root = math.sqrt(reserve_out / reserve_in)
            return PriceCurve(
                [start_root, start_root * math.sqrt(1 - impact_share)],
                [math.sqrt(reserve_in) * math.sqrt(reserve_out)],
            )
        x, y = reserve_in / unit_in, reserve_out / unit_out
        scale = math.sqrt(unit_out) / math.sqrt(unit_in)
        start_c = (x - y) / (x + y)
        c_cubed = start_c * start_c * start_c
        price = (1 - c_cubed) / (1 + c_cubed) * (1 - impact_share)
        end_c = _cube_root_of((1 - price) / (1 + price))
        sum_at_balance = (x + y) * math.sqrt(math.sqrt(1 - start_c * c_cubed))
        roots: list[float] = []
        amounts: list[float] = []
        for step in range(RANGE_COUNT + 1):
            c = start_c + (end_c - start_c) * step / RANGE_COUNT
            c_cubed = c * c * c
            root = math.sqrt((1 - c_cubed) / (1 + c_cubed))
            if roots and roots[-1] - root < MIN_ROOT_FALL:
                if step < RANGE_COUNT:
                    continue
                if len(roots) > 1:
                    del roots[-1], amounts[-1]
            roots.append(root)
            amounts.append(sum_at_balance / math.sqrt(math.sqrt(1 - c * c_cubed)) * (1 + c) / 2)
        pairs = list(zip(roots, roots[1:], amounts, amounts[1:], strict=False))
        depths = [
            (amount_after - amount_before) / (1 / low - 1 / high) if high > low else 0.0
            for high, low, amount_before, amount_after in pairs
        ]
        markup = math.sqrt(1 + 4 * impact_share / (RANGE_COUNT * RANGE_COUNT) + 2 * MIN_ROOT_FALL)
        unit_depth = markup * math.sqrt(unit_in) * math.sqrt(unit_out)
        return PriceCurve(
            [root * markup * scale for root in roots], [depth * unit_depth for depth in depths]
        )

    def depth(self, token: str) -> int:
        """See Pool: the reserve."""
        return self._side(token)[0]

    def spot_depth(self, token: str) -> int:
        """See Pool: the reserve. A stable pair has more depth near balance."""
        return 0 if self.is_empty else self.depth(token)

    def recovered(self, start: SolidlyPool, remaining_share: Fraction) -> SolidlyPool:
        """See Pool."""
        if self == start:
            return self
        root = moved_back(
            sqrt_ratio_x96(*start.price_terms(self.token0)),
            sqrt_ratio_x96(*self.price_terms(self.token0)),
            remaining_share,
        )
        terms = root * root * self.unit0, self.unit1 << 192
        x, y = self._reserves_at(self.reserve0 * self.unit1, self.reserve1 * self.unit0, *terms)
        return replace(self, reserve0=x // self.unit1, reserve1=y // self.unit0)

    def mean_price(self, token: str) -> Fraction:
        """See Pool. Always raises, because the observations of the pair are not read."""
        raise missing_twap(self)

    def mean_depth(self, token: str) -> int:
        """See Pool. Always raises, because the observations of the pair are not read."""
        raise missing_twap(self)


def _cube_root(number: int) -> int:
    """Return the cube root, rounded down."""
    if number <= 0:
        return 0
    root = 1 << -(-number.bit_length() // 3)
    while (better := (2 * root + number // (root * root)) // 3) < root:
        root = better
    return root


def _cube_root_of(value: float) -> float:
    """Return the cube root of a float within ±1, by integer arithmetic."""
    root = _cube_root(int(abs(value) * (1 << 288))) / _Q96
    return root if value >= 0 else -root


def _checked(product: int) -> int:
    if product > UINT256_MAX:
        raise ContractRevert(
            "BaseV1Pair.getAmountOut", "", "trade less: the stable curve overflows"
        )
    return product


def _k(x: int, y: int, precision: int) -> int:
    """Return BaseV1Pair._k of a stable pair."""
    return _checked(x * y // precision * (x * x // precision + y * y // precision)) // precision


def _f(x0: int, y: int, precision: int) -> int:
    """Return BaseV1Pair._f."""
    return (
        _checked(x0 * (y * y // precision * y // precision)) // precision
        + _checked(x0 * x0 // precision * x0 // precision * y) // precision
    )


def _d(x0: int, y: int, precision: int) -> int:
    """Return BaseV1Pair._d."""
    return 3 * x0 * (y * y // precision) // precision + x0 * x0 // precision * x0 // precision


def _get_y(x0: int, xy: int, y: int, precision: int) -> int:
    """Return BaseV1Pair._get_y: Newton's method until a step is at most one."""
    for _ in range(MAX_NEWTON_STEPS):
        y_before, k, slope = y, _f(x0, y, precision), _d(x0, y, precision)
        if slope == 0:
            raise ContractRevert("BaseV1Pair.getAmountOut", "", "reserves are too small")
        y = y + (xy - k) * precision // slope if k < xy else y - (k - xy) * precision // slope
        if abs(y - y_before) <= 1:
            return y
    return y
