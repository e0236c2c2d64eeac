"""Cost of liquidity: impermanent loss at a price and on average, and loss versus rebalancing.

All figures are relative: prices to the current price, losses to the current value of the liquidity
or of holding. `LiquidityCurve` and `normal_mean` compute in floats; `to_fraction` converts the
losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from agent.amm.lp.positions import sqrt_price_x96
from agent.amm.v3.math import get_sqrt_ratio_at_tick
from agent.floats import exp, log
from agent.model import LpMissingPosition, LpPosition, LpV2Position, LpV3Position
from agent.units import BPS, DAY_S, YEAR_S, Price

QUADRATURE_POINTS = 16
"""Nodes per panel: exact for polynomials up to degree 31."""
PANEL_WIDTH = 1.0
"""Standard deviations per panel."""
INTEGRATION_LIMIT = 9.0
"""Standard deviations beyond which the tails hold less than 1e-18."""


def _cosine(angle: float) -> float:
    """Return the cosine of an angle between 0 and π from its series, equal on every machine. Used
    for starting values only.
    """
    term = series_sum = 1.0
    for power in range(2, 40, 2):
        term *= -angle * angle / ((power - 1) * power)
        series_sum += term
    return series_sum


def _legendre(node_count: int) -> tuple[tuple[float, float], ...]:
    """Return nodes and weights on [-1, 1]: roots of the Legendre polynomial by Newton's method
    (Abramowitz and Stegun 25.4.29).
    """
    nodes_and_weights = []
    for root_number in range(node_count):
        x = _cosine(math.pi * (root_number + 0.75) / (node_count + 0.5))
        slope = 1.0
        for _ in range(100):
            polynomial_before = 1.0
            polynomial = x
            for degree in range(2, node_count + 1):
                polynomial_before, polynomial = (
                    polynomial,
                    ((2 * degree - 1) * x * polynomial - (degree - 1) * polynomial_before) / degree,
                )
            slope = node_count * (x * polynomial - polynomial_before) / (x * x - 1)
            newton_step = polynomial / slope
            x -= newton_step
            if abs(newton_step) < 1e-15:
                break
        nodes_and_weights.append((x, 2 / ((1 - x * x) * slope * slope)))
    return tuple(nodes_and_weights)


_NODES_AND_WEIGHTS = _legendre(QUADRATURE_POINTS)


def normal_mean(
    function: Callable[[float], float], kinks: Iterable[float], stretch: float = 0.0
) -> float:
    """Return the mean of function(z) for a standard normal z. No panel spans one of the `kinks`,
    where the function is not smooth.

    `stretch` extends the integration range to the right, for functions that grow like
    exp(stretch·z).
    """
    low = -INTEGRATION_LIMIT
    high = INTEGRATION_LIMIT + max(0.0, stretch)
    edges = sorted({low, high, *(kink for kink in kinks if low < kink < high)})
    weighted_sum = 0.0
    for panel_start, panel_end in pairwise(edges):
        panel_count = max(1, math.ceil((panel_end - panel_start) / PANEL_WIDTH))
        half_width = (panel_end - panel_start) / panel_count / 2
        for panel_number in range(panel_count):
            middle = panel_start + (2 * panel_number + 1) * half_width
            for node, weight in _NODES_AND_WEIGHTS:
                z = middle + half_width * node
                weighted_sum += weight * half_width * exp(-z * z / 2) * function(z)
    return weighted_sum / math.sqrt(2 * math.pi)


ROUNDING_DENOMINATOR = 10**12
"""Relative figures are rounded to 1e-12."""


@dataclass(frozen=True, slots=True)
class LiquidityCurve:
    """Amounts and value of a position as functions of price, per unit of L·√P. `low_sqrt_ratio` and `high_sqrt_ratio` are
    √(range end / current price).

    Uniswap V2 is the range from 0 to infinity.
    """

    low_sqrt_ratio: float
    high_sqrt_ratio: float

    def amounts(self, x: float) -> tuple[float, float]:
        """Return token0 (in units currently worth 1 token1) and token1 at x times the current price
        (whitepaper v3, 6.29, 6.30).
        """
        sqrt_ratio = min(max(math.sqrt(x), self.low_sqrt_ratio), self.high_sqrt_ratio)
        return 1 / sqrt_ratio - 1 / self.high_sqrt_ratio, sqrt_ratio - self.low_sqrt_ratio

    def value(self, x: float) -> float:
        """Return the value in token1 at x."""
        amount0, amount1 = self.amounts(x)
        return x * amount0 + amount1

    def hold_value(self, x: float) -> float:
        """Return the value at x of holding the liquidity's current amounts."""
        amount0, amount1 = self.amounts(1.0)
        return x * amount0 + amount1

    @property
    def in_range(self) -> bool:
        """True if the position earns fees, and loses to arbitrage, at the current price."""
        return self.low_sqrt_ratio <= 1 < self.high_sqrt_ratio


