"""Contract sizes of notional amounts: whole lots, price bounds in ticks."""

from __future__ import annotations

from fractions import Fraction

from agent.model.futures import PerpMarket
from agent.units import BPS, Price, ceil_int, floor_int


def size_for_notional_raw(market: PerpMarket, notional: Fraction) -> int:
    """Return the signed size of a notional at the mark, rounded toward zero to whole lots: a
    position is never larger than its target.
    """
    lots = floor_int(abs(notional) / market.mark / market.lot_raw)
    return -lots * market.lot_raw if notional < 0 else lots * market.lot_raw


def change_for_notional_raw(market: PerpMarket, size_raw: int, notional: Fraction) -> int:
    """Return the order that brings a position to a target notional, in whole lots.

    An opening order is rounded down, a reduction up, so that the position ends at or below its
    target; a reduction never flips its sign.
    """
    target_raw = size_for_notional_raw(market, notional)
    return target_raw - size_raw


def index_bound_raw(market: PerpMarket, size_raw: int, slippage_bps: int) -> int:
    """Return the most quote that a buy pays, or the least that a sale brings, `slippage_bps` beyond
    the index. The mark is not used, since trades can move it (threat T12).

    A buy's bound is rounded down, a sale's up, both against the fill.
    """
    if size_raw > 0:
        return floor_int(size_raw * market.index * Fraction(BPS + slippage_bps, BPS))
    return ceil_int(-size_raw * market.index * Fraction(BPS - slippage_bps, BPS))


def tick_price(market: PerpMarket, price: Price, is_buy: bool) -> Price:
    """Return a limit price in whole ticks: down for a buy, up for a sale."""
    ticks = price / market.tick
    return market.tick * (floor_int(ticks) if is_buy else ceil_int(ticks))
