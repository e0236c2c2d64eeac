"""Margin accounts of perpetual futures and their markets."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from agent.margin import account as margin
from agent.model.futures import FuturesLimits, MarginAccount, MarginTier, PerpMarket
from agent.units import Token

USD = Token("", "USD", 18)
E18 = 10**18
ONE_TIER = (MarginTier(0, 100_000, 62_500),)
LIMITS = FuturesLimits(40_000, 6_000, 10_000, 25_000, 0, 50, 500, 500, 300, 500, 600)


def market(name: str, price: int = 2_000, tiers: tuple[MarginTier, ...] = ONE_TIER, lot_raw: int = 10**15) -> PerpMarket:
    return PerpMarket(
        market=name,
        symbol=name,
        asset=name,
        size_decimals=18,
        lot_raw=lot_raw,
        tiers=tiers,
        fee_ppm=1_000,
        mark=Fraction(price),
        index=Fraction(price),
        index_s=0,
        funding_daily=Fraction(0),
    )


def account(collateral: int, sizes: dict[str, int], *markets: PerpMarket) -> MarginAccount:
    """Positions opened at the mark without a fee."""
    empty = MarginAccount(USD, 1, collateral * E18, 0, (), markets)
    for name, size_raw in sizes.items():
        empty = margin.with_trade(empty, name, size_raw, -margin.position_value_raw(empty.market(name), size_raw))
    return empty


sizes = st.integers(-(10**20), 10**20)
