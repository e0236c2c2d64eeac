"""Minimum output of a leg, from the reference price, never from a pool alone (T1)."""

from __future__ import annotations

from fractions import Fraction

from agent.model import Limits
from agent.units import BPS, PIPS, floor_int


def fair_floor(
    amount_in_raw: int,
    price_in: Fraction,
    price_out: Fraction,
    fee_pips: int,
    impact_bps: int,
    slippage_bps: int,
) -> int:
    """Return the least output by reference prices: fair value · (1 − fee − impact limit) · (1 −
    slippage), rounded down. Prices in numeraire base units per token base unit. A pool skewed
    before the snapshot cannot lower it. The floor is at least 1, so no signed leg has a floor of
    zero.
    """
    if amount_in_raw <= 0:
        return 0
    return max(
        1,
        floor_int(
            amount_in_raw * price_in / price_out * least_rate(fee_pips, impact_bps, slippage_bps)
        ),
    )


def least_rate(fee_pips: int, impact_bps: int, slippage_bps: int) -> Fraction:
    """Return the least fraction of fair value that a leg must return.

    No unit is traded below this rate, so every leg reaches it.
    """
    kept_pips = max(0, PIPS - fee_pips - impact_bps * (PIPS // BPS))
    return Fraction(kept_pips * (BPS - slippage_bps), PIPS * BPS)


def min_out(simulated_raw: int, floor_raw: int, slippage_bps: int | None) -> int:
    """Return the minimum output of a leg: the larger of its fair floor and the simulated output
    less slippage; the fair floor if the slippage limit is off.
    """
    if slippage_bps is None:
        return floor_raw
    return max(floor_raw, simulated_raw * (BPS - slippage_bps) // BPS)


UNBOUNDED_BPS = BPS - 1
"""Impact bound when the limit is off: the range of known ticks."""


def impact_bound_bps(limits: Limits) -> int:
    """Return the price impact that limits.price_impact allows in each pool, bps."""
    if limits.price_impact_bps is None:
        return UNBOUNDED_BPS
    return min(limits.price_impact_bps, UNBOUNDED_BPS)
