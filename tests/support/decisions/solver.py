"""Pairs of the solver, as curves."""

from __future__ import annotations

from fractions import Fraction

from agent.amm.v2_pool import V2Pool
from agent.planning.pool_curves import CurveStack, PoolCurve, build_trade_curves, stack_curves


def both_ways(a: int, b: int, depth: float = 1_000_000.0, fee_pips: int = 3_000, skew: float = 0.0) -> list[tuple[int, int, PoolCurve]]:
    """Both directions of a V2 pair between tokens worth 1, as they count."""
    pool = V2Pool(f"{a}-{b}", "uniswap_v2", str(a), str(b), int(depth * 10**6), int(depth * 10**6 * (1 + skew)), fee_pips)
    offers = [build_trade_curves(pool, str(source), Fraction(1), Fraction(1), 10**6, 100) for source in (a, b)]
    return [(*ends, offer.counted_curve) for ends, offer in zip(((a, b), (b, a)), offers, strict=True) if offer is not None]


def market(*pairs: list[tuple[int, int, PoolCurve]]) -> CurveStack:
    return stack_curves([pool_edge for pair in pairs for pool_edge in pair])
