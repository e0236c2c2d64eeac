"""The least a leg must bring: from the reference price, never from a pool alone (threat T1)."""

from __future__ import annotations

from fractions import Fraction

from agent.units import BPS, PIPS, floor_int


def fair_floor(amount_in_raw: int, price_in: Fraction, price_out: Fraction, fee_pips: int, impact_bps: int, slippage_bps: int) -> int:
    """Least output in base units by reference prices: fair value · (1 − fee − impact limit) · (1 − slippage), rounded down.

    Prices in numeraire base units per token base unit. A pool skewed before the snapshot cannot lower it. At least 1, so
    that no leg of a positive amount is ever signed with a floor of zero.
    """
    if amount_in_raw <= 0:
        return 0
    return max(1, floor_int(amount_in_raw * price_in / price_out * least_rate(fee_pips, impact_bps, slippage_bps)))


def least_rate(fee_pips: int, impact_bps: int, slippage_bps: int) -> Fraction:
    """The part of the fair value that a leg must bring at least. A plan trades no unit for less, so that every leg brings it."""
    kept = Fraction(1) - Fraction(fee_pips, PIPS) - Fraction(impact_bps, BPS)
    return max(kept, Fraction(0)) * Fraction(BPS - slippage_bps, BPS)


def min_out(simulated_raw: int, floor_raw: int, slippage_bps: int | None) -> int:
    """Minimum output of a leg: the larger of its fair floor and what was simulated less slippage.

    With the slippage limit switched off only the fair floor stands.
    """
    if slippage_bps is None:
        return floor_raw
    return max(floor_raw, simulated_raw * (BPS - slippage_bps) // BPS)
