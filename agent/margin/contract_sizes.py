"""Contract sizes and price bounds of orders, and why a market takes none."""

from __future__ import annotations

from fractions import Fraction

from agent.model import MarginAccount, PerpMarket
from agent.units import BPS, ceil_int, floor_int


def size_for_notional_raw(market: PerpMarket, notional: Fraction) -> int:
    """Return the signed size of a notional at the mark, rounded toward zero to whole lots so that a
    position never exceeds its target.
    """
    lot_count = floor_int(abs(notional) / market.mark / market.lot_raw)
    return -lot_count * market.lot_raw if notional < 0 else lot_count * market.lot_raw


def index_bound_raw(market: PerpMarket, size_raw: int, slippage_bps: int) -> int:
    """Return the maximum quote of a buy, or the minimum of a sale, `slippage_bps` beyond the index.
    The mark is not used, because trades can move it (threat T12). A buy's bound is rounded down and
    a sale's up, so rounding never loosens it.
    """
    if size_raw > 0:
        return floor_int(size_raw * market.index * Fraction(BPS + slippage_bps, BPS))
    return ceil_int(-size_raw * market.index * Fraction(BPS - slippage_bps, BPS))


def paused_reason(market: PerpMarket) -> str:
    """Return a message if a market is paused or set to isolated margin; empty otherwise."""
    if market.is_isolated:
        return f"{market.symbol} is set to isolated margin"
    return f"{market.symbol} is paused" if market.is_paused else ""


def untradable_reason(
    account: MarginAccount, market: PerpMarket, size_raw: int, slippage_bps: int
) -> str:
    """Return why no order of this size is possible; empty if one is."""
    if why := paused_reason(market):
        return why
    if is_below_minimum(account, market, size_raw, slippage_bps):
        return f"{market.symbol}: the order is below the venue's minimum"
    return ""


def is_below_minimum(
    account: MarginAccount, market: PerpMarket, size_raw: int, slippage_bps: int
) -> bool:
    """True if the venue rejects an order of this size; it takes a full close of any size."""
    if size_raw == -account.size_raw(market.market):
        return False
    return index_bound_raw(market, size_raw, slippage_bps) < market.min_notional_raw