V2_CURVE = LiquidityCurve(0.0, math.inf)


def liquidity_curve(position: LpPosition, price0: Price, price1: Price) -> LiquidityCurve | None:
    """Return the position's curve around the reference price; None without liquidity."""
    match position:
        case LpV2Position():
            return V2_CURVE if position.liquidity > 0 else None
        case LpV3Position():
            if position.liquidity == 0:
                return None
            sqrt_price_now_x96 = sqrt_price_x96(price0 / price1)
            low, high = (
                get_sqrt_ratio_at_tick(tick) / sqrt_price_now_x96
                for tick in (position.tick_lower, position.tick_upper)
            )
            return LiquidityCurve(low, high)
        case LpMissingPosition():
            return None


def to_fraction(ratio: float) -> Fraction:
    """Round half-even to 1e-12, as every loss and the value of holding are. Raises ValueError if
    not finite.
    """
    if not math.isfinite(ratio):
        raise ValueError(f"{ratio} is not a finite number")
    return Fraction(round(ratio * ROUNDING_DENOMINATOR), ROUNDING_DENOMINATOR)


def impermanent_loss_at(curve: LiquidityCurve, x: Fraction) -> Fraction:
    """Return the impermanent loss at x times the current price, per unit of holding: 1 - V(x)/H(x),
    never negative.

    V2: 1 - 2√x/(1 + x) (Angeris, Kao, Chiang, Noyes, Chitra, "An analysis of Uniswap markets",
    2019, section 2.3); V3 range: Loesch, Hindman, Richardson, Welch, "Impermanent Loss in Uniswap
    v3", 2021.
    """
    hold_value = curve.hold_value(float(x))
    return (
        to_fraction(max(0.0, 1 - curve.value(float(x)) / hold_value))
        if hold_value > 0
        else Fraction(0)
    )


def hold_value_at(curve: LiquidityCurve, x: Fraction) -> Fraction:
    """Return the value of holding at x in token1, per unit of its current value. Converts a
    relative loss into money.
    """
    return to_fraction(curve.hold_value(float(x)) / curve.hold_value(1.0))


@lru_cache(maxsize=256)
def expected_loss(curve: LiquidityCurve, volatility_bps: int, horizon_s: int) -> Fraction:
    """Return the mean impermanent loss after `horizon_s`, per unit of the liquidity's current
    value, for a lognormal price without drift.

    E[H(x) - V(x)]/V(1) with x = exp(s·z - s²/2), s² = σ²T, by quadrature. V2: 1 - exp(-s²/8).
    """
    std_deviation = volatility_bps / BPS * math.sqrt(horizon_s / YEAR_S)
    if std_deviation == 0:
        return Fraction(0)

    def loss(z: float) -> float:
        x = exp(std_deviation * z - std_deviation * std_deviation / 2)
        return curve.hold_value(x) - curve.value(x)

    kinks = [
        2 * log(range_end) / std_deviation + std_deviation / 2
        for range_end in (curve.low_sqrt_ratio, curve.high_sqrt_ratio)
        if 0 < range_end < math.inf
    ]
    return to_fraction(max(0.0, normal_mean(loss, kinks, std_deviation) / curve.value(1.0)))


def lvr_per_day(curve: LiquidityCurve, volatility_bps: int) -> Fraction:
    """Return the daily loss versus rebalancing at the current price, per unit of the liquidity's
    value.

    Rate σ²P²/2·|x'(P)| (Milionis, Moallemi, Roughgarden, Zhang, "Automated Market Making and
    Loss-Versus-Rebalancing", 2022, theorem 1). It is σ²/4·L√P within a range, hence σ²/8 of V2's
    value, and zero out of range.
    """
    if not curve.in_range:
        return Fraction(0)
    sigma = volatility_bps / BPS
    return to_fraction(sigma * sigma / 4 / curve.value(1.0) * DAY_S / YEAR_S)
