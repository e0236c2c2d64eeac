"""Margin accounts whose positions have resting stops."""

from __future__ import annotations

from fractions import Fraction

from agent.model.futures import MarginAccount, MarginTier, PerpMarket, Position
from agent.units import Token

TIERS = (MarginTier(0, 50_000, 25_000),)


def market(name: str, price: int) -> PerpMarket:
    mark = Fraction(price * 10**6, 10**4)
    return PerpMarket(
        market=name,
        symbol=name,
        asset="",
        size_decimals=4,
        lot_raw=1,
        tiers=TIERS,
        fee_ppm=450,
        mark=mark,
        index=mark,
        index_s=0,
        funding_daily=Fraction(0),
        min_notional_raw=10**7,
    )


ETH = market("ETH", 3_000)
BTC = market("BTC", 60_000)


def book(eth: int = 0, btc: int = 0, value: int = 10_000) -> MarginAccount:
    """An account of this value in dollars with sizes in ten-thousandths of a coin, entered at the mark."""
    rows = [(perp, size) for perp, size in ((ETH, eth), (BTC, btc)) if size]
    positions = tuple(Position(perp.market, size, -int(size * perp.mark)) for perp, size in rows)
    return MarginAccount(Token("", "USDC", 6), 1, value * 10**6, 0, positions, (ETH, BTC), initial_on_debt=False, is_on_chain=False)
